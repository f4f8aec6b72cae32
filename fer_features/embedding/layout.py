"""The HDF5 file's layout: its datasets and checksums, and opening and checking it before reading.

``cache/README.md`` specifies the format. A file may come from anyone: its structure is read
within narrow bounds first, and its data only when all of them lie in the file itself.
"""

import errno
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import FINAL
from fer_features.errors import StoreError
from fer_features.faces.bad_rows import shown
from fer_features.hdf5 import item, lies_whole, structure
from fer_features.locking import NO_LOCKS

FORMAT = "fer-features/embeddings"
FORMAT_VERSION = 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""

SLAB = 4096
"""Images read at a time, at most, so that memory stays small beside the result."""

MOST_SLAB = 2**26
"""Bytes of embeddings read at a time, at most."""

MOST_TEXT = 65_536
"""Bytes of an attribute or of a row's text, at most: HDF5's oldest version allows no longer one."""

MOST_NUMBERS = 2**22
"""Numbers of an embedding, at most."""

MOST_UNSEEN = 2**28
"""Bytes of rows above which a file must hold some data for them, and not holes alone."""

PATIENCE = 2.0
"""Seconds that a lock is waited for: a process that is just being started may hold it as well."""

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
    """Open a store's file, checked; what HDF5 says of a damaged one becomes one line."""
    try:
        _check_is_file(path)
        with path.open("rb" if mode == "r" else "rb+") as locking:
            has_locks = _lock(locking, path, mode)
            try:
                with naming_damage(path), structure(locking) as file:
                    check_layout(file, path)
            finally:
                _unlock(locking.fileno())
        with naming_damage(path):
            # None is HDF5's own choice, which a user may have made in its environment variable.
            file = h5py.File(path, mode, locking=None if has_locks else False)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES) and "lock" in str(error):
            raise _in_use(path, mode) from error
        said = os.strerror(error.errno) if error.errno else _first_line(error)
        raise StoreError(
            f"{path}: cannot be opened ({said}), expected a store. Check the path, the file's "
            "permissions and the disk."
        ) from error
    with file:
        yield file
        close_for_all(file)


def close_for_all(file: h5py.File) -> None:
    """Close a file, if it is not closed yet, and free it for other processes at that moment.

    A process that is forked has its parent's locks as well. They stay until both have closed the
    file, or one has given them back.
    """
    if file:
        locked = os.dup(file.id.get_vfd_handle())
        try:
            file.close()
            _unlock(locked)
        finally:
            os.close(locked)


