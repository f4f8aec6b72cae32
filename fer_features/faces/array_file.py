"""One array as NumPy keeps it, alone in an .npy file or as a member of an .npz.

It is known by its header; its values are read when they are asked for, and never unpickled.
"""

import mmap
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import in_words, shown
from fer_features.faces.packed import opened_member, opened_zip

_BLOCK = 2**22  # bytes
_LONGEST_HEADER = 2**16  # bytes
_LARGE, _MOST_PACKED = 2**28, 100
"""From how many bytes on an array may be packed so many times at most: faces are, five times."""
_MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK"}


class StoredArray(NamedTuple):
    """An array in a file, as its header describes it; ``member`` is its name in an .npz."""

    path: Path
    member: str | None
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def __str__(self) -> str:
        return f"'{shown(self.name)}' {self.dtype.name} {self.shape}"


def stored_arrays(path: Path, shown_path: str) -> list[StoredArray]:
    """Return the arrays in an .npz, or the one of an .npy, in their order, by their headers.

    Raises
    ------
    SourceError
        The file is another than its suffix says, damaged or incomplete.
    """
    _check_start(path, shown_path)
    with _mentioning(shown_path):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return [_header(file, path.stat().st_size, path, None, shown_path)]
        with path.open("rb") as packed, opened_zip(packed) as archive:
            found = []
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with opened_member(archive, member) as file:
                        size = member.file_size
                        if size > max(_LARGE, _MOST_PACKED * member.compress_size):
                            raise ValueError(
                                f"{member.filename} unpacks to {size:,} bytes, "
                                f"{size // max(1, member.compress_size):,} times its own"
                            )
                        found.append(_header(file, size, path, member.filename, shown_path))
            return found


def refuse_objects(array: StoredArray, shown_path: str) -> None:
    """Refuse an array of Python objects, which only a pickle keeps.

    Raises
    ------
    SourceError
        It is one.
    """
    if array.dtype.hasobject:
        raise SourceError(
            f"{shown_path}: {array}, Python objects in a pickle, which may run any code, expected "
            "numbers or words. Save images of one size with np.stack(images), and words with "
            "np.array(words, dtype=str)."
        )


def blocks(array: StoredArray, shown_path: str) -> Iterator[npt.NDArray[Any]]:
    """Yield an array along its first axis, some megabytes at a time, holding no more of it.

    An array in Fortran's order goes through a temporary file: its first image ends where the array
    does.

    Raises
    ------
    SourceError
        They cannot be unpacked.
    """
    n, *rest = array.shape
    each = array.dtype.itemsize * prod(rest)
    rows = max(1, _BLOCK // max(1, each))
    with _opened(array, shown_path) as file:
        _read_header(file)
        if array.fortran and n and rest:
            whole = _mapped(file, array)
            yield from (readable(whole[start : start + rows]) for start in range(0, n, rows))
            return
        for start in range(0, n, rows):
            count = min(rows, n - start)
            values = np.frombuffer(file.read(count * each), array.dtype)
            yield readable(values).reshape(count, *rest)


def readable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values as they are.

    Raises
    ------
    ValueError
        They are texts of numbers that no letter has: NumPy takes them, Python fails over them.
    """
    if values.dtype.kind == "U" and values.size:
        letters = np.ascontiguousarray(values).view(f"{values.dtype.byteorder}u4")
        if letters.max() > sys.maxunicode:
            raise ValueError("texts that are no Unicode")
    return values


@contextmanager
def _opened(array: StoredArray, shown_path: str) -> Iterator[IO[bytes]]:
    with _mentioning(shown_path):
        if array.member is None:
            with array.path.open("rb") as file:
                yield file
        else:
            with (
                array.path.open("rb") as packed,
                opened_zip(packed) as archive,
                opened_member(archive, array.member) as file,
            ):
                yield file


def _mapped(file: IO[bytes], array: StoredArray) -> npt.NDArray[Any]:
    """Return the values of an array that the system holds in memory as far as there is room."""
    with tempfile.TemporaryFile(prefix="fer-features-") as kept:
        shutil.copyfileobj(file, kept, _BLOCK)
        kept.flush()
        mapped = mmap.mmap(kept.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, array.dtype).reshape(array.shape, order="F")


@contextmanager
def _mentioning(shown_path: str) -> Iterator[None]:
    """Turn what zipfile and NumPy raise on damaged or locked files into one line."""
    try:
        yield
    except (
        ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise SourceError(
            f"{shown_path}: cannot be read ({shown(str(error), 80)}), expected a complete file of "
            "NumPy's. Get the file again, or save its arrays again."
        ) from error


def _check_start(path: Path, shown_path: str) -> None:
    """Refuse a file that does not start as its suffix promises, and say what it is."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_MAGIC[suffix]):
        return
    what, remedy = in_words(start) or (f"no {suffix} file", "Check that it is the right file")
    if not start:
        what, remedy = "an empty file", "Get the file again"
    elif start.startswith(b"\x80"):
        what, remedy = "a pickle, which may run any code", "Save its arrays with np.savez"
    for other, magic in _MAGIC.items():
        if start.startswith(magic):
            what, remedy = f"an {other} file by its content", f"Rename it to {other}"
    raise SourceError(f"{shown_path}: {what}, expected an {suffix} file of NumPy's. {remedy}.")


class _Header(NamedTuple):
    """A file of which NumPy reads a header, which would be of any length that it states."""

    file: IO[bytes]

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    bounded: Any = _Header(file)
    version = npy.read_magic(bounded)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(bounded)
    return shape, fortran, dtype


def _header(
    file: IO[bytes], size: int, path: Path, member: str | None, shown_path: str
) -> StoredArray:
    """Read an array's header; ``size`` is how many bytes there are with it.

    A pickle's length is not known from it.
    """
    name = path.name if member is None else member.removesuffix(".npy")
    shape, fortran, dtype = _read_header(file)
    array = StoredArray(path, member, name, shape, dtype, fortran)
    if dtype.hasobject:
        return array
    expected = file.tell() + dtype.itemsize * prod(shape)
    if size != expected:
        short = size < expected
        what = "ends early" if short else "goes on after the array"
        remedy = "Get the file again" if short else "Save each array in a file of its own"
        raise SourceError(
            f"{shown_path}: {array} {what}: {size:,} bytes, expected {expected:,}. {remedy}."
        )
    return array
