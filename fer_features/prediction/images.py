"""Images of any kind, as people have them, to pixels of the form that a classifier takes."""

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces import arrays, csv_file, parquet
from fer_features.faces.bad_rows import BadRows, RowError, one_or_many, shown
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

_MOST = 256
"""Megabytes that are read of an open file: a stream may have no end."""

_TEXT = "open for text, expected bytes (open it with mode 'rb')"
_NO_PIXELS = "no pixels, expected an image"

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
        if isinstance(each, str | os.PathLike):
            _check_path(each)
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
        self.files: list[Any] = []

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
        left_out = _left_out(bad)
        passed_over = []
        for kind, count in listing.left_out.items():
            if kind.startswith("images of a kind that cannot be read"):
                finding = f"left out {one_or_many(count, 'file')}: {kind}"
                left_out.append(Item(bad.source, finding=finding))
            else:
                passed_over.append((f"{count:,}", kind))
        if not listing.images and not left_out:
            raise SourceError(f"{bad.source}: no images, expected some. Check the path.")
        for said in passed_over:
            log.info("%s: passed over %s: %s", bad.source, *said)
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
            kind = "a CSV file, which holds " * (path.suffix.lower() in csv_file.SUFFIXES)
            raise SourceError(
                f"{name}: {kind}{form_name(found)} pixels, expected {form_name(self.form)} ones, "
                "as the run was fitted to. Pass image files."
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
        hint = ""
        try:
            if hasattr(image, "read"):
                name = shown_name(str(getattr(image, "name", name)))
                image = self.content(image)
            elif isinstance(image, bytes | bytearray | memoryview):
                image = bytes(image)
                hint = " (bytes are taken for the content of an image file)"
            elif isinstance(image, np.ndarray):
                image = _picture(image)
            elif _is_closed(image):
                raise RowError("a closed Pillow image, expected an open one")
        except RowError as finding:
            yield Item(name, finding=str(finding))
            return
        yield from self.opened(image, name, hint)

    def content(self, file: Any) -> bytes:
        """Return what an open file holds."""
        if isinstance(file, io.TextIOBase):
            raise RowError(_TEXT)
        held = bytearray()
        try:
            while part := file.read(1_000_000):
                if isinstance(part, str):
                    raise RowError(_TEXT)
                held += part
                if len(held) > _MOST * 1_000_000:
                    raise RowError(f"more than {_MOST} MB, expected an image")
        except io.UnsupportedOperation as error:
            raise RowError("open for writing, expected for reading (mode 'rb')") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RowError(f"cannot be read ({shown(reason, 60)})") from error
        if not held and any(file is each for each in self.files):
            raise RowError("was read already, expected once")
        self.files.append(file)
        return bytes(held)

    def opened(self, data: Any, name: str, hint: str = "") -> Iterator[Item]:
        """Read a file's content, or a Pillow image: a face, or a photograph of some.

        ``hint`` is added where the content is not recognised.
        """
        from PIL import UnidentifiedImageError

        try:
            with remarks_ignored(), opened_image(data, first_frame=True) as (image, frames):
                width, height = image.size
                if not (width and height):
                    raise RowError(_NO_PIXELS)
                if self.detector is None:
                    pixels = face(image, self.shape, self.color)
                else:
                    photograph = plain(image, self.color)
        except RowError as finding:
            unknown = isinstance(finding.__cause__, UnidentifiedImageError)
            yield Item(name, finding=f"{finding}{hint * unknown}")
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


def _check_path(path: str | os.PathLike[str]) -> None:
    if not os.fspath(path):
        raise SourceError(
            f"images: {path!r}, expected a path of an image, a folder or a table. Name one."
        )
    try:
        is_there = Path(path).exists()
    except OSError as error:
        raise SourceError(
            f"{shown_name(path)}: cannot be looked at ({error.strerror}), expected images. Check "
            "the path."
        ) from error
    if not is_there:
        raise SourceError(
            f"{shown_name(path)}: no such file or folder, expected images. Check the path."
        )


def _picture(pixels: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    if not pixels.size:
        raise RowError(_NO_PIXELS)
    return Image.fromarray(pixels)


def _is_closed(image: Any) -> bool:
    """Tell whether a Pillow image was closed, before its pixels were read or after."""
    with remarks_ignored():
        try:
            image.load()
        except Exception as error:  # what else is wrong is told of where the image is used
            return isinstance(error, AssertionError | AttributeError) or "closed" in str(error)
    return False


def _is_one(image: Any) -> bool:
    """Tell whether something is one image or path, and not several."""
    if isinstance(image, np.ndarray):
        grey, colour = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
        # (h, w, 4) is no h images of 4 pixels' width.
        is_whole = min(image.shape[:2], default=0) >= _LEAST
        return image.dtype == np.uint8 and (grey or colour) and (is_whole or not image.size)
    known = isinstance(image, str | os.PathLike | bytes | bytearray | memoryview)
    return known or hasattr(image, "read") or hasattr(image, "has_transparency_data")
