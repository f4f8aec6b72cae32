"""Faces in rows and columns: what a CSV file, a Parquet file and arrays have in common.

Which column holds what is found by its name; what the cells say of emotion and usage is kept as
words until all of them are known.
"""

import re
from array import array
from collections.abc import Iterable, Sequence, Sized
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import BadRows, RowError, is_utf8, one_or_many, shown
from fer_features.faces.dataset import SIDE
from fer_features.faces.emotions import (
    EMOTION_WORDS,
    EMOTIONS,
    NONE,
    USAGES,
    AmbiguousNumbersError,
    Wording,
    did_you_mean,
    emotion_of,
    usage_of,
)

PIXELS = SIDE * SIDE
"""How many grey values an image written as text has."""

PIXEL_COLUMNS = (
    "pixels", "pixel", "pixelvalues", "pixelvalue", "pixelstring", "pixeldata", "imagepixels",
    "imagedata",
)  # fmt: skip
"""Names of the column that holds an image's values, as :func:`plain_name` writes them."""

EMOTION_COLUMNS = (
    "emotion", "emotions", "emotionlabel", "emotionname", "emotionid", "emotionclass",
    "expression", "expressionlabel", "facialexpression", "expr", "label", "labels", "class",
    "classes", "classname", "category", "target", "targets", "y", "feeling", "sentiment", "affect",
)  # fmt: skip
"""Names under which emotions go, the surest first. Of a source only "emotion" is read; what another
means is for its owner to say."""

FILE_COLUMNS = (
    "file", "filename", "filepath", "image", "imagename", "imagepath", "imagefile", "img",
    "imgname", "imgpath", "path", "pth", "name",
)  # fmt: skip
"""Names of the column that says of which image a label is."""

_NUMBERED = re.compile(r"(pixels?|pix|px|p|)([0-9]{1,5})")
"""The name of one of many columns that hold a pixel each."""

_SPLITS = ("split", "set", "subset", "partition", "fold")


LONGEST_WORD = 200
"""Bytes of a cell that says an emotion, a usage or a group, at most: every row takes as many."""

_MOST_WORDS = 1000
"""Different words for emotions or for usages, at most."""

BAD = NONE - 1
"""The id of a cell that says nothing that can be read."""


def plain_name(name: object) -> str:
    """Return a column's name as names are compared: letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def may_be_emotion(name: object) -> bool:
    """Tell whether emotions go under a column's name, though it is not called "emotion"."""
    return plain_name(name) in EMOTION_COLUMNS[2:]


class Column(NamedTuple):
    """Cells that hold words: the distinct ones, and which of them each row has.

    ``codes`` is int32 (n,), ``words`` are as many as there are different cells.
    """

    codes: npt.NDArray[np.int32]
    words: list[str]


class Table(NamedTuple):
    """The good rows of a source: pixels uint8 (n, h, w) or (n, h, w, 3), and what is said of them.

    ``number`` is int64 (n,): a row's number, from 1. Columns that the source lacks are None.
    """

    pixels: npt.NDArray[np.uint8]
    number: npt.NDArray[np.int64]
    emotion: Column | None
    usage: Column | None
    group: Column | None


class Columns(NamedTuple):
    """Where the known columns are: positions, or None; ``pixels`` are several in a wide table.

    ``unlabelled`` says, of a table without an emotion, what was found instead and what to do.
    """

    pixels: tuple[int, ...]
    emotion: int | None
    usage: int | None
    group: int | None
    unlabelled: str
    said: tuple[str, ...] = ()


def find_columns(
    names: Sequence[str], place: str, layout: str, pixels: int | None = None
) -> Columns:
    """Return which of the columns of these names hold what.

    Parameters
    ----------
    names : sequence of str
        The header.
    place, layout : str
        For messages: the source, and what is expected.
    pixels : int, optional
        The column that holds pixels by what is in it, whatever its name.

    Raises
    ------
    SourceError
        No column holds pixels, one is there twice, or a name is nearly that of a known column.
    """
    plain = [plain_name(name) for name in names]
    said: list[str] = []
    found = _pixels(plain, names, place)
    if not found and pixels is not None:
        found = (pixels,)
        said.append(f"{place}: column '{shown(names[pixels])}' is read as the pixels")
    emotion = _position(plain, ("emotion",), place)
    usage = _position(plain, ("usage",), place)
    group = _position(plain, ("group",), place)
    if group is None:
        group = _position(plain, ("subject",), place)
    known = {*found, emotion, usage, group}
    absent = {
        "pixels": not found, "emotion": emotion is None, "Usage": usage is None,
    }  # fmt: skip
    for position, name in enumerate(names):
        # A misspelt 'emotion' must not pass for a file without emotions.
        hint = did_you_mean(name, [each for each, is_absent in absent.items() if is_absent])
        if position not in known and not may_be_emotion(name) and hint:
            raise SourceError(
                f"{place}: unknown column '{shown(name)}'{hint}, expected {layout}. "
                "Rename the column."
            )
    if not found:
        _refuse_without_pixels(names, plain, place, layout, emotion)
    if usage is None:
        for each in _SPLITS:
            if each in plain:
                said.append(
                    f"{place}: no column 'Usage'; if column '{each}' says it, name it 'Usage'"
                )
                break
    unlabelled = "" if emotion is not None else _instead_of_emotion(names)
    return Columns(found, emotion, usage, group, unlabelled, tuple(said))


