"""A pass's unfinished file: created whole, filled image by image, renamed at the end.

Killed at any moment it can be read: every dataset and attribute exists, and all space is
reserved, before the first image is written; from then on only raw data changes. An image is done
when its checksum matches its contents, so there is no flag and no order of writes to get wrong.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.layout import (
    FORMAT,
    FORMAT_VERSION,
    ROW_FIELDS,
    Positions,
    check_layout,
    checksums,
    dimensions,
    known_outputs,
    naming_damage,
    opened,
    read_json,
    row_checksums,
)
from fer_features.embedding.store import Store
from fer_features.errors import StoreError
from fer_features.faces.dataset import FaceDataset

ROOM = 8192
"""Bytes of an attribute that are kept free for what a pass says of itself at its end."""

ROOM_OF_OUTPUT = 256
"""Bytes more for each output: its name, and how close int8 comes to float32."""

MOST_PROVENANCE = 40_000
"""Bytes of provenance from which on the oldest passes are summed up."""

MOST_ROOM = 64_000
"""Bytes of provenance with its room: HDF5's oldest version allows an attribute 64 kB."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a store holds of a source beside embeddings.

    ``first`` is the row at which each distinct image appears first, int64 (m,), increasing;
    ``digest`` its digest, uint8 (m, 32); ``rows`` the datasets of the rows by name, (n,) each.
    """

    first: Positions
    digest: npt.NDArray[np.uint8]
    rows: dict[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, faces: FaceDataset) -> "Content":
        keys = np.ascontiguousarray(faces.digest).view("V32").ravel()
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        rows = {
            "image": rank[group].astype("<i8"),
            "emotion": faces.emotion,
            "usage": faces.usage,
            "group": np.char.encode(faces.group, "utf-8"),
            "source": np.char.encode(faces.source, "utf-8"),
        }
        return cls(first[order], faces.digest[first[order]], rows)

    def is_of(self, store: Store) -> bool:
        """Tell whether a store, or an unfinished one, is of these very rows."""
        return np.array_equal(store.image_digest, self.digest) and all(
            np.array_equal(store.rows[name], values) for name, values in self.rows.items()
        )


class PartialStore:
    """An unfinished store, open for writing.

    Attributes
    ----------
    path : Path
    provenance : dict
        As it was when the file was created.
    outputs : tuple of str
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        self.provenance: dict[str, Any] = read_json(file, "provenance", path)
        self.outputs = tuple(dimensions(file))
        self._digest: npt.NDArray[np.uint8] = file["images/digest"][()]

    def known(self) -> npt.NDArray[np.int64]:
        """Return of each image how many of the outputs are there, int64 (m,): the first ones."""
        return known_outputs(self._file)

    def write(self, images: Positions, outputs: dict[str, npt.NDArray[np.float32]]) -> None:
        """Write float32 (k, d) for k images, in increasing order, and then their checksums.

        ``outputs`` are some in the file's order; those before them must be there already.
        """
        before = self.outputs[: self.outputs.index(next(iter(outputs)))]
        for name, values in outputs.items():
            self._file[f"images/embeddings/{name}"][images] = values
        there = {name: self._file[f"images/embeddings/{name}"][images] for name in before}
        self._file["images/checksum"][images] = checksums(
            self._digest[images], {**there, **outputs}
        )
        self._file.flush()

    def finish(self, target: Path, provenance: dict[str, Any]) -> None:
        """Write the provenance and give the file its final name; it is complete from then on."""
        size = self._file.attrs.get_id("provenance").get_storage_size()
        self._file.attrs.modify("provenance", _padded(provenance, size))
        self._file.close()
        _sync(self.path)
        self.path.replace(target)
        _sync(target.parent)


