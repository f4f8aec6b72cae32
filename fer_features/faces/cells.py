"""What a cell or a row of values may hold, to pixels: numbers, text, lists, an encoded image.

Each function returns an image or, in its place, what is wrong with it: the cells of a block are
read together, and one bad one ends nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.faces.bad_rows import RowError, shown
from fer_features.faces.dataset import SIDE
from fer_features.faces.image import Decoded, decode
from fer_features.faces.pixel_text import parse_block, parse_cell
from fer_features.faces.table import PIXELS

Pixels = npt.NDArray[np.uint8]

SHAPES = ((PIXELS,), (SIDE, SIDE), (SIDE, SIDE, 1), (1, SIDE, SIDE))
"""The shapes in which the numbers of a 48x48 grey image are known."""


def whole_pixels(
    values: npt.NDArray[Any],
) -> tuple[Pixels, dict[int, RowError]]:
    """Return numbers of any type, (n, m), as uint8, and by its index what is wrong with a row.

    A row with a value that is no whole number from 0 to 255 is wrong, and its uint8 means nothing.
    """
    if values.dtype == np.uint8:
        return values, {}
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 0) & (values <= 255))
        if values.dtype.kind == "f":
            wrong |= values != np.trunc(values)
        pixels = values.astype(np.uint8)
    errors = {}
    for row in np.flatnonzero(wrong.any(axis=1)).tolist():
        at = int(wrong[row].argmax())
        scaled = " (if values run from 0 to 1, multiply them by 255)"
        errors[row] = RowError(
            f"pixel {at + 1} is '{shown(str(values[row, at]))}', expected a whole number from 0 "
            "to 255" + scaled * bool(((values[row] >= 0) & (values[row] <= 1)).all()),
            "a pixel that is no whole number from 0 to 255",
        )
    return pixels, errors


def word_of(value: Any) -> str:
    """Return a cell as a CSV file would hold it: 3.0 is "3", and what is absent is ""."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    return str(value).strip()


def from_numbers(values: npt.NDArray[Any]) -> list[Pixels | RowError]:
    """Return numbers of any type, (n, m), as images uint8 (m,), each or what is wrong with it."""
    pixels, errors = whole_pixels(values)
    return [errors.get(i, image) for i, image in enumerate(pixels)]


def from_text(cells: Sequence[str | bytes | None]) -> list[Pixels | RowError]:
    """Return texts of 2,304 values as images uint8 (2304,)."""
    encoded = [
        cell.encode("utf-8", "backslashreplace") if isinstance(cell, str) else cell or b""
        for cell in cells
    ]
    pixels = parse_block(encoded)
    return [_parsed(cell) for cell in encoded] if pixels is None else list(pixels)


def _parsed(cell: bytes) -> Pixels | RowError:
    try:
        return parse_cell(cell)
    except RowError as error:
        return error


def from_list(cell: Any) -> Pixels | RowError:
    """Return 2,304 numbers, or 48 lists of 48, as an image uint8 (2304,)."""
    if cell is None:
        return RowError(f"no pixels, expected {PIXELS} ({SIDE}x{SIDE})")
    try:
        values = np.array(cell)
    except ValueError:
        values = np.array(None)
    if values.dtype.kind not in "iuf":
        return RowError(
            f"missing pixels or lines of uneven length, expected {PIXELS} ({SIDE}x{SIDE})"
        )
    if values.shape not in SHAPES:
        found = "x".join(map(str, values.shape))
        expected = f"expected {PIXELS} ({SIDE}x{SIDE})"
        return RowError(f"{found} pixels, {expected}", "a wrong count of pixels")
    return from_numbers(values.reshape(1, PIXELS))[0]


def from_encoded(cell: Any, size: int, color: bool) -> Decoded | RowError:
    """Decode the bytes of an image, or Hugging Face's ``{"bytes": ..., "path": ...}``.

    Called within :func:`fer_features.faces.image.remarks_ignored`.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None:
        path = cell.get("path") if isinstance(cell, dict) else None
        if path:
            return RowError(
                f"no image, only the path '{shown(path)}', expected its bytes",
                "a path without an image",
            )
        return RowError("no image, expected its bytes")
    try:
        return decode(data, size, color)
    except RowError as error:
        return error