def _check_is_file(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        stopped = path.with_name(path.name + ".partial").exists()
        raise StoreError(
            f"{path}: no such file, expected a store. "
            + (
                "A pass to it was stopped: the same fer-extract call goes on with it."
                if stopped
                else "Make it with fer-extract."
            )
        ) from None
    if stat.S_ISDIR(kind):
        held = ", ".join(str(each) for each in sorted(path.glob("*.h5"))) or "none in it"
        raise StoreError(f"{path}: a folder, expected a store (an HDF5 file). Name one: {held}.")
    if not stat.S_ISREG(kind) or not is_hdf5(path):
        raise StoreError(
            f"{path}: no HDF5 file, cannot be read as a store. "
            "It is expected to be one that fer-extract wrote."
        )


def _lock(file: BinaryIO, path: Path, mode: str) -> bool:
    """Lock a file as HDF5 will, for as long as it is open; return whether it can be locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return False
    asked = (fcntl.LOCK_SH if mode == "r" else fcntl.LOCK_EX) | fcntl.LOCK_NB
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, asked)
            return True
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > until:
                raise _in_use(path, mode) from error
        time.sleep(0.05)


def _unlock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _in_use(path: Path, mode: str) -> StoreError:
    does = "writes it" if mode == "r" else "holds it open"
    return StoreError(
        f"{path}: another process {does}, expected it to be free. "
        "Wait for that process, or close the file there."
    )


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what HDF5 says while it reads a file into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        number = errno_of(error)
        if number in (errno.EAGAIN, errno.EACCES) and "lock" in str(error):
            raise
        if number:  # the system's word (a failing disk, no permission), not HDF5's
            raise StoreError(
                f"{path}: {os.strerror(number)}, expected to read it. Mend that and call again."
            ) from error
        raise DamagedStoreError(
            f"{path}: cannot be read as a store ({_first_line(error)}), expected an HDF5 file of "
            "fer-features. It may be cut short or damaged: extract it again with --overwrite."
        ) from error


def errno_of(error: BaseException) -> int | None:
    """Return the system's error number, also where HDF5 has it in a text of its own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\berrno = (\d+)", str(error))
    return int(found[1]) or None if found else None


def _first_line(error: BaseException) -> str:
    return shown((str(error).strip("\"'").splitlines() or ["unreadable"])[0], 200)


def check_layout(file: h5py.File, path: Path) -> None:
    """Check attributes and every dataset's place, type and shape before any data is used."""
    if "format" not in file.attrs or read_text(file, "format", path) != FORMAT:
        raise StoreError(
            f"{path}: an HDF5 file without the attribute format = {FORMAT}, expected a store. "
            "Make one with fer-extract."
        )
    version = _version(file, path)
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: format_version {version}, expected {FORMAT_VERSION}. "
            "Upgrade fer-features to read it."
        )
    read_text(file, "fingerprint", path)
    for name, kinds in DOCUMENTS.items():
        _check_document(read_json(file, name, path), kinds, name, path)
    for name in ("images", "images/embeddings", "rows"):
        if not isinstance(item(file, name), h5py.Group):
            raise _damaged(path, f"group {name} is missing")
    outputs = read_json(file, "outputs", path, list)
    named = all(
        isinstance(name, str) and name.isprintable() and name and "/" not in name
        for name in outputs
    )
    if not named or outputs[:1] != [FINAL] or sorted(outputs) != sorted(file["images/embeddings"]):
        raise _damaged(path, "outputs are not those of its attribute")
    size = path.stat().st_size
    m = _check_dataset(file, path, size, "images/digest", "u1", (None, 32))
    n = _check_dataset(file, path, size, "rows/image", "i8", (None,))
    layout: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "images/checksum": ("u4", (m,)),
        **{f"images/embeddings/{name}": ("f4", (m, None)) for name in outputs},
        **{f"rows/{name}": (kind, (n,)) for name, kind in ROW_FIELDS.items()},
        "rows/checksum": ("u4", (n,)),
    }
    for name, (kind, shape) in layout.items():
        _check_dataset(file, path, size, name, kind, shape)
    if max(dimensions(file).values()) > MOST_NUMBERS:
        raise _damaged(path, f"embeddings of more than {MOST_NUMBERS:,} numbers")
    if not 1 <= m <= n:
        raise _damaged(path, f"{m} images and {n} rows")
    _check_holes(file, path)


