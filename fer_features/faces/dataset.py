"""The faces of one source, as arrays: what every other room takes in."""

import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.faces.emotions import EMOTIONS, NONE, USAGES

SIDE = 48
"""Height and width of FER2013's faces in pixels: those of a CSV file and of drawn ones."""

LARGEST = 2048
"""Height and width of an image that is kept, at most."""

ImageForm = tuple[int, int, int]
"""The form of an image: height and width in pixels, and 1 channel (grey) or 3 (colour)."""


def image_form(pixels: npt.NDArray[np.uint8]) -> ImageForm:
    """Return the form of the images in an array (n, h, w) or (n, h, w, 3)."""
    _, height, width, *colours = pixels.shape
    return height, width, 3 if colours else 1


def form_name(image: ImageForm) -> str:
    """Return an image's form in words: ``"48x48 grey"``."""
    height, width, channels = image
    return f"{height}x{width} {'grey' if channels == 1 else 'colour'}"


def pixel_digests(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what recognises each image: uint8 (n, h, w) or (n, h, w, 3) to uint8 (n, 32).

    It is the sha256 of the ASCII bytes ``"h,w,c,uint8\\n"`` (c is 1 or 3) and the image's pixel
    bytes, row by row.
    """
    start = hashlib.sha256(f"{','.join(map(str, image_form(pixels)))},uint8\n".encode())
    hashes = bytearray()
    for image in pixels:
        digest = start.copy()
        digest.update(np.ascontiguousarray(image).data)
        hashes += digest.digest()
    return np.frombuffer(hashes, dtype=np.uint8).reshape(len(pixels), 32)


@dataclass(frozen=True, eq=False, repr=False)
class FaceDataset:
    """Faces and what their source says of them, row by row.

    Parameters
    ----------
    name : str
        The source's name without suffixes, such as ``"fer2013"``.
    kind : str
        ``"csv"``, ``"parquet"``, ``"folder"`` or ``"arrays"``.
    pixels : uint8 (n, h, w) or (n, h, w, 3), 0 to 255
        Grey or colour images, all of one form; n may be 0.
    emotion : int8 (n,)
        Ids, 0 to 7 (:data:`~fer_features.faces.emotions.EMOTIONS`), or -1 for none.
    usage : int8 (n,)
        0 Training, 1 PublicTest, 2 PrivateTest, -1 none.
    source : str (n,)
        Where each row comes from: its row number in a file, counted from 1 (below the header), or
        its path relative to the folder, with ``/`` between the parts.
    sha256 : str, optional
        Hex sha256 of the source that was read: a CSV's file as it lies (packed or not); for a
        folder see :func:`fer_features.faces.reading.source_sha256`. None for arrays made in
        Python.
    group : str (n,), optional
        What must not be split, such as a person or a sequence; empty for none.
    limit : int, optional
        How many evenly spaced rows were asked for; None when all were.
    skipped : int
        Bad rows that ``skip_bad`` left out.
    left_out : dict of str to int, optional
        How many rows or files of the source are not here, by reason: the bad ones, and files that
        are no images. What a limit leaves out is not among them.

    Attributes
    ----------
    digest : uint8 (n, 32)
        sha256 of each image's form and pixels; equal digests are copies of one image.

    Raises
    ------
    ValueError
        An array of another type or length, an id out of range, or a source or group that holds a
        NUL character or is not encodable as UTF-8, which a store cannot keep.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features import FaceDataset
    >>> faces = FaceDataset(
    ...     name="two",
    ...     kind="arrays",
    ...     pixels=np.zeros((2, 48, 48), np.uint8),
    ...     emotion=np.array([3, -1], np.int8),
    ...     usage=np.array([-1, -1], np.int8),
    ...     source=np.array(["a.png", "b.png"]),
    ... )
    >>> faces.image
    (48, 48, 1)
    >>> len(set(map(bytes, faces.digest)))  # two rows, one image
    1
    """

    name: str
    kind: str
    pixels: npt.NDArray[np.uint8]
    emotion: npt.NDArray[np.int8]
    usage: npt.NDArray[np.int8]
    source: npt.NDArray[np.str_]
    sha256: str | None = None
    group: npt.NDArray[np.str_] = None  # type: ignore[assignment]  # below: n empty strings
    limit: int | None = None
    skipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    digest: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        _check_pixels(self.pixels)
        n = len(self.pixels)
        if self.group is None:
            object.__setattr__(self, "group", np.full(n, ""))
        _check_ids("emotion", self.emotion, n, EMOTIONS)
        _check_ids("usage", self.usage, n, USAGES)
        _check_texts("source", self.source, n)
        _check_texts("group", self.group, n)
        object.__setattr__(self, "digest", pixel_digests(self.pixels))

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        faces = "1 face" if len(self) == 1 else f"{len(self):,} faces"
        return f"FaceDataset({self.name!r}: {faces} of {form_name(self.image)})"

    def _repr_html_(self) -> str:
        lines = "".join(f"<br>{html.escape(line)}" for line in self.account())
        return f"<p>{html.escape(repr(self))}{lines}</p>"

    @property
    def image(self) -> ImageForm:
        """Form of every image, three int: height and width in pixels, channels (1 or 3)."""
        return image_form(self.pixels)

    def account(self) -> list[str]:
        """Return what there is, list of str: rows by emotion, by usage, each kind left out."""
        return account(self.name, self.emotion, self.usage, self.left_out)

    @property
    def content_sha256(self) -> str:
        """Hex sha256, str, of what the rows hold, whatever the dataset is called and was read from.

        It is taken over six parts, in this order: ``image`` (h, w and c as ASCII numbers with
        commas between), ``digest``, ``emotion`` and ``usage`` (their bytes), ``group`` and
        ``source`` (each text in UTF-8, with a zero byte after it). Before each part stand its
        name, a space, its length in bytes as an ASCII number, and a line feed.
        """
        parts = {
            "image": ",".join(map(str, self.image)).encode(),
            "digest": self.digest.tobytes(),
            "emotion": self.emotion.tobytes(),
            "usage": self.usage.tobytes(),
            "group": _ended_by_zeros(self.group.tolist()),
            "source": _ended_by_zeros(self.source.tolist()),
        }
        total = hashlib.sha256()
        for name, content in parts.items():
            total.update(f"{name} {len(content)}\n".encode() + content)
        return total.hexdigest()


def account(
    name: str,
    emotion: npt.NDArray[np.int8],
    usage: npt.NDArray[np.int8],
    left_out: Mapping[str, int],
) -> list[str]:
    """Return what a source holds, one line each: rows by emotion, by usage, what was left out.

    All of FER2013's emotions are named, also those that no row has, where any row has one.
    """
    rows = f"{name}: {len(emotion):,} row{'' if len(emotion) == 1 else 's'}"
    lines = [
        f"{rows} by emotion: {_counted(emotion, EMOTIONS, optional=('contempt',))}",
        f"{rows} by usage: {_counted(usage, USAGES)}",
    ]
    return lines + [f"{name}: left out {n:,}: {reason}" for reason, n in left_out.items()]


def _counted(ids: npt.NDArray[np.int8], names: Sequence[str], optional: Sequence[str] = ()) -> str:
    counts = np.bincount(ids + 1, minlength=len(names) + 1)
    none = f"none {counts[0]:,}"
    if not counts[1:].any():
        return none
    said = [
        f"{each} {n:,}"
        for each, n in zip(names, counts[1:], strict=True)
        if n or each not in optional
    ]
    return ", ".join(said + [none] * bool(counts[0]))


def _check_pixels(pixels: Any) -> None:
    shape: tuple[int, ...] = getattr(pixels, "shape", ())
    right = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or not right
        or 0 in shape[1:]
    ):
        raise ValueError(
            f"pixels: {_found(pixels)}, expected uint8 (n, height, width) for grey images or "
            "(n, height, width, 3) for colour."
        )


def _check_ids(name: str, ids: Any, n: int, names: tuple[str, ...]) -> None:
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int8 or ids.shape != (n,):
        raise ValueError(f"{name}: {_found(ids)}, expected int8 ({n},), an id for each image.")
    wrong = np.flatnonzero((ids < NONE) | (ids >= len(names)))
    if len(wrong):
        raise ValueError(
            f"{name}[{wrong[0]}]: {ids[wrong[0]]}, expected an id from 0 to {len(names) - 1}, or "
            f"{NONE} for none."
        )


def _check_texts(name: str, texts: Any, n: int) -> None:
    if not isinstance(texts, np.ndarray) or texts.dtype.kind != "U" or texts.shape != (n,):
        raise ValueError(f"{name}: {_found(texts)}, expected str ({n},), a text for each image.")
    # Python's texts take twice as much memory as NumPy's: not all of them at once.
    parts = (texts[start : start + 4096].tolist() for start in range(0, n, 4096))
    for i, text in enumerate(chain.from_iterable(parts)):
        if "\0" in text:
            raise ValueError(
                f"{name}[{i}]: {text!r} holds a NUL character, which a store cannot keep. "
                "Leave it out."
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}[{i}]: {text!r} is not encodable as UTF-8, which a store cannot keep. "
                "Give it another name."
            ) from None


def _found(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    kind = "str" if value.dtype.kind == "U" else value.dtype.name
    return f"{kind} {value.shape}"


def _ended_by_zeros(texts: Iterable[str]) -> bytes:
    return b"".join(text.encode() + b"\0" for text in texts)
