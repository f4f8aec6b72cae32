"""Labels from elsewhere, joined to a source's rows: FER+'s votes, RAF-DB's list, a table."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_features.errors import OptionError, SourceError
from fer_features.faces.bad_rows import in_words, shown
from fer_features.faces.emotions import (
    EMOTIONS,
    NONE,
    USAGES,
    AmbiguousNumbersError,
    Wording,
    usage_of,
    whole_number,
)
from fer_features.faces.joining import Labels, last_part, plain_path
from fer_features.faces.table import EMOTION_COLUMNS, FILE_COLUMNS, plain_name

VOTES = (
    "neutral", "happiness", "surprise", "sadness", "anger",
    "disgust", "fear", "contempt", "unknown", "nf",
)  # fmt: skip
"""What FER+'s ten raters could vote for, in the order of its columns; NF is "no face"."""

_BOX = re.compile(r"\(\d+, *\d+, *\d+, *\d+\)")
_RAFDB = re.compile(r"(?:train|test)_\d{4,6}(?:_aligned)?\.jpg")
_EXPECTED = (
    "FER+'s votes, RAF-DB's list, or a table of text with a column source, digest or file and a "
    "column emotion"
)
_MOST_WORDS = 20

_MOST_BYTES, _MOST_CELLS, _LONGEST_LINE = 2**28, 2**25, 2**16
"""Of a file of labels, which is held whole: ten million images take half as many cells."""


def read_labels(
    path: str | os.PathLike[str],
    *,
    labels_as: str | None = None,
    map: Mapping[str, str] | tuple[tuple[str, str], ...] | None = None,  # noqa: A002
    min_agreement: float = 0.0,
) -> Labels:
    """Read a file of labels.

    It may be FER+'s published table (``fer2013new.csv``, one line a row of ``fer2013.csv``), one
    of the ``label.csv`` beside its images, RAF-DB's ``list_patition_label.txt``, or a table: text
    in columns with comma, semicolon, tab or space between. A table has a column ``source`` or
    ``digest`` as a store has them, or ``file`` (``filename``, ``image``, ``path`` ...), and a
    column ``emotion`` (``label``, ``expression``, ``class`` ...) of words or FER2013's numbers;
    or no header and two columns, file and emotion.

    Parameters
    ----------
    path : path-like
        The file.
    labels_as : str, optional
        Whose numbers a table's are: a name of :data:`~fer_features.faces.emotions.ORDERS`.
    map : mapping of str to str, optional
        What words or numbers mean: an emotion, or ``"none"``. Of votes: what a winner is read as.
    min_agreement : float
        0 to 1. Of votes, the winner's least share of all of an image's votes; below, the image
        has no emotion.

    Notes
    -----
    The emotion of votes is the one that got most. There is none where "unknown" or "no face" got
    most, or where two got equally many. The votes are those of Barsoum, Zhang, Canton Ferrer and
    Zhang, "Training deep networks for facial expression recognition with crowd-sourced label
    distribution", ICMI 2016.

    Raises
    ------
    SourceError
        The file is missing, empty, not text, none of these, or holds words and numbers that mean
        no emotion, or two emotions for one image.
    OptionError
        A parameter has a bad value.
    """
    wording = Wording(map or {}, labels_as)
    least = checked_agreement(min_agreement)
    place = shown(os.fspath(path), 200)
    content = _content(Path(path), place)
    cells = _cells(_text(content, place), place)
    names = [plain_name(name) for name in cells.iloc[0]]
    headed = bool({*FILE_COLUMNS, *EMOTION_COLUMNS, "source", "digest", "usage"} & set(names))
    rows = cells.iloc[1:] if headed else cells
    if rows.empty:
        raise SourceError(f"{place}: a header and no labels, expected {_EXPECTED}.")
    column = ""
    if headed and set(VOTES) <= set(names):
        kind, table = "ferplus", _published(rows, names, place)
        votes = _votes(rows, [names.index(v) for v in VOTES], place)
    elif not headed and len(names) == 12 and _BOX.fullmatch(str(rows.iloc[0, 1])):
        kind, table = "ferplus", pd.DataFrame({"file": rows[0]})
        votes = _votes(rows, list(range(2, 12)), place)
    else:
        votes = None
        kind, (table, words, column) = "table", _columns(rows, cells, names, headed, place)
        if least:
            raise SourceError(
                f"{place}: no votes, while min_agreement={least:g} asks for their agreement. "
                "Leave that out."
            )
        table["emotion"] = _read_words(words, table, wording, headed, place)
    if kind == "ferplus" and wording.labels_as not in (None, "ferplus"):
        raise SourceError(
            f"{place}: FER+'s votes, which name their emotions, while "
            f'labels_as="{wording.labels_as}" is for numbers. Leave that out.'
        )
    if votes is not None:
        table["emotion"], votes = _of_votes(votes, wording, least)
    sha256 = hashlib.sha256(content).hexdigest()
    labels = Labels(Path(path).name, sha256, kind, column, table, place, votes)
    labels.check_each_once()
    return labels


