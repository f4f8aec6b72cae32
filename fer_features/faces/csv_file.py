"""Faces from a CSV file in one of FER2013's layouts, read as a stream of small blocks.

Only a block of lines is held as text at any time; what is kept of it is uint8, and beyond some
hundred megabytes lies in a temporary file.
"""

import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import BadRows, RowError, did_you_mean, shown
from fer_features.faces.dataset import SIDE
from fer_features.faces.emotions import EMOTIONS, NONE, USAGES
from fer_features.faces.pixel_text import PIXELS, parse_cell, parse_plain
from fer_features.faces.pixels import PixelBuffer

COLUMNS = {"pixels": "pixels", "emotion": "emotion", "usage": "Usage"}
"""The columns that are read, by their names in lower case."""

SUFFIXES = (".csv", ".gz", ".xz", ".zip")

_BLOCK = 64  # rows: the arrays of a block then fit into a core's cache
_BUFFER = 262_144  # bytes
_LONGEST_HEADER = 65_536  # bytes; a binary file may have no line break at all
_EMOTION_IDS = {str(i).encode(): i for i in range(len(EMOTIONS))}
_USAGE_IDS = {name.lower().encode(): i for i, name in enumerate(USAGES)}


class Rows(NamedTuple):
    """The good rows of a CSV file: their pixels, labels and numbers below the header."""

    pixels: npt.NDArray[np.uint8]
    emotion: npt.NDArray[np.int8]
    usage: npt.NDArray[np.int8]
    number: npt.NDArray[np.int64]


def read_csv(
    path: Path, shown_path: str, bad: BadRows, progress: Callable[[int, int], None] | None
) -> Rows:
    """Read every row of a plain, .gz, .xz or .zip CSV file; bad ones go to ``bad``.

    ``progress`` is called with the bytes read of the file as it lies, and its size.
    """
    pixels = PixelBuffer((SIDE, SIDE), shown_path)
    emotion, usage, number = bytearray(), bytearray(), []
    with path.open("rb") as packed, _unpacked(packed, path, shown_path) as lines:
        size = path.stat().st_size
        header = _Header(lines.readline(_LONGEST_HEADER), shown_path)
        rows = _numbered_rows(lines)
        while block := list(islice(rows, _BLOCK)):
            good = _read_block(block, header, bad)
            pixels.append(good.pixels)
            emotion += good.emotion.tobytes()
            usage += good.usage.tobytes()
            number.append(good.number)
            if progress:
                progress(packed.tell(), size)
    if not number:
        raise SourceError(
            f"{shown_path}: a header and no rows, expected a row for each face. "
            "Check that the file is complete."
        )
    return Rows(
        pixels.array(),
        np.frombuffer(emotion, np.int8),
        np.frombuffer(usage, np.int8),
        np.concatenate(number),
    )


class _Header:
    """Where the known columns are: ``pixels``, ``emotion`` and ``usage``, None if absent."""

    def __init__(self, line: bytes, shown_path: str) -> None:
        if not line.strip():
            what = "starts with a blank line" if line else "an empty file"
            raise SourceError(f"{shown_path}: {what}, expected {_LAYOUT}. Get the file again.")
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text or "\r" in text.rstrip("\r\n") or len(line) == _LONGEST_HEADER:
            raise SourceError(
                f"{shown_path}: not UTF-8 text in lines, expected {_LAYOUT}. "
                "Save it as CSV in UTF-8, or check that it is the right file."
            )
        self.names = [name.strip() for name in next(csv.reader([text.rstrip("\r\n")]))]
        pixels = self._find("pixels", shown_path)
        if pixels is None:
            raise SourceError(
                f"{shown_path}: no column 'pixels' in the header "
                f"'{shown(','.join(self.names), 60)}', expected {_LAYOUT}. "
                "Name the column 'pixels'."
            )
        self.pixels = pixels
        self.emotion = self._find("emotion", shown_path)
        self.usage = self._find("usage", shown_path)

    def _find(self, key: str, shown_path: str) -> int | None:
        lower = [name.lower() for name in self.names]
        if lower.count(key) > 1:
            raise SourceError(
                f"{shown_path}: column '{COLUMNS[key]}' occurs {lower.count(key)} times, "
                "expected once. Remove all but one."
            )
        if key in lower:
            return lower.index(key)
        for name in self.names:
            # A misspelt 'emotion' must not pass for a file without emotions.
            hint = did_you_mean(name, {key: COLUMNS[key]}, cutoff=0.75)
            if name.lower() not in COLUMNS and hint:
                raise SourceError(
                    f"{shown_path}: unknown column '{shown(name)}'{hint}, expected "
                    f"{_LAYOUT}. Rename the column."
                )
        return None


_LAYOUT = "a CSV file with a column 'pixels' and, if it has labels, 'emotion' and 'Usage'"