def _pixels(plain: list[str], names: Sequence[str], place: str) -> tuple[int, ...]:
    for name in PIXEL_COLUMNS:
        position = _position(plain, (name,), place)
        if position is not None:
            return (position,)
    series: dict[str, dict[int, int]] = {}
    for position, name in enumerate(plain):
        if match := _NUMBERED.fullmatch(name):
            series.setdefault(match[1], {}).setdefault(int(match[2]), position)
    numbered = max(series.values(), key=len, default={})
    if len(numbered) < PIXELS // 4:
        return ()
    start = min(numbered)
    wanted = range(start, start + PIXELS)
    if start > 1 or len(numbered) != PIXELS or any(number not in numbered for number in wanted):
        raise SourceError(
            f"{place}: {len(numbered):,} columns of pixels, '{shown(names[numbered[start]])}' to "
            f"'{shown(names[numbered[max(numbered)]])}', expected {PIXELS:,} in a row "
            f"({SIDE}x{SIDE}). Get the file again, or give the images as files."
        )
    return tuple(numbered[number] for number in wanted)


def _position(plain: list[str], known: tuple[str, ...], place: str) -> int | None:
    there = [position for position, name in enumerate(plain) if name in known]
    if len(there) > 1:
        name = "Usage" if known[0] == "usage" else known[0]
        raise SourceError(
            f"{place}: column '{name}' occurs {len(there)} times, expected once. "
            "Remove all but one."
        )
    return there[0] if there else None


def _refuse_without_pixels(
    names: Sequence[str], plain: list[str], place: str, layout: str, emotion: int | None
) -> None:
    header = shown(",".join(names), 60)
    votes = sum(emotion_of(name) is not None for name in plain) >= 6
    labels = emotion is not None or votes or any(map(may_be_emotion, names))
    files = any(name in (*FILE_COLUMNS, "source", "digest") for name in plain)
    if labels and files:
        what = "FER+'s votes" if votes and "nf" in plain else "a list of labels"
        raise SourceError(
            f"{place}: {what} without pixels (header '{header}'), expected {layout}. Pass the "
            "images instead, and this file with --labels when a head is fitted."
        )
    raise SourceError(
        f"{place}: no column 'pixels' in the header '{header}', expected {layout}. "
        "Name the column 'pixels'."
    )


def _instead_of_emotion(names: Sequence[str]) -> str:
    """Say what a table has that may be its emotions, and what to do."""
    hot = [name for name in names if emotion_of(name) is not None]
    if len(hot) > 2:
        return (
            f"no column 'emotion'; columns {', '.join(map(shown, hot))} look like one for each "
            "emotion: put the name of each row's into a column 'emotion'"
        )
    other = [name for name in names if may_be_emotion(name)]
    if other:
        named = " or ".join(f"'{shown(name)}'" for name in other)
        return f"no column 'emotion'; if {named} holds them, name it 'emotion'"
    return (
        f"no column 'emotion' in the header '{shown(','.join(names), 60)}'; add one, or give "
        "labels with --labels when a head is fitted"
    )