def create_partial(
    path: Path,
    content: Content,
    backbone: BackboneSpec,
    lengths: dict[str, int],
    dataset: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Create a file with every dataset and attribute in place and its space reserved.

    ``lengths`` are the outputs' dimensions by name, in their order.

    Raises
    ------
    OSError
        When the disk has no room for the whole file.
    """
    n, m = len(content.rows["image"]), len(content.digest)
    room = ROOM + ROOM_OF_OUTPUT * len(lengths)
    size = min(len(_fitting(provenance, MOST_ROOM)) + room, MOST_ROOM)
    path.unlink(missing_ok=True)  # h5py does not truncate a damaged file
    with h5py.File(path, "w") as file:
        attributes = {
            "format": FORMAT,
            "backbone": json.dumps(backbone.identity, sort_keys=True),
            "fingerprint": backbone.fingerprint,
            "outputs": json.dumps(list(lengths)),
            "dataset": json.dumps(dataset, sort_keys=True),
        }
        for name, text in attributes.items():
            dtype = h5py.string_dtype("utf-8", len(text.encode()))
            file.attrs.create(name, np.array(text.encode(), dtype=dtype))
        file.attrs["format_version"] = np.int64(FORMAT_VERSION)
        file.attrs.create("provenance", _padded(provenance, size))
        embeddings = file.create_group("images").create_group("embeddings")
        rows = file.create_group("rows")
        for name, length in lengths.items():
            _create(embeddings, name, (m, length), np.dtype("<f4"))
        _create(file["images"], "checksum", (m,), np.dtype("<u4"))
        _create(file["images"], "digest", (m, 32), np.dtype("u1"))[...] = content.digest
        for name, kind in ROW_FIELDS.items():
            values = content.rows[name]
            if kind == "S":
                text_type = h5py.string_dtype("utf-8", max(1, values.dtype.itemsize))
                _create(rows, name, (n,), text_type)[...] = values.astype(text_type)
            else:
                _create(rows, name, (n,), np.dtype(f"<{kind}"))[...] = values
        _create(rows, "checksum", (n,), np.dtype("<u4"))[...] = row_checksums(content.rows)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as reserved:
            os.posix_fallocate(reserved.fileno(), 0, path.stat().st_size)
    _sync(path)


@contextmanager
def open_partial(path: Path) -> Iterator[PartialStore]:
    """Open an unfinished store to read its state and write embeddings.

    Raises
    ------
    StoreError
        When it is none, damaged in its structure, or open elsewhere.
    """
    with opened(path, "r+") as file:
        with naming_damage(path):
            check_layout(file, path)
            partial = PartialStore(file, path)
        yield partial


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to write one store; the lock goes with the process, however it ends.

    The lock's file stays: whoever removed it could let two processes hold it at once.

    Raises
    ------
    StoreError
        When another process holds it; the message says which.
    """
    lock_path = path.with_name(path.name + ".lock")
    owner_path = path.with_name(path.name + ".owner")
    lock = FileLock(lock_path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        try:
            owner = owner_path.read_text().strip() or "another process"
        except OSError:
            owner = "another process"
        raise StoreError(
            f"{path}: being written by {owner}, expected no other writer. "
            "Wait for it to end, or stop it."
        ) from None
    try:
        owner_path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def summed_up(passes: list[dict[str, Any]], most: int = MOST_PROVENANCE) -> list[dict[str, Any]]:
    """Return what fits into a store of its passes: of very many, the oldest become one entry."""
    passes = list(passes)
    while len(passes) > 2 and len(json.dumps(passes).encode()) > most:
        one, other, *later = passes
        kept = ("created", "engine", "versions", "outputs", "files")
        both = {
            **{name: one[name] for name in kept if name in one},
            "passes": one.get("passes", 1) + other.get("passes", 1),
            "images": one.get("images", 0) + other.get("images", 0),
            "seconds": round((one.get("seconds") or 0) + (other.get("seconds") or 0), 3),
            "images_per_second": None,
        }
        passes = [both, *later]
    return passes


def _create(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """Create a contiguous dataset whose space is allocated at once, which h5py does not ask for."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, plist))


def _padded(provenance: dict[str, Any], size: int) -> npt.NDArray[np.bytes_]:
    """Return JSON in a field of fixed size, so that the last write changes no structure."""
    text = _fitting(provenance, size)
    return np.array(text, dtype=h5py.string_dtype("utf-8", size))


def _fitting(provenance: dict[str, Any], size: int) -> bytes:
    """Return JSON of at most ``size`` bytes: a pass is not lost over the words on it.

    What is left out where they are too many, first earlier passes one by one, is of use to people
    alone; the cosines are kept with the quantised network too.
    """
    passes = summed_up(provenance["passes"], size - 100)
    for left_out in (None, "cosine", "outputs"):
        passes = [{name: each[name] for name in each if name != left_out} for each in passes]
        text = json.dumps({**provenance, "passes": passes}).encode()
        if len(text) <= size:
            return text
    raise ValueError(f"provenance: {len(text)} bytes, expected at most {size}.")


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
            errno.ENAMETOOLONG,
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
