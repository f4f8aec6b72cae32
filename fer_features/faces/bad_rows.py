"""The bad rows of one source: collected while it is read, reported together at its end."""

from difflib import get_close_matches

from fer_features.errors import SourceError

NAMED = 5
"""How many bad rows a message names; it counts the others."""


class RowError(Exception):
    """One row that is not a labelled face; the message says what was found and expected."""


class BadRows:
    """What is wrong with a source, row by row, so that one error can tell of all of it.

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
    """

    def __init__(self, source: str, unit: str, joint: str, remedies: tuple[str, str]) -> None:
        self.source = source
        self.unit = unit
        self.joint = joint
        self.remedies = remedies
        self.count = 0
        self._findings: list[tuple[str, str]] = []
        self._entries = 0

    def add(self, place: str, finding: str, rows: int = 1) -> None:
        """Note a finding at a place within the source; it stands for ``rows`` bad rows."""
        self.count += rows
        self._entries += 1
        if len(self._findings) < NAMED:
            self._findings.append((place, finding))

    def close(self, good: int, skip_bad: bool) -> int:
        """Return how many rows are left out, or raise the one error that tells of them.

        Raises
        ------
        SourceError
            There are bad rows and ``skip_bad`` is false, or no good row is left.
        """
        if not self.count or (skip_bad and good):
            return self.count
        if skip_bad:
            raise SourceError(
                f"{self.source}: no good {self.unit} left of {self.count}: {self._listed()}. "
                "Mend the source."
            )
        if self._entries == 1:
            ((place, finding),) = self._findings
            raise SourceError(
                f"{self.source}{self.joint}{place}: {finding}. "
                f"{self.remedies[0]} or pass --skip-bad."
            )
        raise SourceError(
            f"{self.source}: {self.count} bad {self.unit}s: {self._listed()}. "
            f"{self.remedies[1]} or pass --skip-bad."
        )

    def _listed(self) -> str:
        listed = "; ".join(f"{place}: {finding}" for place, finding in self._findings)
        more = self._entries - len(self._findings)
        return f"{listed}; and {more} more" if more else listed


def shown(text: str | bytes, width: int = 40) -> str:
    """Return foreign text for a message: on one line, printable, and not longer than it helps."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    cut = text if len(text) <= width else text[: width - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def did_you_mean(name: str, known: dict[str, str], cutoff: float = 0.6) -> str:
    """Return ``" (did you mean 'X'?)"`` for a misspelt name, else ``""``.

    ``known`` maps what a name is compared with, in lower case, to what is proposed.
    """
    close = get_close_matches(name.strip().lower(), known, n=1, cutoff=cutoff)
    return f" (did you mean {known[close[0]]!r}?)" if close else ""
