"""A pass's unfinished file: created whole, filled row by row, renamed at the end.

Killed at any moment it can be read: every dataset and attribute exists, and all space is
reserved, before the first row is written; from then on only raw data changes. A row is done when
its checksum matches its contents, so there is no flag and no order of writes to get wrong.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.store import (
    FORMAT,
    FORMAT_VERSION,
    Rows,
    check_layout,
    checksums,
    naming_damage,
    opened,
    read_json,
    read_text,
    slabs,
)
from fer_features.errors import StoreError
from fer_features.faces.dataset import FaceDataset

PROVENANCE_BYTES = 4096


class PartialStore:
    """An unfinished store, open for writing rows.

    Attributes
    ----------
    path : Path
    fingerprint : str
    provenance : dict
        As it was when the file was created.
    digest : uint8 (n, 32)
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        self.fingerprint = read_text(file, "fingerprint", path)
        self.provenance: dict[str, Any] = read_json(file, "provenance", path)
        self._fields = tuple(file[name][()] for name in ("digest", "emotion", "usage", "source"))
        self.digest: npt.NDArray[np.uint8] = self._fields[0]

    def holds(self, faces: FaceDataset, backbone: BackboneSpec) -> bool:
        """Tell whether this is a pass of that network over those very faces."""
        fields = (faces.digest, faces.emotion, faces.usage, _encoded(faces.source))
        return self.fingerprint == backbone.fingerprint and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(self._fields, fields, strict=True)
        )

    def done(self) -> npt.NDArray[np.bool_]:
        """Tell which rows are finished: bool (n,)."""
        done = np.zeros(len(self.digest), dtype=bool)
        kept = self._file["checksum"][()]
        for start, slab in slabs(self._file["embeddings"]):
            part = slice(start, start + len(slab))
            done[part] = checksums(slab, *(field[part] for field in self._fields)) == kept[part]
        return done

    def write(self, rows: Rows, embeddings: npt.NDArray[np.float32]) -> None:
        """Write float32 (k, d) to k rows in increasing order, with their checksums."""
        self._file["embeddings"][rows] = embeddings
        self._file["checksum"][rows] = checksums(
            embeddings, *(field[rows] for field in self._fields)
        )
        self._file.flush()

    def finish(self, target: Path, provenance: dict[str, Any]) -> None:
        """Write the provenance and give the file its final name; it is complete from then on."""
        self._file.attrs.modify("provenance", _padded(provenance))
        self._file.close()
        _sync(self.path)
        self.path.replace(target)
        _sync(target.parent)


def create_partial(
    path: Path, faces: FaceDataset, backbone: BackboneSpec, provenance: dict[str, Any]
) -> None:
    """Create a file with every dataset and attribute in place and its space reserved.

    Raises
    ------
    OSError
        When the disk has no room for the whole file.
    """
    n = len(faces)
    source = _encoded(faces.source)
    text_type = h5py.string_dtype("utf-8", source.dtype.itemsize)
    path.unlink(missing_ok=True)  # h5py does not truncate a damaged file
    with h5py.File(path, "w") as file:
        attributes = {
            "format": FORMAT,
            "backbone": json.dumps(backbone.identity, sort_keys=True),
            "fingerprint": backbone.fingerprint,
            "dataset": json.dumps(describe(faces), sort_keys=True),
        }
        for name, text in attributes.items():
            dtype = h5py.string_dtype("utf-8", len(text.encode()))
            file.attrs.create(name, np.array(text.encode(), dtype=dtype))
        file.attrs["format_version"] = np.int64(FORMAT_VERSION)
        file.attrs.create("provenance", _padded(provenance))
        _create(file, "embeddings", (n, backbone.dimension), np.dtype("<f4"))
        _create(file, "checksum", (n,), np.dtype("<u4"))
        _create(file, "digest", (n, 32), np.dtype("u1"))[...] = faces.digest
        _create(file, "emotion", (n,), np.dtype("i1"))[...] = faces.emotion
        _create(file, "usage", (n,), np.dtype("i1"))[...] = faces.usage
        _create(file, "source", (n,), text_type)[...] = source.astype(text_type)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as reserved:
            os.posix_fallocate(reserved.fileno(), 0, path.stat().st_size)
    _sync(path)


@contextmanager
def open_partial(path: Path) -> Iterator[PartialStore]:
    """Open an unfinished store to read its state and write rows.

    Raises
    ------
    StoreError
        When it is none, or damaged in its structure.
    """
    with opened(path, "r+") as file:
        with naming_damage(path):
            check_layout(file, path)
            partial = PartialStore(file, path)
        yield partial


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to write one store; the lock goes with the process, however it ends.

    Raises
    ------
    StoreError
        When another process holds it; the message says which.
    """
    lock_path = path.with_name(path.name + ".lock")
    lock = FileLock(lock_path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        owner = lock_path.read_text().strip() or "another process"
        raise StoreError(
            f"{path}: being written by {owner}, expected no other writer. "
            "Wait for it to end, or stop it."
        ) from None
    try:
        lock_path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        # Removed before it is released: who opened it meanwhile then holds a file without a
        # name, which filelock notices.
        lock_path.unlink(missing_ok=True)
        lock.release()


def describe(faces: FaceDataset) -> dict[str, Any]:
    """Return what a store keeps of its source, as its ``dataset`` attribute."""
    return {
        "name": faces.name,
        "kind": faces.kind,
        "sha256": faces.sha256,
        "rows": len(faces),
        "limit": faces.limit,
        "skipped": faces.skipped,
    }


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """Create a contiguous dataset whose space is allocated at once, which h5py does not ask for."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))


def _encoded(source: npt.NDArray[np.str_]) -> npt.NDArray[np.bytes_]:
    return np.char.encode(source, "utf-8")


def _padded(provenance: dict[str, Any]) -> npt.NDArray[np.bytes_]:
    """Return JSON in a field of fixed size, so that the last write changes no structure."""
    text = json.dumps(provenance, sort_keys=True).encode()
    if len(text) > PROVENANCE_BYTES:
        raise ValueError(f"provenance: {len(text)} bytes, expected at most {PROVENANCE_BYTES}.")
    return np.array(text, dtype=h5py.string_dtype("utf-8", PROVENANCE_BYTES))


def _sync(path: Path) -> None:
    """Bring a file's data, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_the_disk(folder: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one line with what to do."""
    try:
        yield
    except OSError as error:
        # HDF5 reports the system's errno in a text of its own, of several lines.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        refused = (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
            errno.ENOENT,
        )
        if error.errno is None or not (full or error.errno in refused):
            raise
        raise StoreError(
            f"{folder}: {os.strerror(error.errno)}, expected to write embeddings there. "
            + (
                "Make room and call again: the finished part is kept."
                if full
                else "Choose another output with -o."
            )
        ) from error
