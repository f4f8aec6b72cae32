"""Images of any kind, as people have them, to pixels of the form that a classifier takes."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces import arrays, csv_file, parquet
from fer_features.faces.bad_rows import BadRows, RowError, one_or_many
from fer_features.faces.dataset import ImageForm, form_name
from fer_features.faces.folder import list_images, shown_name
from fer_features.faces.image import (
    Decoded,
    content,
    face,
    opened_image,
    plain,
    read_images,
    remarks_ignored,
)
from fer_features.faces.reading import SUFFIXES, source_form
from fer_features.faces.table import Columns, Table
from fer_features.prediction.detection import Box, Detector, crop

log = logging.getLogger(__name__)

Images: TypeAlias = Any
"""A path, a Pillow image, an array of one or several, encoded bytes, an open file, or a list."""

_AT_ONCE = 512
"""Files of a folder that are read before their faces are embedded."""

_LEAST = 5
"""Pixels on the shorter side of an array that is taken for an image."""

_LONG, _LARGE = 1.3, 320
"""From which ratio of its sides, or shorter side in pixels, on an image looks like no face crop."""


class Item(NamedTuple):
    """An image that was read, or why it was not.

    ``pixels`` are uint8 (h, w) or (h, w, 3); None where ``finding`` says what is wrong. ``box`` is
    where in a photograph the face is. ``is_bad`` is False where nothing is wrong but nothing is
    found.
    """

    source: str
    pixels: npt.NDArray[np.uint8] | None = None
    finding: str = ""
    box: Box | None = None
    is_bad: bool = True


def check_images(images: Images) -> list[Any]:
    """Return the images, one by one, once those that are paths are known to be there.

    Raises
    ------
    SourceError
        A path is missing, or something is no image at all.
    """
    several = isinstance(images, Iterable) and not _is_one(images)
    found = list(images) if several else [images]
    for each in found:
        if not _is_one(each):
            # Of an array that is not n images, its own shape says more than a part's.
            wrong = images if isinstance(images, np.ndarray) else each
            is_array = isinstance(wrong, np.ndarray)
            what = f"{wrong.dtype} {wrong.shape}" if is_array else f"a {type(wrong).__name__}"
            raise SourceError(
                f"images: {what}, expected paths, Pillow images, the content of image files, or "
                "uint8 arrays (h, w) or (h, w, 3), or (n, h, w) or (n, h, w, 3)."
            )
        if isinstance(each, str | os.PathLike) and not Path(each).exists():
            raise SourceError(
                f"{shown_name(each)}: no such file or folder, expected images. Check the path."
            )
    return found


def read_items(
    images: list[Any],
    form: ImageForm,
    detector: Detector | None = None,
    coming: Callable[[int], Any] = lambda count: None,
) -> Iterator[Item]:
    """Read images one after the other, each as the faces of a store of that form were read.

    Parameters
    ----------
    images : list
        What :func:`check_images` returned.
    form : (int, int, int)
        Height, width and channels of the pixels.
    detector : Detector, optional
        Finds the faces in each image; without one, an image is a face.
    coming : callable
        Told how many images more there are, as soon as that is known.

    Raises
    ------
    SourceError
        A folder holds no images, or a table cannot be read or has pixels of another form.
    """
    reader = _Reader(form, detector)
    for number, each in enumerate(images):
        if isinstance(each, str | os.PathLike):
            path = Path(each)
            if path.is_dir():
                yield from reader.folder(path, coming)
            elif path.suffix.lower() in SUFFIXES:
                yield from reader.table(path, coming)
            else:
                coming(1)
                yield from reader.file(path)
        else:
            coming(1)
            yield from reader.given(each, str(number))


class _Reader:
    """One call's form and detector, and what it has said already."""

    def __init__(self, form: ImageForm, detector: Detector | None) -> None:
        self.form = form
        self.shape = form[:2]
        self.color = form[2] == 3
        self.detector = detector
        self.mentioned = False

    def file(self, path: Path) -> Iterator[Item]:
        name = shown_name(path)
        data, error = content(path)
        if error is not None:
            yield Item(name, finding=f"cannot be read ({error.strerror})")
        else:
            yield from self.opened(data, name)

    def folder(self, folder: Path, coming: Callable[[int], Any]) -> Iterator[Item]:
        """Read all images in a folder and below, in the order of their paths."""
        bad = BadRows(shown_name(folder), "file", "/", ("", ""))
        listing = list_images(folder, bad)
        if not listing.images and not bad.count:
            raise SourceError(f"{shown_name(folder)}: no images, expected some. Check the path.")
        for kind, count in listing.left_out.items():
            log.info("%s: passed over %s: %s", shown_name(folder), f"{count:,}", kind)
        left_out = _left_out(bad)
        coming(len(left_out) + len(listing.images))
        yield from left_out
        if self.detector is not None:
            for path in listing.images:
                yield from self.file(folder / path)
            return
        for start in range(0, len(listing.images), _AT_ONCE):
            paths = listing.images[start : start + _AT_ONCE]
            for read in read_images(folder, paths, set(paths), self.shape, self.color, True):
                name = shown_name(folder / read.path)
                if isinstance(read.image, RowError):
                    yield Item(name, finding=str(read.image))
                else:
                    assert read.image is not None
                    yield self.whole(read.image, name)

    def table(self, path: Path, coming: Callable[[int], Any]) -> Iterator[Item]:
        """Read the pixels of a CSV, Parquet or NumPy file; what its labels are does not matter."""
        name = shown_name(path)
        asked: dict[str, Any] = {}
        if path.suffix.lower() in parquet.SUFFIXES:
            asked = {"image_size": self.form[0], "color": self.color}
        found = source_form(path, **asked)
        if found != self.form:
            raise SourceError(
                f"{name}: {form_name(found)} pixels, expected {form_name(self.form)} ones, as the "
                "run was fitted to. Pass image files."
            )
        bad = BadRows(name, "row", " ", ("", ""))
        try:
            table, not_square = self._rows(path, bad)
        except OSError as error:
            raise SourceError(
                f"{name}: cannot be read ({error.strerror or error}), expected a table of faces. "
                "Check its permissions."
            ) from error
        if not_square:
            log.warning("%s: of %s the middle is taken", name, one_or_many(not_square, "row"))
        left_out = _left_out(bad)
        coming(len(left_out) + len(table.number))
        yield from left_out
        for number, pixels in zip(table.number.tolist(), table.pixels, strict=True):
            yield Item(f"{name}:{number}", pixels)

    def _rows(self, path: Path, bad: BadRows) -> tuple[Table, int]:
        """Return the rows whose pixels can be read, and how many of them are not square."""

        def ignore(columns: Columns) -> None:
            """Pass over what is said of the labels."""

        suffix = path.suffix.lower()
        if suffix in arrays.SUFFIXES:
            return arrays.read_arrays(path, bad.source, bad, None, ignore), 0
        if suffix in parquet.SUFFIXES:
            form = self.form[0], self.color
            return parquet.read_parquet(path, bad.source, bad, *form, None, ignore)
        return csv_file.read_csv(path, bad.source, bad, None, ignore), 0

    def given(self, image: Any, name: str) -> Iterator[Item]:
        """Read an image that is no path: encoded, an open file, Pillow's, or an array."""
        if hasattr(image, "read"):
            name = shown_name(str(getattr(image, "name", name)))
            image = image.read()
            if not isinstance(image, bytes):
                yield Item(name, finding="open for text, expected bytes (open it with mode 'rb')")
                return
        if isinstance(image, np.ndarray):
            from PIL import Image

            image = Image.fromarray(image)
        yield from self.opened(image, name)

    def opened(self, data: Any, name: str) -> Iterator[Item]:
        """Read a file's content, or a Pillow image: a face, or a photograph of some."""
        try:
            with remarks_ignored(), opened_image(data, first_frame=True) as (image, frames):
                width, height = image.size
                if self.detector is None:
                    pixels = face(image, self.shape, self.color)
                else:
                    photograph = plain(image, self.color)
        except RowError as finding:
            yield Item(name, finding=str(finding))
            return
        if self.detector is None:
            yield self.whole(Decoded(pixels, width, height, frames), name)
            return
        _say_frames(frames, name)
        boxes = self.detector.boxes(photograph)
        for box in boxes:
            yield Item(name, face(crop(photograph, box), self.shape, self.color), box=box)
        if not boxes:
            yield Item(name, finding="no face found", is_bad=False)

    def whole(self, image: Decoded, name: str) -> Item:
        """Take an image for a face; once it is said when one does not look like that."""
        _say_frames(image.frames, name)
        shorter, longer = sorted((image.width, image.height))
        if not self.mentioned and (longer > _LONG * shorter or shorter > _LARGE):
            self.mentioned = True
            log.warning(
                "%s: %dx%d pixels, of which the middle is taken for a face. If it is a photograph, "
                "pass --detect to find the faces in it; this is said once.",
                name,
                image.width,
                image.height,
            )
        return Item(name, image.pixels)


def _left_out(bad: BadRows) -> list[Item]:
    """Return an item for each kind of bad row or file, with the first of them."""
    lines = [line.removeprefix(f"{bad.source}: ") for line in bad.left_out()]
    return [Item(bad.source, finding=line) for line in lines]


def _say_frames(frames: int, name: str) -> None:
    if frames > 1:
        log.warning("%s: %d frames, of which the first is taken", name, frames)


def _is_one(image: Any) -> bool:
    """Tell whether something is one image or path, and not several."""
    if isinstance(image, np.ndarray):
        grey, colour = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
        # (h, w, 4) is no h images of 4 pixels' width.
        is_whole = min(image.shape[:2], default=0) >= _LEAST
        return image.dtype == np.uint8 and (grey or colour) and is_whole
    known = isinstance(image, str | os.PathLike | bytes)
    return known or hasattr(image, "read") or hasattr(image, "has_transparency_data")
