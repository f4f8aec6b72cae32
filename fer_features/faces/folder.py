"""Faces from folders of images: which files there are, and what their places say of them.

The layout is ``[usage folder/]emotion folder/any depth/image``, in whichever order, within folders
that wrap all of it, or one folder for each person above the emotions.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from fer_features.errors import OptionError, SourceError
from fer_features.faces.bad_rows import BadRows, RowError, is_utf8, one_or_many, shown
from fer_features.faces.emotions import (
    EMOTION_WORDS,
    EMOTIONS,
    NONE,
    OTHERS,
    AmbiguousNumbersError,
    Wording,
    did_you_mean,
    emotion_of,
    usage_of,
)
from fer_features.faces.image import SUFFIXES, UNREADABLE, is_image, readable

_SYSTEM = re.compile(
    r"\._.*|\.DS_Store|Thumbs\.db|ehthumbs\.db|desktop\.ini|Icon\r|__MACOSX|@eaDir|\$RECYCLE\.BIN"
    r"|System Volume Information|\.git.*|\.ipynb_checkpoints|\.Trash.*|\.Spotlight-V100"
    r"|\.fseventsd|\.thumbnails|\.directory|\.localized|\.AppleDouble",
    re.IGNORECASE,
)
"""Names of what a system or a tool leaves in folders: nobody means it as an image."""

_USAGE_FILE = re.compile(
    r"(Training|PublicTest|PrivateTest)_|(train|test)_\d{4,6}(?:_aligned)?\.", re.IGNORECASE
)
"""File names that say their Usage: those of FER2013's images, and of RAF-DB's."""

_PERSON = re.compile(r"(subject|subj|sub|person|participant|actor|user|id|vp|[a-z]{0,2})[ _-]?#")
"""What the names of persons' folders are like, their number aside."""

_EXAMPLE = 'such as group_by="^([^/_]+)[/_]" for S01/happy/3.png or S01_3.png'
_MOST = 20
"""How many unknown names a message shows; it counts the others."""

_LABEL_FILES = (".csv", ".tsv", ".txt")


class Listing(NamedTuple):
    """The image files of a folder, and what else lies there.

    ``images`` and ``others`` are relative paths with ``/``, sorted; ``left_out`` says by kind how
    many files are not taken for images.
    """

    images: list[str]
    others: list[str]
    left_out: dict[str, int]


class Place(NamedTuple):
    """An image file: its path relative to the folder, with ``/``, and what that path says."""

    path: str
    emotion: int
    usage: int
    group: str


class Layout(NamedTuple):
    """The images whose places say something usable, and what is to be said of the whole.

    ``unlabelled`` is why none of them has an emotion, and what to do; else empty.
    """

    places: list[Place]
    said: list[str]
    unlabelled: str


def list_images(folder: Path, bad: BadRows) -> Listing:
    """Return the relative paths of a folder's image files, and count the other files.

    Files are images by their suffix or, with another or none, by their first bytes. Hidden files
    and folders are counted, and what belongs to the system is passed over. Links are followed, to
    each folder once: a few folders of links to one another would hold thousands of one image.
    What cannot be looked at goes to ``bad``: links to nothing or to a folder that is read already,
    folders without permission, and image names that are no regular files.
    """
    images: list[str] = []
    others: list[str] = []
    unreadable: list[str] = []
    hidden = 0
    formats = readable()
    suffixes = {suffix for suffix, kind in SUFFIXES.items() if kind in formats}
    # Links wait until all else is read: a folder has its own name before that of a link to it.
    waiting, links = [""], list[str]()
    known: dict[tuple[int, int], str] = {}
    while waiting or links:
        inside = waiting.pop() if waiting else heappop(links)
        try:
            status = (folder / inside).stat()  # on Windows an entry does not know its number
            first = known.setdefault((status.st_dev, status.st_ino), inside)
            if first != inside:
                bad.add(shown_name(inside), _read_already(inside, first))
                continue
            entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
        except OSError as error:
            bad.add(shown_name(inside), f"cannot be listed ({error.strerror})")
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if _SYSTEM.fullmatch(entry.name):
                continue
            if entry.name.startswith("."):
                hidden += 1
                continue
            suffix = Path(entry.name).suffix.lower()
            named_so = suffix in suffixes
            try:
                status = entry.stat()
            except OSError as error:
                if named_so or not isinstance(error, FileNotFoundError):
                    bad.add(shown_name(name), f"cannot be followed ({error.strerror})")
                else:
                    others.append(name)
                continue
            if stat.S_ISDIR(status.st_mode):
                if entry.is_symlink():
                    heappush(links, name)
                else:
                    waiting.append(name)
            elif named_so and not stat.S_ISREG(status.st_mode):
                bad.add(shown_name(name), "no regular file, expected an image")
            elif named_so or (stat.S_ISREG(status.st_mode) and is_image(Path(entry.path))):
                images.append(name)
            elif suffix in UNREADABLE or suffix in SUFFIXES:
                unreadable.append(name)
            else:
                others.append(name)
    left_out = {
        _with_suffixes("images of a kind that cannot be read", unreadable): len(unreadable),
        _with_suffixes("files that are no images", others): len(others),
        "hidden files and folders": hidden,
    }
    return Listing(sorted(images), sorted(others), {kind: n for kind, n in left_out.items() if n})


