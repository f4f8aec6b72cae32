"""The HDF5 file that keeps embeddings: its layout, reading and checking.

``cache/README.md`` specifies the format.
"""

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

from fer_features.embedding.backbone import fingerprint
from fer_features.errors import StoreError

FORMAT = "fer-features/embeddings"
FORMAT_VERSION = 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""

CACHE = Path("cache")
"""Where stores go by default, relative to where a command runs."""

SLAB = 4096
"""Rows read at a time, so that memory stays small beside the result."""

Rows = npt.NDArray[np.int64]


class Store:
    """A complete store, open for reading.

    Parameters
    ----------
    path : path-like
        The HDF5 file.

    Attributes
    ----------
    path : Path
    backbone : dict
        Identity of the network that made the embeddings (:class:`BackboneSpec`'s).
    fingerprint : str
        Hex sha256 of that identity.
    dataset : dict
        ``name``, ``kind``, ``sha256`` of the source, ``rows``, ``limit``, ``skipped``.
    provenance : dict
        Versions, engine, block size, when it was made, seconds, images a second.
    emotion, usage : int8 (n,)
    digest : uint8 (n, 32)
    source : str (n,)

    Raises
    ------
    StoreError
        When the file is missing, no store, of a newer format, or damaged in its structure.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with opened(self.path, "r") as file, naming_damage(self.path):
            check_layout(file, self.path)
            self.backbone: dict[str, Any] = read_json(file, "backbone", self.path)
            self.dataset: dict[str, Any] = read_json(file, "dataset", self.path)
            self.provenance: dict[str, Any] = read_json(file, "provenance", self.path)
            self.fingerprint = read_text(file, "fingerprint", self.path)
            self.emotion: npt.NDArray[np.int8] = file["emotion"][()]
            self.usage: npt.NDArray[np.int8] = file["usage"][()]
            self.digest: npt.NDArray[np.uint8] = file["digest"][()]
            self.dimension = int(file["embeddings"].shape[1])
            self._source: npt.NDArray[np.bytes_] = file["source"][()]
            self._checksum: npt.NDArray[np.uint32] = file["checksum"][()]
        if fingerprint(self.backbone) != self.fingerprint:
            raise StoreError(
                f"{self.path}: its fingerprint is not that of its backbone, expected equal ones. "
                "The file is damaged: extract it again with --overwrite."
            )

    def __len__(self) -> int:
        return len(self.emotion)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {len(self):,} rows of {self.dimension:,})"

    @property
    def source(self) -> npt.NDArray[np.str_]:
        """Row numbers or relative file paths, str (n,)."""
        return np.char.decode(self._source, "utf-8")

    def embeddings(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float32]:
        """Return float32 (k, d): the embeddings of ``rows`` in their order, or of all rows.

        Raises
        ------
        StoreError
            When a row's checksum does not match what was read; the message names the rows.
        """
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        with opened(self.path, "r") as file, naming_damage(self.path):
            values = read_rows(file["embeddings"], wanted)
        damaged = sorted(set(wanted[self._damaged(values, wanted)].tolist()))
        if damaged:
            raise StoreError(
                f"{self.path}: {name_rows(damaged)} damaged, expected embeddings that match their "
                f"checksums. Mend it with fer-extract SOURCE -o {self.path} --repair."
            )
        return values

    def verify(self) -> list[int]:
        """Return the rows, counted from 0, of which any bit differs from what was written."""
        damaged: list[int] = []
        with opened(self.path, "r") as file, naming_damage(self.path):
            for start, slab in slabs(file["embeddings"]):
                rows = np.arange(start, start + len(slab))
                damaged += rows[self._damaged(slab, rows)].tolist()
        return damaged

    def _damaged(self, values: npt.NDArray[np.float32], rows: Rows) -> npt.NDArray[np.bool_]:
        sums = checksums(
            values, self.digest[rows], self.emotion[rows], self.usage[rows], self._source[rows]
        )
        return sums != self._checksum[rows]


def find_store(path: Path | None, folder: Path = CACHE) -> Store:
    """Open the store at ``path``, or the only one in ``folder`` if no path is given.

    Raises
    ------
    StoreError
        When there is none, or none is named and the folder holds several.
    """
    if path is not None:
        return Store(path)
    found = sorted(folder.glob("*.h5"))
    if len(found) == 1:
        return Store(found[0])
    if not found:
        raise StoreError(
            f"{folder}: no store (*.h5), expected one. Make it with fer-extract, or name one."
        )
    names = ", ".join(str(each) for each in found)
    raise StoreError(f"{folder}: {len(found)} stores, expected one. Name one of {names}.")


def slabs(dataset: h5py.Dataset) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield the first row's number and the values of successive parts of a dataset."""
    for start in range(0, len(dataset), SLAB):
        yield start, dataset[start : start + SLAB]


