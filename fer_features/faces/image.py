"""One image file, of any kind and size, to a 48x48 grey face."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.faces.bad_rows import RowError, shown
from fer_features.faces.dataset import SIDE

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)

# Only what the suffixes above promise: Pillow would also start other programs for some formats.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the bytes of an image file as pixels: uint8 (48, 48), grey, 0 to 255.

    EXIF orientation is applied, transparency laid over white, 16 bits scaled to 8, colour turned
    grey (ITU-R 601-2 luma) and the whole image resized by Pillow's bilinear filter. A 48x48 8-bit
    grey image is taken as it is.

    Raises
    ------
    RowError
        No image, a damaged one, one with several frames, or one of more than Pillow's
        ``MAX_IMAGE_PIXELS`` (89 million) pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise RowError("an empty file, expected an image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd metadata; damage to pixels is an error
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                # A camera's MPO file is a JPEG photo followed by previews of it.
                if frames > 1 and image.format != "MPO":
                    raise RowError(f"{frames} frames, expected a single image")
                return _grey(ImageOps.exif_transpose(image))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise RowError(
                f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, expected a picture of a face"
            ) from error
        except UnidentifiedImageError as error:
            raise RowError(
                "no image that can be recognised, expected what its name says"
            ) from error
        except _DAMAGE as error:
            raise RowError(f"a damaged image ({shown(str(error), 60)})") from error


# What Pillow's decoders raise on damaged files; OSError ("image file is truncated") is the usual.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, MemoryError, ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip


def _grey(image: Any) -> npt.NDArray[np.uint8]:
    """Turn a Pillow image of any mode into uint8 (48, 48)."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    image = image.convert("L")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def _eight_bits(values: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """Scale 16-bit grey values, 0 to 65535, to 0 to 255, to the nearest."""
    if mode == "F" or values.min() < 0 or values.max() > 65_535:
        # Nothing in such a file says which value is white.
        raise RowError("floating-point or 32-bit pixels, expected at most 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