def _read_already(link: str, first: str) -> RowError:
    if not first or link.startswith(f"{first}/"):
        return RowError("a link back to a folder above it")
    return RowError(
        f"a link to {shown_name(first)}, which is read already",
        "a link to a folder that is read already",
    )


def place_images(
    listing: Listing,
    folder: Path,
    name: str,
    bad: BadRows,
    wording: Wording,
    group_by: str | None = None,
    skip_bad: bool = False,
) -> Layout:
    """Say of each image what its path says; those whose path says nothing usable go to ``bad``.

    Parameters
    ----------
    listing : Listing
        Of ``folder``, which messages call ``name``.
    wording : Wording
        How the names of folders are read.
    group_by : str, optional
        A regular expression, searched in each path: its first group is the person or sequence.
    skip_bad : bool
        Folders whose names are no emotions go to ``bad`` instead of being an error.

    Raises
    ------
    SourceError
        There are no images, folders whose names are no emotions, or emotions in several places
        that may be several data sets; or ``group_by`` does not say a group of each image.
    """
    paths = listing.images
    if not paths and not bad.count:
        raise SourceError(
            f"{name}: no images, expected folders named by emotion with images in them "
            f"({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})."
            f"{_instead(listing)} Check the path."
        )
    group_of = _grouping(group_by, name)
    read = _Reader(wording)
    labelled, rest = dict[str, tuple[int, int]](), list[str]()
    for path in paths:
        if not is_utf8(path):
            bad.add(
                shown_name(path),
                "a name that is not UTF-8, which a store cannot keep",
                word=read.word_of(path),
            )
            continue
        said = read.folder(path.rpartition("/")[0])
        if said.contradiction:
            bad.add(shown_name(path), said.contradiction, word=read.word_of(path))
        elif said.emotion is None:
            rest.append(path)
        else:
            labelled[path] = (said.emotion, said.usage)
    notes = _one_data_set(labelled, read, name, group_by)
    loose, unknown = _unknown_folders(rest, labelled, read, _tables(listing.others))
    if unknown:
        meant = _read_words(unknown, wording, name)
        for word in list(unknown):
            if word in meant:
                for path in unknown.pop(word).paths:
                    labelled[path] = (meant[word], read.folder(path.rpartition("/")[0]).usage)
    if unknown:
        _refuse_unknown(unknown, name, bad, skip_bad)
    unlabelled = ""
    if labelled:
        for path in loose:
            bad.add(
                shown_name(path),
                "outside the emotion folders beside it, expected in one",
            )
    else:
        labelled = {path: (NONE, read.folder(path.rpartition("/")[0]).usage) for path in loose}
        unlabelled = _unlabelled(loose, listing.others, folder) if loose else ""
    places, conflicts = [], list[str]()
    for path in sorted(labelled):
        emotion, usage = labelled[path]
        named = _usage_of_file(path.rpartition("/")[2])
        if usage == NONE:
            usage = named
        elif named not in (NONE, usage):
            conflicts.append(path)
        places.append(Place(path, emotion, usage, group_of(path)))
    if conflicts:
        notes.append(
            f"{name}: {one_or_many(len(conflicts), 'file')} named for another Usage than the "
            f"folder says ({shown_name(conflicts[0])}): the folder counts"
        )
    return Layout(places, notes, unlabelled)


