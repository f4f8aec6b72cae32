"""A CSV file or a folder of images to a :class:`FaceDataset`, checked as a whole."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces import csv_file
from fer_features.faces.bad_rows import BadRows, RowError, shown
from fer_features.faces.dataset import SIDE, FaceDataset
from fer_features.faces.folder import list_images, place_images, shown_name
from fer_features.faces.image import decode_image

Progress = Callable[[int, int], None]


def read_faces(
    source: str | os.PathLike[str],
    *,
    limit: int | None = None,
    skip_bad: bool = False,
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
    limit : int, optional
        Take this many rows, evenly spaced over the good ones. A CSV file is still checked to its
        end; of a folder only the chosen images are decoded, so bad ones among the others pass
        unseen, and bad ones left out by ``skip_bad`` make fewer.
    skip_bad : bool
        Leave bad rows out and count them in ``skipped``, instead of raising an error.
    progress : callable, optional
        Called with how much is done of how much: bytes of a file, images of a folder.

    Raises
    ------
    SourceError
        The source is missing, neither of the two, empty, damaged, or has bad rows: all are found
        first, the message names up to five and counts them.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: expected at least 1 row. Leave it out to take all.")
    name = shown_name(source)
    path = _known_kind(source, name)
    with _mentioning(name):
        if path.is_dir():
            return _read_folder(path, name, limit, skip_bad, progress)
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
            _add_file(total, image, _content(path / image))
        return total.hexdigest()


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
    chosen = slice(None) if limit is None else evenly_spaced(len(rows.number), limit)
    return FaceDataset(
        name=source_name(path),
        kind="csv",
        sha256=sha256.result(),
        pixels=rows.pixels[chosen],
        emotion=rows.emotion[chosen],
        usage=rows.usage[chosen],
        source=rows.number[chosen].astype(np.str_),
        limit=limit,
        skipped=skipped,
    )


def _read_folder(
    folder: Path, name: str, limit: int | None, skip_bad: bool, progress: Progress | None
) -> FaceDataset:
    bad = _bad_files(name)
    paths = list_images(folder, bad)
    places = place_images(paths, name, bad)
    chosen = {places[i].path: places[i] for i in evenly_spaced(len(places), limit)}
    total = hashlib.sha256()
    images, good = bytearray(), []
    for done, path in enumerate(paths, start=1):
        content = _content(folder / path)
        _add_file(total, path, content)
        if path in chosen:
            try:
                images += _decode(content).tobytes()
                good.append(chosen[path])
            except RowError as finding:
                bad.add(shown_name(path), str(finding))
        if progress:
            progress(done, len(paths))
    skipped = bad.close(len(good), skip_bad)
    return FaceDataset(
        name=source_name(folder),
        kind="folder",
        sha256=total.hexdigest(),
        pixels=np.frombuffer(images, np.uint8).reshape(-1, SIDE, SIDE),
        emotion=np.array([place.emotion for place in good], dtype=np.int8),
        usage=np.array([place.usage for place in good], dtype=np.int8),
        source=np.array([place.path for place in good]),
        limit=limit,
        skipped=skipped,
    )


def _bad_files(name: str) -> BadRows:
    remedies = ("Mend or remove it,", "Mend or remove them,")
    return BadRows(name.rstrip("/"), "file", "/", remedies)


def _decode(content: bytes | OSError) -> npt.NDArray[np.uint8]:
    if isinstance(content, OSError):
        raise RowError(f"cannot be read ({content.strerror})")
    return decode_image(content)


def _content(path: Path) -> bytes | OSError:
    """Return a file's bytes, or why it has none: one unreadable image must not end the list."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error


def _add_file(total: "hashlib._Hash", path: str, content: bytes | OSError) -> None:
    """Add one image file to the hash of its folder; an unreadable one counts as empty."""
    data = b"" if isinstance(content, OSError) else content
    total.update(os.fsencode(path) + b"\0" + hashlib.sha256(data).digest())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
