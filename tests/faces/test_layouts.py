"""A catalogue of layouts that people have: what is read of each, and what is said or refused.

Every layout is made in a temporary folder. An image's pixels say which file it is, so that a row
can be told from another; of a CSV file ``@`` stands for a face's 2,304 values.
"""

import gzip
import io
import logging
import lzma
import os
import re
import subprocess
import sys
import textwrap
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, features

from fer_features.errors import OptionError, SourceError
from fer_features.faces import folder as folder_module
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS, USAGES
from fer_features.faces.reading import read_faces

LEFT_OUT = "left out, and counted"
UNSAID = "the system's, of which nothing is said"

KINDS = {
    ".png": "PNG", "": "PNG", ".dat": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG",
    ".jfif": "JPEG", ".avif": "AVIF", ".jp2": "JPEG2000", ".webp": "WEBP", ".bmp": "BMP",
    ".tif": "TIFF", ".pgm": "PPM",
}  # fmt: skip
if not features.check("avif"):
    del KINDS[".avif"]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 301072766\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def words(text: str) -> list[str]:
    """Return the words of a text: shorter to read than a list."""
    return text.split()


SEVEN = words("anger disgust fear happiness sadness surprise neutral")
RAFDB = words("surprise fear disgust happiness sadness anger neutral")
AFFECTNET = words("neutral happiness sadness surprise fear disgust anger contempt none none none")
CKPLUS = words("neutral anger contempt disgust fear happiness sadness surprise")
FERPLUS = words("neutral happiness surprise sadness anger disgust fear contempt none none")
EXPECTED = "expected anger, disgust, fear, happiness, sadness, surprise, neutral or contempt"
WORDS = f"a number from 0 to 6 or a word ({', '.join(EMOTIONS)})"
HEAD = "when a head is fitted"


def said_of(faces: FaceDataset) -> list[str]:
    """Return what is known of each row in words: ``"happiness Training S1"``, ``"none"``."""
    rows = zip(faces.emotion.tolist(), faces.usage.tolist(), faces.group.tolist(), strict=True)
    words = [
        (
            "none" if emotion < 0 else EMOTIONS[emotion],
            "-" if usage < 0 else USAGES[usage],
            group,
        )
        for emotion, usage, group in rows
    ]
    return [" ".join(each).rstrip(" -") for each in words]


def matches(expected: str, line: str) -> bool:
    """Tell whether a line is as expected, where ``…`` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), line) is not None


def read(source: Path, caplog: Any, **options: Any) -> tuple[FaceDataset, list[str]]:
    """Read a source, and return the lines logged, without the folder it was made in."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "fer_features"):
        faces = read_faces(source, **options)
    return faces, [message.replace(f"{source.parent}/", "") for message in caplog.messages]


def error_of(source: Path, kind: type[Exception] = SourceError, **options: Any) -> str:
    """Return the one line of the error that reading gives, without the folder it was made in."""
    with pytest.raises(kind) as raised:
        read_faces(source, **options)
    message = str(raised.value).replace(f"{source.parent}/", "")
    assert len(message.splitlines()) == 1
    assert message.endswith(".")
    return message


def check_said(lines: Sequence[str], expected: Sequence[str]) -> None:
    assert len(lines) == len(expected), lines
    for line, each in zip(lines, expected, strict=True):
        assert matches(each, line), line


# Folders


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (48, 48), 8).save(file, "PNG")
    return file.getvalue()


PNG = png()


class Folder(NamedTuple):
    """Files by path with what is read of each, and every line that is said, in order.

    ``out`` are the reasons for what is left out and how many files each; ``passed`` is the folder
    that is read, ``content`` the bytes of files that are not what their suffix says.
    """

    files: Mapping[str, str]
    said: tuple[str, ...] = ()
    out: Mapping[str, int] = {}
    options: Mapping[str, Any] = {}
    content: Mapping[str, bytes] = {}
    passed: str = "faces"


def shade(i: int) -> int:
    return 4 * i % 250


def make(root: Path, files: Sequence[str], content: Mapping[str, bytes] | None = None) -> Path:
    """Write files of one shade each."""
    root.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = KINDS.get(path.suffix.lower())
        if content and name in content:
            path.write_bytes(content[name])
        elif kind and not path.name.startswith("._"):
            Image.new("L", (48, 48), shade(i)).save(path, kind)
        else:
            path.write_text("words\n")
    return root


def persons(said: str, form: str, count: int) -> str:
    return (
        f"faces: {count} folders such as {said} above the emotions: if they are persons, "
        f"--group-by '(?:^|/)({form})/' keeps each in one split"
    )


def conflicts(count: str, first: str) -> str:
    return (
        f"faces: {count} named for another Usage than the folder says ({first}): the folder counts"
    )


NO_LABELS = "faces: no labels: no image lies in a folder named by an emotion;"