def checked_agreement(share: float) -> float:
    """Return a share of votes, 0 to 1, as a float.

    Raises
    ------
    OptionError
        It is something else.
    """
    number = isinstance(share, int | float | np.number) and not isinstance(share, bool)
    if not number or not 0 <= share <= 1:
        raise OptionError(
            f"min_agreement: {share!r}, expected a share of the votes from 0 to 1, such as 0.5."
        )
    return float(share)


def _content(path: Path, place: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise SourceError(f"{place}: no such file, expected {_EXPECTED}. Check the path.") from None
    except IsADirectoryError:
        raise SourceError(
            f"{place}: a folder, expected one file of labels. Name the file; several of one form "
            "can be written one after the other into one."
        ) from None
    except OSError as error:
        raise SourceError(
            f"{place}: cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if len(content) > _MOST_BYTES:
        raise SourceError(_too_much(f"more than {_MOST_BYTES:,} bytes", place))
    return content


def _too_much(what: str, place: str) -> str:
    return f"{place}: {what}, expected {_EXPECTED}. Check that it is the right file."


def _text(content: bytes, place: str) -> str:
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        what, remedy = "an empty file", "Get the file again"
    elif stands_for := in_words(content[:100]):
        what, remedy = stands_for
    else:
        try:
            text = content.decode("utf-8-sig")
            if text.strip() and "\0" not in text:
                return text
        except UnicodeDecodeError:
            pass
        what = "not text in UTF-8"
        remedy = "Unpack it, save it as CSV in UTF-8, or check that it is the right file"
    raise SourceError(f"{place}: {what}, expected {_EXPECTED}. {remedy}.")


def _cells(text: str, place: str) -> pd.DataFrame:
    """Return all cells as str; the index is the number of the line, from 1."""
    # Counted before they are made: a line of nothing is one byte here, and many in a table.
    breaks = sum(map(text.count, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
    if breaks > _MOST_CELLS:
        raise SourceError(_too_much(f"{breaks:,} line breaks", place))
    every = text.splitlines()
    blank = next(i for i, line in enumerate(every) if line.strip())  # pandas takes none at the top
    lines = every[blank:]
    first = [line for line in lines if line.strip()][:20]
    if len(first[0]) > _LONGEST_LINE:
        raise SourceError(_too_much(f"a first line of {len(first[0]):,} letters", place))
    beginnings = [line[:10_000] for line in first]  # the csv module refuses longer cells
    counted = {
        separator: [len(row) for row in csv.reader(beginnings, delimiter=separator)]
        for separator in "\t;,"
    }
    fit = [each for each, counts in counted.items() if min(counts) > 1 and len({*counts}) == 1]
    fit += [each for each, counts in counted.items() if counts[0] > 1]
    if fit:
        held = len(lines) * counted[fit[0]][0]
        if held > _MOST_CELLS:
            raise SourceError(_too_much(f"a table of {held:,} cells", place))
        try:
            cells = pd.read_csv(
                io.StringIO("\n".join(lines)),
                sep=fit[0],
                header=None,
                dtype="str",
                keep_default_na=False,
                skip_blank_lines=False,
                skipinitialspace=True,
            )
        except ValueError as error:  # pandas's ParserError is one
            found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
            if found is None:
                said = str(error).strip().removeprefix("Error tokenizing data. C error: ")
                raise SourceError(
                    f"{place}: no table ({said}), expected {_EXPECTED}. Mend it."
                ) from None
            expected, line, saw = map(int, found.groups())
            raise SourceError(
                f"{place} line {line + blank}: {saw} columns, expected {expected} as in the first "
                "line. Mend it."
            ) from None
        cells = cells.fillna("")
    else:
        # A file's name may hold spaces; then the last word is the label.
        parts = [line.split() for line in lines]
        headed = {*EMOTION_COLUMNS} & {plain_name(each) for each in first[0].split()}
        if not headed or len({len(each) for each in parts if each}) > 1:
            parts = [line.strip().rsplit(None, 1) for line in lines]
        cells = pd.DataFrame([each or [""] for each in parts], dtype="str").fillna("")
    cells.index += 1 + blank
    cells = cells.apply(lambda column: column.str.strip())
    filled: pd.DataFrame = cells[(cells != "").any(axis=1)]
    return filled


def _published(rows: pd.DataFrame, names: Sequence[str], place: str) -> pd.DataFrame:
    """Return the usages and the image names of FER+'s published table."""
    files = [each for each in FILE_COLUMNS if each in names]
    if not files and "usage" not in names:
        raise SourceError(
            f"{place}: votes without a column Usage or Image name, expected FER+'s table. "
            "Get the file again."
        )
    table = pd.DataFrame(index=rows.index)
    if files:
        table["file"] = rows[names.index(files[0])]
    if "usage" in names:
        words = rows[names.index("usage")]
        known = {word: usage_of(str(word)) for word in words.unique()}
        strange = words[[known[word] is None for word in words]]
        if len(strange):
            raise SourceError(
                f"{place} line {strange.index[0]}: Usage {shown(strange.iloc[0])!r}, expected "
                f"{', '.join(USAGES)}. Mend that line."
            )
        table["usage"] = words.map(known).astype(np.int8)
    return table


def _votes(rows: pd.DataFrame, columns: list[int], place: str) -> npt.NDArray[np.int64]:
    """Return how many voted for each of ``VOTES`` in each row, int64 (n, 10)."""
    votes = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for position, column in enumerate(columns):
        counts = rows[column].map(lambda cell: whole_number(cell))
        wrong = counts.isna() | (counts < 0)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise SourceError(
                f"{place} line {rows.index[first]}: {shown(str(rows[column].iloc[first]))!r} "
                f"votes for {VOTES[position]}, expected a whole number. Mend that line."
            )
        votes[:, position] = counts
    return votes


def _of_votes(
    votes: npt.NDArray[np.int64], wording: Wording, least: float
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Return the emotion most voted for, int8 (n,), and the votes as ``Labels`` has them."""
    meant = wording.read(VOTES, None)
    emotion = np.array([meant.get(name, NONE) for name in VOTES], dtype=np.int8)
    most = votes.max(axis=1)
    tied = (votes == most[:, None]).sum(axis=1) > 1
    too_few = most / np.maximum(votes.sum(axis=1), 1) < least
    winner = np.where(tied | too_few, np.int8(NONE), emotion[votes.argmax(axis=1)])
    by_emotion = np.zeros((len(votes), len(EMOTIONS) + 1), dtype=np.int64)
    for position, each in enumerate(emotion):
        by_emotion[:, each] += votes[:, position]  # NONE, -1, is the last
    return winner, by_emotion


def _columns(
    rows: pd.DataFrame, cells: pd.DataFrame, names: Sequence[str], headed: bool, place: str
) -> tuple[pd.DataFrame, "pd.Series[Any]", str]:
    """Return a table's keys, its words for emotions, and the name of their column."""
    header = ", ".join(str(name) for name in cells.iloc[0])
    if not headed:
        if len(names) != 2:
            raise SourceError(
                f"{place}: {len(names)} column{'s' * (len(names) > 1)} and none called file or "
                f"emotion in the first line '{shown(header, 60)}', expected {_EXPECTED}. "
                "Name them in a first line."
            )
        return pd.DataFrame({"file": rows[0]}), rows[1], ""
    emotions = [each for each in EMOTION_COLUMNS if each in names]
    files = [each for each in FILE_COLUMNS if each in names]
    if not emotions:
        raise SourceError(
            f"{place}: no column emotion in the header '{shown(header, 60)}', expected one "
            "called emotion, label, expression or class. Rename it."
        )
    table = pd.DataFrame(index=rows.index)
    for key in ("source", "digest"):
        if key in names:
            table[key] = rows[names.index(key)]
    if table.columns.empty:
        if not files:
            raise SourceError(
                f"{place}: no column says which image a label is of in the header "
                f"'{shown(header, 60)}', expected one called source, digest or file. Rename it."
            )
        table["file"] = rows[names.index(files[0])]
    if "source" in table:
        numbers = {word: whole_number(word) for word in table["source"].unique()}
        table["source"] = [
            word if numbers[word] is None else str(numbers[word]) for word in table["source"]
        ]
    if "digest" in table:
        table["digest"] = table["digest"].str.lower()
        strange = table[~table["digest"].str.fullmatch(r"[0-9a-f]{64}")]
        if len(strange):
            raise SourceError(
                f"{place} line {strange.index[0]}: digest "
                f"{shown(strange['digest'].iloc[0])!r}, expected 64 hexadecimal digits, the "
                "sha256 that a store has. Mend that line."
            )
    column = names.index(emotions[0])
    return table, rows[column], str(cells.iloc[0, column])


def _read_words(
    words: "pd.Series[Any]", keys: pd.DataFrame, wording: Wording, headed: bool, place: str
) -> npt.NDArray[np.int8]:
    """Return the emotion of each word, int8 (n,); an empty cell is none."""
    counts = words[words != ""].value_counts(sort=False)
    rafdb = "file" in keys and all(
        _RAFDB.fullmatch(last_part(plain_path(each))) for each in keys["file"]
    )
    numbers = [whole_number(word) for word in counts.index]
    rafdb = rafdb and all(number in range(1, 8) for number in numbers)
    try:
        found = wording.read(counts.index, "rafdb" if rafdb else "fer2013")
    except AmbiguousNumbersError as error:
        raise SourceError(f"{place}: {error}.") from None
    unknown = {word: int(n) for word, n in counts.items() if word not in found}
    if unknown:
        listed = ", ".join(
            f"{shown(str(word))!r} ({n:,})" for word, n in list(unknown.items())[:_MOST_WORDS]
        )
        more = len(unknown) - _MOST_WORDS
        first = words.iloc[0]
        header = (
            " If the first line is a header, call its columns file and emotion."
            if not headed and unknown.get(first) == 1
            else ""
        )
        named = shown(str(next(iter(unknown))))
        raise SourceError(
            f"{place}: {sum(unknown.values()):,} of {len(words):,} labels are no emotion: "
            f"{listed}{f' and {more:,} more' if more > 0 else ''}; expected "
            f"{', '.join(EMOTIONS)}, or FER2013's numbers. Say what each means with "
            f'map={{"{named}": "EMOTION"}}, or "none".{header}'
        )
    return np.array([found.get(word, NONE) for word in words], dtype=np.int8)
