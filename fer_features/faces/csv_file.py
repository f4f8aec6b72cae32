"""Faces from a CSV file, read as a stream of small blocks.

FER2013's layout and its relatives: any delimiter, pixels in one cell or in a column each, with or
without a header. Only a block of lines is held as text at any time; what is kept of it is uint8,
and beyond some hundred megabytes lies in a temporary file.
"""

import csv
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import BadRows, RowError, shown
from fer_features.faces.dataset import SIDE
from fer_features.faces.emotions import emotion_of, usage_of, whole_number
from fer_features.faces.image import SUFFIXES as IMAGES
from fer_features.faces.packed import XzFile, buffered, opened_member, opened_zip
from fer_features.faces.pixel_text import count_values, parse_block, parse_cell
from fer_features.faces.pixels import PixelBuffer
from fer_features.faces.table import (
    LONGEST_WORD,
    PIXELS,
    Column,
    Columns,
    Table,
    check_few,
    find_columns,
    too_long,
)

SUFFIXES = (".csv", ".tsv", ".gz", ".xz", ".zip")

_BLOCK = 64  # rows: the arrays of a block then fit into a core's cache
_LONGEST_HEADER = 65_536  # bytes; a binary file may have no line break at all
_LONGEST_ROW = 262_144  # bytes; 2,304 values take 9,215, written as fractions some 60,000
_LONGEST_LINE = 2**28  # bytes; what is no row is read to its end, and a few kB unpack to any length
_MOST_LINES = 400  # of one quoted cell
_MOST_BLANK = 2**20  # lines one after the other: as many rows as a sheet of Excel has
_DELIMITERS = (",", ";", "\t", "|")
_LAYOUT = "a CSV file with a column 'pixels' and, if it has labels, 'emotion' and 'Usage'"


class Form(NamedTuple):
    """How a CSV file is laid out: its delimiter, its columns, whether its first line is a row."""

    delimiter: bytes
    width: int
    columns: Columns
    has_header: bool


def read_csv(
    path: Path,
    shown_path: str,
    bad: BadRows,
    progress: Callable[[int, int], None] | None,
    announce: Callable[[Columns], None],
) -> Table:
    """Read every row of a plain, .gz, .xz or .zip CSV file; bad ones go to ``bad``.

    ``progress`` is called with the bytes read of the file as it lies, and its size; ``announce``
    with what was found in the header, before any row is read.
    """
    pixels = PixelBuffer((SIDE, SIDE), shown_path)
    words = _Words({}, {}, {})
    codes, number = bytearray(), []
    with path.open("rb") as packed, _unpacked(packed, path, shown_path) as lines:
        size = path.stat().st_size
        first = lines.readline(_LONGEST_HEADER).removeprefix(b"\xef\xbb\xbf")
        if re.fullmatch(rb'"?sep=.?"?\s*', first):  # Excel's word on the delimiter
            first = lines.readline(_LONGEST_HEADER)
        text = _header(first, shown_path)
        more = _lines(lines, shown_path)
        ahead = list(islice(more, _BLOCK))
        form = _form(text, ahead, shown_path)
        announce(form.columns)
        rows = _numbered_rows(
            chain([first] if not form.has_header else [], ahead, more), shown_path
        )
        while block := list(islice(rows, _BLOCK)):
            good = _read_block(block, form, bad, words)
            pixels.append(good.pixels)
            codes += good.codes.tobytes()
            number.append(good.number)
            check_few(shown_path, words.emotion, "emotion")
            check_few(shown_path, words.usage, "Usage")
            bad.refuse_if_hopeless(len(codes) // good.codes.itemsize // len(words))
            if progress:
                progress(packed.tell(), size)
    if not number:
        raise SourceError(
            f"{shown_path}: a header and no rows, expected a row for each face. "
            "Check that the file is complete."
        )
    coded = np.frombuffer(codes, np.int32).reshape(-1, 3)
    has = (form.columns.emotion, form.columns.usage, form.columns.group)
    columns = [
        None if position is None else Column(coded[:, i], _texts(known))
        for i, (position, known) in enumerate(zip(has, words, strict=True))
    ]
    return Table(pixels.array(), np.concatenate(number), *columns)


class _Words(NamedTuple):
    """The distinct cells seen so far of emotion, Usage and group, and the code of each."""

    emotion: dict[bytes, int]
    usage: dict[bytes, int]
    group: dict[bytes, int]


class _Rows(NamedTuple):
    """The good rows of a block: pixels, the codes of emotion, Usage and group, and numbers."""

    pixels: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.int32]
    number: npt.NDArray[np.int64]


