"""Faces in NumPy's files: an .npz of images and labels, or an .npy of images and one beside it.

What is in a file is found by the names of its arrays and by their headers; pixels are then read
a few megabytes at a time. Nothing is ever unpickled.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.array_file import StoredArray, blocks, refuse_objects, stored_arrays
from fer_features.faces.bad_rows import BadRows, shown
from fer_features.faces.cells import whole_pixels, word_of
from fer_features.faces.dataset import LARGEST, SIDE, ImageForm, form_name
from fer_features.faces.emotions import USAGES, did_you_mean, usage_of
from fer_features.faces.pixels import PixelBuffer
from fer_features.faces.table import (
    LONGEST_WORD,
    PIXELS,
    Columns,
    Table,
    coded,
    may_be_emotion,
)

SUFFIXES = (".npz", ".npy")

_ROLES = {
    "images": ("images", "image", "imgs", "x", "pixels", "faces", "data", "arr_0"),
    "labels": ("labels", "label", "y", "emotion", "emotions", "arr_1"),
    "usage": ("usage", "split"),
    "group": ("group", "groups", "subject", "subjects"),
    "names": ("class_names", "classes", "label_names", "emotion_names", "target_names"),
}  # fmt: skip
_SAYING = ("labels", "usage", "group")
_MOST_NAMES = 1000
_SHAPES = f"(n, height, width), (n, height, width, 1 or 3) or (n, {PIXELS})"


class _Part(NamedTuple):
    """Images and what is said of them; ``split`` is the usage id that their name says, or None."""

    split: int | None
    images: StoredArray
    labels: StoredArray | None
    usage: StoredArray | None
    group: StoredArray | None


class _Found(NamedTuple):
    """What a source holds: at least one part, and perhaps names of the numbers in its labels."""

    parts: list[_Part]
    names: StoredArray | None
    said: list[str]
    unlabelled: str


def read_arrays(
    path: Path,
    shown_path: str,
    bad: BadRows,
    progress: Callable[[int, int], None] | None,
    announce: Callable[[Columns], None],
) -> Table:
    """Read all images of an .npz or .npy file; those that are bad go to ``bad``.

    Images are uint8, or whole numbers of another type from 0 to 255, (n, h, w), (n, h, w, 1),
    (n, h, w, 3) or (n, 2304), or with the channels first where that is unmistakable. Labels,
    usages and groups are numbers or words, (n,) or (n, 1). Arrays per split (``x_train`` and
    ``y_train``) are joined, Training first, then PublicTest, then PrivateTest. Where
    ``class_names`` names the numbers of the labels, the names are what they say.

    Parameters
    ----------
    path, shown_path : Path, str
        The file, and how it is called in messages.
    bad : BadRows
        Takes the images with a pixel that is no whole number from 0 to 255.
    progress : callable, optional
        Called with how many images are read, of how many.
    announce : callable
        Called with what was found, before any image is read; ``Columns.unlabelled`` says of a
        source without labels what was found instead.

    Returns
    -------
    Table
        ``pixels`` is uint8 (n, h, w) or (n, h, w, 3), 0 to 255, of the good images; ``number``
        counts all images from 1.

    Raises
    ------
    SourceError
        The file is damaged, of another kind or pickled; images or labels cannot be told from the
        rest; their counts differ; or all images are scaled to another range than 0 to 255.
    """
    found = _find(path, shown_path)
    height, width, channels = _form(found.parts, shown_path)
    names = None if found.names is None else _class_names(found.names, shown_path)
    said = [
        [word for part in found.parts for word in _words(part, role, names, shown_path)]
        if any(_says(part, role) for part in found.parts)
        else None
        for role in _SAYING
    ]
    emotion, usage, group = (None if words is None else i for i, words in enumerate(said, start=1))
    announce(Columns((0,), emotion, usage, group, found.unlabelled, tuple(found.said)))
    pixels = PixelBuffer((height, width, 3) if channels == 3 else (height, width), shown_path)
    total = sum(part.images.shape[0] for part in found.parts)
    good: list[npt.NDArray[np.bool_]] = []  # grows as images come: a header may state any number
    start = 0
    for part in found.parts:
        first, first_block, low, high = start, len(good), np.inf, -np.inf
        for stored in blocks(part.images, shown_path):
            # A copy in one piece where channels come first, or columns do.
            block = np.ascontiguousarray(_channels_last(stored, channels))
            block = block.reshape(len(block), -1)
            values, errors = whole_pixels(block)
            good.append(np.ones(len(block), dtype=bool))
            for row, error in errors.items():
                good[-1][row] = False
                place = f"row {start + row + 1}"
                if len(found.parts) > 1:
                    place += f" ({shown(part.images.name)}[{start + row - first}])"
                bad.add(place, error, word=said[0][start + row] if said[0] else None)
            if block.dtype != np.uint8:
                low = min(low, float(np.fmin.reduce(block, axis=None)))
                high = max(high, float(np.fmax.reduce(block, axis=None)))
            pixels.append(values[good[-1]])
            start += len(block)
            if progress:
                progress(start, total)
        _refuse_scaled(part.images, good[first_block:], low, high, shown_path)
    rows = np.flatnonzero(np.concatenate(good))
    columns = [None if words is None else coded(words[i] for i in rows.tolist()) for words in said]
    return Table(pixels.array(), rows.astype(np.int64) + 1, *columns)


def arrays_form(path: Path, shown_path: str) -> ImageForm:
    """Return the form of the images in an .npz or .npy file, from the headers alone.

    Raises
    ------
    SourceError
        As :func:`read_arrays`, as far as headers show it.
    """
    return _form(_find(path, shown_path).parts, shown_path)


def array_files(path: Path, shown_path: str) -> tuple[Path, ...]:
    """Return the files that :func:`read_arrays` reads: the one passed, then those beside it.

    Raises
    ------
    SourceError
        As :func:`read_arrays`, as far as headers show it.
    """
    (part, *_) = _find(path, shown_path).parts
    beside = [array.path for array in (part.labels, part.usage, part.group) if array]
    return tuple(dict.fromkeys([path, *beside]))


def _find(path: Path, shown_path: str) -> _Found:
    """Tell from names and headers which arrays hold what, and refuse what cannot be told."""
    in_one = path.suffix.lower() == ".npz"
    found = (_in_archive if in_one else _side_by_side)(path, shown_path)
    if found.names is not None:
        refuse_objects(found.names, shown_path)
    for part in found.parts:
        refuse_objects(part.images, shown_path)
        for array in (part.labels, part.usage, part.group):
            if array is not None:
                refuse_objects(array, shown_path)
                _check_said(array, part.images, shown_path)
    if not any(part.images.shape[0] for part in found.parts):
        raise SourceError(
            f"{shown_path}: no images in {found.parts[0].images}, expected one for each face. "
            "Check that the file is complete."
        )
    return found


def _in_archive(path: Path, shown_path: str) -> _Found:
    """Find the arrays of an .npz, by the names that they were saved under."""
    arrays = stored_arrays(path, shown_path)
    roles: dict[str, dict[int | None, StoredArray]] = {role: {} for role in _ROLES}
    for array in arrays:
        for role, rest in _told(array.name):
            split = usage_of(rest)
            if rest and split is None:
                continue
            other = roles[role].setdefault(split, array)
            if other is not array:
                raise SourceError(
                    f"{shown_path}: both {other} and {array} may be the {role}, expected one. "
                    "Save the file again without the other."
                )
            break
    images = roles["images"]
    unnamed = any(re.fullmatch(r"arr_([2-9]|\d\d+)", array.name) for array in arrays)
    if not images or (None in images and len(images) > 1) or unnamed:
        raise SourceError(
            f"{shown_path}: holds {_listed(arrays)}, expected images and labels by name. Save "
            "them with np.savez(file, images=..., labels=...), or as x_train, y_train, x_val, "
            "y_val, x_test and y_test."
        )
    parts = [
        _Part(split, images[split], *(roles[role].get(split) for role in _SAYING))
        for split in sorted(images, key=lambda split: split or 0)
    ]
    labelled = [part.labels for part in parts if part.labels is not None]
    numbers = any(array.dtype.kind in "iuf" for array in labelled)
    names = roles["names"].get(None) if numbers else None
    used = [names, *(array for part in parts for array in part[1:])]
    unread = [array for array in arrays if array not in used]
    absent = [name for name in ("images", "labels", "usage") if not roles[name]]
    for array in unread:
        # A misspelt 'labels' must not pass for a file without labels.
        hint = did_you_mean(array.name, absent + ["emotion"] * ("labels" in absent))
        if hint and not may_be_emotion(array.name):
            raise SourceError(
                f"{shown_path}: unknown array '{shown(array.name)}'{hint}, expected images and "
                "labels. Save it under that name."
            )
    said = []
    if parts[0].split is not None:
        as_usage = [f"'{shown(part.images.name)}' as {USAGES[part.split or 0]}" for part in parts]
        said.append(f"{shown_path}: images are read from {', '.join(as_usage)}")
    if labelled:
        read = " and ".join(f"'{shown(array.name)}'" for array in labelled)
        by = f", in the words of '{shown(names.name)}'" if names else ""
        said.append(
            f"{shown_path}: {read} {'is' if len(labelled) == 1 else 'are'} read as the emotion{by}"
        )
        said += [f"{shown_path}: {part.images} has no labels" for part in parts if not part.labels]
    if unread:
        said.append(f"{shown_path}: not read: {_listed(unread)}")
    return _Found(
        parts,
        names,
        said,
        "" if labelled else _instead_of_labels(arrays, [*roles["labels"].values()]),
    )


def _instead_of_labels(arrays: Sequence[StoredArray], of_others: Sequence[StoredArray]) -> str:
    """Say what an .npz has that may be its labels, and what to do."""
    if of_others:
        return (
            f"labels by the names of no images: {_listed(of_others)}; name both alike, as x_train "
            "and y_train"
        )
    other = [array.name for array in arrays if may_be_emotion(array.name)]
    if other:
        named = " or ".join(f"'{shown(name)}'" for name in other)
        return f"no array 'labels' or 'emotion'; if {named} holds them, save it as 'emotion'"
    return (
        f"no array 'labels' or 'emotion' beside {_listed(arrays)}; save one with the images, or "
        "give labels with --labels when a head is fitted"
    )


def _side_by_side(path: Path, shown_path: str) -> _Found:
    """Find what is said of an .npy of images in files beside it that are named like it."""
    (images,) = stored_arrays(path, shown_path)
    refuse_objects(images, shown_path)
    rests = _rests(path, "images")
    others = [
        each for each in sorted(path.parent.iterdir())
        if each.suffix.lower() == ".npy" and each.name != path.name and each.is_file()
    ]  # fmt: skip
    if len(images.shape) < 2 or images.shape[1:] == (1,):
        of = [each for each in others if _rests(each, "images") & _rests(path, "labels")]
        remedy = f"Pass '{shown(of[0].name)}'" if of else "Pass the file of the images"
        raise SourceError(
            f"{shown_path}: {images}, expected images, {_SHAPES}. {remedy}; the labels beside it "
            "are found by name."
        )
    beside: dict[str, StoredArray] = {}
    said = []
    for role in _SAYING:
        there = [each for each in others if _rests(each, role) & rests]
        if len(there) > 1:
            named = " and ".join(f"'{shown(each.name)}'" for each in there)
            raise SourceError(
                f"{shown_path}: beside it {named} may be its {role}, expected one file. "
                "Move the others elsewhere."
            )
        if there:
            place = shown_path.removesuffix(path.name) + shown(there[0].name)
            (beside[role],) = stored_arrays(there[0], place)
            column = "emotion" if role == "labels" else role
            said.append(f"{shown_path}: '{shown(there[0].name)}' is read as its {column}")
    split = next((usage for usage in map(usage_of, sorted(rests)) if usage is not None), None)
    if split is not None and "usage" not in beside:
        said.append(f"{shown_path}: by its name it is {USAGES[split]}")
    unlabelled = (
        f"no labels beside it in a file of its name, such as '{shown(path.stem)}_labels.npy'; put "
        "one there, or give labels with --labels when a head is fitted"
    )
    part = _Part(split, images, *(beside.get(role) for role in _SAYING))
    return _Found([part], None, said, "" if "labels" in beside else unlabelled)


def _rests(path: Path, role: str) -> set[str]:
    """Return what is left of a file's name without the words of a role: pairs have it in common.

    A name itself stands for images, too: "faces.npy" for those of "faces_labels.npy".
    """
    itself = {"_".join(re.split(r"[\W_]+", path.stem.casefold()))} if role == "images" else set()
    return {rest for told, rest in _told(path.stem) if told == role} | itself


def _told(name: str) -> list[tuple[str, str]]:
    """Return what a name may say: a role, and what is left of the name without its word.

    ``"X_train"`` says images of ``"train"``.
    """
    plain = re.sub(r"^([xy])(?=(train|val|valid|test)$)", r"\1_", name.casefold())
    plain = re.sub(r"^(train|val|valid|test)(?=[xy]$)", r"\1_", plain)
    parts = re.split(r"[\W_]+", plain)
    told = []
    for role, words in _ROLES.items():
        for known in (word.split("_") for word in words):
            if parts == known:
                return [(role, "")]
            for i in range(len(parts) - len(known) + 1):
                if parts[i : i + len(known)] == known:
                    told.append((role, "_".join(parts[:i] + parts[i + len(known) :])))
    return told


def _listed(arrays: Sequence[StoredArray]) -> str:
    listed = ", ".join(map(str, arrays[:6])) or "no arrays"
    return listed + f" and {len(arrays) - 6} more" * (len(arrays) > 6)


def _check_said(array: StoredArray, images: StoredArray, shown_path: str) -> None:
    """Refuse labels, usages or groups that are not one for each image."""
    n, shape = images.shape[0], array.shape
    place = f"{shown_path}: {array}"
    if len(shape) == 2 and shape[1] > 1:
        hot = " one-hot" if shape[1] in (7, 8) else ""
        raise SourceError(
            f"{place},{hot or ' several columns'}, expected one label for each image, ({n},). "
            f"Save its argmax(axis=1) and, as 'class_names' in an .npz, the names of its columns "
            "in their order."
        )
    if shape not in ((n,), (n, 1)):
        remedy = "Check that both are of the same images"
        if images.shape[-1:] == shape[:1]:
            remedy = "If images run along the last axis, save np.moveaxis(images, -1, 0)"
        raise SourceError(f"{place} for {images}, expected one for each image, ({n},). {remedy}.")
    if array.dtype.kind not in "iufUSb":
        raise SourceError(f"{place}, expected whole numbers or words. Save them as such.")
    if array.dtype.itemsize > 4 * LONGEST_WORD:  # four bytes a character
        raise SourceError(
            f"{place}, expected words of at most {LONGEST_WORD} characters. Save shorter ones."
        )


def _form(parts: Sequence[_Part], shown_path: str) -> ImageForm:
    """Return the one form of all images.

    Raises
    ------
    SourceError
        An array is not of images, or not in a way that can be told, or they differ in form.
    """
    forms = {}
    for part in parts:
        array = part.images
        if array.dtype.kind not in "iuf":
            raise SourceError(
                f"{shown_path}: {array}, expected uint8. Save the pixels as numbers from 0 to 255."
            )
        form = None
        match array.shape[1:]:
            case (2304,):
                form = SIDE, SIDE, 1
            case (height, width) if height > 4 and width > 4:
                # A folded (height, width, n) looks so, unless as many labels say otherwise.
                if part.labels or height == width or array.shape[0] != height:
                    form = height, width, 1
            case (height, width, (1 | 3) as channels) if height > 4 and width > 4:
                form = height, width, channels
            case ((1 | 3) as channels, height, width) if height > 4 and width > 4:
                form = height, width, channels
        if form is None:
            raise SourceError(
                f"{shown_path}: {array}, which are not images for certain, expected {_SHAPES}. "
                "Save it in one of these shapes."
            )
        if max(form) > LARGEST:
            raise SourceError(
                f"{shown_path}: {array}, expected images of at most {LARGEST}x{LARGEST}. Save "
                "smaller ones."
            )
        forms[form] = array
    if len(forms) > 1:
        (one, a), (other, b), *_ = forms.items()
        raise SourceError(
            f"{shown_path}: {a} of {form_name(one)} and {b} of {form_name(other)}, expected "
            "images of one form. Bring them to one, or save them in a file each."
        )
    return next(iter(forms))


def _channels_last(block: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    if block.ndim == 4 and block.shape[-1] != channels:
        return np.moveaxis(block, 1, -1)
    return block


def _refuse_scaled(
    images: StoredArray,
    good: Sequence[npt.NDArray[np.bool_]],
    low: float,
    high: float,
    shown_path: str,
) -> None:
    """Refuse images that were all scaled: bad as a whole, not row by row.

    Floats from 0 to 1 are so even where each is whole, as in black and white images.
    """
    remedy = ""
    if images.dtype.kind == "f" and 0 <= low <= high <= 1:
        remedy = "Save (images * 255).round().astype('uint8')"
    elif images.shape[0] > 1 and not any(map(np.any, good)) and np.isfinite([low, high]).all():
        remedy = "Save the images as they were before they were scaled"
    if remedy:
        raise SourceError(
            f"{shown_path}: {images} with values from {low:g} to {high:g}, expected whole numbers "
            f"from 0 to 255. {remedy}."
        )


def _says(part: _Part, role: str) -> bool:
    return getattr(part, role) is not None or (role == "usage" and part.split is not None)


def _words(part: _Part, role: str, names: list[str] | None, shown_path: str) -> list[str]:
    """Return what is said of each image of a part, as words; "" where nothing is."""
    array = getattr(part, role)
    if array is None:
        word = USAGES[part.split] if role == "usage" and part.split is not None else ""
        return [word] * part.images.shape[0]
    said: list[str] = []
    known: dict[str, str] = {}
    for block in blocks(array, shown_path):
        values, codes = np.unique(block.ravel(), return_inverse=True)
        words = [known.setdefault(word, word) for word in map(word_of, values.tolist())]
        if names is not None and role == "labels" and array.dtype.kind in "iuf":
            beyond = [
                word for word in words if word and not (word.isdigit() and int(word) < len(names))
            ]
            if beyond:
                raise SourceError(
                    f"{shown_path}: a label {shown(beyond[0])} in {array} and {len(names)} names "
                    f"of labels, expected 0 to {len(names) - 1}. Save the names of all, or none."
                )
            words = [names[int(word)] if word else "" for word in words]
        said += [words[code] for code in codes.tolist()]
    return said


def _class_names(array: StoredArray, shown_path: str) -> list[str]:
    few = len(array.shape) == 1 and array.shape[0] <= _MOST_NAMES
    if array.dtype.kind not in "US" or not few or array.dtype.itemsize > 4 * LONGEST_WORD:
        raise SourceError(
            f"{shown_path}: {array}, expected the names of the labels' numbers as words, (k,). "
            "Save them with np.array([...], dtype=str), or leave them out."
        )
    return [word_of(value) for block in blocks(array, shown_path) for value in block.tolist()]