@contextmanager
def _unpacked(packed: IO[bytes], path: Path, shown_path: str) -> Iterator[IO[bytes]]:
    """Open the CSV text within a file; what fails in unpacking it becomes a SourceError."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(packed) as archive, _only_csv(archive, shown_path) as text:
                yield _buffered(text)
        elif suffix == ".gz":
            with gzip.open(packed) as text:
                yield _buffered(text)
        elif suffix == ".xz":
            with lzma.open(packed) as text:
                yield _buffered(text)
        else:
            yield packed
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{shown_path}: cannot be unpacked ({shown(str(error), 80)}), expected a complete "
            f"{suffix} file. Get the file again."
        ) from error


def _buffered(text: Any) -> IO[bytes]:
    # These readers find line ends slowly: of a zip, a buffer on top reads twice as fast.
    return io.BufferedReader(text, _BUFFER)


def _only_csv(archive: zipfile.ZipFile, shown_path: str) -> IO[bytes]:
    """Open the one CSV file in an archive; macOS's own extras do not count."""
    names = [
        name
        for name in archive.namelist()
        if name.lower().endswith(".csv")
        and not name.startswith("__MACOSX/")
        and not name.rpartition("/")[2].startswith(".")
    ]
    if len(names) == 1:
        try:
            return archive.open(names[0])
        except (NotImplementedError, RuntimeError) as error:
            # zipfile's way of saying: an unknown compression, or a password.
            raise SourceError(
                f"{shown_path}: cannot be unpacked ({shown(str(error), 80)}), expected a plain "
                ".zip. Unpack it yourself and pass the CSV file."
            ) from error
    listed = f" ({shown(', '.join(names), 80)})" if names else ""
    raise SourceError(
        f"{shown_path}: {len(names) or 'no'} CSV files in it{listed}, expected exactly one. "
        f"Unpack it and pass {'one of them' if names else 'what is in it'}."
    )


def _numbered_rows(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number below the header; blank lines at the end are no rows."""
    blank: list[int] = []
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            blank.append(number)
            continue
        for earlier in blank:
            yield earlier, b""
        blank.clear()
        yield number, line


def _read_block(block: list[tuple[int, bytes]], header: _Header, bad: BadRows) -> Rows:
    """Parse a block of lines at once or, where that fails, row by row for the exact reason."""
    try:
        rows = [(number, *_split_row(line, header)) for number, line in block]
        pixels = parse_plain([cell for _, cell, _, _ in rows])
    except RowError:
        pixels = None
    if pixels is None:
        rows, images = [], []
        for number, line in block:
            try:
                cell, emotion, usage = _split_row(line, header)
                images.append(parse_cell(cell))
            except RowError as finding:
                bad.add(f"row {number}", str(finding))
            else:
                rows.append((number, cell, emotion, usage))
        pixels = np.array(images, dtype=np.uint8).reshape(-1, PIXELS)
    return Rows(
        pixels,
        np.array([emotion for _, _, emotion, _ in rows], dtype=np.int8),
        np.array([usage for _, _, _, usage in rows], dtype=np.int8),
        np.array([number for number, _, _, _ in rows], dtype=np.int64),
    )


def _split_row(line: bytes, header: _Header) -> tuple[bytes, int, int]:
    """Return a line's pixels cell and its emotion and usage ids."""
    if not line:
        raise RowError(f"an empty line, expected {len(header.names)} columns")
    if b'"' in line:
        text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        try:
            cells = [cell.encode() for cell in next(csv.reader([text]))]
        except csv.Error as error:
            raise RowError(f"not CSV ({error}), expected {len(header.names)} columns") from error
    else:
        cells = line.split(b",")
    if len(cells) != len(header.names):
        raise RowError(f"{len(cells)} columns, expected {len(header.names)}")
    emotion = usage = NONE
    if header.emotion is not None:
        emotion = _emotion_id(cells[header.emotion].strip())
    if header.usage is not None:
        usage = _usage_id(cells[header.usage].strip())
    return cells[header.pixels].strip(), emotion, usage


def _emotion_id(cell: bytes) -> int:
    if cell in _EMOTION_IDS:
        return _EMOTION_IDS[cell]
    found = f"emotion '{shown(cell)}'" if cell else "a blank emotion"
    raise RowError(f"{found}, expected a whole number from 0 to {len(EMOTIONS) - 1}")


def _usage_id(cell: bytes) -> int:
    usage = _USAGE_IDS.get(cell.lower())
    if usage is not None:
        return usage
    found = f"Usage '{shown(cell)}'" if cell else "a blank Usage"
    hint = did_you_mean(shown(cell), {name.lower(): name for name in USAGES})
    raise RowError(f"{found}{hint}, expected {', '.join(USAGES[:-1])} or {USAGES[-1]}")