class _Said(NamedTuple):
    """What the folders above an image say; ``place`` is where its emotion stands among them."""

    parts: tuple[str, ...]
    emotion: int | None
    usage: int
    place: int
    contradiction: str


class _Reader:
    """Reads what folders say, each once."""

    def __init__(self, wording: Wording) -> None:
        self.wording = wording
        self._known: dict[str, _Said] = {}
        self._words: dict[str, int | None] = {}

    def folder(self, folders: str) -> _Said:
        if folders not in self._known:
            self._known[folders] = self._read(tuple(folders.split("/")) if folders else ())
        return self._known[folders]

    def emotion(self, word: str) -> int | None:
        """Return the emotion that a folder's name means: by the map, as a word, as a number."""
        if word not in self._words:
            wording = Wording(
                {key: name for key, name in self.wording.mapped.items() if key != OTHERS},
                self.wording.labels_as,
            )
            try:
                self._words[word] = wording.read([word], None).get(word)
            except AmbiguousNumbersError:
                self._words[word] = None
        return self._words[word]

    def usage(self, word: str) -> int | None:
        return None if self.emotion(word) is not None else usage_of(word)

    def word_of(self, path: str) -> str | None:
        """Return the emotion that an image's folders name first."""
        said = self.folder(path.rpartition("/")[0])
        return None if said.emotion in (None, NONE) else EMOTIONS[said.emotion]

    def _read(self, parts: tuple[str, ...]) -> _Said:
        emotions = [(i, self.emotion(part)) for i, part in enumerate(parts)]
        emotions = [(i, emotion) for i, emotion in emotions if emotion is not None]
        usages = [usage for part in parts if (usage := self.usage(part)) is not None]
        wrong = ""
        if len({emotion for _, emotion in emotions}) > 1:
            names = ", ".join(parts[i] for i, _ in emotions)
            wrong = f"in folders of several emotions ({shown_name(names)}), expected one"
        elif len(set(usages)) > 1:
            wrong = "in folders of several Usages, expected one"
        place, emotion = emotions[0] if emotions else (len(parts), None)
        return _Said(parts, emotion, usages[0] if usages else NONE, place, wrong)

    def above(self, said: _Said) -> tuple[str, ...]:
        """Return the folders above the emotion that say nothing: a wrapper's, or a person's."""
        return tuple(part for part in said.parts[: said.place] if self.usage(part) is None)


def _one_data_set(
    labelled: dict[str, tuple[int, int]], read: _Reader, name: str, group_by: str | None
) -> list[str]:
    """Refuse emotion folders in several places, unless they are one for each person."""
    above = Counter(read.above(read.folder(path.rpartition("/")[0])) for path in labelled)
    if len(above) < 2 or group_by is not None:
        return []
    levels = [set(level) for level in zip(*above, strict=False)]
    varying = [level for level in levels if len(level) > 1]
    same_depth = len({len(each) for each in above}) == 1
    if same_depth and len(varying) == 1 and _are_persons(varying[0]):
        first = min(varying[0])
        form = re.sub(r"\d+", r"\\d+", re.escape(first))
        return [
            f"{name}: {len(varying[0]):,} folders such as {shown_name(first)} above the "
            f"emotions: if they are persons, --group-by '(?:^|/)({form})/' keeps each in one "
            "split"
        ]
    places = sorted(above)
    holding = [each for each in places if any(o[: len(each)] == each != o for o in places)]
    listed = [
        f"{shown_name('/'.join(each)) or 'the folder itself'} ({one_or_many(above[each], 'image')}"
        + f"{', and more within it' * (each in holding)})"
        for each in places
    ]
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    inner = " that holds no other" * bool(holding)
    raise SourceError(
        f"{name}: emotion folders in {len(listed)} places, {', '.join(listed[:4])}{more}, which "
        f"may be several data sets, expected one. Pass one of these folders{inner}, or, if they "
        'are persons or parts of one, group_by="^([^/]+)/" or what else tells them apart.'
    )


