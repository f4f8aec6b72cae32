"""Faces in photographs: found by OpenCV, cropped as FER2013's are."""

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_features.errors import OptionError

MARGIN = 1.04
"""Side of a crop by that of the box which the detector finds.

FER2013's faces were cut out by an OpenCV detector themselves (Goodfellow et al., "Challenges in
representation learning", 2013). In its images this one finds boxes of 0.965 of their side, in
their middle: the median over 1,218 of 1,500 evenly spaced ones, enlarged three times and framed by
60 pixels of their own border, as no detector finds a face that fills its image.
"""

_LONGEST = 1600
"""Pixels on the longer side of what is searched; a larger photograph is searched in small."""


class Box(NamedTuple):
    """A square of a photograph, in its pixels; it may stick out of it."""

    left: int
    top: int
    width: int
    height: int


class Detector:
    """OpenCV's frontal face detector, a cascade whose numbers lie in its package as XML.

    Viola and Jones, "Rapid object detection using a boosted cascade of simple features", 2001, in
    the form of Lienhart et al., 2003: ``haarcascade_frontalface_alt2``. It finds upright faces that
    look at the camera, and misses many that are turned, tilted or covered.

    Parameters
    ----------
    smallest : int
        Least side of a face, in pixels of the photograph.

    Raises
    ------
    OptionError
        OpenCV is not installed, or is a version without the detector.
    """

    def __init__(self, smallest: int = 24) -> None:
        self.smallest = smallest
        if importlib.util.find_spec("cv2") is None:
            raise OptionError("detect: needs OpenCV. Install fer-features[detect].")
        import cv2

        if not hasattr(cv2, "CascadeClassifier"):
            raise OptionError(
                f"detect: OpenCV {cv2.__version__} has no cascades, expected version 4. "
                "Install fer-features[detect]."
            )

    @cached_property
    def _cascade(self) -> Any:
        import cv2

        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        return cv2.CascadeClassifier(str(path))

    def boxes(self, image: Any) -> list[Box]:
        """Return where faces are in an upright Pillow image, L or RGB, the largest first.

        Each is the square to cut out, with :data:`MARGIN` around what was found.
        """
        from PIL import Image

        grey = image.convert("L")
        shrunk = max(1.0, max(grey.size) / _LONGEST)
        if shrunk > 1:
            size = (max(1, round(grey.width / shrunk)), max(1, round(grey.height / shrunk)))
            grey = grey.resize(size, Image.Resampling.BILINEAR)
        least = max(1, round(self.smallest / shrunk))
        found = self._cascade.detectMultiScale(
            np.asarray(grey), scaleFactor=1.1, minNeighbors=5, minSize=(least, least)
        )
        boxes = [_with_margin(*(float(value) * shrunk for value in each)) for each in found]
        return sorted(boxes, key=lambda box: (-box.width, box.top, box.left))


def crop(image: Any, box: Box) -> Any:
    """Cut a box out of a Pillow image, L or RGB; beyond its border its outermost pixels go on."""
    from PIL import Image

    left, top, width, height = box
    right, bottom = left + width, top + height
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if inside == (left, top, right, bottom):
        return image.crop(inside)
    pixels = np.asarray(image.crop(inside))
    sides = [(inside[1] - top, bottom - inside[3]), (inside[0] - left, right - inside[2])]
    padded = np.pad(pixels, sides + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    return Image.fromarray(padded)


def _with_margin(left: float, top: float, width: float, height: float) -> Box:
    side = round(max(width, height) * MARGIN)
    return Box(round(left + width / 2 - side / 2), round(top + height / 2 - side / 2), side, side)
