"""Pixels written as text, ``"70 80 82 ..."``, to arrays."""

import re

import numpy as np
import numpy.typing as npt

from fer_features.faces.bad_rows import RowError, shown
from fer_features.faces.dataset import SIDE
from fer_features.faces.table import PIXELS

_MARKS = bytes.maketrans(b"[](){},;\t", b"         ")
_FRACTION_OF_NOTHING = re.compile(rb"(?<=[0-9])\.0*(?= |$)")


def parse_block(cells: list[bytes]) -> npt.NDArray[np.uint8] | None:
    """Parse cells of 2,304 values, to uint8 (n, 2304), or return None: some cell is none.

    Values stand with a space between, which is fast, or as :func:`parse_cell` takes them.
    """
    pixels = parse_plain(cells)
    return parse_plain([_plain(cell) for cell in cells]) if pixels is None else pixels


def count_values(cell: str) -> int:
    """Return how many values a cell holds if it holds nothing but numbers, else 0.

    Between them stand spaces or commas: other marks may be those between a table's columns.
    """
    plain = re.sub(r"[\[\](){},]", " ", cell.strip()).encode("utf-8", "backslashreplace")
    values = [value for value in plain.split(b" ") if value]
    return len(values) if all(re.fullmatch(rb"[+-]?[0-9.eE+-]+", each) for each in values) else 0


def _plain(cell: bytes) -> bytes:
    """Write values as they usually are: no brackets or commas, no fraction that is zero."""
    return _FRACTION_OF_NOTHING.sub(b"", b" ".join(cell.translate(_MARKS).split()))


def parse_plain(cells: list[bytes]) -> npt.NDArray[np.uint8] | None:
    """Parse cells of 2,304 values with one space between them: to uint8 (n, 2304), or None.

    None means that some cell is not of that form, or holds a value above 255: nothing is
    guessed, and :func:`parse_cell` says which one and why. All cells are parsed at once, by
    adding to each separator's position the three characters before it.
    """
    if any(len(cell) >= 4 * PIXELS for cell in cells):
        return None  # three digits and a space each: it holds too much, or is not plain
    text = b"    " + b" ".join(cells) + b" "  # four spaces: every digit has three before it
    chars = np.frombuffer(text, dtype=np.uint8)
    digit = chars - np.uint8(ord("0"))
    is_digit = digit < 10
    is_space = chars == ord(" ")
    if not (is_digit | is_space).all():
        return None
    digit *= is_digit
    # Index i of the arrays below looks at the position i + 3 and at the three before it.
    end = is_space[3:]
    hundreds = digit[:-3] * is_digit[1:-2]
    rest = digit[1:-2] * np.uint8(10)
    rest += digit[2:-1]
    wrong = (hundreds == 2) & (rest > 55)
    wrong |= hundreds > 2
    wrong |= is_space[2:-1]  # two separators in a row: a blank is not a 0
    wrong &= end
    wrong |= is_digit[:-3] & is_digit[1:-2] & is_digit[2:-1] & is_digit[3:]
    ends = np.flatnonzero(end)[1:]
    cell_ends = np.cumsum([len(cell) + 1 for cell in cells])
    if (
        wrong[1:].any()
        or len(ends) != len(cells) * PIXELS
        or not np.array_equal(ends[PIXELS - 1 :: PIXELS], cell_ends)
    ):
        return None
    hundreds *= np.uint8(100)
    hundreds += rest
    return hundreds.take(ends).reshape(len(cells), PIXELS)


def parse_cell(cell: bytes) -> npt.NDArray[np.uint8]:
    """Parse one cell of 2,304 whole numbers, 0 to 255, to uint8 (2304,).

    Spaces or commas stand between them, brackets around them; ``7.0`` is 7.

    Raises
    ------
    RowError
        Another count of values, or a value that is no such number.
    """
    if b"..." in cell:
        raise RowError(
            "pixels cut short by '...', as NumPy prints long arrays, expected all "
            f"{PIXELS:,} ({SIDE}x{SIDE})"
        )
    values = _plain(cell).split()
    if not values:
        raise RowError(f"no pixels, expected {PIXELS} ({SIDE}x{SIDE})")
    for position, value in enumerate(values[: PIXELS + 1], start=1):
        if not value.isdigit() or len(value) > 9 or int(value) > 255:
            scaled = " (if values run from 0 to 1, multiply them by 255)"
            raise RowError(
                f"pixel {position} is '{shown(value)}', expected a whole number from 0 to 255"
                + scaled * bool(re.fullmatch(rb"0?\.[0-9]+(e-?[0-9]+)?|[0-9.]+e-[0-9]+", value)),
                "a pixel that is no whole number from 0 to 255",
            )
    if len(values) != PIXELS:
        raise RowError(
            f"{len(values)} pixels, expected {PIXELS} ({SIDE}x{SIDE})", "a wrong count of pixels"
        )
    return np.array([int(value) for value in values], dtype=np.uint8)