def _are_persons(names: set[str]) -> bool:
    """Tell whether folders are named as persons are: alike but for a number."""
    forms = {re.sub(r"\d+", "#", each.casefold()) for each in names}
    return len(forms) == 1 and _PERSON.fullmatch(forms.pop()) is not None


class _Unknown(NamedTuple):
    """The images in folders of one name that is no emotion; ``folder`` is the first of them."""

    folder: str
    paths: list[str]

    def said(self, unit: str, hint: str = "") -> str:
        above, _, word = self.folder.rpartition("/")
        first = f", first in {shown_name(above)}" * bool(above)
        return f"{shown_name(word)}{hint} ({one_or_many(len(self.paths), unit)}{first})"


def _unknown_folders(
    rest: list[str], labelled: dict[str, tuple[int, int]], read: _Reader, tables: list[str]
) -> tuple[list[str], dict[str, _Unknown]]:
    """Tell images that lie in no folder of their own from those in folders of unknown names.

    One folder of all of them, beside a table that may hold labels, is none of its own.
    """
    holding = set[tuple[str, ...]]()  # folders right above an emotion's
    wraps = set[tuple[str, ...]]()  # folders anywhere above one
    for folders in {path.rpartition("/")[0] for path in labelled}:
        said = read.folder(folders)
        holding.add(said.parts[: said.place])
        wraps |= {said.parts[:i] for i in range(said.place + 1)}
    dirs = {folders: read.folder(folders).parts for folders in {p.rpartition("/")[0] for p in rest}}
    common = 0
    if not labelled and dirs:
        # What wraps all of it says nothing of an image, unless it is all there is.
        bare = [[part for part in parts if read.usage(part) is None] for parts in dirs.values()]
        if tables and all(each == bare[0] for each in bare):
            return rest, {}
        while all(len(each) > common + 1 for each in bare):
            here, below = ({each[level] for each in bare} for level in (common, common + 1))
            if len(here) > 1 and (not _are_persons(here) or _are_persons(below)):
                break
            common += 1
    loose, unknown = list[str](), dict[str, _Unknown]()
    for path in rest:
        parts = dirs[path.rpartition("/")[0]]
        at = max((i for i in range(len(parts)) if parts[:i] in holding), default=-1)
        if at < 0 and parts not in wraps:
            saying = [i for i, part in enumerate(parts) if read.usage(part) is None]
            at = saying[min(common, len(saying) - 1)] if saying else -1
        while 0 <= at < len(parts) and (read.usage(parts[at]) is not None):
            at += 1
        if at < 0 or at >= len(parts) or parts in wraps:
            loose.append(path)
        else:
            there = unknown.setdefault(parts[at], _Unknown("/".join(parts[: at + 1]), []))
            there.paths.append(path)
    return loose, unknown


def _read_words(unknown: dict[str, _Unknown], wording: Wording, name: str) -> dict[str, int]:
    try:
        return wording.read(unknown, None)
    except AmbiguousNumbersError as error:
        raise SourceError(f"{name}: folders named by {error}.") from None


