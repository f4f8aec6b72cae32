"""The labels of a file, joined to the rows of a source: by row number, file path or digest."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import shown
from fer_features.faces.emotions import EMOTIONS, NONE, USAGES


@dataclass(frozen=True, eq=False)
class Joined:
    """What a file of labels says of the rows of a source.

    Attributes
    ----------
    emotion : int8 (n,)
        Ids, 0 to 7, or -1 for rows of which the file says none, or nothing.
    matched : int
        Rows that the file has an entry for.
    unmatched : int
        Entries of the file that match no row.
    votes : int64 (n, 9), optional
        As :class:`Labels` has them; 0 where the file says nothing of a row.
    """

    emotion: npt.NDArray[np.int8]
    matched: int
    unmatched: int
    votes: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """A file of labels, read.

    Attributes
    ----------
    name : str
        The file's name, without folders.
    sha256 : str
        Hex sha256 of the file.
    kind : str
        ``"ferplus"`` (votes) or ``"table"``.
    column : str
        The column that was taken for the emotion; empty where there is no header or no such
        column.
    table : DataFrame
        An entry a line: ``emotion`` (int8), and of ``source``, ``digest``, ``file`` (str) and
        ``usage`` (int8) those that the file has; its index is the number of the line, from 1.
    votes : int64 (n, 9), optional
        How many raters said each emotion of an entry, and at last how many said none of them:
        "unknown" or "no face".
    """

    name: str
    sha256: str
    kind: str
    column: str
    table: pd.DataFrame = field(repr=False)
    place: str = field(repr=False)
    votes: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def join(
        self,
        source: npt.NDArray[np.str_],
        digest: npt.NDArray[np.uint8],
        usage: npt.NDArray[np.int8],
        dataset: Mapping[str, Any],
    ) -> Joined:
        """Return what the file says of the rows of a store or of a dataset.

        FER+'s published table is joined by row number, unless ``dataset`` is a folder: then by its
        image names. A table's file is matched by the whole source, else by paths of which one ends
        with the other, else by the last part where that occurs once on either side.

        Parameters
        ----------
        source : str (n,)
            Row numbers or relative file paths.
        digest : uint8 (n, 32)
            sha256 of each row's image.
        usage : int8 (n,)
            Usage ids, -1 for none.
        dataset : mapping
            ``kind``, ``limit`` and ``skipped``, as a store has them.

        Raises
        ------
        SourceError
            FER+'s rows or usages are not the source's, an entry fits several rows or says of one
            row what another entry does not, or no entry matches.
        """
        numbered = dataset.get("kind") != "folder" and all(map(str.isdecimal, source.tolist()))
        if "usage" in self.table and numbered:
            return self._by_row(source, usage, dataset)
        if "source" in self.table or "file" in self.table:
            pairs = self._by_name(source.tolist(), numbered)
        elif "usage" in self.table:
            raise SourceError(
                f"{self.place}: votes by row number, without image names, while the source has "
                f"files, such as {shown(str(source[0]))}; expected a column Image name. Get FER+'s "
                "table again."
            )
        else:
            pairs = self._by_digest(digest)
        if not pairs:
            self._refuse_no_match(source, digest)
        if "source" in self.table and "digest" in self.table:
            self._check_digests(pairs, digest)
        entries, rows = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
        said = pd.DataFrame({"row": rows, "emotion": self.table["emotion"].to_numpy()[entries]})
        unlike = said.groupby("row")["emotion"].transform("nunique") > 1
        if unlike.any():
            of_row = said[said["row"] == said["row"][unlike].iloc[0]].drop_duplicates("emotion")
            self._refuse_contradiction(list(entries[of_row.index[:2]]))
        return self._joined(entries, rows, len(source))

    def check_each_once(self) -> None:
        """Refuse two lines that say different things of one image, whatever they join.

        Raises
        ------
        SourceError
            There are such lines.
        """
        if self.kind == "ferplus" and "usage" in self.table:
            return  # its lines are rows
        emotion = self.table["emotion"].to_numpy()
        paths = self.table[self._key].map(plain_path)
        unlike = self.table.groupby(paths)["emotion"].transform("nunique") > 1
        if unlike.any():
            same = np.flatnonzero(paths == paths[unlike].iloc[0])
            other = same[emotion[same] != emotion[same[0]]]
            self._refuse_contradiction([int(same[0]), int(other[0])])

    def _by_row(
        self,
        source: npt.NDArray[np.str_],
        usage: npt.NDArray[np.int8],
        dataset: Mapping[str, Any],
    ) -> Joined:
        """Join the published table, whose lines are those of fer2013.csv."""
        there = len(self.table)
        number = source.astype(np.int64)
        remedy = "Extract fer2013.csv as it was published, or leave labels out."
        whole = dataset.get("limit") is None and not dataset.get("skipped")
        if whole and len(source) != there:
            raise SourceError(
                f"{self.place}: {there:,} rows of votes, the source has {len(source):,} rows; "
                f"votes join by row number, so expected as many. {remedy}"
            )
        beyond = np.flatnonzero((number < 1) | (number > there))
        if len(beyond):
            raise SourceError(
                f"{self.place}: {there:,} rows of votes, the source has a row "
                f"{number[beyond[0]]:,}; votes join by row number. {remedy}"
            )
        stated = self.table["usage"].to_numpy()[number - 1]
        wrong = np.flatnonzero(stated != usage)
        if len(wrong):
            raise SourceError(
                f"{self.place} row {number[wrong[0]]:,}: Usage {_usage(stated[wrong[0]])}, the "
                f"source has {_usage(usage[wrong[0]])} there, and another in {len(wrong):,} of "
                f"{len(usage):,} rows; votes join by row number, so expected equal ones. {remedy}"
            )
        return self._joined(number - 1, np.arange(len(number)), len(number))

    def _joined(
        self, entries: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], n: int
    ) -> Joined:
        """Return what entries say of rows, one after the other, of n."""
        emotion, votes = np.full(n, NONE, dtype=np.int8), None
        emotion[rows] = self.table["emotion"].to_numpy()[entries]
        if self.votes is not None:
            votes = np.zeros((n, self.votes.shape[1]), dtype=np.int64)
            votes[rows] = self.votes[entries]
        unmatched = len(self.table) - len(set(entries.tolist()))
        return Joined(emotion, len(set(rows.tolist())), unmatched, votes)

    def _by_digest(self, digest: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
        rows = defaultdict(list)
        for row, each in enumerate(digest):
            rows[each.tobytes().hex()].append(row)
        keys = enumerate(self.table["digest"])
        return [(entry, row) for entry, key in keys for row in rows.get(key, ())]

    def _by_name(self, sources: Sequence[str], numbered: bool) -> list[tuple[int, int]]:
        """Return entries and rows that match by file path, or by row number."""
        stated = self.table["source" if "source" in self.table else "file"]
        if numbered:
            self._check_numbers(stated, sources)
        keys = [plain_path(each) for each in stated]
        lasts = pd.Series([last_part(key) for key in keys])
        once = ~lasts.duplicated(keep=False)
        rows = {plain_path(source): row for row, source in enumerate(sources)}
        ends = defaultdict(list)
        for path, row in rows.items():
            for end in _ends(path):
                ends[end].append(row)
        best: dict[int, int] = {}
        found = []
        for entry, key in enumerate(keys):
            level, fitting = 3, [rows[key]] if key in rows else []
            if not fitting:
                level, fitting = 2, ends.get(key, [])
            if not fitting:
                fitting = [rows[end] for end in _ends(key) if end in rows][:1]
            # Where a name occurs in several folders of the table, another folder is another image.
            if not fitting and once[entry]:
                level, fitting = 1, ends.get(lasts[entry], [])
            if len(fitting) > 1:
                raise SourceError(
                    f"{self._at(entry)}: {shown(str(stated.iloc[entry]))!r} fits {len(fitting):,} "
                    f"images of the source, {' and '.join(shown(sources[i]) for i in fitting[:2])}"
                    f"{' among them' * (len(fitting) > 2)}; expected one. Write their paths as "
                    "the source has them."
                )
            for row in fitting:
                best[row] = max(best.get(row, 0), level)
                found.append((entry, row, level))
        return [(entry, row) for entry, row, level in found if level == best[row]]

    def _check_numbers(self, stated: "pd.Series[Any]", sources: Sequence[str]) -> None:
        """Refuse what only looks like the row numbers of a source: files, and counts from 0."""
        if "source" not in self.table:
            raise SourceError(
                f"{self.place}: names files, such as {shown(str(stated.iloc[0]))}, while the "
                f"source's rows have numbers, such as {sources[0]}; expected a column source with "
                "row numbers from 1, or digest. Add one."
            )
        zeros = np.flatnonzero(stated == "0")
        if len(zeros):
            raise SourceError(
                f"{self._at(zeros[0])}: source 0, while rows are counted from 1. Add 1 to each."
            )

    def _check_digests(
        self, pairs: Iterable[tuple[int, int]], digest: npt.NDArray[np.uint8]
    ) -> None:
        for entry, row in pairs:
            if self.table["digest"].iloc[entry] != digest[row].tobytes().hex():
                raise SourceError(
                    f"{self._at(entry)}: another digest than the source's image "
                    f"{shown(str(self.table['source'].iloc[entry]))} has, expected the same image. "
                    "Take the labels of this source, or remove the column digest if its images "
                    "are of another form."
                )

    def _refuse_no_match(self, source: npt.NDArray[np.str_], digest: npt.NDArray[np.uint8]) -> None:
        by_digest = self._key == "digest"
        theirs = digest[0].tobytes().hex() if by_digest else str(source[0])
        raise SourceError(
            f"{self.place}: none of its {len(self.table):,} labels matches a row: the file has "
            f"{shown(str(self.table[self._key].iloc[0]), 70)}, the source {shown(theirs, 70)}. "
            f"Write {'digests' if by_digest else 'names'} as the source has them, or take the "
            "labels of this source."
        )

    def _refuse_contradiction(self, entries: Sequence[int]) -> None:
        first, second = entries
        keys = self.table[self._key]
        ids = [int(self.table["emotion"].iloc[entry]) for entry in entries]
        other = keys.iloc[first] if keys.iloc[first] != keys.iloc[second] else "it"
        raise SourceError(
            f"{self._at(second)}: {shown(str(keys.iloc[second]), 70)} is {_emotion(ids[1])}, but "
            f"{shown(str(other), 70)} is {_emotion(ids[0])} in line {self.table.index[first]}, of "
            "the same image; expected one label. Remove one of the two."
        )

    @property
    def _key(self) -> str:
        return next(each for each in ("source", "file", "digest") if each in self.table)

    def _at(self, entry: int) -> str:
        return f"{self.place} line {self.table.index[entry]}"


def plain_path(name: str) -> str:
    """Return a path as paths are compared: with ``/``, in composed Unicode, as RAF-DB lists it."""
    path = unicodedata.normalize("NFC", str(name)).replace("\\", "/").removeprefix("./")
    return re.sub(r"(?<![^/])((?:train|test)_\d+)_aligned(?=\.\w+$)", r"\1", path)


def last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _ends(path: str) -> list[str]:
    """Return what a path ends with, part by part, the longest first, without itself."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def _emotion(emotion: int) -> str:
    return "none" if emotion == NONE else EMOTIONS[emotion]


def _usage(usage: int) -> str:
    return "none" if usage == NONE else USAGES[usage]
