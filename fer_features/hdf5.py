"""HDF5 files that may come from anyone: their structure within bounds, and data that is there.

HDF5 takes any size that a file states on trust, follows links to other files, unpacks without end,
and of some damage it ends the process. What is checked here is read as usual afterwards.
"""

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

MOST_READ, MOST_STRUCTURE = 2**20, 2**26
"""Bytes of a file's structure that are read at once, and in all: far more than there are."""

_UNREADABLE = 3
"""The status of a process that met what cannot be read."""

_SECONDS, _MOST_MEMORY = 10, 2**28
"""What reading all of a file's structure may take, beside what its process has before."""

_MOST_CHUNK = 2**22
"""Numbers of a dataset's chunk, at most, if it has not more: a chunk is read whole."""


class _Structure(io.RawIOBase):
    """A part of an open file, for HDF5 to read its structure alone."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._place = 0
        self._left = MOST_STRUCTURE

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        self._left -= wanted
        if wanted > MOST_READ or self._left < 0:
            raise ValueError(f"{wanted} bytes of structure")
        self._file.seek(self._start + self._place)
        read = self._file.read(max(0, min(wanted, self._size - self._place)))
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)


def check_survived(path: Path, start: int = 0, size: int | None = None) -> None:
    """Read all of a file's structure, attributes too, in a process that may end of it.

    Texts of any length, as Keras writes them, lie in a heap that HDF5 walks through unchecked.

    Raises
    ------
    ValueError
        It ended, took too long, or met what cannot be read.
    """
    words = [sys.executable, "-m", __name__, str(path.absolute()), str(start), str(size or 0)]
    try:
        # Seconds of its own work end it first, where a process can be given so many.
        done = subprocess.run(words, capture_output=True, timeout=10 * _SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError("its structure has no end") from None
    if done.returncode == _UNREADABLE:
        raise ValueError(done.stdout.decode(errors="replace").strip())
    if not 0 <= done.returncode < 256:  # a signal, or what Windows has for one
        raise ValueError("damaged so that HDF5 itself fails")


def _read_all(path: str, start: str, size: str) -> None:
    try:
        import resource

        # The structure of the largest network takes a tenth of either.
        most = _data() + _MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    except (ImportError, ValueError):
        pass
    try:
        with (
            Path(path).open("rb") as file,
            structure(file, int(start), int(size) or None) as opened,
        ):
            for _, each in _walk(opened):
                for _ in each.attrs.values():
                    pass
    except Exception as error:
        print(str(error).strip("\"'").partition("\n")[0] or type(error).__name__)
        sys.exit(_UNREADABLE)


def _data() -> int:
    """Return how many bytes of data this process has: NumPy takes 40 million for every core."""
    try:
        said = Path("/proc/self/status").read_text()
    except OSError:
        return 2**32  # of a machine with a hundred cores
    return int(said.partition("VmData:")[2].split()[0]) * 1024


@contextmanager
def structure(file: IO[bytes], start: int = 0, size: int | None = None) -> Iterator[h5py.File]:
    """Open the HDF5 file within an open file, to look at its structure and read no data."""
    if size is None:
        size = file.seek(0, io.SEEK_END) - start
    with _Structure(file, start, size) as raw, h5py.File(raw, "r") as opened:
        yield opened


def item(file: h5py.File, name: str) -> Any:
    """Return what lies under a name in this very file, each part of it by a hard link, or None."""
    found: Any = file
    for part in name.split("/"):
        if not isinstance(found, h5py.Group):
            return None
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            return None
        found = found[part]
    return found


def lies_whole(dataset: h5py.Dataset, file_size: int) -> bool:
    """Return whether all that a dataset states is there, plainly and in one piece."""
    properties = dataset.id.get_create_plist()
    if (
        properties.get_layout() != h5py.h5d.CONTIGUOUS
        or properties.get_external_count()
        or properties.get_nfilters()
    ):
        return False
    offset, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    stated = _count(dataset.shape) * dataset.dtype.itemsize
    return bool(size == stated and offset is not None and offset + size <= file_size)


def _count(shape: tuple[int, ...] | None) -> int:
    """Return how many numbers a shape has: HDF5 counts in 64 bits, and may come to any."""
    return 0 if shape is None else math.prod(map(int, shape))


def arrays(file: h5py.File) -> dict[str, int]:
    """Return how many numbers each dataset of a file holds, by name: reading takes no more.

    Raises
    ------
    ValueError
        Some lie in another file, are compressed or in chunks larger than they are, or are of texts.
    """
    found = {name: each for name, each in _walk(file) if isinstance(each, h5py.Dataset)}
    for name, each in found.items():
        properties = each.id.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise ValueError(f"/{name} lies in another file")
        if properties.get_nfilters():
            raise ValueError(f"/{name} is compressed")
        if each.dtype.kind not in "fiub":  # of one size at most, unlike text
            raise ValueError(f"/{name} holds no numbers")
        if each.chunks and _count(each.chunks) > max(_MOST_CHUNK, _count(each.shape)):
            raise ValueError(f"/{name} is in chunks of {_count(each.chunks):,} numbers")
    return {name: _count(each.shape) for name, each in found.items()}


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield all groups and datasets of a file, each once, by name.

    h5py's visititems ends in a SystemError where what it visits is damaged.
    """
    known = set()
    waiting: list[tuple[str, Any]] = [("", file)]
    while waiting:
        above, group = waiting.pop()
        yield above, group
        for part in group:
            name = f"{above}/{part}".lstrip("/")
            link = group.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"/{name} is a link to another file")
            if not isinstance(link, h5py.HardLink):
                continue
            each = group[part]
            place = h5py.h5o.get_info(each.id).addr
            if place in known:
                continue
            known.add(place)
            if isinstance(each, h5py.Group):
                waiting.append((name, each))
            else:
                yield name, each


if __name__ == "__main__":
    _read_all(*sys.argv[1:])