def _refuse_unknown(unknown: dict[str, _Unknown], name: str, bad: BadRows, skip_bad: bool) -> None:
    expected = f"expected {', '.join(EMOTIONS[:-1])} or {EMOTIONS[-1]}"
    if skip_bad:
        for word, there in unknown.items():
            hint = did_you_mean(word, EMOTION_WORDS)
            error = RowError(
                f"a folder whose name is no emotion{hint}, {expected}",
                f"images in folders named {shown_name(word)}",
            )
            bad.add(there.said("file"), error, rows=len(there.paths), word=word)
        return
    listed = [
        there.said("image", did_you_mean(word, EMOTION_WORDS))
        for word, there in sorted(unknown.items())
    ]
    more = f" and {len(listed) - _MOST:,} more" if len(listed) > _MOST else ""
    many = len(listed) > 1
    word = shown_name(min(unknown))
    raise SourceError(
        f"{name}: {'folders' if many else 'a folder'} whose name{'s are' if many else ' is'} no "
        f"emotion{'s' * many}: {', '.join(listed[:_MOST])}{more}; {expected}. Say what each means "
        f'with map={{"{word}": "EMOTION"}} or map={{"{word}": "none"}} ("*" is every other word), '
        "or pass skip_bad=True to leave them out."
    )


def _unlabelled(loose: list[str], others: list[str], folder: Path) -> str:
    """Say of a folder without emotions what was found instead, and what to do."""
    own = folder.resolve().name
    said = "no image lies in a folder named by an emotion"
    if emotion_of(own) is not None:
        return f"{said}; the folder itself is named '{shown_name(own)}': pass the folder above it"
    if tables := _tables(others):
        return (
            f"{said}; if {shown_name(tables[0])} holds the labels, pass it with --labels when a "
            "head is fitted"
        )
    speaking = [path for path in loose if _emotion_in_name(path) is not None]
    if len(speaking) * 2 > len(loose):
        return (
            f"{said}; names such as {shown_name(speaking[0])} speak of emotions: move the images "
            "into a folder for each"
        )
    return (
        f"{said}; move the images into a folder for each, or give labels with --labels when a "
        "head is fitted"
    )


def _tables(others: list[str]) -> list[str]:
    """Return the files that may hold labels."""
    return [
        path
        for path in others
        if path.lower().endswith(_LABEL_FILES) and not re.search(r"(?i)readme|licen[cs]e", path)
    ]


def _emotion_in_name(path: str) -> int | None:
    words = re.split(r"[\W\d_]+", path.rpartition("/")[2].rpartition(".")[0])
    found = {emotion for word in words if (emotion := emotion_of(word)) is not None}
    return found.pop() if len(found) == 1 else None


def _usage_of_file(name: str) -> int:
    match = _USAGE_FILE.match(name)
    usage = usage_of(match[1] or match[2]) if match else None
    return NONE if usage is None else usage


def _grouping(group_by: str | None, name: str) -> Callable[[str], str]:
    """Return what says an image's group by its path."""
    if group_by is None:
        return lambda path: ""
    pattern = compiled(group_by)

    def group(path: str) -> str:
        match = pattern.search(path)
        if match is None or not match[1]:
            raise SourceError(
                f"{name}/{shown_name(path)}: group_by={group_by!r} finds no group in it, "
                "expected one in each path. Change the expression."
            )
        return str(match[1])

    return group


def compiled(group_by: str) -> re.Pattern[str]:
    """Return the regular expression whose first group tells images of one person from others'.

    Raises
    ------
    OptionError
        It is none, or has no group.
    """
    try:
        pattern = re.compile(group_by)
    except (re.error, TypeError) as error:
        raise OptionError(
            f"group_by: {group_by!r} is no regular expression ({error}), expected one, {_EXAMPLE}."
        ) from error
    if not pattern.groups:
        raise OptionError(
            f"group_by: {group_by!r} has no group in parentheses, expected one around what names "
            f"the person or sequence, {_EXAMPLE}."
        )
    return pattern


def _instead(listing: Listing) -> str:
    found = [f"{kind}: {n:,}" for kind, n in listing.left_out.items()]
    return f" Found {'; '.join(found)}." if found else ""


def _with_suffixes(kind: str, paths: Sequence[str]) -> str:
    suffixes = sorted({Path(path).suffix.lower() or "no suffix" for path in paths})
    return f"{kind} ({shown(', '.join(suffixes), 60)})"


def shown_name(path: str | os.PathLike[str]) -> str:
    """Return a path for a message; bytes that are not UTF-8 become backslash escapes."""
    return shown(os.fsencode(path), width=4096)
