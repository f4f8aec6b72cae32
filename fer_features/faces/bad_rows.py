"""The bad rows of one source: collected while it is read, told of together, each kind once."""

import re
from collections import Counter
from typing import NamedTuple

from fer_features.errors import SourceError

NAMED = 5
"""How many kinds of bad row, and places of each, a message shows; it counts the others."""


KEPT = 20
"""How many kinds a dataset keeps the count of: a file of nothing but strange words has no end."""


MOST_WORDS = 1000
"""How many words of bad rows are kept: theirs may be anything."""

HOPELESS, FEW = 2**20, 10
"""From how many bad rows on a source is given up, and how many times as many as good ones."""


class RowError(Exception):
    """One row that is not a labelled face.

    The message says what was found and expected; ``kind`` says what rows that are bad in the same
    way have in common, and is the message where that names nothing of one row alone.
    """

    def __init__(self, finding: str, kind: str | None = None) -> None:
        super().__init__(finding)
        self.kind = kind or finding


class _Kind(NamedTuple):
    """Rows bad in one way: where the first few are, what was found in the first, how many."""

    places: tuple[str, ...]
    finding: str
    entries: int
    rows: int

    @property
    def line(self) -> str:
        more = self.entries - len(self.places)
        return f"{', '.join(self.places)}{f' and {more:,} more' * bool(more)}: {self.finding}"


class BadRows:
    """What is wrong with a source, kind by kind, so that one error can tell of all of it.

    Parameters
    ----------
    source : str
        The source as the user named it.
    unit : str
        ``"row"`` or ``"file"``: what a bad one is called in messages.
    joint : str
        What stands between the source and the place within it: ``" "`` or ``"/"``.
    remedies : (str, str)
        What to do about one bad row, and about several, such as ``"Remove the row"``.

    Attributes
    ----------
    count : int
        How many bad rows there are.
    words : Counter of str
        What the bad rows say of their emotion, as far as they say it; a thousand words at most.
    """

    def __init__(self, source: str, unit: str, joint: str, remedies: tuple[str, str]) -> None:
        self.source = source
        self.unit = unit
        self.joint = joint
        self.remedies = remedies
        self.words: Counter[str] = Counter()
        self._kinds: dict[str, _Kind] = {}

    @property
    def count(self) -> int:
        return sum(kind.rows for kind in self._kinds.values())

    @property
    def by_kind(self) -> dict[str, int]:
        """How many rows are bad in each way; beyond the first twenty ways, in all others."""
        counts = [(name, kind.rows) for name, kind in self._kinds.items()]
        others = sum(count for _, count in counts[KEPT:])
        return dict(counts[:KEPT]) | ({"bad in other ways": others} if others else {})

    def add(
        self, place: str, error: RowError | str, rows: int = 1, word: str | None = None
    ) -> None:
        """Note what is wrong at a place within the source; it stands for ``rows`` bad rows.

        ``word`` is what they say of their emotion.
        """
        kind = error.kind if isinstance(error, RowError) else error
        places, finding, entries, count = self._kinds.get(kind, _Kind((), str(error), 0, 0))
        places = (*places, place)[:NAMED]
        self._kinds[kind] = _Kind(places, finding, entries + 1, count + rows)
        if word is not None and (word in self.words or len(self.words) < MOST_WORDS):
            self.words[word] += rows

    def refuse_if_hopeless(self, good: int) -> None:
        """Read no further where so many rows are bad, and so few good, that it is another file.

        Raises
        ------
        SourceError
            It is so.
        """
        count = self.count
        if count > max(HOPELESS, FEW * good):
            raise SourceError(
                f"{self.source}: {count:,} bad {self.unit}s of the first {count + good:,}, and "
                f"read no further: {self._listed()}. Check that it is the right file."
            )

    def close(self, good: int, skip_bad: bool) -> int:
        """Return how many rows are left out, or raise the one error that tells of them.

        Raises
        ------
        SourceError
            There are bad rows and ``skip_bad`` is false, or no good row is left.
        """
        count = self.count
        if not count or (skip_bad and good):
            return count
        if skip_bad:
            raise SourceError(
                f"{self.source}: no good {self.unit} left of {count:,}: {self._listed()}. "
                "Mend the source."
            )
        if count == 1:
            (kind,) = self._kinds.values()
            raise SourceError(
                f"{self.source}{self.joint}{kind.line}. {self.remedies[0]} or pass skip_bad=True."
            )
        raise SourceError(
            f"{self.source}: {count:,} bad {self.unit}s: {self._listed()}. "
            f"{self.remedies[1]} or pass skip_bad=True."
        )

    def left_out(self) -> list[str]:
        """Return a line for each kind of bad row: how many, and the first of them."""
        return [
            f"{self.source}: left out {one_or_many(kind.rows, self.unit)}: {kind.line}"
            for kind in self._kinds.values()
        ]

    def _listed(self) -> str:
        shown = [kind.line for kind in list(self._kinds.values())[:NAMED]]
        more = len(self._kinds) - len(shown)
        return "; ".join([*shown, *[f"and {one_or_many(more, 'kind')} more"] * bool(more)])


def one_or_many(count: int, unit: str) -> str:
    """Return ``"1 row"`` or ``"2,304 rows"``."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def shown(text: str | bytes, width: int = 40) -> str:
    """Return foreign text for a message: on one line, printable, and not longer than it helps."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    cut = text if len(text) <= width else text[: width - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def is_utf8(text: str) -> bool:
    """Tell whether a text can be written in UTF-8, as a store keeps it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def in_words(start: bytes) -> tuple[str, str] | None:
    """Say what a file is that was meant to be another, by its first bytes, and what to do.

    None if it is nothing that is often taken for the file that it stands for.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "Run 'git lfs pull' where it came from"
    if re.match(rb"<(!doctype html|html|head)", text):
        return "a web page, not the file itself", "Download the file again, logged in if need be"
    return None
