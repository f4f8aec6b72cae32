"""Files that others packed, unpacked as they are read: a little at a time, in little memory.

A kilobyte may unpack to gigabytes. That is no fault as long as nobody holds them.
"""

import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

BUFFER = 262_144  # bytes

_MOST_DIRECTORY = 2**24
"""Bytes of a zip's directory, at most: it is read whole, and takes ten times as much in memory."""

_MOST_MEMORY = 2**28
"""Bytes that unpacking an .xz file may take; ``xz -9`` asks for 65 million."""

_DEFLATE = 1032
"""How many times as much as it packed deflate can state, at most."""


@contextmanager
def opened_zip(file: Any) -> Iterator[zipfile.ZipFile]:
    """Open a zip in an open file.

    Raises
    ------
    zipfile.BadZipFile
        It is none, is damaged, or has a directory of very many members.
    """
    bounded = _Bounded(file)
    with zipfile.ZipFile(bounded) as archive:
        bounded.most = None
        size = file.seek(0, io.SEEK_END)
        if sum(each.compress_size for each in archive.infolist()) > size:
            raise zipfile.BadZipFile("members that lie in one another")
        yield archive


class _Bounded:
    """A zip's file, of which no more is read at once than ``most``, whatever it states."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.most: int | None = _MOST_DIRECTORY

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> Any:
        if self.most is not None and size > self.most:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes")
        return self._file.read(size)


def opened_member(archive: zipfile.ZipFile, name: str | zipfile.ZipInfo) -> IO[bytes]:
    """Open a member of a zip, stored or deflated.

    Of other kinds zipfile unpacks as much at once as there is, or takes as much memory as is
    stated.

    Raises
    ------
    zipfile.BadZipFile
        It states more bytes than it can hold.
    RuntimeError
        It is packed in another way, or with a password.
    """
    info = archive.getinfo(name) if isinstance(name, str) else name
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("neither stored nor deflated")
    most = info.compress_size * (_DEFLATE if info.compress_type else 1)
    if info.file_size > most:
        raise zipfile.BadZipFile(f"{info.file_size:,} bytes stated, and {most:,} at most there")
    return archive.open(info)


def buffered(unpacked: Any) -> IO[bytes]:
    """Return a file with a buffer: what unpacks finds line ends slowly."""
    return io.BufferedReader(unpacked, BUFFER)


class XzFile(io.RawIOBase):
    """What an .xz file holds; :func:`lzma.open` takes any size of its dictionary on trust.

    Reading raises EOFError or lzma.LZMAError where the file is cut short, damaged or asks for more
    than :data:`_MOST_MEMORY`.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._unpacker = self._begin()

    @staticmethod
    def _begin() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_MOST_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        unpacked = b""
        while not unpacked:
            more = b""
            if self._unpacker.eof:  # of one stream, which zeros may pad, and another may follow
                left = self._unpacker.unused_data
                while not (more := left.lstrip(b"\0")):
                    left = self._packed.read(BUFFER)
                    if not left:
                        return 0
                self._unpacker = self._begin()
            elif self._unpacker.needs_input:
                more = self._packed.read(BUFFER)
                if not more:
                    raise EOFError("it ends before its end marker")
            unpacked = self._unpacker.decompress(more, len(buffer))
        buffer[: len(unpacked)] = unpacked
        return len(unpacked)
