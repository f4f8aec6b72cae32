"""A CSV file or a folder of images to a :class:`FaceDataset`, checked as a whole."""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces import csv_file
from fer_features.faces.bad_rows import BadRows, RowError, shown
from fer_features.faces.dataset import SIDE, FaceDataset, ImageForm
from fer_features.faces.folder import list_images, place_images, shown_name
from fer_features.faces.image import Decoded, decode, remarks_ignored
from fer_features.faces.pixels import PixelBuffer, take

Progress = Callable[[int, int], None]

IMAGE_SIZES = (8, 2048)
"""The smallest and the largest size to which images of a folder can be brought."""

log = logging.getLogger(__name__)


def read_faces(
    source: str | os.PathLike[str],
    *,
    limit: int | None = None,
    skip_bad: bool = False,
    image_size: int | None = None,
    color: bool = False,
    progress: Progress | None = None,
) -> FaceDataset:
    """Read faces from a CSV file or a folder of images; all of it is checked before any returns.

    Parameters
    ----------
    source : path
        A CSV file in one of FER2013's layouts (``fer2013.csv``, ``icml_face_data.csv``, Kaggle's
        ``train.csv`` and ``test.csv``), plain or packed as .gz, .xz or .zip: ``pixels`` holds
        2,304 grey values, 0 to 255, with spaces between, row by row of a 48x48 image; ``emotion``
        an id from 0 to 6; ``Usage`` Training, PublicTest or PrivateTest. Absent columns mean none.
        Or a folder, ``[usage folder/]emotion folder/any depth/image``; see
        :func:`fer_features.faces.image.decode_image` for what becomes of an image. Images that
        lie in no folder have no emotion. Files are taken in the order of their relative paths.
        How many images are not square, and so lose their margins, is said by an INFO of logging.
    limit : int, optional
        Take this many rows, evenly spaced over the good ones. A CSV file is still checked to its
        end; of a folder only the chosen images are decoded, so bad ones among the others pass
        unseen, and bad ones left out by ``skip_bad`` make fewer.
    skip_bad : bool
        Leave bad rows out and count them in ``skipped``, instead of raising an error.
    image_size : int, optional
        Height and width that images of a folder are brought to, 8 to 2048; 48 if left out. A CSV
        file has no other than 48.
    color : bool
        Read the images of a folder in colour, as (n, h, w, 3); a CSV file has none.
    progress : callable, optional
        Called with how much is done of how much: bytes of a file, images of a folder.

    Raises
    ------
    SourceError
        The source is missing, neither of the two, empty, damaged, or has bad rows: all are found
        first, the message names up to five and counts them. Or a CSV file is asked for another
        form of image, or the temporary folder has no room for more pixels than memory is given.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: expected at least 1 row. Leave it out to take all.")
    name = shown_name(source)
    path = _known_kind(source, name)
    size = _checked_size(image_size)
    with _mentioning(name):
        if path.is_dir():
            return _read_folder(path, name, limit, skip_bad, size, color, progress)
        _refuse_other_forms(name, size, color)
        with ThreadPoolExecutor(1) as beside:
            # hashlib lets the parser run meanwhile: on two cores the hash takes no time of its own.
            sha256 = beside.submit(_file_sha256, path)
            return _read_csv(path, name, sha256, limit, skip_bad, progress)


def source_sha256(source: str | os.PathLike[str]) -> str:
    """Return the hex sha256 that recognises a source, without parsing or decoding it.

    Of a file it is the sha256 of its bytes as they lie, packed or not. Of a folder it is the
    sha256 over all image files that reading looks at, in the order of their relative paths: of
    each the path, a zero byte, and the sha256 of its content.

    Raises
    ------
    SourceError
        The source is missing, or neither a CSV file nor a folder.
    """
    name = shown_name(source)
    path = _known_kind(source, name)
    with _mentioning(name):
        if not path.is_dir():
            return _file_sha256(path)
        total = hashlib.sha256()
        for image in list_images(path, _bad_files(name)):
            _add_file(total, image, hashlib.sha256(_content(path / image)[0]).digest())
        return total.hexdigest()


def source_form(
    source: str | os.PathLike[str], image_size: int | None = None, color: bool = False
) -> ImageForm:
    """Return the form that the images of a source are read in: height, width and channels.

    Raises
    ------
    SourceError
        The source is missing, or neither a CSV file nor a folder, or cannot have that form.
    """
    name = shown_name(source)
    size = _checked_size(image_size)
    if not _known_kind(source, name).is_dir():
        _refuse_other_forms(name, size, color)
    return size, size, 3 if color else 1


def source_name(source: str | os.PathLike[str]) -> str:
    """Return a source's name without folders and a CSV file's suffixes, such as ``"fer2013"``.

    Raises
    ------
    SourceError
        The source is missing, or neither a CSV file nor a folder.
    """
    path = _known_kind(source, shown_name(source))
    if path.is_dir():
        return shown_name(path.resolve().name) or "faces"
    stem = path.name
    while Path(stem).suffix.lower() in csv_file.SUFFIXES:
        stem = Path(stem).stem
    return shown_name(stem)


def evenly_spaced(n: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Return ``limit`` indices spread evenly over ``range(n)``, or all of them if fewer."""
    if limit is None or limit >= n:
        return np.arange(n)
    # In whole numbers: exact on every machine, and distinct because n > limit.
    return np.array([i * n // limit for i in range(limit)], dtype=np.int64)


def _known_kind(source: str | os.PathLike[str], name: str) -> Path:
    """Return the source as a path that is a folder or has a CSV file's suffix."""
    path = Path(source)
    if path.is_dir():
        return path
    if not path.exists():
        raise SourceError(f"{name}: no such file or folder, expected {_EXPECTED}. Check the path.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".tar" in suffixes[-2:]:
        raise SourceError(f"{name}: a tar archive, expected {_EXPECTED}. Unpack it first.")
    if not path.is_file() or path.suffix.lower() not in csv_file.SUFFIXES:
        raise SourceError(
            f"{name}: neither a CSV file nor a folder, expected {_EXPECTED}. "
            "Rename the file if it is CSV; of a store only --verify takes the name."
        )
    return path


_EXPECTED = "a .csv file, plain or packed as .gz, .xz or .zip, or a folder of images"


@contextmanager
def _mentioning(name: str) -> Iterator[None]:
    """Turn what the operating system says of a source, such as no permission, into one line."""
    try:
        yield
    except OSError as error:
        what = error.strerror or shown(str(error), 80)
        raise SourceError(
            f"{name}: cannot be read ({what}), expected {_EXPECTED}. Check its permissions."
        ) from error


def _checked_size(image_size: int | None) -> int:
    smallest, largest = IMAGE_SIZES
    try:
        size = SIDE if image_size is None else index(image_size)
    except TypeError:
        size = 0
    if isinstance(image_size, bool) or not smallest <= size <= largest:
        raise SourceError(
            f"image size {image_size!r}: expected a whole number from {smallest} to {largest}. "
            f"Leave it out to take {SIDE}."
        )
    return size


def _refuse_other_forms(name: str, size: int, color: bool) -> None:
    """Say that a CSV file cannot be read as anything but what it holds."""
    asked = [f"--image-size {size}"] * (size != SIDE) + ["--color"] * bool(color)
    if asked:
        raise SourceError(
            f"{name}: a CSV file, which holds {SIDE}x{SIDE} grey pixels, expected a folder of "
            f"images for {' and '.join(asked)}. Leave {'them' if asked[1:] else 'it'} out."
        )


def _read_csv(
    path: Path,
    name: str,
    sha256: Future[str],
    limit: int | None,
    skip_bad: bool,
    progress: Progress | None,
) -> FaceDataset:
    bad = BadRows(name, "row", " ", ("Remove the row", "Remove the rows"))
    rows = csv_file.read_csv(path, name, bad, progress)
    skipped = bad.close(len(rows.number), skip_bad)
    chosen = evenly_spaced(len(rows.number), limit)
    all_of_them = len(chosen) == len(rows.number)
    return FaceDataset(
        name=source_name(path),
        kind="csv",
        pixels=rows.pixels if all_of_them else take(rows.pixels, chosen, name),
        emotion=rows.emotion[chosen],
        usage=rows.usage[chosen],
        source=rows.number[chosen].astype(np.str_),
        sha256=sha256.result(),
        limit=limit,
        skipped=skipped,
    )


def _read_folder(
    folder: Path,
    name: str,
    limit: int | None,
    skip_bad: bool,
    size: int,
    color: bool,
    progress: Progress | None,
) -> FaceDataset:
    bad = _bad_files(name)
    paths = list_images(folder, bad)
    places = place_images(paths, name, bad)
    chosen = {places[i].path: places[i] for i in evenly_spaced(len(places), limit)}
    total = hashlib.sha256()
    pixels = PixelBuffer((size, size, 3) if color else (size, size), name)
    good, not_square = [], 0
    reading = _read_images(folder, paths, chosen, size, color)
    with remarks_ignored(), closing(reading):
        for done, file in enumerate(reading, start=1):
            _add_file(total, file.path, file.sha256)
            if isinstance(file.image, RowError):
                bad.add(shown_name(file.path), str(file.image))
            elif file.image is not None:
                pixels.append(file.image.pixels)
                good.append(chosen[file.path])
                not_square += not file.image.square
            if progress:
                progress(done, len(paths))
    skipped = bad.close(len(good), skip_bad)
    if not_square:
        are = "is not square: its" if not_square == 1 else "are not square: of each the"
        of = f"{not_square:,} of {len(good):,} image{'s' * (len(good) > 1)}"
        log.info("%s: %s %s middle square was taken", name, of, are)
    return FaceDataset(
        name=source_name(folder),
        kind="folder",
        pixels=pixels.array(),
        emotion=np.array([place.emotion for place in good], dtype=np.int8),
        usage=np.array([place.usage for place in good], dtype=np.int8),
        source=np.array([place.path for place in good]),
        sha256=total.hexdigest(),
        limit=limit,
        skipped=skipped,
    )


class _File(NamedTuple):
    """An image file: the sha256 of its content and, where it was chosen, what is in it."""

    path: str
    sha256: bytes
    image: Decoded | RowError | None


def _read_images(
    folder: Path, paths: Sequence[str], chosen: Container[str], size: int, color: bool
) -> Generator[_File, None, None]:
    """Read every file once and decode the chosen ones, on all cores; they come in order.

    No more than two files a core are held at once, however many there are.
    """
    from joblib import cpu_count

    def read(path: str) -> _File:
        content, error = _content(folder / path)
        image: Decoded | RowError | None = None
        if path in chosen:
            try:
                if error is not None:
                    raise RowError(f"cannot be read ({error.strerror})")
                image = decode(content, size, color)
            except RowError as finding:
                image = finding
        return _File(path, hashlib.sha256(content).digest(), image)

    cores = cpu_count()
    ahead = iter(paths)
    # Pillow and hashlib let other threads run while they work.
    with ThreadPoolExecutor(cores) as pool:
        waiting = deque(pool.submit(read, path) for path in islice(ahead, 2 * cores))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, path) for path in islice(ahead, 1))


def _bad_files(name: str) -> BadRows:
    remedies = ("Mend or remove it,", "Mend or remove them,")
    return BadRows(name.rstrip("/"), "file", "/", remedies)


def _content(path: Path) -> tuple[bytes, OSError | None]:
    """Return a file's bytes, or why it has none: one unreadable image must not end the list."""
    try:
        return path.read_bytes(), None
    except OSError as error:
        return b"", error


def _add_file(total: "hashlib._Hash", path: str, sha256: bytes) -> None:
    """Add one image file to the hash of its folder; an unreadable one counts as empty."""
    total.update(os.fsencode(path) + b"\0" + sha256)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