def _check_dataset(
    file: h5py.File, path: Path, file_size: int, name: str, kind: str, shape: tuple[int | None, ...]
) -> int:
    """Check that a dataset lies in this very file, whole, and is what the format says.

    Its link comes first, then its layout, so that nothing outside of the file is opened. Returns
    its length.
    """
    dataset = item(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise _damaged(path, f"dataset {name} is missing")
    type_, found = dataset.dtype, dataset.shape
    is_right = (
        type_.str.lstrip("<|").startswith(kind)
        and type_.itemsize <= MOST_TEXT
        and len(found) == len(shape)
        and all(b in (None, a) and a > 0 for a, b in zip(found, shape, strict=True))
    )
    if not is_right:
        raise _damaged(path, f"dataset {name} is of another type or shape")
    if not lies_whole(dataset, file_size):
        raise _damaged(path, f"dataset {name} does not lie whole in the file")
    return int(found[0])


def _check_holes(file: h5py.File, path: Path) -> None:
    """Refuse rows that are read into memory and of which nothing was ever written.

    A file of holes states any size and takes none; of rows that were written, twenty times less
    may be on a disk that packs them.
    """
    on_disk = getattr(path.stat(), "st_blocks", None)
    names = ("images/digest", *(f"rows/{name}" for name in ROW_FIELDS))
    stated = sum(file[name].id.get_storage_size() for name in names)
    if on_disk is not None and stated > max(MOST_UNSEEN, 20 * 512 * on_disk):
        raise _damaged(path, f"rows of {stated:,} bytes, of which most were never written")


DOCUMENTS: Mapping[str, Mapping[str, Any]] = {
    "backbone": {
        "backbone": str,
        "weights": (str, type(None)),
        "input_size": int,
        "precision": str,
        "preprocessing": int,
        "image": [int, 3],
    },
    "dataset": {
        "name": str,
        "image": [int, 3],
        "skipped": int,
        "left_out?": {"*": int},
        "limit?": (int, type(None)),
        "map?": ({"*": str}, type(None)),
        "labels_as?": (str, type(None)),
        "group_by?": (str, type(None)),
    },
    "provenance": {
        "passes": [
            {
                "engine": str,
                "created?": str,
                "images?": int,
                "passes?": int,
                "reused?": int,
                "parameters?": int,
                "batch_size?": int,
                "seconds?": (int, float, type(None)),
                "files?": {"*": str},
            }
        ]
    },
}
"""What is read of the attributes that hold JSON, by key; what ends in ``?`` may be absent.

``[int, 3]`` is a list of three, ``[X]`` one of any length, ``{"*": X}`` any keys."""


def _check_document(value: Any, kind: Any, name: str, path: Path) -> None:
    """Check a value of JSON and all that is in it."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    plain = tuple(each for each in kinds if isinstance(each, type))
    if plain and isinstance(value, plain) and not isinstance(value, bool):
        return
    within = [each for each in kinds if type(each) is type(value) and not isinstance(each, type)]
    if not within:
        raise _damaged(path, f"attribute {name} is not what it should be")
    [form] = within
    if isinstance(form, list):
        if len(form) == 2 and len(value) != form[1]:
            raise _damaged(path, f"attribute {name} is not what it should be")
        for each in value:
            _check_document(each, form[0], name, path)
        return
    pairs = [(key, form["*"]) for key in value] if "*" in form else list(form.items())
    for key, wanted in pairs:
        found = key.removesuffix("?") if "*" not in form else key
        if found in value:
            _check_document(value[found], wanted, f"{name}, {shown(found)},", path)
        elif not key.endswith("?"):
            raise _damaged(path, f"attribute {name} lacks {shown(found)}")


def _damaged(path: Path, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path}: {what}, expected a store as specified. The file is damaged: extract it again "
        "with --overwrite."
    )


def _version(file: h5py.File, path: Path) -> int:
    if "format_version" not in file.attrs:
        raise _damaged(path, "attribute format_version is missing")
    attribute = file.attrs.get_id("format_version")
    if attribute.shape != () or attribute.dtype.kind not in "iu":
        raise _damaged(path, "attribute format_version is not what it should be")
    return int(file.attrs["format_version"])


def read_text(file: h5py.File, name: str, path: Path) -> str:
    """Return an attribute that is a text of fixed length, whose size is known before it is read."""
    if name not in file.attrs:
        raise _damaged(path, f"attribute {name} is missing")
    attribute = file.attrs.get_id(name)
    if (
        attribute.shape != ()
        or attribute.dtype.kind != "S"
        or attribute.get_storage_size() > MOST_TEXT
    ):
        raise _damaged(path, f"attribute {name} is not what it should be")
    return bytes(file.attrs[name]).decode("utf-8", "replace")


def read_json(file: h5py.File, name: str, path: Path, kind: type = dict) -> Any:
    try:
        value = json.loads(read_text(file, name, path))
        is_right = isinstance(value, kind) and _depth(value) <= 8
    except (ValueError, RecursionError):
        is_right = False
    if not is_right:
        raise _damaged(path, f"attribute {name} is not what it should be")
    return value


def _depth(value: Any) -> int:
    """Return how deep lists and objects lie in one another."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def dimensions(file: h5py.File) -> dict[str, int]:
    """Return the length of each output's vectors, by name, in the file's order."""
    names = json.loads(file.attrs["outputs"])
    return {name: int(file[f"images/embeddings/{name}"].shape[1]) for name in names}


def read_images(dataset: h5py.Dataset, images: Positions) -> npt.NDArray[np.float32]:
    """Return embeddings of images, in the order asked for; h5py's own selection is slow."""
    values = np.empty((len(images), dataset.shape[1]), dtype=np.float32)
    slab = slab_of(dataset.shape[1])
    for index in np.unique(images // slab):
        start = int(index) * slab
        inside = np.flatnonzero(images // slab == index)
        values[inside] = dataset[start : start + slab][images[inside] - start]
    return values


def slab_of(numbers: int) -> int:
    """Return how many images are read at a time, of so many numbers each."""
    return max(1, min(SLAB, MOST_SLAB // (4 * max(1, numbers))))


def known_outputs(file: h5py.File) -> npt.NDArray[np.int64]:
    """Return of each image how many of the outputs are there, int64 (m,): the first ones.

    An image's checksum covers its digest and, in the order of ``outputs``, its embeddings as far
    as they are known; all of them where it is done.
    """
    digest, kept = file["images/digest"], file["images/checksum"]
    datasets = [file[f"images/embeddings/{name}"] for name in dimensions(file)]
    known = np.zeros(len(digest), dtype=np.int64)
    slab = slab_of(max(dataset.shape[1] for dataset in datasets))
    for start in range(0, len(digest), slab):
        part = slice(start, start + slab)
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
