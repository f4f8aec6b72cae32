"""The HDF5 file's layout: its datasets and checksums, and opening and checking it before reading.

``cache/README.md`` specifies the format.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import FINAL
from fer_features.errors import StoreError

FORMAT = "fer-features/embeddings"
FORMAT_VERSION = 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""

SLAB = 4096
"""Images read at a time, so that memory stays small beside the result."""

ROW_FIELDS = {"image": "i8", "emotion": "i1", "usage": "i1", "group": "S", "source": "S"}
"""Datasets of ``rows/``, in the order in which a row's checksum covers them, and their types."""

Positions = npt.NDArray[np.int64]
"""Numbers of images, or of rows, counted from 0."""


class DamagedStoreError(StoreError):
    """A store that is not as it was written: worth nothing, unlike one in use, or no store."""


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 files do."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def opened(path: Path, mode: str) -> Iterator[h5py.File]:
    """Open an HDF5 file; what HDF5 says of a damaged one becomes one line that names it."""
    if path.is_dir():
        held = ", ".join(str(each) for each in sorted(path.glob("*.h5"))) or "none in it"
        raise StoreError(f"{path}: a folder, expected a store (an HDF5 file). Name one: {held}.")
    if not path.exists():
        stopped = path.with_name(path.name + ".partial").exists()
        raise StoreError(
            f"{path}: no such file, expected a store. "
            + (
                "A pass to it was stopped: the same fer-extract call goes on with it."
                if stopped
                else "Make it with fer-extract."
            )
        )
    try:
        if not is_hdf5(path):
            raise StoreError(
                f"{path}: no HDF5 file, cannot be read as a store. "
                "It is expected to be one that fer-extract wrote."
            )
        with naming_damage(path):
            file = h5py.File(path, mode)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES) and "lock" in str(error):
            does = "writes it" if mode == "r" else "holds it open"
            raise StoreError(
                f"{path}: another process {does}, expected it to be free. "
                "Wait for that process, or close the file there."
            ) from error
        raise StoreError(
            f"{path}: cannot be opened ({os.strerror(error.errno or 0)}), expected a store. "
            "Check the file's permissions."
        ) from error
    with file:
        yield file


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what HDF5 says while it reads a file into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's word (disk full, no permission), not HDF5's
        reason = (str(error).strip("\"'").splitlines() or ["unreadable"])[0]
        raise DamagedStoreError(
            f"{path}: cannot be read as a store ({reason}), expected an HDF5 file of "
            "fer-features. It may be cut short or damaged: extract it again with --overwrite."
        ) from error


def check_layout(file: h5py.File, path: Path) -> None:
    """Check format, version and every dataset's place, type and shape before any data is used."""
    if "format" not in file.attrs or read_text(file, "format", path) != FORMAT:
        raise StoreError(
            f"{path}: an HDF5 file without the attribute format = {FORMAT}, expected a store. "
            "Make one with fer-extract."
        )
    version = file.attrs.get("format_version", 0)
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: format_version {version}, expected {FORMAT_VERSION}. "
            "Upgrade fer-features to read it."
        )
    for name in ("images", "images/embeddings", "rows"):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(
            file[name], h5py.Group
        ):
            raise _damaged(path, f"group {name} is missing")
    outputs = read_json(file, "outputs", path, list)
    named = all(isinstance(name, str) and name and "/" not in name for name in outputs)
    if not named or outputs[:1] != [FINAL] or sorted(outputs) != sorted(file["images/embeddings"]):
        raise _damaged(path, "outputs are not those of its attribute")
    m, n = _length(file, "images/digest"), _length(file, "rows/image")
    layout = {
        "images/digest": ("u1", (m, 32)),
        "images/checksum": ("u4", (m,)),
        **{f"images/embeddings/{name}": ("f4", (m, None)) for name in outputs},
        **{f"rows/{name}": (kind, (n,)) for name, kind in ROW_FIELDS.items()},
        "rows/checksum": ("u4", (n,)),
    }
    for name, (kind, shape) in layout.items():
        _check_dataset(file, path, name, kind, shape)
    if not 1 <= m <= n:
        raise _damaged(path, f"{m} images and {n} rows")


def _length(file: h5py.File, name: str) -> int:
    dataset = file.get(name)
    return len(dataset) if isinstance(dataset, h5py.Dataset) and dataset.shape else -1