class Coding:
    """A column of words as it is read: each word is held once, however many rows say it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes = array("i")

    def __len__(self) -> int:
        """Return how many different words there are."""
        return len(self._known)

    def add(self, words: Iterable[str]) -> None:
        known = self._known
        self._codes.extend(known.setdefault(word, len(known)) for word in words)

    def column(self) -> Column:
        return Column(np.array(self._codes, dtype=np.int32), list(self._known))


def coded(words: Iterable[str]) -> Column:
    """Return cells as a column of words."""
    coding = Coding()
    coding.add(words)
    return coding.column()


def too_long(size: int) -> RowError:
    """Return what is wrong with a row that has a longer word than :data:`LONGEST_WORD`."""
    return RowError(
        f"{size:,} letters in a cell, expected a word of at most {LONGEST_WORD}", "an endless word"
    )


def check_few(place: str, words: Sized, column: str) -> None:
    """Refuse a column of emotions or of usages in which nearly every row says something else.

    Raises
    ------
    SourceError
        There are more different words than any source has.
    """
    if len(words) > _MOST_WORDS:
        raise SourceError(
            f"{place}: more than {_MOST_WORDS:,} different words in column '{column}', expected "
            "a few that occur again and again. Name the right column so."
        )


def emotions(
    table: Table, name: str, wording: Wording, bad: BadRows, skip_bad: bool
) -> tuple[npt.NDArray[np.int8], dict[str, int]]:
    """Return each row's emotion id, :data:`BAD` for a bad row's, and what each word means.

    Raises
    ------
    SourceError
        Numbers can be read in several ways, or words are unknown and not to be skipped; or nearly
        every row says something else as its emotion or usage.
    """
    for said, of in ((table.emotion, "emotion"), (table.usage, "Usage")):
        check_few(name, said.words if said else (), of)
    column = table.emotion
    if column is None:
        return np.full(len(table.number), NONE, np.int8), {}
    try:
        meant = wording.read({*column.words, *bad.words}, "fer2013")
    except AmbiguousNumbersError as error:
        raise SourceError(f"{name}: {error}.") from None
    ids = np.array([meant.get(word, BAD) for word in column.words], dtype=np.int8)
    unknown = [i for i in np.unique(column.codes).tolist() if ids[i] == BAD]
    expected = f"expected a number from 0 to 6 or a word ({', '.join(EMOTIONS)})"
    if wording.labels_as is not None:
        expected = f"expected a number of {wording.labels_as} or a word ({EMOTIONS[0]}, ...)"
    listed = []
    for code in unknown:
        word, rows = column.words[code], np.flatnonzero(column.codes == code)
        found = f"emotion '{shown(word)}'" if word else "a blank emotion"
        hint = did_you_mean(word, EMOTION_WORDS)
        first = f"row {table.number[rows[0]]}"
        if skip_bad:
            finding = RowError(f"{found}{hint}, {expected}", f"rows with {found}")
            bad.add(_first_of(rows, first), finding, rows=len(rows), word=word)
        else:
            of = first if len(rows) == 1 else f"{one_or_many(len(rows), 'row')}, the first {first}"
            listed.append(f"{found}{hint} ({of})")
    if listed:
        word = shown(column.words[unknown[0]])
        more = f"; and {len(listed) - 20} more" if len(listed) > 20 else ""
        raise SourceError(
            f"{name}: {'; '.join(listed[:20])}{more}; {expected}. Say what each means with "
            f'map={{"{word}": "EMOTION"}} or map={{"{word}": "none"}} ("*" is every other word), '
            "or pass skip_bad=True to leave them out."
        )
    return ids[column.codes], meant


def _first_of(rows: npt.NDArray[np.int64], first: str) -> str:
    return first if len(rows) == 1 else f"{first} and {len(rows) - 1:,} more"


def usages(table: Table, emotion: npt.NDArray[np.int8], bad: BadRows) -> npt.NDArray[np.int8]:
    """Return each row's usage id, :data:`BAD` where its cell is bad.

    Rows of a bad ``emotion``, int8 (n,), are among the bad ones already.
    """
    column, number = table.usage, table.number
    if column is None:
        return np.full(len(number), NONE, np.int8)
    ids = np.full(len(column.words), BAD, np.int8)
    for code, word in enumerate(column.words):
        usage = usage_of(word)
        rows = np.flatnonzero((column.codes == code) & (emotion != BAD))
        if usage is not None:
            ids[code] = usage
        elif len(rows):
            found = f"Usage '{shown(word)}'" if word else "a blank Usage"
            hint = did_you_mean(word, USAGES)
            error = RowError(
                f"{found}{hint}, expected {', '.join(USAGES[:-1])} or {USAGES[-1]}",
                f"rows with {found}",
            )
            first = f"row {number[rows[0]]}"
            bad.add(_first_of(rows, first), error, rows=len(rows))
            if table.emotion is not None:
                said = table.emotion.codes[rows].tolist()
                bad.words.update(table.emotion.words[each] for each in said)
    return ids[column.codes]


def groups(table: Table, chosen: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.str_]:
    """Return the groups of the chosen rows, str (k,); empty where there is none."""
    column = table.group
    if column is None:
        return np.full(len(chosen), "")
    for word in column.words:
        if "\0" in word or not is_utf8(word):
            raise SourceError(
                f"{name}: group '{shown(word)}', which holds a NUL character or no UTF-8, expected "
                "text that a store can keep. Name it otherwise."
            )
    return np.array(column.words, dtype=np.str_)[column.codes[chosen]]
