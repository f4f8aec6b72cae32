"""The faces of one source, as arrays: what every other room takes in."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Names of FER2013's emotion ids, in order: ``EMOTIONS[3] == "happiness"``."""

USAGES = ("Training", "PublicTest", "PrivateTest")
"""FER2013's own three-way split, in the order of the ids a store keeps."""

SIDE = 48
"""Height and width of a face in pixels."""

NONE = -1
"""The emotion or usage id of a row whose source states none."""


def pixel_digests(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the sha256 of each image's bytes: uint8 (n, 48, 48) to uint8 (n, 32)."""
    pixels = np.ascontiguousarray(pixels)
    hashes = b"".join(hashlib.sha256(image).digest() for image in pixels)
    return np.frombuffer(hashes, dtype=np.uint8).reshape(len(pixels), 32)


@dataclass(frozen=True, eq=False)
class FaceDataset:
    """Faces and what their source says of them, row by row.

    Parameters
    ----------
    name : str
        The source's name without suffixes, such as ``"fer2013"``.
    kind : str
        ``"csv"``, ``"folder"`` or ``"arrays"``.
    sha256 : str
        Hex sha256 of the source: a CSV's file as it lies (packed or not); for a folder see
        :func:`fer_features.faces.reading.source_sha256`.
    pixels : uint8 (n, 48, 48), 0 to 255
        Grey images.
    emotion : int8 (n,)
        FER2013's ids, 0 to 6 (:data:`EMOTIONS`), or -1 for none.
    usage : int8 (n,)
        0 Training, 1 PublicTest, 2 PrivateTest, -1 none.
    source : str (n,)
        Where each row comes from: its row number in a CSV, counted from 1 below the header, or
        its path relative to the folder, with ``/`` between the parts.
    limit : int, optional
        How many evenly spaced rows were asked for; None when all were.
    skipped : int
        Bad rows that ``skip_bad`` left out.

    Attributes
    ----------
    digest : uint8 (n, 32)
        sha256 of each image's pixel bytes; equal digests are copies of one image.
    """

    name: str
    kind: str
    sha256: str
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    emotion: npt.NDArray[np.int8] = field(repr=False)
    usage: npt.NDArray[np.int8] = field(repr=False)
    source: npt.NDArray[np.str_] = field(repr=False)
    limit: int | None = None
    skipped: int = 0
    digest: npt.NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.pixels)
        expected = {
            "pixels": (np.uint8, (n, SIDE, SIDE)),
            "emotion": (np.int8, (n,)),
            "usage": (np.int8, (n,)),
        }
        for name, (dtype, shape) in expected.items():
            value = getattr(self, name)
            if value.dtype != dtype or value.shape != shape:
                raise ValueError(
                    f"{name}: {value.dtype} {value.shape}, expected {np.dtype(dtype)} {shape}."
                )
        if len(self.source) != n:
            raise ValueError(f"source: {len(self.source)} names, expected {n}.")
        object.__setattr__(self, "digest", pixel_digests(self.pixels))

    def __len__(self) -> int:
        return len(self.pixels)