FOLDERS: dict[str, Folder] = {
    # Emotions and usages
    "emotions alone": Folder({"happy/a.png": "happiness", "sad/b.jpg": "sadness"}),
    "all eight by FER2013's, AffectNet's and other names": Folder(
        {
            f"{word}/a.png": emotion
            for word, emotion in [
                ("angry", "anger"),
                ("disgust", "disgust"),
                ("fearful", "fear"),
                ("Joy", "happiness"),
                ("SAD", "sadness"),
                ("Surprised", "surprise"),
                ("Neutral", "neutral"),
                ("contempt", "contempt"),
                ("afraid", "fear"),
                ("contemptuous", "contempt"),
            ]
        }
    ),
    "usage above emotion": Folder(
        {
            "train/happy/a.png": "happiness Training",
            "test/sad/b.png": "sadness PrivateTest",
            "validation/fear/c.png": "fear PublicTest",
        }
    ),
    "usage below emotion": Folder(
        {
            "angry/train/1.png": "anger Training",
            "angry/test/1.png": "anger PrivateTest",
            "happy/val/deep/1.png": "happiness PublicTest",
        }
    ),
    "usage in every spelling": Folder(
        {
            f"{word}/happy/a.png": f"happiness {usage}"
            for usage, words in {
                "Training": "train TRAINING train_set Train-Data FER2013Train",
                "PublicTest": "val valid Validation dev public_test PublicTest val-set",
                "PrivateTest": "test testing eval Private-Test private_test test_set",
            }.items()
            for word in words.split()
        }
    ),
    "usage with a blank in it": Folder(
        {
            "Training Set/happy/a.png": "happiness Training",
            "Public Test/sad/b.png": "sadness PublicTest",
        }
    ),
    "FER2013's file names": Folder(
        {
            "happy/Training_1.png": "happiness Training",
            "sad/PublicTest_2.png": "sadness PublicTest",
            "sad/PrivateTest_3.png": "sadness PrivateTest",
            "sad/Trainings_4.png": "sadness",
        }
    ),
    "RAF-DB's file names": Folder(
        {
            "1/train_00001_aligned.jpg": "surprise Training",
            "4/test_0007_aligned.jpg": "happiness PrivateTest",
            "7/test_3068.jpg": "neutral PrivateTest",
        },
        options={"labels_as": "RAF-DB"},
    ),
    "somebody split again": Folder(
        {
            "train/happy/PublicTest_1.png": "happiness Training",
            "train/happy/Training_2.png": "happiness Training",
            "test/sad/PublicTest_3.png": "sadness PrivateTest",
            "test/sad/PrivateTest_4.png": "sadness PrivateTest",
        },
        said=(conflicts("2 files", "test/sad/PublicTest_3.png"),),
    ),
    "one file split again, usage below": Folder(
        {"happy/train/PublicTest_1.png": "happiness Training"},
        said=(conflicts("1 file", "happy/train/PublicTest_1.png"),),
    ),
    # Wrappers
    "a wrapper": Folder({"archive/happy/a.png": "happiness", "archive/sad/b.png": "sadness"}),
    "a data set's name around it": Folder(
        {
            "FER2013/train/happy/a.png": "happiness Training",
            "FER2013/test/sad/b.png": "sadness PrivateTest",
        }
    ),
    "two wrappers": Folder(
        {
            "archive/images/train/happy/a.png": "happiness Training",
            "archive/images/validation/sad/b.png": "sadness PublicTest",
        }
    ),
    "a wrapper below the usage": Folder(
        {
            "train/images/happy/a.png": "happiness Training",
            "test/images/sad/b.png": "sadness PrivateTest",
        }
    ),
    "an archive unpacked into a folder of its name": Folder(
        {
            "train/train/happy/a.png": "happiness Training",
            "train/train/sad/b.png": "sadness Training",
            "test/test/sad/c.png": "sadness PrivateTest",
        }
    ),
    "folders of any depth below the emotion": Folder(
        {"happy/1/2/a.png": "happiness", "happy/b.png": "happiness", "sad/s1/c.png": "sadness"}
    ),
    "a folder of text beside the emotions": Folder(
        {"happy/a.png": "happiness", "notes/read.txt": LEFT_OUT},
        out={"files that are no images (.txt)": 1},
    ),
    # Persons
    "a folder for each person": Folder(
        {
            "S005/happy/a.png": "happiness",
            "S005/sad/b.png": "sadness",
            "S010/happy/c.png": "happiness",
        },
        said=(persons("S005", r"S\d+", 2),),
    ),
    "a folder for each person, within a usage": Folder(
        {"train/p1/happy/a.png": "happiness Training", "test/p22/sad/b.png": "sadness PrivateTest"},
        said=(persons("p1", r"p\d+", 2),),
    ),
    "a number for each person": Folder(
        {"1/happy/a.png": "happiness", "2/sad/b.png": "sadness"},
        said=(persons("1", r"\d+", 2),),
    ),
    "persons as groups": Folder(
        {
            "S005/happy/a.png": "happiness - S005",
            "S005/sad/b.png": "sadness - S005",
            "S010/happy/c.png": "happiness - S010",
        },
        options={"group_by": r"(?:^|/)(S\d+)/"},
    ),
    "persons by their first names": Folder(
        {"anna/happy/a.png": "happiness - anna", "ben/train/sad/b.png": "sadness Training ben"},
        options={"group_by": "^([^/]+)/"},
    ),
    "persons in file names": Folder(
        {"happy/S005_1.png": "happiness - S005", "sad/S010_1.png": "sadness - S010"},
        options={"group_by": r"(S\d+)_"},
    ),
    "two data sets, each a group": Folder(
        {"fer/happy/a.png": "happiness - fer", "raf/test/sad/b.png": "sadness PrivateTest raf"},
        options={"group_by": "^(fer|raf)"},
    ),
    # Numbers
    "1 to 7 as RAF-DB's": Folder(
        {f"train/{i}/a.png": f"{emotion} Training" for i, emotion in enumerate(RAFDB, start=1)},
        options={"labels_as": "rafdb"},
    ),
    "0 to 6 as FER2013's": Folder(
        {f"{i}/a.png": emotion for i, emotion in enumerate(SEVEN)}, options={"labels_as": "fer2013"}
    ),
    "0 to 10 as AffectNet's": Folder(
        {f"{i}/a.png": emotion for i, emotion in enumerate(AFFECTNET)},
        options={"labels_as": "AffectNet"},
    ),
    "0 to 7 as CK+'s": Folder(
        {f"{i}/a.png": emotion for i, emotion in enumerate(CKPLUS)},
        options={"labels_as": "CK+"},
    ),
    "0 to 9 as FER+'s": Folder(
        {f"{i}/a.png": emotion for i, emotion in enumerate(FERPLUS)},
        options={"labels_as": "FER+"},
    ),
    "numbers before words": Folder(
        {"0_angry/a.png": "anger", "3. happy/b.png": "happiness", "10-sad/c.png": "sadness"}
    ),
    "each number mapped": Folder(
        {"1/a.png": "happiness", "2/b.png": "sadness", "3/c.png": "none"},
        options={"map": {"1": "happy", "2": "sad", "3": "none"}},
    ),
    "a number beside words, mapped": Folder(
        {"happy/a.png": "happiness", "7/b.png": "contempt"}, options={"map": {"7": "contempt"}}
    ),
    # Words mapped
    "another language": Folder(
        {"Freude/a.png": "happiness", "train/wut/b.png": "anger Training", "怒り/c.png": "anger"},
        options={"map": {"freude": "happiness", "WUT": "angry", "怒り": "anger"}},
    ),
    "a decomposed umlaut, as macOS writes it": Folder(
        {unicodedata.normalize("NFD", "Ärger/a.png"): "anger", "happy/b.png": "happiness"},
        options={"map": {"ärger": "anger"}},
    ),
    "a word that means none": Folder(
        {"happy/a.png": "happiness", "other/b.png": "none", "test/other/c.png": "none PrivateTest"},
        options={"map": {"other": "none"}},
    ),
    "all other words": Folder(
        {
            "freude/a.png": "happiness",
            "wut/b.png": "none",
            "9/c.png": "none",
            "sad/d.png": "sadness",
        },
        options={"map": {"freude": "happy", "*": "none"}},
    ),
    "a known word that means another here": Folder(
        {"scared/a.png": "surprise", "fear/b.png": "fear"}, options={"map": {"scared": "surprise"}}
    ),
    # Kinds of files
    "every suffix that Pillow reads": Folder(
        {f"happy/a{suffix}": "happiness" for suffix in KINDS if suffix not in ("", ".dat")}
    ),
    "no suffix, and a wrong one": Folder(
        {"happy/a": "happiness", "happy/b.dat": "happiness", "sad/c.jpg": "sadness"},
        content={"sad/c.jpg": PNG},
    ),
    "images that cannot be read": Folder(
        {
            "happy/a.png": "happiness",
            "happy/b.heic": LEFT_OUT,
            "sad/c.svg": LEFT_OUT,
            "d.HEIC": LEFT_OUT,
        },
        out={"images of a kind that cannot be read (.heic, .svg)": 3},
    ),
    "files that are no images": Folder(
        {
            "happy/a.png": "happiness",
            "happy/b.txt": LEFT_OUT,
            "README.md": LEFT_OUT,
            "LICENSE.": LEFT_OUT,
            "labels.csv": LEFT_OUT,
            "happy/Makefile": LEFT_OUT,
        },
        out={"files that are no images (.csv, .md, .txt, no suffix)": 5},
        content={"LICENSE.": b"words", "happy/Makefile": b"words"},
    ),
    "what belongs to the system": Folder(
        {
            "happy/a.png": "happiness",
            **dict.fromkeys(
                words(
                    "happy/Thumbs.db happy/thumbs.db happy/.DS_Store desktop.ini happy/._a.png"
                    " __MACOSX/happy/._a.png __MACOSX/happy/b.png .git/c.png @eaDir/happy/d.png"
                    " .ipynb_checkpoints/e.png"
                ),
                UNSAID,
            ),
        }
    ),
    "hidden files and folders": Folder(
        {"happy/a.png": "happiness", "happy/.b.png": LEFT_OUT, ".cache/happy/c.png": LEFT_OUT},
        out={"hidden files and folders": 2},
    ),
    # No labels
    "images alone": Folder(
        {"a.png": "none", "b.png": "none"},
        said=(
            (
                f"{NO_LABELS} move the images into a folder for each, or give labels with --labels"
                f" {HEAD}"
            ),
        ),
    ),
    "usages alone": Folder(
        {"train/a.png": "none Training", "test/b.png": "none PrivateTest"},
        said=(f"{NO_LABELS} move the images into a folder for each…",),
    ),
    "a label file beside images": Folder(
        {"a.png": "none", "b.png": "none", "labels.csv": LEFT_OUT, "README.txt": LEFT_OUT},
        said=(f"{NO_LABELS} if labels.csv holds the labels, pass it with --labels {HEAD}",),
        out={"files that are no images (.csv, .txt)": 2},
    ),
    "FER+'s folders and label file": Folder(
        {
            "FER2013Train/a.png": "none Training",
            "FER2013Valid/b.png": "none PublicTest",
            "label.csv": LEFT_OUT,
        },
        said=(f"{NO_LABELS} if label.csv holds the labels, pass it with --labels {HEAD}",),
        out={"files that are no images (.csv)": 1},
    ),
    "emotions in file names": Folder(
        {"angry_0.png": "none", "happy_1.png": "none", "x.png": "none"},
        said=(f"{NO_LABELS} names such as angry_0.png speak of emotions: move the images into…",),
    ),
    "an emotion's folder passed itself": Folder(
        {"a.png": "none", "b.png": "none"},
        said=(
            (
                "happy: no labels: no image lies in a folder named by an emotion; the folder itself"
                " is named 'happy': pass the folder above it"
            ),
        ),
        passed="happy",
    ),
    "a usage's folder passed itself": Folder({"happy/a.png": "happiness"}, passed="train"),
    # Left out on request
    "a stray image": Folder(
        {"happy/a.png": "happiness", "b.png": LEFT_OUT, "sad/c.png": "sadness"},
        said=(
            "faces: left out 1 file: b.png: outside the emotion folders beside it, expected in one",
        ),
        out={"outside the emotion folders beside it, expected in one": 1},
        options={"skip_bad": True},
    ),
    "two emotions in a path": Folder(
        {"happy/sad/a.png": LEFT_OUT, "happy/b.png": "happiness", "happy/joy/c.png": "happiness"},
        said=(
            (
                "faces: left out 1 file: happy/sad/a.png: in folders of several emotions (happy,"
                " sad), expected one"
            ),
        ),
        out={"in folders of several emotions (happy, sad), expected one": 1},
        options={"skip_bad": True},
    ),
    "a misspelt class": Folder(
        {
            "train/suprise/a.png": LEFT_OUT,
            "test/suprise/b.png": LEFT_OUT,
            "happy/c.png": "happiness",
        },
        said=(
            (
                "faces: left out 2 files: suprise (2 files, first in test): a folder whose name is"
                f" no emotion (did you mean 'surprise'?), {EXPECTED}"
            ),
        ),
        out={"images in folders named suprise": 2},
        options={"skip_bad": True},
    ),
    "every kind of bad file": Folder(
        {
            "happy/a.png": "happiness",
            "fear/b.png": LEFT_OUT,
            "fear/c.png": LEFT_OUT,
            "sad/d.png": LEFT_OUT,
            "sad/e.png": "sadness",
            "cats/f.png": LEFT_OUT,
        },
        said=(
            f"faces: left out 1 file: cats (1 file): a folder whose name is no emotion, {EXPECTED}",
            "faces: left out 2 files: fear/b.png, sad/d.png: an empty file, expected an image",
            (
                "faces: left out 1 file: fear/c.png: no image that can be recognised, expected one "
                "such as PNG or JPEG"
            ),
            "faces: nothing of fear is left: all 2 files were bad and left out",
        ),
        out={
            "images in folders named cats": 1,
            "an empty file, expected an image": 2,
            "no image that can be recognised, expected one such as PNG or JPEG": 1,
        },
        options={"skip_bad": True},
        content={"fear/b.png": b"", "fear/c.png": b"damaged", "sad/d.png": b""},
    ),
    "the one image of a class": Folder(
        {"happy/a.png": "happiness", "fear/b.png": LEFT_OUT},
        said=(
            "faces: left out 1 file: fear/b.png: an empty file, expected an image",
            "faces: nothing of fear is left: its one file was bad and left out",
        ),
        out={"an empty file, expected an image": 1},
        options={"skip_bad": True},
        content={"fear/b.png": b""},
    ),
    "a bad image of a class of which a limit took no other": Folder(
        {"fear/a.png": LEFT_OUT, "fear/b.png": "", "happy/c.png": "happiness", "happy/d.png": ""},
        said=("faces: left out 1 file: fear/a.png: an empty file, expected an image",),
        out={"an empty file, expected an image": 1},
        options={"limit": 2, "skip_bad": True},
        content={"fear/a.png": b""},
    ),
    "a class in folders of two usages": Folder(
        {
            "happy/a.png": "happiness",
            "train/fear/test/b.png": LEFT_OUT,
            "train/fear/test/c.png": LEFT_OUT,
        },
        said=(
            (
                "faces: left out 2 files: train/fear/test/b.png, train/fear/test/c.png: in folders"
                " of several Usages, expected one"
            ),
            "faces: nothing of fear is left: all 2 files were bad and left out",
        ),
        out={"in folders of several Usages, expected one": 2},
        options={"skip_bad": True},
    ),
    "a limit": Folder(
        {"happy/a.png": "happiness", "happy/b.png": "", "sad/c.png": "sadness", "sad/d.png": ""},
        options={"limit": 2},
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_read_as_its_paths_say(tmp_path, caplog, case):
    layout = FOLDERS[case]
    source = make(tmp_path / layout.passed, list(layout.files), layout.content)
    faces, lines = read(source, caplog, **layout.options)
    check_said(lines, layout.said)
    marks = (LEFT_OUT, UNSAID, "")
    rows = {path: said for path, said in sorted(layout.files.items()) if said not in marks}
    assert dict(zip(faces.source.tolist(), said_of(faces), strict=True)) == rows
    assert faces.source.tolist() == list(rows)
    assert faces.left_out == layout.out
    if "limit" not in layout.options:
        assert len(faces) + sum(faces.left_out.values()) == sum(
            said != UNSAID for said in layout.files.values()
        )
    for path, pixels in zip(faces.source.tolist(), faces.pixels, strict=True):
        if path not in layout.content:
            assert abs(pixels.mean() - shade(list(layout.files).index(path))) < 3


class Refused(NamedTuple):
    """A folder's files, and the error; nothing of them is read before."""

    files: str
    error: str
    options: Mapping[str, Any] = {}
    kind: type[Exception] = SourceError


def mapping(word: object) -> str:
    return (
        f'Say what each means with map={{"{word}": "EMOTION"}} or map={{"{word}": "none"}} ("*" is '
        "every other word), or pass skip_bad=True to leave them out."
    )


PLACES = (
    "which may be several data sets, expected one. Pass one of these folders, or, if they are"
    ' persons or parts of one, group_by="^([^/]+)/" or what else tells them apart.'
)

REFUSED: dict[str, Refused] = {
    "numbers 1 to 7": Refused(
        " ".join(f"{i}/a.png" for i in range(1, 8)),
        "faces: folders named by the numbers 1 to 7 for emotions, which can be read: as FER+'s … as"
        " RAF-DB's 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral; as"
        " CK+'s … Say whose they are with labels_as=… or what each means with map=….",
    ),
    "numbers 0 to 6": Refused(
        " ".join(f"train/{i}/a.png" for i in range(7)),
        "faces: folders named by the numbers 0 to 6 for emotions, … as FER2013's 0 anger, … as"
        ' FER+\'s 0 neutral, … labels_as="fer2013" or …',
    ),
    "numbers 0 to 7": Refused(
        " ".join(f"{i}/a.png" for i in range(8)),
        'faces: folders named by the numbers 0 to 7 … labels_as="ferplus" or …',
    ),
    "numbers 0 to 10": Refused(
        " ".join(f"{i}/a.png" for i in range(11)),
        'faces: folders named by the numbers 0 to 10 … labels_as="affectnet", or what'
        " each means with …",
    ),
    "a number beside words": Refused(
        "happy/a.png 7/b.png",
        "faces: folders named by the number 7 for emotions, which can be read: as FER+'s 7"
        " contempt; …",
    ),
    "numbers, to be skipped": Refused(
        "1/a.png 7/b.png", "faces: folders named by the numbers 1, 7 …", {"skip_bad": True}
    ),
    "a number that an order does not have": Refused(
        "1/a.png 9/b.png",
        f"faces: a folder whose name is no emotion: 9 (1 image); {EXPECTED}. {mapping(9)}",
        {"labels_as": "rafdb"},
    ),
    "a word misspelt": Refused(
        "happy/a.png suprise/b.png suprise/c.png",
        "faces: a folder whose name is no emotion: suprise (did you mean 'surprise'?) (2 images); "
        f"{EXPECTED}. {mapping('suprise')}",
    ),
    "a word misspelt in two usages": Refused(
        "train/happy/a.png train/hapy/b.png test/hapy/deep/c.png",
        "faces: a folder whose name is no emotion: hapy (did you mean 'happy'?) (2 images, first in"
        " test); …",
    ),
    "another language below persons": Refused(
        "S001/Angst/a.png S001/Wut/a.png S002/Angst/a.png S003/Angst/a.png",
        "faces: folders whose names are no emotions: Angst (3 images, first in S001), Wut (1 image,"
        f" first in S001); {EXPECTED}. {mapping('Angst')}",
    ),
    "another language below persons, some of it known": Refused(
        "S001/Angst/a.png S001/happy/a.png S002/Angst/a.png S002/Wut/a.png S002/happy/b.png",
        "faces: folders whose names are no emotions: Angst (2 images, first in S001), Wut (1 image,"
        f" first in S002); {EXPECTED}. {mapping('Angst')}",
    ),
    "another language above persons": Refused(
        "Angst/S001/a.png Angst/S002/a.png Wut/S001/a.png",
        "faces: folders whose names are no emotions: Angst (2 images), Wut (1 image);"
        f" {EXPECTED}. …",
    ),
    "persons by number": Refused(
        "train/1/Angst/a.png train/2/Angst/a.png test/3/Wut/a.png",
        "faces: folders whose names are no emotions: Angst (2 images, first in train/1), Wut (1"
        f" image, first in test/3); {EXPECTED}. …",
    ),
    "Angst": Refused(
        "happy/a.png Angst/b.png",
        f"faces: a folder whose name is no emotion: Angst (1 image); {EXPECTED}. …",
    ),
    "words that say something else": Refused(
        "happy/a.png not_neutral/b.png unhappy/c.png stage/d.png",
        "faces: folders whose names are no emotions: not_neutral (1 image), stage (1 image),"
        f" unhappy (1 image); {EXPECTED}. {mapping('not_neutral')}",
    ),
    "another language": Refused(
        "freude/a.png wut/b.png wut/c.png",
        "faces: folders whose names are no emotions: freude (1 image), wut (2 images);"
        f" {EXPECTED}. …",
    ),
    "some words mapped": Refused(
        "freude/a.png wut/b.png",
        f"faces: a folder whose name is no emotion: wut (1 image); {EXPECTED}. {mapping('wut')}",
        {"map": {"freude": "happiness"}},
    ),
    "a usage not known": Refused(
        "train/happy/a.png holdout/happy/b.png",
        "faces: emotion folders in 2 places, …holdout (1 image)…",
    ),
    "two data sets": Refused(
        "fer2013/happy/a.png fer2013/sad/b.png rafdb/happy/c.png",
        f"faces: emotion folders in 2 places, fer2013 (2 images), rafdb (1 image), {PLACES}",
    ),
    "many data sets": Refused(
        "a/happy/a.png bb/sad/b.png ccc/fear/c.png dddd/fear/d.png eeeee/sad/e.png"
        " ffffff/sad/f.png",
        "faces: emotion folders in 6 places, a (1 image), bb (1 image), ccc (1 image), dddd (1"
        f" image) and 2 more, {PLACES}",
    ),
    "persons by their first names": Refused(
        "anna/happy/a.png ben/happy/b.png",
        f"faces: emotion folders in 2 places, anna (1 image), ben (1 image), {PLACES}",
    ),
    "images/images, as an archive of Kaggle's has them": Refused(
        "images/train/happy/a.png images/images/train/happy/a.png",
        "faces: emotion folders in 2 places, images (1 image, and more within it), …",
    ),
    "a stray image": Refused(
        "happy/a.png sad/b.png c.png",
        "faces/c.png: outside the emotion folders beside it, expected in one. Mend or remove it, or"
        " pass skip_bad=True.",
    ),
    "stray images in a usage": Refused(
        "train/happy/a.png test/b.png test/c.png",
        "faces: 2 bad files: test/b.png, test/c.png: outside the emotion folders beside it, …",
    ),
    "two emotions in a path": Refused(
        "happy/sad/a.png happy/b.png",
        "faces/happy/sad/a.png: in folders of several emotions (happy, sad), expected one. Mend"
        " or …",
    ),
    "two usages in a path": Refused(
        "train/happy/test/a.png sad/b.png",
        "faces/train/happy/test/a.png: in folders of several Usages, expected one. Mend or"
        " remove …",
    ),
    "text alone": Refused(
        "a.txt",
        "faces: no images, … Found files that are no images (.txt): 1. Check the path.",
    ),
    "images that cannot be read alone": Refused(
        "happy/a.heic sad/b.heic",
        "faces: no images, … Found images of a kind that cannot be read (.heic): 2. …",
    ),
    "nothing": Refused(
        "", "faces: no images, expected folders named by emotion …. Check the path."
    ),
    "a path without a group": Refused(
        "S1_happy/happy/a.png x/sad/b.png",
        r"faces/x/sad/b.png: group_by='(S\\d+)' finds no group in it, expected one in each path. "
        "Change the expression.",
        {"group_by": r"(S\d+)"},
    ),
    "an expression without parentheses": Refused(
        "happy/a.png",
        "group_by: 'S1' has no group…, expected … such as …",
        {"group_by": "S1"},
        OptionError,
    ),
    "no expression": Refused(
        "happy/a.png",
        "group_by: '(' is no regular expression (missing ), …), expected … such as …",
        {"group_by": "("},
        OptionError,
    ),
    "a map to no emotion": Refused(
        "freude/a.png",
        "map: freude=hapiness, expected an emotion (…) or none (did you mean 'happiness'?). Name"
        " one.",
        {"map": {"freude": "hapiness"}},
        OptionError,
    ),
    "nothing that is no emotion, to be skipped": Refused(
        "cats/a.png dogs/b.png",
        "faces: no good file left of 2: cats (1 file): a folder whose name is no emotion, …",
        {"skip_bad": True},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_layout_is_refused_before_any_image_is_read(tmp_path, monkeypatch, case):
    files, error, options, kind = REFUSED[case]
    names = files.split()
    source = make(tmp_path / "faces", names, dict.fromkeys(names, b"damaged"))

    def never(path: Path) -> bytes:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(Path, "read_bytes", never)
    monkeypatch.setattr(
        folder_module, "is_image", lambda path: path.suffix in KINDS and never(path)
    )
    message = error_of(source, kind, **options)
    assert matches(error, message), message


def test_the_folders_that_a_message_says_to_pass_can_be_passed(tmp_path):
    files = ["images/train/happy/a.png", "images/images/train/happy/a.png", "x/sad/b.png"]
    source = make(tmp_path / "faces", files)
    message = error_of(source)
    offered = re.search(r"in \d places, (.*), which may be", message)
    assert offered
    places = re.findall(r"(\S+) \(\d+ images?\)", offered[1])
    assert len(places) > 1
    for each in places:
        assert len(read_faces(source / each)) == 1


@pytest.mark.parametrize("wrapper", ["images", "data/images"])
def test_a_folder_of_images_beside_its_label_file_is_told_of_the_label_file(
    tmp_path, caplog, wrapper
):
    source = make(tmp_path / "faces", [f"{wrapper}/a.png", f"{wrapper}/b.png", "labels.csv"])
    try:
        faces, lines = read(source, caplog)
    except SourceError as error:
        lines = [str(error)]
    else:
        assert said_of(faces) == ["none", "none"]
    assert len(lines) == 1
    assert "labels.csv" in lines[0]
    assert "--labels" in lines[0]


def test_a_pillow_that_does_not_know_avif_reads_the_other_images(tmp_path, monkeypatch):
    """As Pillow before 11.3, which the package allows."""
    source = make(tmp_path / "faces", ["happy/a.png", "happy/b.jpg", "sad/c.avif"])
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    faces = read_faces(source)
    assert faces.source.tolist() == ["happy/a.png", "happy/b.jpg"]
    assert faces.left_out == {"images of a kind that cannot be read (.avif)": 1}


def test_it_is_warned_of_missing_labels_before_the_pass(tmp_path, caplog):
    source = make(tmp_path / "faces", ["a.png", "b.png"], {"b.png": b"damaged"})
    with pytest.raises(SourceError, match=r"faces/b\.png: no image that can be recognised"):
        read(source, caplog)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert NO_LABELS.removeprefix("faces: ") in caplog.messages[0]


# CSV files

FACES = np.random.default_rng(9).integers(0, 256, (18, 2304), dtype=np.uint8)
FACES[:, 0] = 200  # no label


STYLES: dict[str, Callable[[Sequence[str]], str]] = {
    "spaces": " ".join,
    "commas": ",".join,
    "quoted commas": lambda values: f'"{", ".join(values)}"',
    "quoted list": lambda values: f'"[{", ".join(values)}]"',
    "NumPy's list": lambda values: f"[{' '.join(values)}]",
    "fractions": lambda values: " ".join(f"{value}.0" for value in values),
    "NumPy's floats": lambda values: " ".join(f"{value}." for value in values),
    "semicolons": ";".join,
    "tabs": "\t".join,
    "backwards": lambda values: ",".join(reversed(values)),
    "cut short": lambda values: f"[{' '.join(values[:3])} ... {' '.join(values[-3:])}]",
    "scaled": lambda values: " ".join(f"{int(value) / 255:.7f}" for value in values),
}


def names(form: str, first: int = 0, backwards: bool = False, joint: str = ",") -> str:
    """Return the header of a table with a column for each pixel."""
    numbers = range(first, first + 2304)
    return joint.join(form.format(i) for i in (reversed(numbers) if backwards else numbers))


class Csv(NamedTuple):
    """A file's text with ``@`` for each face, what is read of each row, and every line said."""

    text: str
    rows: Sequence[str]
    said: tuple[str, ...] = ()
    out: Mapping[str, int] = {}
    options: Mapping[str, Any] = {}
    style: str = "spaces"
    file: str = "faces.csv"


def text_of(text: str, style: str) -> str:
    first, *rest = text.split("@")
    cells = [STYLES[style](list(map(str, face.tolist()))) for face in FACES]
    return first + "".join(cells[i] + each for i, each in enumerate(rest))


def packed(text: str, file: str) -> bytes:
    data = text.encode()
    if file.endswith(".gz"):
        return gzip.compress(data)
    if file.endswith(".xz"):
        return lzma.compress(data)
    if file.endswith(".zip"):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writing:
            writing.writestr("data/README.txt", "words")
            writing.writestr(f"data/{file.removesuffix('.zip')}", data)
            writing.writestr("__MACOSX/data/._faces.csv", b"\0")
        return archive.getvalue()
    return data


def labels(words: Sequence[Any], column: str = "emotion") -> str:
    return f"{column},pixels\n" + "".join(f"{word},@\n" for word in words)


def no_header(columns: str) -> str:
    return f"faces.csv: no header; the columns are read as {columns}"


THREE = ("anger Training", "happiness PublicTest", "neutral PrivateTest")
PLAIN = "emotion,pixels,Usage\n0,@,train\n3,@,val\n6,@,test\n"
UNLABELLED = "faces.csv: no labels: no column 'emotion'"

CSVS: dict[str, Csv] = {
    # Words and numbers
    "FER2013's own": Csv(
        "emotion,pixels,Usage\n0,@,Training\n3,@,PublicTest\n6,@,PrivateTest\n", THREE
    ),
    "all of FER2013's numbers": Csv(labels(range(7)), SEVEN),
    "words as folders have them": Csv(
        labels(words("Angry disgusted FEAR joy sad surprised neutral Contempt")), EMOTIONS
    ),
    "words and numbers": Csv(
        labels(["3", "happy", "0_angry"]), ["happiness", "happiness", "anger"]
    ),
    "fractions of nothing": Csv(labels(["3.0", "0.", " 4 "]), ["happiness", "anger", "sadness"]),
    "usages in every spelling": Csv(
        "Emotion,Pixels,usage\n"
        + "".join(
            f"3,@,{word}\n"
            for word in [
                *words("Training train TRAIN train_set PublicTest val valid validation dev"),
                *words("public_test PrivateTest test TESTING eval private_test"),
                " Public Test ",
            ]
        ),
        ["happiness Training"] * 4
        + ["happiness PublicTest"] * 6
        + ["happiness PrivateTest"] * 5
        + ["happiness PublicTest"],
    ),
    "1 to 7 as RAF-DB's": Csv(
        labels(range(1, 8)),
        RAFDB,
        options={"labels_as": "rafdb"},
    ),
    "0 to 10 as AffectNet's": Csv(
        labels(range(11)),
        AFFECTNET,
        options={"labels_as": "affectnet"},
    ),
    "0 to 7 as CK+'s": Csv(
        labels(range(8)),
        CKPLUS,
        options={"labels_as": "ck+"},
    ),
    "0 to 9 as FER+'s": Csv(
        labels(range(10)),
        FERPLUS,
        options={"labels_as": "ferplus"},
    ),
    "a seven that is contempt": Csv(
        labels([*range(7), 7]), EMOTIONS, options={"map": {"7": "contempt"}}
    ),
    "a seven that is a mistake": Csv(
        labels([3, 7, 0]),
        ["happiness", LEFT_OUT, "anger"],
        said=(
            (
                "faces.csv: left out 1 row: row 2: emotion '7', expected a number of fer2013 or a"
                " word (anger, ...)"
            ),
        ),
        out={"rows with emotion '7'": 1},
        options={"labels_as": "fer2013", "skip_bad": True},
    ),
    "another language": Csv(
        labels(["Freude", "wut", "happy", "怒り"]),
        ["happiness", "anger", "happiness", "anger"],
        options={"map": {"freude": "happiness", "WUT": "anger", "怒り": "anger"}},
    ),
    "all other words": Csv(
        labels(["freude", "wut", "3", "7", "", "sad"]),
        ["happiness", "none", "happiness", "none", "none", "sadness"],
        options={"map": {"freude": "happy", "*": "none"}},
    ),
    # Delimiters and quotes
    "semicolons": Csv(PLAIN.replace(",", ";"), THREE),
    "tabs": Csv(PLAIN.replace(",", "\t"), THREE),
    "bars": Csv(PLAIN.replace(",", "|"), THREE),
    "tabs in a .tsv": Csv(PLAIN.replace(",", "\t"), THREE, file="faces.tsv"),
    "commas in a .tsv": Csv(PLAIN, THREE, file="faces.tsv"),
    "every cell quoted": Csv('"emotion","pixels"\n"3","@"\n"4","@"\n', ["happiness", "sadness"]),
    "Windows line ends and blank lines": Csv(PLAIN.replace("\n", "\r\n") + "\r\n \r\n", THREE),
    "a byte order mark": Csv("\ufeff" + PLAIN.replace(",", ";"), THREE),
    "pandas' index": Csv(",emotion,pixels\n0,3,@\n1,4,@\n", ["happiness", "sadness"]),
    "pandas' index, read and written again": Csv(
        "Unnamed: 0,emotion,pixels\n0,3,@\n1,4,@\n", ["happiness", "sadness"]
    ),
    "columns in another order, and others": Csv(
        "id,Usage, pixels,stage,emotion\n7,train,@,b,0\n8,val,@,a,3\n9,test,@,a,6\n", THREE
    ),
    # Packed
    **{
        f"{kind} in a {suffix}": Csv(
            PLAIN.replace(",", delimiter), THREE, file=f"faces{kind}{suffix}"
        )
        for kind, delimiter in ((".csv", ";"), (".tsv", "\t"))
        for suffix in (".gz", ".xz", ".zip")
    },
    # Pixels
    "pixel_values": Csv(labels([3]).replace("pixels", "pixel_values"), ["happiness"]),
    "pixel": Csv(labels([3]).replace("pixels", "Pixel"), ["happiness"]),
    "pixels by what is in them": Csv(
        "emotion,face\nhappy,@\nsad,@\n",
        ["happiness", "sadness"],
        said=("faces.csv: column 'face' is read as the pixels",),
    ),
    **{
        f"pixels written with {style}": Csv(labels([3, 4]), ["happiness", "sadness"], style=style)
        for style in (
            "quoted commas",
            "quoted list",
            "NumPy's list",
            "fractions",
            "NumPy's floats",
            "semicolons",
            "tabs",
        )
    },
    "pixels with commas between semicolons": Csv(
        labels([3, 4]).replace(",", ";"), ["happiness", "sadness"], style="commas"
    ),
    # A column each
    "pixel0 to pixel2303": Csv(
        f"emotion,{names('pixel{}')}\n3,@\nsad,@\n", ["happiness", "sadness"], style="commas"
    ),
    "pixel1 to pixel2304": Csv(
        f"{names('pixel{}', 1)},emotion,Usage\n@,3,train\n@,4,test\n",
        ["happiness Training", "sadness PrivateTest"],
        style="commas",
    ),
    "pixel_0, semicolons": Csv(
        f"emotion;{names('pixel_{}', joint=';')}\n3;@\n", ["happiness"], style="semicolons"
    ),
    "p0, tabs": Csv(f"emotion\t{names('p{}', joint=chr(9))}\n3\t@\n", ["happiness"], style="tabs"),
    "columns backwards": Csv(
        f"emotion,{names('pixel{}', backwards=True)}\n3,@\n4,@\n",
        ["happiness", "sadness"],
        style="backwards",
    ),
    "columns named by numbers": Csv(
        f"emotion,{names('{}')}\n3,@\n4,@\n", ["happiness", "sadness"], style="commas"
    ),
    "columns named by numbers, after an index": Csv(
        f",emotion,{names('{}')}\n0,3,@\n1,4,@\n", ["happiness", "sadness"], style="commas"
    ),
    "columns named by numbers, no emotion": Csv(
        f"{names('{}')}\n@\n@\n", ["none", "none"], said=(UNLABELLED + "…",), style="commas"
    ),
    "another column by number": Csv(
        f"0,emotion,{names('pixel{}')}\n77,3,@\n78,4,@\n", ["happiness", "sadness"], style="commas"
    ),
    # No header
    **{
        f"no header: {columns}": Csv(
            "".join(f"{row}\n" for row in rows),
            ["happiness Training", "anger PublicTest"],
            said=(no_header(columns),),
        )
        for columns, rows in {
            "emotion, pixels, Usage": ("3,@,Training", "0,@,PublicTest"),
            "pixels, emotion, Usage": ("@,3,Training", "@,0,PublicTest"),
            "Usage, emotion, pixels": ("train,happy,@", "val,angry,@"),
            "Usage, pixels, emotion": ("train,@,3.0", "val,@,0.0"),
        }.items()
    },
    "no header: emotion and pixels": Csv(
        "3,@\n0,@\n", ["happiness", "anger"], said=(no_header("emotion, pixels"),)
    ),
    "no header: pixels and emotion, Windows": Csv(
        "@,3\r\n@,0\r\n", ["happiness", "anger"], said=(no_header("pixels, emotion"),)
    ),
    "no header: quoted": Csv(
        '"3","@"\n"0","@"\n', ["happiness", "anger"], said=(no_header("emotion, pixels"),)
    ),
    "no header: pixels alone": Csv(
        "@\n@\n",
        ["none", "none"],
        said=(
            no_header("pixels"),
            (
                "faces.csv: no labels: no header, and no column that may be the emotion; put names"
                " on top"
            ),
        ),
    ),
    "no header: a column each": Csv(
        "3,@\n0,@\n", ["happiness", "anger"], said=(no_header("emotion, pixels"),), style="commas"
    ),
    "no header: a column each, the emotion last": Csv(
        "@,3\n@,0\n", ["happiness", "anger"], said=(no_header("pixels, emotion"),), style="commas"
    ),
    "no header: semicolons and Usage": Csv(
        "3;@;Training\n0;@;PublicTest\n",
        ["happiness Training", "anger PublicTest"],
        said=(no_header("emotion, pixels, Usage"),),
    ),
    "no header: semicolons": Csv(
        "3;@\n0;@\n", ["happiness", "anger"], said=(no_header("emotion, pixels"),)
    ),
    "no header: tabs": Csv(
        "3\t@\n0\t@\n", ["happiness", "anger"], said=(no_header("emotion, pixels"),)
    ),
    "no header: a column each, semicolons": Csv(
        "3;@\n0;@\n",
        ["happiness", "anger"],
        said=(no_header("emotion, pixels"),),
        style="semicolons",
    ),
    "no header: a byte order mark": Csv(
        "\ufeff3,@\n0,@\n", ["happiness", "anger"], said=(no_header("emotion, pixels"),)
    ),
    # No labels
    **{
        f"labels in a column {column}": Csv(
            labels([3, 4], column),
            ["none", "none"],
            said=(f"{UNLABELLED}; if '{column}' holds them, name it 'emotion'",),
        )
        for column in ("label", "labels", "class", "target", "Expression", "emotion_label")
    },
    "a column for each emotion": Csv(
        "pixels,anger,disgust,fear,happiness\n@,0,0,0,1\n",
        ["none"],
        said=(
            (
                f"{UNLABELLED}; columns anger, disgust, fear, happiness look like one for each"
                " emotion: put the name of each row's into a column 'emotion'"
            ),
        ),
    ),
    "pixels alone": Csv(
        "pixels,Usage\n@,test\n",
        ["none PrivateTest"],
        said=(
            (
                f"{UNLABELLED} in the header 'pixels,Usage'; add one, or give labels with --labels"
                f" {HEAD}"
            ),
        ),
    ),
    "a label beside the emotion": Csv("label,emotion,pixels\n9,3,@\n", ["happiness"]),
    # Groups and others
    "a column group": Csv(
        "emotion,pixels,Group\n3,@,S1\n4,@,\n0,@,Zoë\n",
        ["happiness - S1", "sadness", "anger - Zoë"],
    ),
    "a column subject": Csv("subject,emotion,pixels\nS1,3,@\n", ["happiness - S1"]),
    "group before subject": Csv("subject,emotion,pixels,group\nS1,3,@,g\n", ["happiness - g"]),
    "a column stage": Csv("emotion,pixels,stage\n3,@,2\n", ["happiness"]),
    "a column split": Csv(
        "emotion,pixels,split\n3,@,train\n",
        ["happiness"],
        said=("faces.csv: no column 'Usage'; if column 'split' says it, name it 'Usage'",),
    ),
    # Left out on request
    "every kind of bad row": Csv(
        "emotion,pixels,Usage\nhappy,@,train\nhapy,@,train\nsad,1 2,test\nfear,@"
        " 7,test\nsad,@,holdout\nangry,@,\nhappy,@,Training\nhappy,@\nhapy,@,test\nfear,[1 ..."
        " 2],test\n",
        [
            "happiness Training",
            *[LEFT_OUT] * 5,
            "happiness Training",
            *[LEFT_OUT] * 3,
        ],
        said=(
            "faces.csv: left out 2 rows: row 3, row 4: 2 pixels, expected 2304 (48x48)",
            "faces.csv: left out 1 row: row 8: 2 columns, expected 3",
            (
                "faces.csv: left out 1 row: row 10: pixels cut short by '...', as NumPy prints long"
                " arrays…"
            ),
            (
                "faces.csv: left out 2 rows: row 2 and 1 more: emotion 'hapy' (did you mean"
                f" 'happy'?), expected {WORDS}"
            ),
            "faces.csv: left out 1 row: row 5: Usage 'holdout', expected Training, PublicTest or …",
            "faces.csv: left out 1 row: row 6: a blank Usage, expected Training, PublicTest or …",
            "faces.csv: nothing of sadness is left: all 2 rows were bad and left out",
            "faces.csv: nothing of fear is left: all 2 rows were bad and left out",
            "faces.csv: nothing of anger is left: its one row was bad and left out",
        ),
        out={
            "a wrong count of pixels": 2,
            "a wrong count of columns": 1,
            "pixels cut short by '...', as NumPy prints long arrays, expected all 2,304 (48x48)": 1,
            "rows with emotion 'hapy'": 2,
            "rows with Usage 'holdout'": 1,
            "rows with a blank Usage": 1,
        },
        options={"skip_bad": True},
    ),
    "a row that is bad twice": Csv(
        "emotion,pixels,Usage\n3,@,train\nhapy,@,holdout\n3,@,train\n",
        ["happiness Training", LEFT_OUT, "happiness Training"],
        said=("faces.csv: left out 1 row: row 2: emotion 'hapy' (did you mean 'happy'?), …",),
        out={"rows with emotion 'hapy'": 1},
        options={"skip_bad": True},
    ),
    "a class lost, and a number that is another's": Csv(
        "emotion,pixels\n7,1 2\nsad,@ 7\n3,@\n",
        [LEFT_OUT, LEFT_OUT, "happiness"],
        said=(
            "faces.csv: left out 2 rows: row 1, row 2: 2 pixels, expected 2304 (48x48)",
            "faces.csv: nothing of sadness is left: its one row was bad and left out",
        ),
        out={"a wrong count of pixels": 2},
        options={"skip_bad": True, "labels_as": "fer2013"},
    ),
    "all rows of a class damaged": Csv(
        "emotion,pixels\n3,@\n2,@ 7\nfear,7\n0,@\n",
        ["happiness", LEFT_OUT, LEFT_OUT, "anger"],
        said=(
            "faces.csv: left out 2 rows: row 2, row 3: 2305 pixels, expected 2304 (48x48)",
            "faces.csv: nothing of fear is left: all 2 rows were bad and left out",
        ),
        out={"a wrong count of pixels": 2},
        options={"skip_bad": True},
    ),
    "a limit": Csv(
        "emotion,pixels,group\n0,@,a\n1,@,b\n2,@,c\n3,@,d\n",
        ["anger - a", "", "fear - c", ""],
        options={"limit": 2},
    ),
}


@pytest.mark.parametrize("case", CSVS)
def test_a_csv_file_is_read_as_its_cells_say(tmp_path, caplog, case):
    layout = CSVS[case]
    text = text_of(layout.text, layout.style)
    source = tmp_path / layout.file
    source.write_bytes(packed(text, layout.file))
    faces, lines = read(source, caplog, **layout.options)
    check_said(lines, layout.said)
    rows = {i: said for i, said in enumerate(layout.rows) if said not in (LEFT_OUT, "")}
    assert dict(zip(faces.source.astype(int) - 1, said_of(faces), strict=True)) == rows
    assert faces.source.tolist() == [str(i + 1) for i in rows]
    assert faces.left_out == layout.out
    if "limit" not in layout.options:
        assert len(faces) + sum(faces.left_out.values()) == len(layout.rows)
    at = np.cumsum(["@" in line for line in layout.text.splitlines()])[-len(layout.rows) :] - 1
    if not layout.out:
        at = np.arange(len(layout.rows))
    np.testing.assert_array_equal(faces.pixels, FACES[[at[i] for i in rows]].reshape(-1, 48, 48))


READINGS = (
    "as FER2013's 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, 6 neutral, 7 nothing; … as"
    " RAF-DB's 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral; …"
)
NOT_TOLD = (
    "faces.csv: no header, and columns that cannot be told apart by what is in them (…), expected a"
    " CSV file with …. Put a line of their names on top."
)
NO_PIXELS = (
    "without pixels (header …), expected a CSV file …. Pass the images instead, and this file with "
    f"--labels {HEAD}."
)
KINDS_READ = (
    "expected a .csv file, plain or packed as .gz, .xz or .zip, a .parquet, .npz or .npy file, or a"
    " folder of images."
)


class RefusedCsv(NamedTuple):
    text: str | bytes
    error: str
    options: Mapping[str, Any] = {}
    style: str = "spaces"
    file: str = "faces.csv"
    kind: type[Exception] = SourceError


REFUSED_CSVS: dict[str, RefusedCsv] = {
    "numbers 1 to 7": RefusedCsv(
        labels(range(1, 8)),
        f"faces.csv: the numbers 1 to 7 for emotions, which can be read: {READINGS} Say whose they "
        "are with labels_as=… or what each means with map=…",
    ),
    "numbers 1 to 7, to be skipped": RefusedCsv(
        labels(range(1, 8)), "faces.csv: the numbers 1 to 7 for emotions, …", {"skip_bad": True}
    ),
    "numbers 1 to 7, written 1.0": RefusedCsv(
        labels(f"{i}.0" for i in range(1, 8)), "faces.csv: the numbers 1 to 7 for emotions, …"
    ),
    "numbers 1 to 7, the sevens damaged": RefusedCsv(
        labels(range(1, 7)) + "7,1 2 3\n", "faces.csv: the numbers 1 to 7 …", {"skip_bad": True}
    ),
    "numbers 0 to 7": RefusedCsv(
        labels(range(8)),
        'faces.csv: the numbers 0 to 7 for emotions, … labels_as="ferplus" or …',
    ),
    "numbers 0 to 10": RefusedCsv(
        labels(range(11)),
        "faces.csv: the numbers 0 to 10 for emotions, … as AffectNet's 0 neutral, … 10 none. Say "
        'whose they are with labels_as="affectnet", or what each means with map=….',
    ),
    "numbers 1 to 7, no header": RefusedCsv(
        "7,@,Training\n1,@,Training\n", "faces.csv: the numbers 1, 7 for emotions, …"
    ),
    "a seven among FER2013's": RefusedCsv(
        labels([0, 3, 7]),
        "faces.csv: emotion '7' (row 3); expected a number of fer2013 or a word (anger, ...). "
        + mapping(7),
        {"labels_as": "fer2013"},
    ),
    "a number of no order": RefusedCsv(
        labels([0, 12]), f"faces.csv: emotion '12' (row 2); expected {WORDS}. {mapping(12)}"
    ),
    "words unknown": RefusedCsv(
        labels(["happy", "Angst", "supprise", "Angst", "wut"]),
        "faces.csv: emotion 'Angst' (2 rows, the first row 2); emotion 'supprise' (did you mean "
        f"'surprise'?) (row 3); emotion 'wut' (row 5); expected {WORDS}. {mapping('Angst')}",
    ),
    "some words mapped": RefusedCsv(
        labels(["freude", "wut"]),
        f"faces.csv: emotion 'wut' (row 2); expected {WORDS}. …",
        {"map": {"freude": "happiness"}},
    ),
    "Usage misspelt": RefusedCsv(
        "emotion,pixels,Usage\n3,@,trian\n4,@,trian\n3,@,train\n",
        "faces.csv: 2 bad rows: row 1 and 1 more: Usage 'trian'…, expected Training, PublicTest or "
        "PrivateTest. Remove the rows or pass skip_bad=True.",
    ),
    "no header: an index": RefusedCsv("17,3,@\n24,0,@\n", NOT_TOLD),
    "no header: two that may be the emotion": RefusedCsv("1,3,@\n2,0,@\n", NOT_TOLD),
    "no header: file names": RefusedCsv("a.png,@\nb.png,@\n", NOT_TOLD),
    "no header: two faces a row": RefusedCsv("3,@,@\n4,@,@\n", NOT_TOLD),
    "no header: two columns more than pixels": RefusedCsv(
        "3,4,@\n1,2,@\n", NOT_TOLD, style="commas"
    ),
    "pixels from 0 to 1": RefusedCsv(
        labels([3, 4]),
        "faces.csv: 2 bad rows: row 1, row 2: pixel 1 is '0.784…', expected a whole number from 0"
        " to 255 (if values run from 0 to 1, multiply them by 255). Remove the rows or pass"
        " skip_bad=True.",
        style="scaled",
    ),
    "NumPy's three dots": RefusedCsv(
        labels([3]),
        "faces.csv row 1: pixels cut short by '...', as NumPy prints long arrays, expected all"
        " 2,304 (48x48). Remove the row or pass skip_bad=True.",
        style="cut short",
    ),
    "28x28 in a column each": RefusedCsv(
        f"label,{','.join(f'pixel{i}' for i in range(784))}\n3,{','.join(['7'] * 784)}\n",
        "faces.csv: 784 columns of pixels, 'pixel0' to 'pixel783', expected 2,304 in a row"
        " (48x48). …",
    ),
    "a Git LFS pointer": RefusedCsv(
        LFS,
        f"faces.csv: a Git LFS pointer, not the file itself, {KINDS_READ} Run 'git lfs pull' where"
        " it came from.",
    ),
    "a Git LFS pointer for a .gz": RefusedCsv(
        LFS, "faces.csv.gz: a Git LFS pointer, not the file itself, …", file="faces.csv.gz"
    ),
    "a web page": RefusedCsv(
        PAGE,
        f"faces.csv: a web page, not the file itself, {KINDS_READ} Download the file again, logged"
        " in if need be.",
    ),
    "a web page for a .zip": RefusedCsv(
        PAGE, "faces.zip: a web page, not the file itself, …", file="faces.zip"
    ),
    "a list of labels": RefusedCsv(
        "image,label\na.png,happy\n", f"faces.csv: a list of labels {NO_PIXELS}"
    ),
    "a list of emotions": RefusedCsv(
        "emotion;file\n3;a.png\n", f"faces.csv: a list of labels {NO_PIXELS}"
    ),
    "a list with a column for each emotion": RefusedCsv(
        f"image,{','.join(SEVEN)}\na.png,1,0,0,0,0,0,0\n",
        f"faces.csv: a list of labels {NO_PIXELS}",
    ),
    "a list of labels without a header": RefusedCsv(
        "a.png,happy\nb.png,sad\n", f"faces.csv: …--labels {HEAD}…"
    ),
    "FER+'s votes": RefusedCsv(
        "Usage,Image"
        " name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n",
        f"faces.csv: FER+'s votes {NO_PIXELS}",
    ),
    "RAF-DB's list": RefusedCsv(
        "train_00001.jpg 5\ntrain_00002.jpg 4\n",
        f"list_patition_label.txt: neither a table of faces nor a folder, {KINDS_READ} … a list of "
        f"labels goes to --labels {HEAD}…",
        file="list_patition_label.txt",
    ),
    "neither pixels nor labels": RefusedCsv(
        "id,score\n1,2\n",
        "faces.csv: no column 'pixels' in the header 'id,score', expected a CSV …",
    ),
    "emotion misspelt": RefusedCsv(
        labels([3], "emotoin"), "faces.csv: unknown column 'emotoin' (did you mean 'emotion'?), …"
    ),
    "Usage's name misspelt": RefusedCsv(
        "emotion,pixels,Usgae\n3,@,train\n",
        "faces.csv: unknown column 'Usgae' (did you mean 'Usage'?)…",
    ),
    "emotion twice": RefusedCsv(
        "emotion,pixels,Emotion\n3,@,3\n",
        "faces.csv: column 'emotion' occurs 2 times, expected once. Remove all but one.",
    ),
    "a group by expression": RefusedCsv(
        labels([3]),
        "faces.csv: group_by='(x)' for rows without paths, expected a folder of images. Give the "
        "file a column 'group' instead.",
        {"group_by": "(x)"},
    ),
    "a group that a store cannot keep": RefusedCsv(
        "emotion,pixels,group\n3,@,a\0b\n", "faces.csv…NUL…"
    ),
    "an order unknown": RefusedCsv(
        labels([3]),
        "labels_as: 'affectnt', … (did you mean 'affectnet'?). …",
        {"labels_as": "affectnt"},
        kind=OptionError,
    ),
}


@pytest.mark.parametrize("case", REFUSED_CSVS)
def test_a_csv_file_is_refused_with_what_it_is_and_what_to_do(tmp_path, case):
    text, error, options, style, file, kind = REFUSED_CSVS[case]
    content = text if isinstance(text, bytes) else text_of(text, style).encode()
    (tmp_path / file).write_bytes(content)
    message = error_of(tmp_path / file, kind, **options)
    assert matches(error, message), message


def test_pixels_that_need_mending_are_no_good_row_even_when_they_may_be_skipped(tmp_path):
    (tmp_path / "faces.csv").write_text(text_of(labels([3, 4]), "scaled"))
    assert error_of(tmp_path / "faces.csv", skip_bad=True).startswith(
        "faces.csv: no good row left of 2: row 1, row 2: pixel 1 is '0.784"
    )


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (LFS, "a Git LFS pointer, not the file itself, expected an image (Run 'git lfs pull'"),
        (PAGE, "a web page, not the file itself, expected an image (Download the file again"),
    ],
)
def test_what_stands_for_an_image_is_named(tmp_path, content, finding):
    source = make(tmp_path / "faces", ["happy/a.png", "sad/b.png"], {"sad/b.png": content})
    assert error_of(source).startswith(f"faces/sad/b.png: {finding}")


# What is said at the end, and where


SOURCES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "a folder": (
        lambda path: make(
            path / "faces", ["train/happy/a.png", "test/sad/b.png", "contempt/c.png", "d.txt"]
        ),
        [
            (
                "faces: 3 rows by emotion: anger 0, disgust 0, fear 0, happiness 1, sadness 1,"
                " surprise 0, neutral 0, contempt 1"
            ),
            "faces: 3 rows by usage: Training 1, PublicTest 0, PrivateTest 1, none 1",
            "faces: left out 1: files that are no images (.txt)",
        ],
    ),
    "a CSV file without a header": (
        lambda path: written(path / "faces.csv", "3,@\n0,@\n"),
        [
            "faces.csv: no header; the columns are read as emotion, pixels",
            (
                "faces: 2 rows by emotion: anger 1, disgust 0, fear 0, happiness 1, sadness 0,"
                " surprise 0, neutral 0"
            ),
            "faces: 2 rows by usage: none 2",
        ],
    ),
    "a CSV file without labels": (
        lambda path: written(path / "faces.csv", "label,pixels\n3,@\n"),
        [
            f"{UNLABELLED}; if 'label' holds them, name it 'emotion'",
            "faces: 1 row by emotion: none 1",
            "faces: 1 row by usage: none 1",
        ],
    ),
    "a CSV file with a bad row": (
        lambda path: written(path / "faces.csv", "emotion,pixels\n3,@\n4,1 2\n3,@\n"),
        [
            "faces.csv: left out 1 row: row 2: 2 pixels, expected 2304 (48x48)",
            "faces.csv: nothing of sadness is left: its one row was bad and left out",
            (
                "faces: 2 rows by emotion: anger 0, disgust 0, fear 0, happiness 2, sadness 0,"
                " surprise 0, neutral 0"
            ),
            "faces: 2 rows by usage: none 2",
            "faces: left out 1: a wrong count of pixels",
        ],
    ),
}


def written(path: Path, text: str) -> Path:
    path.write_text(text_of(text, "spaces"))
    return path


@pytest.mark.parametrize("case", SOURCES)
@pytest.mark.parametrize("how", ["progress", "logging", "both", "neither"])
def test_what_was_read_is_said_once_on_standard_error(tmp_path, case, how):
    """In a process of its own, as nothing else has set up logging there."""
    arrange, expected = SOURCES[case]
    source = arrange(tmp_path)
    program = f"""
        import logging, sys
        from fer_features import read_faces
        if {how in ("logging", "both")}:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
        faces = read_faces({source.name!r}, skip_bad=True, progress={how in ("progress", "both")})
        print("\\n".join(faces.account()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        timeout=60,
    )
    err = done.stderr.decode()  # not as text, which would make line ends of returns
    assert done.returncode == 0, err
    account = [line for line in expected if line.startswith("faces: ")]
    if how == "logging":
        expected = [line for line in expected if line not in account]
    if how == "neither":  # but warnings are
        expected = [line for line in expected if "no labels" in line or "nothing of" in line]
    on_screen = re.sub("[^\n]*\r", "", err)  # a bar's line is written over
    assert on_screen.splitlines() == expected
    assert done.stdout.decode().splitlines() == account


def test_a_callable_for_progress_prints_nothing(tmp_path, capfd):
    source = SOURCES["a folder"][0](tmp_path)
    calls: list[tuple[int, int]] = []
    read_faces(source, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert capfd.readouterr() == ("", "")


def test_a_cell_of_several_lines_is_one_cell(tmp_path):
    """As pandas writes an array that NumPy prints in full."""
    values = [str(value) for value in FACES[0]]
    printed = "\n".join(" ".join(values[i : i + 20]) for i in range(0, 2304, 20))
    path = tmp_path / "faces.csv"
    path.write_text(f'emotion,pixels\n3,"[{printed}]"\nsad,"[{printed}]"\n4,"{" ".join(values)}"\n')
    faces = read_faces(path)
    assert faces.emotion.tolist() == [3, 4, 4]
    assert faces.source.tolist() == ["1", "2", "3"]
    np.testing.assert_array_equal(faces.pixels.reshape(3, -1), FACES[[0, 0, 0]])


def test_excels_word_on_the_delimiter_is_no_header(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text(f"sep=;\nemotion;pixels\n3;{' '.join(map(str, FACES[0]))}\n")
    assert read_faces(path).emotion.tolist() == [3]


def test_numbers_that_may_count_from_one_are_said(tmp_path, caplog):
    path = tmp_path / "faces.csv"
    cell = " ".join(map(str, FACES[0]))
    path.write_text("emotion,pixels\n" + "".join(f"{i},{cell}\n" for i in range(1, 7)))
    faces, lines = read(path, caplog)
    assert faces.emotion.tolist() == [1, 2, 3, 4, 5, 6]
    assert any("none is 0" in line and "labels_as" in line for line in lines)