def _texts(words: dict[bytes, int]) -> list[str]:
    return [word.decode("utf-8", "backslashreplace") for word in words]


def _header(first: bytes, shown_path: str) -> str:
    """Return a file's first line; SourceError if it is no text in lines, and read no further."""
    if not first.strip():
        what = "starts with a blank line" if first else "an empty file"
        raise SourceError(f"{shown_path}: {what}, expected {_LAYOUT}. Get the file again.")
    try:
        text = first.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or "\r" in text or len(first) == _LONGEST_HEADER:
        raise SourceError(
            f"{shown_path}: not UTF-8 text in lines, expected {_LAYOUT}. "
            "Save it as CSV in UTF-8, or check that it is the right file."
        )
    return text


def _form(text: str, ahead: list[bytes], shown_path: str) -> Form:
    """Tell a file's layout from its first line and the lines after it.

    Raises
    ------
    SourceError
        It has no pixels, or no header and columns that cannot be told apart.
    """
    read = {delimiter: _cells(text, delimiter) for delimiter in _DELIMITERS}
    for delimiter, cells in read.items():
        # A first line with pixels in it is no header.
        held = [re.split("[ ,]+", cell) for cell in cells if count_values(cell) >= PIXELS // 4]
        if any(map(_are_values, held)) or (_count(cells) >= PIXELS and _are_values(cells)):
            return _guessed(delimiter, [text, *map(_decoded, ahead)], shown_path)
    delimiter = max(read, key=lambda each: len(read[each]))
    names = [name.strip() for name in read[delimiter]]
    holds = None
    if ahead:
        cells = _cells(_decoded(ahead[0]), delimiter)
        full = [i for i, cell in enumerate(cells) if count_values(cell) >= PIXELS // 4]
        if len(full) == 1 and len(cells) == len(names):
            holds = full[0]
    if any(Path(word).suffix.lower() in IMAGES for word in text.replace(delimiter, " ").split()):
        raise SourceError(
            f"{shown_path}: a list of images ('{shown(text, 30)}'), not of pixels, expected "
            f"{_LAYOUT}. Pass the images instead, and this file with --labels when a head is "
            "fitted, if it holds labels."
        )
    columns = find_columns(names, shown_path, _LAYOUT, holds)
    return Form(delimiter.encode(), len(names), columns, has_header=True)


def _count(cells: list[str]) -> int:
    return sum(whole_number(cell) is not None for cell in cells)


def _are_values(cells: list[str]) -> bool:
    """Tell pixels side by side from columns that are named by numbers, one after the other."""
    numbers = [number for cell in cells if (number := whole_number(cell)) is not None]
    return sum(later - number == 1 for number, later in pairwise(numbers)) * 2 < len(numbers)


def _guessed(delimiter: str, lines: list[str], shown_path: str) -> Form:
    """Tell the columns of a file without a header by what is in them, or refuse to guess."""
    width = len(_cells(lines[0], delimiter))
    rows = [cells for line in lines if len(cells := _cells(line, delimiter)) == width]
    columns = list(zip(*rows, strict=True))
    pixels: list[int] = [
        i for i, cells in enumerate(columns) if all(count_values(cell) > 1 for cell in cells)
    ]
    rest = [i for i in range(width) if i not in pixels]
    if not pixels and width > PIXELS:
        # Of numbers side by side the emotion is the first or the last, and never above 6.
        ends = [i for i in (0, width - 1) if all(_is_label(cell) for cell in columns[i])]
        if width == PIXELS + 1 and len(ends) == 1:
            pixels, rest = [i for i in range(width) if i != ends[0]], ends
    elif not pixels and width == PIXELS:
        pixels, rest = list(range(width)), []
    usage = [i for i in rest if all(usage_of(cell) is not None for cell in columns[i])]
    emotion = [i for i in rest if all(_is_label(cell) for cell in columns[i])]
    unclear = len(usage) > 1 or len(emotion) > 1 or len(pixels) not in (1, PIXELS)
    if unclear or len(usage) + len(emotion) != len(rest):
        raise SourceError(
            f"{shown_path}: no header, and columns that cannot be told apart by what is in them "
            f"('{shown(lines[0], 30)}'), expected {_LAYOUT}. Put a line of their names on top."
        )
    named = dict.fromkeys(pixels, "pixels") | dict.fromkeys(emotion, "emotion")
    named |= dict.fromkeys(usage, "Usage")
    order = dict.fromkeys(named[i] for i in range(width))
    said = f"{shown_path}: no header; the columns are read as {', '.join(order)}"
    lacking = (
        "" if emotion else "no header, and no column that may be the emotion; put names on top"
    )
    return Form(
        delimiter.encode(),
        width,
        Columns(
            tuple(pixels),
            emotion[0] if emotion else None,
            usage[0] if usage else None,
            None,
            lacking,
            (said,),
        ),
        has_header=False,
    )


def _is_label(cell: str) -> bool:
    number = whole_number(cell)
    return emotion_of(cell) is not None if number is None else 0 <= number <= 10


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        return text.split(delimiter)


@contextmanager
def _unpacked(packed: IO[bytes], path: Path, shown_path: str) -> Iterator[IO[bytes]]:
    """Open the CSV text within a file; what fails in unpacking it becomes a SourceError."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".zip":
            with opened_zip(packed) as archive, _only_csv(archive, shown_path) as text:
                yield buffered(text)
        elif suffix == ".gz":
            with gzip.open(packed) as text:
                yield buffered(text)
        elif suffix == ".xz":
            yield buffered(XzFile(packed))
        else:
            yield packed
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{shown_path}: cannot be unpacked ({shown(str(error), 80)}), expected a complete "
            f"{suffix} file. Get the file again."
        ) from error


def _only_csv(archive: zipfile.ZipFile, shown_path: str) -> IO[bytes]:
    """Open the one CSV file in an archive; macOS's own extras do not count."""
    names = [
        name
        for name in archive.namelist()
        if name.lower().endswith((".csv", ".tsv"))
        and not name.startswith("__MACOSX/")
        and not name.rpartition("/")[2].startswith(".")
    ]
    if len(names) == 1:
        try:
            return opened_member(archive, names[0])
        except RuntimeError as error:  # another compression; a password
            raise SourceError(
                f"{shown_path}: cannot be unpacked ({shown(str(error), 80)}), expected a plain "
                ".zip. Unpack it yourself and pass the CSV file."
            ) from error
    listed = f" ({shown(', '.join(names), 80)})" if names else ""
    raise SourceError(
        f"{shown_path}: {len(names) or 'no'} CSV files in it{listed}, expected exactly one. "
        f"Unpack it and pass {'one of them' if names else 'what is in it'}."
    )


def _lines(text: IO[bytes], shown_path: str) -> Iterator[bytes]:
    """Yield line by line; of one that is longer than any row its beginning, longer than that."""
    number = 0
    while line := text.readline(_LONGEST_ROW + 1):
        yield line
        number += 1
        rest, size = line, len(line)
        while len(rest) > _LONGEST_ROW and not rest.endswith(b"\n"):
            if size > _LONGEST_LINE:
                raise SourceError(
                    f"{shown_path}: line {number} below the first has more than {_LONGEST_LINE:,} "
                    "bytes, expected a row of one face in each. Remove it, or check that it is the "
                    "right file."
                )
            rest = text.readline(_LONGEST_ROW + 1)
            size += len(rest)


def _records(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join the lines of a quoted cell that holds line breaks, as NumPy prints arrays in full."""
    for line in lines:
        if line.count(b'"') % 2 == 0:
            yield line
            continue
        parts, size = [line], len(line)
        for more in islice(lines, _MOST_LINES):
            parts.append(more)
            size += len(more)
            if size > _LONGEST_ROW:
                yield from parts
                break
            if more.count(b'"') % 2:
                yield b" ".join(part.rstrip(b"\r\n") for part in parts)
                break
        else:  # a quote that nothing closes spoils its own line alone
            yield from parts


def _numbered_rows(lines: Iterator[bytes], shown_path: str) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number below the header; blank lines at the end are no rows."""
    blank = 0
    for number, line in enumerate(_records(lines), start=1):
        if line.isspace():
            blank += 1
            if blank > _MOST_BLANK:
                raise SourceError(
                    f"{shown_path} row {number}: the {blank:,}th blank line in a row, expected a "
                    "row or the end of the file. Remove them, or check that it is the right file."
                )
            continue
        for earlier in range(number - blank, number):
            yield earlier, b""
        blank = 0
        yield number, line


def _read_block(block: list[tuple[int, bytes]], form: Form, bad: BadRows, words: _Words) -> _Rows:
    """Parse a block of lines at once or, where that fails, row by row for the exact reason."""
    good, pixels = block, None
    with suppress(RowError):
        rows = [_split_row(line, form) for _, line in block]
        pixels = parse_block([_pixels(cells, form) for cells in rows])
    if pixels is None:
        rows, images, good = [], [], []
        for number, line in block:
            word = None
            try:
                cells = _split_row(line, form)
                if form.columns.emotion is not None:
                    word = cells[form.columns.emotion].strip().decode("utf-8", "backslashreplace")
                images.append(parse_cell(_pixels(cells, form)))
            except RowError as error:
                bad.add(f"row {number}", error, word=word)
            else:
                rows.append(cells)
                good.append((number, line))
        pixels = np.array(images, dtype=np.uint8).reshape(-1, PIXELS)
    codes = np.zeros((len(good), len(words)), dtype=np.int32)
    columns = (form.columns.emotion, form.columns.usage, form.columns.group)
    for i, (position, known) in enumerate(zip(columns, words, strict=True)):
        if position is not None:
            said = [cells[position].strip() for cells in rows]
            codes[:, i] = [known.setdefault(word, len(known)) for word in said]
    return _Rows(pixels, codes, np.array([number for number, _ in good], dtype=np.int64))


def _split_row(line: bytes, form: Form) -> list[bytes]:
    """Return a line's cells, as many as there are columns."""
    if not line:
        raise RowError(f"an empty line, expected {form.width:,} columns")
    if len(line) > _LONGEST_ROW:
        raise RowError(f"a line of more than {_LONGEST_ROW:,} bytes, expected a row of one face")
    if b'"' in line:
        text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        try:
            reader = csv.reader([text], delimiter=form.delimiter.decode())
            cells = [cell.encode() for cell in next(reader)]
        except csv.Error as error:
            raise RowError(
                f"not CSV ({error}), expected {form.width:,} columns", "not CSV"
            ) from error
    else:
        cells = line.split(form.delimiter)
    if len(cells) != form.width:
        raise RowError(
            f"{len(cells):,} columns, expected {form.width:,}", "a wrong count of columns"
        )
    for position in (form.columns.emotion, form.columns.usage, form.columns.group):
        if position is not None and len(word := cells[position].strip()) > LONGEST_WORD:
            raise too_long(len(word))
    return cells


def _pixels(cells: list[bytes], form: Form) -> bytes:
    positions = form.columns.pixels
    if len(positions) == 1:
        return cells[positions[0]].strip()
    return b" ".join([cells[position].strip() for position in positions])
