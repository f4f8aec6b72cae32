"""Pixels while they are read: in memory while they are few, in a temporary file when many."""

import contextlib
import mmap
import tempfile
from typing import IO

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError

IN_MEMORY = 256 * 2**20
"""How many bytes of pixels are held in memory; more lie in a temporary file."""

_BLOCK = 2**23  # bytes


class PixelBuffer:
    """Images of one form, appended in blocks, and then one array of them all.

    Beyond :data:`IN_MEMORY` bytes they lie in a temporary file without a name, which goes with
    the last array that shows it, and of which the system holds in memory what it has room for.

    Parameters
    ----------
    shape : tuple of int
        ``(h, w)`` or ``(h, w, 3)``: an image's shape.
    place : str
        What is being read, for messages.
    """

    def __init__(self, shape: tuple[int, ...], place: str) -> None:
        self.shape = shape
        self.place = place
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    def append(self, images: npt.NDArray[np.uint8]) -> None:
        """Add images, uint8 (n, ...) or a single one: anything whose bytes are whole images.

        Raises
        ------
        SourceError
            The temporary file cannot be written, as on a full disk.
        """
        if self._file is None:
            self._held += images.tobytes()
            if len(self._held) <= IN_MEMORY:
                return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="fer-features-")  # noqa: SIM115
                self._file.write(self._held)
                self._held = bytearray()
            else:
                self._file.write(images.tobytes())
        except OSError as error:
            raise self._failed(error) from error

    def array(self) -> npt.NDArray[np.uint8]:
        """Return all images as uint8 (n, h, w) or (n, h, w, 3), which cannot be written to.

        Nothing can be appended any more.

        Raises
        ------
        SourceError
            The temporary file cannot be written or mapped.
        """
        if self._file is None:
            held = memoryview(self._held).toreadonly()
            return np.frombuffer(held, np.uint8).reshape(-1, *self.shape)
        try:
            with self._file:
                self._file.flush()
                # No np.memmap: joblib would hand its workers the name of the file, which has none.
                mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._failed(error) from error
        return np.frombuffer(mapped, np.uint8).reshape(-1, *self.shape)

    def _failed(self, error: OSError) -> SourceError:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        folder = f" {tempfile.tempdir}" if tempfile.tempdir else ""
        return SourceError(
            f"{self.place}: its pixels cannot be kept in the temporary folder{folder} "
            f"({error.strerror}), expected room for all of them. Make room there, or set TMPDIR "
            "to another folder."
        )


def take(
    pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], place: str
) -> npt.NDArray[np.uint8]:
    """Return the given images of an array, as a :class:`PixelBuffer` holds them."""
    taken = PixelBuffer(pixels.shape[1:], place)
    block = max(1, _BLOCK // pixels[:1].nbytes)
    for start in range(0, len(rows), block):
        taken.append(pixels[rows[start : start + block]])
    return taken.array()
