"""One image file, of any kind and size, to a square face of a given size, grey or in colour."""

import errno
import hashlib
import io
import os
import struct
import time
import warnings
import zlib
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.faces.bad_rows import RowError, in_words, shown
from fer_features.faces.dataset import SIDE
from fer_features.runtimes import in_processes

SUFFIXES = {
    ".avif": "AVIF", ".bmp": "BMP", ".dib": "DIB", ".gif": "GIF", ".j2k": "JPEG2000",
    ".jfif": "JPEG", ".jp2": "JPEG2000", ".jpe": "JPEG", ".jpeg": "JPEG", ".jpg": "JPEG",
    ".pbm": "PPM", ".pgm": "PPM", ".png": "PNG", ".pnm": "PPM", ".ppm": "PPM", ".tif": "TIFF",
    ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
"""Suffixes of images, in lower case, and Pillow's format of each; other files are looked into."""

UNREADABLE = frozenset(
    (
        ".ai", ".arw", ".cr2", ".dng", ".eps", ".heic", ".heif", ".jxl", ".jxr", ".nef", ".psd",
        ".raw", ".svg", ".tga", ".xcf",
    )
)  # fmt: skip
"""Suffixes of images that cannot be read, in lower case."""


def readable() -> tuple[str, ...]:
    """Return which of these formats the installed Pillow reads; AVIF is not in every one.

    Only what the suffixes promise: Pillow would also start other programs for some formats.
    """
    from PIL import Image

    Image.init()
    return tuple(sorted({each for each in SUFFIXES.values() if each in Image.OPEN}))


def is_image(path: Path) -> bool:
    """Tell whether a file begins as an image that can be read, whatever its name."""
    from PIL import Image

    try:
        with remarks_ignored(), Image.open(path, formats=readable()):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except _DAMAGE:
        return False


MOST_BYTES = 2**28
"""Bytes of an image file, at most: as many as Pillow's most pixels take unpacked, in colour."""

MOST_FRAMES = 1000
"""How many frames are counted: of a TIFF file of very many, Pillow's own count would not end."""

_BAND = 2**22  # pixels that are converted at once: of one image there may be many
_BLOCK = 64  # files
_LONG = 2  # seconds from which on other processes are worth their start


class Decoded(NamedTuple):
    """An image's pixels, uint8 (h, w) or (h, w, 3), the size it had, and its number of frames."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    frames: int

    @property
    def square(self) -> bool:
        return self.width == self.height


def decode_image(data: bytes, size: int = SIDE, color: bool = False) -> npt.NDArray[np.uint8]:
    """Return the bytes of an image file as pixels, 0 to 255.

    EXIF orientation is applied, transparency laid over white, 16 bits scaled to 8. Colour turns
    grey by ITU-R 601-2 luma, or grey into three equal channels. Then the shorter side is brought
    to ``size`` by Pillow's bilinear filter, and of the longer the middle is taken: an image that
    is not square loses its margins, not its shape. An 8-bit image that already has the size and
    the channels is taken as it is.

    Parameters
    ----------
    data : bytes
        The content of an image file.
    size : int
        Height and width of the result.
    color : bool
        Whether to return uint8 (size, size, 3), red, green and blue, instead of (size, size).

    Raises
    ------
    RowError
        No image, a damaged one, one with several frames, or one of more than Pillow's
        ``MAX_IMAGE_PIXELS`` (89 million) pixels.
    """
    with remarks_ignored():
        return decode(data, size, color).pixels


@contextmanager
def remarks_ignored() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata, and make too large an image an error.

    Warnings are of the whole process: threads that decode share one such context around them.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(
    data: bytes, size: int | tuple[int, int], color: bool, first_frame: bool = False
) -> Decoded:
    """Do what :func:`decode_image` does, within :func:`remarks_ignored`.

    ``size`` may be a height and a width; with ``first_frame`` that one is taken of several.
    """
    with opened_image(data, first_frame) as (image, frames):
        return Decoded(face(image, size, color), image.width, image.height, frames)


@contextmanager
def opened_image(data: Any, first_frame: bool = False) -> Iterator[tuple[Any, int]]:
    """Give a file's upright Pillow image and its number of frames, within :func:`remarks_ignored`.

    ``data`` is the file's content; or a Pillow image, at the frame where it stands.

    Raises
    ------
    RowError
        As :func:`decode_image`; also where the image turns out damaged while it is used.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    is_file = isinstance(data, bytes)
    if is_file and not data:
        raise RowError("an empty file, expected an image")
    if is_file and (stands_for := in_words(data[:64])):
        what, remedy = stands_for
        raise RowError(f"{what}, expected an image ({remedy})")
    try:
        opened = Image.open(io.BytesIO(data), formats=readable()) if is_file else nullcontext(data)
        with opened as image:
            frames = _frames(image) if is_file else 1
            if frames > 1 and not first_frame:
                counted = f"{frames}{' or more' * (frames == MOST_FRAMES)} frames"
                raise RowError(f"{counted}, expected a single image", "images of several frames")
            if is_file:
                ImageOps.exif_transpose(image, in_place=True)
                yield image, frames
            else:
                yield ImageOps.exif_transpose(image), frames
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError(
            f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, expected a picture of a face"
        ) from error
    except UnidentifiedImageError as error:
        raise RowError(
            "no image that can be recognised, expected one such as PNG or JPEG"
        ) from error
    except _DAMAGE as error:
        raise RowError(f"a damaged image ({shown(str(error), 60)})", "damaged images") from error


def _frames(image: Any) -> int:
    """Count the frames of an image in a file, up to :data:`MOST_FRAMES`."""
    # A camera's MPO file is a JPEG photo followed by previews of it.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return 1
    if image.format != "TIFF":
        return min(int(image.n_frames), MOST_FRAMES)
    frames = 1
    try:
        while frames < MOST_FRAMES:
            image.seek(frames)
            frames += 1
    except EOFError:
        pass
    image.seek(0)
    return frames


# What Pillow's decoders raise on damaged files; OSError ("image file is truncated") is the usual.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, MemoryError, ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip


def face(image: Any, size: int | tuple[int, int], color: bool) -> npt.NDArray[np.uint8]:
    """Turn a Pillow image of any mode and size into pixels, as :func:`decode_image` does."""
    from PIL import Image, ImageOps

    image = plain(image, color)
    height, width = (size, size) if isinstance(size, int) else size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def plain(image: Any, color: bool) -> Any:
    """Return a Pillow image of any mode as one of mode RGB, or L, in its own size."""
    from PIL import Image

    image.load()
    mode = "RGB" if color else "L"
    if image.mode == mode and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        _refuse_over_16_bits(image)
    if image.width * image.height <= _BAND:
        return _in_mode(image, mode)
    converted = Image.new(mode, image.size)
    for top, band in _bands(image):
        converted.paste(_in_mode(band, mode), (0, top))
    return converted


def _bands(image: Any) -> Iterator[tuple[int, Any]]:
    """Yield an image from top to bottom, some rows at a time, and where each part begins."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _in_mode(image: Any, mode: str) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey values, 0 to 65535, to 0 to 255, to the nearest.
        values = (np.asarray(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(values.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image.convert(mode)


def _refuse_over_16_bits(image: Any) -> None:
    """Refuse pixels of which nothing in the file says which value is white."""
    if image.mode != "F":
        bands = (np.asarray(band) for _, band in _bands(image))
        low, high = zip(*((band.min(), band.max()) for band in bands), strict=True)
        # 16 bits of a PGM file come as 32, too; of those at most 255 are most likely 8 bits'.
        is_eight = image.mode == "I" and 0 < max(high) <= 255
        if min(low) >= 0 and max(high) <= 65_535 and not is_eight:
            return
    raise RowError("floating-point or 32-bit pixels, expected at most 16 bits")


class ImageFile(NamedTuple):
    """An image file: the sha256 of its content and, where it was chosen, what is in it."""

    path: str
    sha256: bytes
    image: Decoded | RowError | None


def read_images(
    folder: Path,
    paths: Sequence[str],
    chosen: Container[str],
    size: int | tuple[int, int],
    color: bool,
    first_frame: bool = False,
) -> Generator[ImageFile, None, None]:
    """Read every file once and decode the chosen ones, on all cores; they come in order.

    What begins as a small job stays in this process: others take half a second to start. Threads
    would not do, as of a small image too much of the work is Python's own.
    """
    from joblib import cpu_count, delayed

    blocks = (
        [(path, path in chosen) for path in paths[start : start + _BLOCK]]
        for start in range(0, len(paths), _BLOCK)
    )
    started, done = time.perf_counter(), 0
    for block in blocks:
        yield from _read_block(folder, block, size, color, first_frame)
        done += len(block)
        left = (time.perf_counter() - started) / done * (len(paths) - done)
        if left > _LONG and cpu_count() > 1:
            break
    calls = (delayed(_read_block)(folder, block, size, color, first_frame) for block in blocks)
    if done < len(paths):
        for files in in_processes(calls, cpu_count(), ordered=True):
            yield from files


def _read_block(folder: Path, block: Sequence[tuple[str, bool]], *form: Any) -> list[ImageFile]:
    """Read some files, and decode those to be decoded; ``form`` is :func:`decode`'s."""
    with remarks_ignored():
        return [_read_image(folder, path, is_chosen, *form) for path, is_chosen in block]


def _read_image(folder: Path, path: str, is_chosen: bool, *form: Any) -> ImageFile:
    data, error = content(folder / path)
    image: Decoded | RowError | None = None
    if is_chosen:
        try:
            if error is not None:
                raise RowError(f"cannot be read ({error.strerror})")
            image = decode(data, *form)
        except RowError as finding:
            image = finding
    return ImageFile(path, hashlib.sha256(data).digest(), image)


def content(path: Path) -> tuple[bytes, OSError | None]:
    """Return a file's bytes, or why it has none: one unreadable image must not end the list."""
    try:
        with path.open("rb") as file:
            held = file.read(MOST_BYTES + 1)
        if len(held) > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return held, None
    except OSError as error:
        return b"", error
