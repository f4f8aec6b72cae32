"""Faces from folders of images: which files there are, and what their places say of them.

The layout is ``[usage folder/]emotion folder/any depth/image``.
"""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import BadRows, did_you_mean, shown
from fer_features.faces.emotions import EMOTION_WORDS, EMOTIONS, NONE, USAGES
from fer_features.faces.image import SUFFIXES

USAGE_FOLDERS = {
    "train": 0, "training": 0,
    "valid": 1, "validation": 1, "val": 1, "publictest": 1,
    "test": 2, "testing": 2, "privatetest": 2,
}  # fmt: skip
"""Folder names in lower case, and the usage id each means."""

_USAGE_FILE = re.compile(rf"({'|'.join(USAGES)})_", re.IGNORECASE)
_USAGE_IDS = {name.lower(): i for i, name in enumerate(USAGES)}


class Place(NamedTuple):
    """An image file: its path relative to the folder, with ``/``, and what that path says."""

    path: str
    emotion: int
    usage: int


def list_images(folder: Path, bad: BadRows) -> list[str]:
    """Return the relative paths of a folder's image files, with ``/``, sorted.

    Hidden files and folders and other suffixes are passed over; links are followed. What cannot
    be looked at goes to ``bad``: links in a circle or to nothing, folders without permission,
    and image names that are no regular files.
    """
    found: list[str] = []
    root = folder.stat()
    # Each folder waits with the folders above it: a link back to one of those is a circle.
    waiting = [("", {(root.st_dev, root.st_ino)})]
    while waiting:
        inside, above = waiting.pop()
        try:
            entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
        except OSError as error:
            bad.add(shown_name(inside), f"cannot be listed ({error.strerror})")
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            is_image = Path(entry.name).suffix.lower() in SUFFIXES
            if entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if is_image or not isinstance(error, FileNotFoundError):
                    bad.add(shown_name(name), f"cannot be followed ({error.strerror})")
                continue
            if stat.S_ISDIR(status.st_mode):
                status = Path(entry.path).stat()  # on Windows an entry does not know its number
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    bad.add(shown_name(name), "a link back to a folder above it")
                else:
                    waiting.append((name, above | {identity}))
            elif is_image and not stat.S_ISREG(status.st_mode):
                bad.add(shown_name(name), "no regular file, expected an image")
            elif is_image:
                found.append(name)
    return sorted(found)


def place_images(paths: list[str], shown_path: str, bad: BadRows) -> list[Place]:
    """Say of each image what its path says; those whose path says nothing usable go to ``bad``.

    Raises
    ------
    SourceError
        There are no image files.
    """
    if not paths and not bad.count:
        raise SourceError(
            f"{shown_path}: no images, expected folders named by emotion with images in them "
            f"({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))}). Check the path."
        )
    places, loose, unknown = [], [], dict[str, int]()
    for path in paths:
        *folders, name = path.split("/")
        if not _is_utf8(path):
            bad.add(shown_name(path), "a name that is not UTF-8, which a store cannot keep")
            continue
        usage = NONE
        within = ""
        if folders and folders[0].lower() in USAGE_FOLDERS:
            within = folders.pop(0)
            usage = USAGE_FOLDERS[within.lower()]
        if match := _USAGE_FILE.match(name):
            usage = _USAGE_IDS[match[1].lower()]
        if not folders:
            loose.append(Place(path, NONE, usage))
        elif (emotion := EMOTION_WORDS.get(folders[0].strip().lower())) is not None:
            places.append(Place(path, emotion, usage))
        else:
            folder = f"{within}/{folders[0]}".lstrip("/")
            unknown[folder] = unknown.get(folder, 0) + 1
    for folder, count in unknown.items():
        _add_unknown(folder, count, bad)
    if not places:
        return loose
    for place in loose:
        bad.add(shown_name(place.path), "outside the emotion folders beside it, expected in one")
    return places


def _add_unknown(folder: str, count: int, bad: BadRows) -> None:
    name = folder.rpartition("/")[2]
    hint = did_you_mean(name, {word: word for word in EMOTION_WORDS})
    images = "1 image" if count == 1 else f"{count} images"
    finding = (
        f"a folder of {images} whose name is no emotion{hint}, expected {', '.join(EMOTIONS[:-1])} "
        f"or {EMOTIONS[-1]}"
    )
    bad.add(shown_name(folder), finding, rows=count)


def shown_name(path: str | os.PathLike[str]) -> str:
    """Return a path for a message; bytes that are not UTF-8 become backslash escapes."""
    return shown(os.fsencode(path), width=4096)


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
