"""A pass's unfinished file: created whole, filled image by image, renamed at the end.

Killed at any moment it can be read: every dataset and attribute exists, and all space is
reserved, before the first image is written; from then on only raw data changes. An image is done
when its checksum matches its contents, so there is no flag and no order of writes to get wrong.
"""

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fer_features import locking
from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.layout import (
    FORMAT,
    FORMAT_VERSION,
    ROW_FIELDS,
    Positions,
    checksums,
    close_for_all,
    dimensions,
    errno_of,
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


STRUCTURE, STRUCTURE_OF_OUTPUT = 8192, 1024
"""Bytes that HDF5 takes for the file's structure, at most, and more for each output."""

BLOCK = 2**20
"""Bytes written at a time where space cannot be reserved otherwise."""

NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system answers that cannot reserve space, or bring a file to the disk at once."""


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

    Embeddings are written past HDF5, where it has put them: of a disk that fails HDF5 keeps what
    it could not write, tries again when it is told to end, and takes the process with it.

    Attributes
    ----------
    path : Path
    provenance : dict
        As it was when the file was created.
    outputs : tuple of str
    """

    def __init__(self, file: h5py.File, data: io.FileIO, path: Path) -> None:
        self._file = file
        self._data = data
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
        with naming_damage(self.path):
            there = {name: self._file[f"images/embeddings/{name}"][images] for name in before}
        sums = checksums(self._digest[images], {**there, **outputs})
        with naming_the_disk(self.path):
            for name, values in outputs.items():
                self._write(f"images/embeddings/{name}", images, values.astype("<f4"))
            self._write("images/checksum", images, sums.astype("<u4"))

    def _write(self, name: str, images: Positions, values: npt.NDArray[Any]) -> None:
        """Write values (k, ...) of images into a contiguous dataset, each run of them at once."""
        start = self._file[name].id.get_offset()
        each = values.nbytes // max(1, len(values))
        ends = np.flatnonzero(np.diff(images) != 1) + 1
        for run, part in zip(np.split(images, ends), np.split(values, ends), strict=True):
            if len(run):
                self._data.seek(start + int(run[0]) * each)
                left = memoryview(part.tobytes())
                while left:
                    left = left[self._data.write(left) :]

    def finish(self, target: Path, provenance: dict[str, Any]) -> None:
        """Write the provenance and give the file its final name; it is complete from then on."""
        with naming_the_disk(self.path):
            _sync(self.path)  # a disk that fails does so here, not in HDF5
            size = self._file.attrs.get_id("provenance").get_storage_size()
            self._file.attrs.modify("provenance", _padded(provenance, size))
            close_for_all(self._file)
            self._data.close()
            _sync(self.path)
        with naming_the_disk(target):
            self.path.replace(target)
        with naming_the_disk(target.parent):
            _sync_folder(target.parent)


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
    StoreError
        When the disk has no room for the whole file, or refuses it.
    """
    with naming_the_disk(path):
        path.unlink(missing_ok=True)
        try:
            _create_whole(path, content, backbone, lengths, dataset, provenance)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _create_whole(
    path: Path,
    content: Content,
    backbone: BackboneSpec,
    lengths: dict[str, int],
    dataset: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    n, m = len(content.rows["image"]), len(content.digest)
    room = ROOM + ROOM_OF_OUTPUT * len(lengths)
    size = min(len(_fitting(provenance, MOST_ROOM)) + room, MOST_ROOM)
    attributes = {
        "format": FORMAT,
        "backbone": json.dumps(backbone.identity, sort_keys=True),
        "fingerprint": backbone.fingerprint,
        "outputs": json.dumps(list(lengths)),
        "dataset": json.dumps(dataset, sort_keys=True),
    }
    image = 36 + 4 * sum(lengths.values())
    row = 4 + sum(max(1, values.dtype.itemsize) for values in content.rows.values())
    structure = STRUCTURE + STRUCTURE_OF_OUTPUT * len(lengths)
    texts = size + sum(len(text.encode()) for text in attributes.values())
    with _Reserved(path, m * image + n * row + texts + structure) as reserved:
        with h5py.File(reserved, "w") as file:
            _fill(file, content, lengths, attributes, _padded(provenance, size))
        reserved.cut()
    _sync(path)


class _Reserved(io.FileIO):
    """A new file with its space reserved, as long for HDF5 as HDF5 has made it.

    HDF5 does not survive a disk that is full: it ends the process, later.
    """

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "x+")
        self._size = 0
        allocate(self.fileno(), size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset + (self._size if whence == os.SEEK_END else 0))

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._size = max(self._size, self.tell())
        return written

    def truncate(self, size: int | None = None) -> int:
        self._size = self.tell() if size is None else size
        return self._size

    def cut(self) -> None:
        super().truncate(self._size)


def allocate(descriptor: int, size: int) -> None:
    """Take the disk space of a file's first bytes, which keep what they hold."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
    for start in range(0, size, BLOCK):
        os.lseek(descriptor, start, os.SEEK_SET)
        there = os.read(descriptor, min(BLOCK, size - start))
        os.lseek(descriptor, start, os.SEEK_SET)
        left = memoryview(there.ljust(min(BLOCK, size - start), b"\0"))
        while left:
            left = left[os.write(descriptor, left) :]


def _fill(
    file: h5py.File,
    content: Content,
    lengths: dict[str, int],
    attributes: dict[str, str],
    provenance: npt.NDArray[np.bytes_],
) -> None:
    n, m = len(content.rows["image"]), len(content.digest)
    for name, text in attributes.items():
        dtype = h5py.string_dtype("utf-8", len(text.encode()))
        file.attrs.create(name, np.array(text.encode(), dtype=dtype))
    file.attrs["format_version"] = np.int64(FORMAT_VERSION)
    file.attrs.create("provenance", provenance)
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


@contextmanager
def open_partial(path: Path) -> Iterator[PartialStore]:
    """Open an unfinished store to read its state and write embeddings.

    Raises
    ------
    StoreError
        When it is none, damaged in its structure, or open elsewhere.
    """
    with opened(path, "r+") as file, io.FileIO(path, "r+") as data:
        with naming_damage(path):
            partial = PartialStore(file, data, path)
        yield partial


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to write one file: the lock ``….lock`` beside it.

    Raises
    ------
    StoreError
        When another process holds it; the message says which.
    """
    lock = path.with_name(path.name + ".lock")
    with ExitStack() as held:  # what is done under it has errors of its own
        try:
            with naming_the_disk(lock):
                held.enter_context(locking.locked(lock))
        except locking.HeldError as error:
            raise StoreError(
                f"{path}: being written by {error.owner}, expected no other writer. {error.remedy}."
            ) from None
        yield


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
    """Bring a file's data to the disk."""
    descriptor = os.open(path, os.O_RDWR)  # Windows does not do it for a reader
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows; a folder that may be written and not read
        return
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


@contextmanager
def naming_the_disk(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write a file, or in a folder, into one line with what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = errno_of(error)  # HDF5 has it in a text of its own, of several lines
        if not number:
            raise
        raise StoreError(
            f"{path}: {os.strerror(number)}, expected to write embeddings there. "
            f"{_REMEDIES.get(number, _ELSEWHERE)}"
        ) from error


_ROOM = "Make room and call again: the finished part is kept."
_ELSEWHERE = "Choose another output with -o."
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EIO: "The disk fails: look after it, or choose another output with -o.",
}