def _check_dataset(
    file: h5py.File, path: Path, name: str, kind: str, shape: tuple[int | None, ...]
) -> None:
    """Check that a dataset lies in this very file, whole, and is what the format says."""
    link, dataset = file.get(name, getlink=True), file.get(name)
    if not isinstance(link, h5py.HardLink) or not isinstance(dataset, h5py.Dataset):
        raise _damaged(path, f"dataset {name} is missing")
    right = dataset.dtype.str.lstrip("<|>=").startswith(kind) and len(dataset.shape) == len(shape)
    if not right or any(b not in (None, a) for a, b in zip(dataset.shape, shape, strict=True)):
        raise _damaged(path, f"dataset {name} is of another type or shape")
    properties = dataset.id.get_create_plist()
    offset, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    if (
        properties.get_layout() != h5py.h5d.CONTIGUOUS
        or properties.get_external_count()
        or properties.get_nfilters()
        or size != dataset.size * dataset.dtype.itemsize
        or (size and (offset is None or offset + size > path.stat().st_size))
    ):
        raise _damaged(path, f"dataset {name} does not lie whole in the file")


def _damaged(path: Path, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path}: {what}, expected a store as specified. The file is damaged: extract it again "
        "with --overwrite."
    )


def read_text(file: h5py.File, name: str, path: Path) -> str:
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise _damaged(path, f"attribute {name} is missing")
    return value


def read_json(file: h5py.File, name: str, path: Path, kind: type = dict) -> Any:
    try:
        value = json.loads(read_text(file, name, path))
    except (json.JSONDecodeError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise _damaged(path, f"attribute {name} is not what it should be")
    return value


def dimensions(file: h5py.File) -> dict[str, int]:
    """Return the length of each output's vectors, by name, in the file's order."""
    names = json.loads(file.attrs["outputs"])
    return {name: int(file[f"images/embeddings/{name}"].shape[1]) for name in names}


def read_images(dataset: h5py.Dataset, images: Positions) -> npt.NDArray[np.float32]:
    """Return embeddings of images, in the order asked for; h5py's own selection is slow."""
    values = np.empty((len(images), dataset.shape[1]), dtype=np.float32)
    for index in np.unique(images // SLAB):
        start = int(index) * SLAB
        inside = np.flatnonzero(images // SLAB == index)
        values[inside] = dataset[start : start + SLAB][images[inside] - start]
    return values


def known_outputs(file: h5py.File) -> npt.NDArray[np.int64]:
    """Return of each image how many of the outputs are there, int64 (m,): the first ones.

    An image's checksum covers its digest and, in the order of ``outputs``, its embeddings as far
    as they are known; all of them where it is done.
    """
    digest, kept = file["images/digest"], file["images/checksum"]
    datasets = [file[f"images/embeddings/{name}"] for name in dimensions(file)]
    known = np.zeros(len(digest), dtype=np.int64)
    for start in range(0, len(digest), SLAB):
        part = slice(start, start + SLAB)
        expected = kept[part]
        sums = _continued(None, digest[part])
        for number, dataset in enumerate(datasets, start=1):
            sums = _continued(sums, _bytes(dataset[part]))
            known[part][sums == expected] = number
    return known


def checksums(
    digest: npt.NDArray[np.uint8], outputs: dict[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each image's digest and then its embeddings, output by output."""
    sums = _continued(None, digest)
    for values in outputs.values():
        sums = _continued(sums, _bytes(values))
    return sums


def row_checksums(fields: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each row's image (little-endian), emotion, usage, group and source."""
    numbers = np.column_stack(
        [
            np.ascontiguousarray(fields["image"], "<i8").view(np.uint8).reshape(-1, 8),
            fields["emotion"].view(np.uint8),
            fields["usage"].view(np.uint8),
        ]
    )
    texts = zip(numbers, fields["group"].tolist(), fields["source"].tolist(), strict=True)
    sums = [zlib.crc32(source, zlib.crc32(group, zlib.crc32(n))) for n, group, source in texts]
    return np.array(sums, dtype=np.uint32)


def _bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values, dtype="<f4").view(np.uint8)


def _continued(
    sums: npt.NDArray[np.uint32] | None, rows: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint32]:
    rows = np.ascontiguousarray(rows)
    before = [0] * len(rows) if sums is None else sums.tolist()
    return np.array([zlib.crc32(row, s) for row, s in zip(rows, before, strict=True)], np.uint32)