def read_rows(dataset: h5py.Dataset, rows: Rows) -> npt.NDArray[np.float32]:
    """Return rows in the order asked for; h5py's own selection is slow for many."""
    values = np.empty((len(rows), dataset.shape[1]), dtype=np.float32)
    for index in np.unique(rows // SLAB):
        start = int(index) * SLAB
        inside = np.flatnonzero(rows // SLAB == index)
        values[inside] = dataset[start : start + SLAB][rows[inside] - start]
    return values


def checksums(
    embeddings: npt.NDArray[np.float32],
    digest: npt.NDArray[np.uint8],
    emotion: npt.NDArray[np.int8],
    usage: npt.NDArray[np.int8],
    source: npt.NDArray[np.bytes_],
) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each row's embedding, digest, emotion, usage and source bytes."""
    embeddings = np.ascontiguousarray(embeddings, dtype="<f4")
    small = np.column_stack([digest, emotion.view(np.uint8), usage.view(np.uint8)])
    sums = [
        zlib.crc32(name, zlib.crc32(fields, zlib.crc32(row)))
        for row, fields, name in zip(embeddings, small, source.tolist(), strict=True)
    ]
    return np.array(sums, dtype=np.uint32)


def name_rows(rows: list[int], most: int = 5) -> str:
    """Return ``"row 7 is"`` or ``"rows 7, 9 and 40 more are"``, counted from 0 as in the file."""
    if len(rows) == 1:
        return f"row {rows[0]} is"
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"rows {', '.join(map(str, rows[:most]))}{more} are"


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
    if not is_hdf5(path):
        raise StoreError(
            f"{path}: no HDF5 file, cannot be read as a store. "
            "It is expected to be one that fer-extract wrote."
        )
    with naming_damage(path):
        file = h5py.File(path, mode)
    with file:
        yield file


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what HDF5 says while it reads a file into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's word (disk full, no permission), not HDF5's
        reason = (str(error).strip("\"'").splitlines() or ["unreadable"])[0]
        raise StoreError(
            f"{path}: cannot be read as a store ({reason}), expected an HDF5 file of "
            "fer-features. It may be cut short or damaged: extract it again with --overwrite."
        ) from error


def check_layout(file: h5py.File, path: Path) -> None:
    """Check format, version and every dataset's type and shape before any data is used."""
    if "format" not in file.attrs or read_text(file, "format", path) != FORMAT:
        raise StoreError(
            f"{path}: an HDF5 file without the attribute format = {FORMAT}, expected a store. "
            "Make one with fer-extract."
        )
    version = int(file.attrs.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: format_version {version}, expected {FORMAT_VERSION}. "
            "Upgrade fer-features to read it."
        )
    embeddings = file.get("embeddings")
    n, dimension = -1, -1
    if isinstance(embeddings, h5py.Dataset) and len(embeddings.shape) == 2:
        n, dimension = embeddings.shape
    layout = {
        "embeddings": ("f4", (n, dimension)),
        "emotion": ("i1", (n,)),
        "usage": ("i1", (n,)),
        "digest": ("u1", (n, 32)),
        "source": ("S", (n,)),
        "checksum": ("u4", (n,)),
    }
    for name, (kind, expected) in layout.items():
        found = file.get(name)
        if (
            not isinstance(found, h5py.Dataset)
            or not found.dtype.str.lstrip("<|>=").startswith(kind)
            or found.shape != expected
        ):
            raise StoreError(
                f"{path}: dataset {name} is missing or of another type or shape, expected a store "
                "as specified. The file is damaged: extract it again with --overwrite."
            )


def read_text(file: h5py.File, name: str, path: Path) -> str:
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise StoreError(
            f"{path}: attribute {name} is missing, expected a text. The file is damaged: "
            "extract it again with --overwrite."
        )
    return value


def read_json(file: h5py.File, name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(file, name, path))
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise StoreError(
            f"{path}: attribute {name} is not a JSON object. The file is damaged: "
            "extract it again with --overwrite."
        )
    return value
