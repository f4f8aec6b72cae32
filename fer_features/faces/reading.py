"""Faces from a file or a folder to a :class:`FaceDataset`, checked as a whole."""

import hashlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fer_features.errors import SourceError
from fer_features.faces import arrays, csv_file, parquet
from fer_features.faces.bad_rows import BadRows, RowError, in_words, one_or_many, shown
from fer_features.faces.dataset import LARGEST, SIDE, FaceDataset, ImageForm, form_name
from fer_features.faces.emotions import EMOTIONS, NONE, Wording, whole_number
from fer_features.faces.folder import Place, list_images, place_images, shown_name
from fer_features.faces.image import content, read_images
from fer_features.faces.pixels import PixelBuffer, take
from fer_features.faces.table import BAD, Columns, Table, emotions, groups, usages

Progress = Callable[[int, int], None]

IMAGE_SIZES = (8, LARGEST)
"""The smallest and the largest size to which images of a folder can be brought."""

_PEEK = 64  # bytes

log = logging.getLogger(__name__)


def read_faces(
    source: str | os.PathLike[str],
    *,
    limit: int | None = None,
    skip_bad: bool = False,
    image_size: int | None = None,
    color: bool = False,
    map: Mapping[str, str] | None = None,  # noqa: A002  # --map
    labels_as: str | None = None,
    group_by: str | None = None,
    progress: bool | Progress = False,
) -> FaceDataset:
    """Read faces from a file or a folder of images; all of it is checked before any returns.

    Parameters
    ----------
    source : path
        A CSV file (comma, semicolon, tab or bar; plain or packed as .gz, .xz or .zip), such as
        ``fer2013.csv``: ``pixels`` holds 2,304 grey values, 0 to 255, of a 48x48 image, row by
        row, or each has a column of its own (``pixel0`` to ``pixel2303``); ``emotion`` a word
        ("happy") or one of FER2013's ids, 0 to 6; ``Usage`` Training, PublicTest or PrivateTest,
        or a word such as train, val, test; ``group`` or ``subject`` what must not be split.
        Absent columns mean none. A ``.parquet`` file has the same columns, or encoded images; an
        ``.npz`` file, or a ``.npy`` file with another beside it, arrays of images and labels.
        Or a folder, ``[usage folder/]emotion folder/any depth/image``, also within other folders;
        see :func:`fer_features.faces.image.decode_image` for what becomes of an image. Files are
        taken in the order of their relative paths.
    limit : int, optional
        Take this many rows, evenly spaced over the good ones. A file is still checked to its
        end; of a folder only the chosen images are decoded, so bad ones among the others pass
        unseen, and bad ones left out by ``skip_bad`` make fewer.
    skip_bad : bool
        Leave bad rows out and count them in ``skipped``, instead of raising an error. Each kind
        is said, with an example, and so is each emotion of which nothing is left.
    image_size : int, optional
        Height and width in pixels that images of a folder, or encoded ones in a Parquet file, are
        brought to, 8 to 2048; 48 if left out. Pixels in a CSV or Parquet file are 48x48, arrays
        stay as they are.
    color : bool
        Read such images in colour, as (n, h, w, 3), not in grey, as (n, h, w). Pixels in a CSV or
        Parquet file have none, arrays stay as they are.
    map : mapping of str to str, optional
        What words or numbers of the source mean: an emotion, or "none". "*" is every word that is
        not known otherwise.
    labels_as : str, optional
        Whose order numbers are in: "fer2013", "ferplus", "affectnet", "rafdb" or "ckplus"
        (:data:`~fer_features.faces.emotions.ORDERS`). Without it 0 to 6 in a column are
        FER2013's, and other numbers an error.
    group_by : str, optional
        A regular expression, searched in the path of each image of a folder: its first group is
        the person or sequence.
    progress : bool or callable
        True shows a bar on standard error and says at the end what was read. A callable is called
        with how much is done of how much: bytes of a file, images of a folder.

    Returns
    -------
    FaceDataset
        Pixels uint8 (n, h, w) or (n, h, w, 3), 0 to 255, and labels, in the source's order.

    Raises
    ------
    SourceError
        The source is missing, of no known kind, empty, damaged, or has bad rows: all are found
        first, the message shows up to five kinds and counts them. Or labels that cannot be read
        one way only; or another form of image than the source has; or ``group_by`` for a file; or
        a bad ``limit`` or ``image_size``; or pyarrow is missing for a Parquet file; or the
        temporary folder has no room for more pixels than memory is given. What is wrong with a
        folder's layout is said before any image is read.
    OptionError
        ``map``, ``labels_as`` or ``group_by`` has a bad value.

    Examples
    --------
    >>> from fer_features import read_faces
    >>> from fer_features.sample.faces import draw_faces, write_csv
    >>> write_csv(draw_faces(70), "faces.csv")  # in place of fer2013.csv
    >>> faces = read_faces("faces.csv")
    >>> faces.pixels.shape, faces.pixels.dtype
    ((70, 48, 48), dtype('uint8'))
    >>> read_faces("faces.csv", limit=10).emotion.shape
    (10,)
    """
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: expected at least 1 row. Leave it out to take all.")
    wording = Wording(map or {}, labels_as)
    name = shown_name(source)
    path = _known_kind(source, name)
    size = _checked_size(image_size)
    asked = _Asked(name, limit, skip_bad, size, color, wording, group_by, progress is True)
    with _mentioning(name), reading_bar(progress) as show:
        if path.is_dir():
            faces = _read_folder(path, asked, show)
        else:
            _file_form(path, name, size, color)
            if group_by is not None:
                raise SourceError(
                    f"{name}: group_by={group_by!r} for rows without paths, expected a folder of "
                    "images. Give the file a column 'group' instead."
                )
            with ThreadPoolExecutor(1) as beside:
                # hashlib lets the parser run meanwhile: on two cores the hash takes no time.
                sha256 = beside.submit(_file_sha256, path, name)
                faces = _read_table(path, asked, sha256, show)
    if progress is True:
        for line in faces.account():
            tell(line, True)
    return faces


class _Asked(NamedTuple):
    """A call's choices, and what the source is called in messages."""

    name: str
    limit: int | None
    skip_bad: bool
    size: int
    color: bool
    wording: Wording
    group_by: str | None
    says: bool


def tell(line: str, progress: bool) -> None:
    """Say what was done: through logging where it is listened to, else beside a progress bar."""
    if log.isEnabledFor(logging.INFO):
        log.info(line)
    elif progress:
        tqdm.write(line, file=sys.stderr)


@contextmanager
def reading_bar(progress: bool | Progress) -> Iterator[Progress | None]:
    """Give what shows progress: a caller's function, a bar, or nothing."""
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    started, bar = time.monotonic(), None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and time.monotonic() - started > 1:
            bar = tqdm(desc="Reading", total=total, initial=done, unit="", unit_scale=True,
                       leave=False)  # fmt: skip
        if bar is not None:
            bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def source_sha256(source: str | os.PathLike[str]) -> str:
    """Return the hex sha256 that recognises a source, without parsing or decoding it.

    Of a file it is the sha256 of its bytes as they lie, packed or not; of an .npy file with others
    beside it, that of the files' sha256, one after the other. Of a folder it is the
    sha256 over all image files that reading looks at, in the order of their relative paths: of
    each the path, a zero byte, and the sha256 of its content.

    Raises
    ------
    SourceError
        The source is missing, or of no known kind.
    """
    name = shown_name(source)
    path = _known_kind(source, name)
    with _mentioning(name):
        if not path.is_dir():
            return _file_sha256(path, name)
        total = hashlib.sha256()
        for image in list_images(path, _bad_files(name)).images:
            _add_file(total, image, hashlib.sha256(content(path / image)[0]).digest())
        return total.hexdigest()


def source_form(
    source: str | os.PathLike[str], image_size: int | None = None, color: bool = False
) -> ImageForm:
    """Return the form that the images of a source are read in: height, width and channels.

    Raises
    ------
    SourceError
        The source is missing, or of no known kind, or cannot have that form.
    """
    name = shown_name(source)
    size = _checked_size(image_size)
    path = _known_kind(source, name)
    if not path.is_dir():
        return _file_form(path, name, size, color)
    return size, size, 3 if color else 1


def source_name(source: str | os.PathLike[str]) -> str:
    """Return a source's name without folders and a file's suffixes, such as ``"fer2013"``.

    Raises
    ------
    SourceError
        The source is missing, or of no known kind.
    """
    path = _known_kind(source, shown_name(source))
    if path.is_dir():
        return shown_name(path.resolve().name) or "faces"
    stem = path.name
    while Path(stem).suffix.lower() in SUFFIXES:
        stem = Path(stem).stem
    return shown_name(stem)


def evenly_spaced(n: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Return ``limit`` indices spread evenly over ``range(n)``, or all of them if fewer."""
    if limit is None or limit >= n:
        return np.arange(n)
    # In whole numbers: exact on every machine, and distinct because n > limit.
    return np.array([i * n // limit for i in range(limit)], dtype=np.int64)


def _known_kind(source: str | os.PathLike[str], name: str) -> Path:
    """Return the source as a path that is a folder, or a file of a kind that can be read."""
    path = Path(source)
    if path.is_dir():
        return path
    if not path.exists():
        raise SourceError(f"{name}: no such file or folder, expected {_EXPECTED}. Check the path.")
    if path.is_file():
        with _mentioning(name), path.open("rb") as file:
            stands_for = in_words(file.read(_PEEK))
        if stands_for:
            what, remedy = stands_for
            raise SourceError(f"{name}: {what}, expected {_EXPECTED}. {remedy}.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".tar" in suffixes[-2:]:
        raise SourceError(f"{name}: a tar archive, expected {_EXPECTED}. Unpack it first.")
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        raise SourceError(
            f"{name}: neither a table of faces nor a folder, expected {_EXPECTED}. Rename the file "
            "if it is CSV; a list of labels goes to --labels when a head is fitted, and of a store "
            "only --verify takes the name."
        )
    return path


SUFFIXES = (*csv_file.SUFFIXES, *parquet.SUFFIXES, *arrays.SUFFIXES)
"""Suffixes of the files that can be read, in lower case."""

_EXPECTED = (
    "a .csv file, plain or packed as .gz, .xz or .zip, a .parquet, .npz or .npy file, or a folder "
    "of images"
)


@contextmanager
def _mentioning(name: str) -> Iterator[None]:
    """Turn what the operating system says of a source, such as no permission, into one line."""
    try:
        yield
    except MemoryError as error:
        raise SourceError(
            f"{name}: more than the memory of this machine holds, expected {_EXPECTED}. Check that "
            "it is the right file, or pass it in parts."
        ) from error
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


def _file_form(path: Path, name: str, size: int, color: bool) -> ImageForm:
    """Return the form of a file's images, which is asked for only where they are encoded."""
    suffix = path.suffix.lower()
    if suffix in parquet.SUFFIXES:
        return parquet.parquet_form(path, name, size, color)
    form = arrays.arrays_form(path, name) if suffix in arrays.SUFFIXES else (SIDE, SIDE, 1)
    asked = [f"image_size={size}"] * (size not in (SIDE, *form[:2]))
    asked += ["color=True"] * (color and form[2] == 1)
    if asked:
        what = "a CSV file" if suffix in csv_file.SUFFIXES else "a file of arrays"
        raise SourceError(
            f"{name}: {what}, which holds {form_name(form)} pixels, expected a folder of images "
            f"for {' and '.join(asked)}. Leave {'them' if asked[1:] else 'it'} out."
        )
    return form


def _read_table(
    path: Path, asked: _Asked, sha256: Future[str], show: Progress | None
) -> FaceDataset:
    bad = BadRows(asked.name, "row", " ", ("Remove the row", "Remove the rows"))
    announce = partial(_announce, asked)
    suffix = path.suffix.lower()
    kind, not_square = "csv", 0
    if suffix in arrays.SUFFIXES:
        kind, table = "arrays", arrays.read_arrays(path, asked.name, bad, show, announce)
    elif suffix in parquet.SUFFIXES:
        kind = "parquet"
        table, not_square = parquet.read_parquet(
            path, asked.name, bad, asked.size, asked.color, show, announce
        )
    else:
        table = csv_file.read_csv(path, asked.name, bad, show, announce)
    emotion, words = emotions(table, asked.name, asked.wording, bad, asked.skip_bad)
    _say_if_from_one(table, asked)
    usage = usages(table, emotion, bad)
    good = np.flatnonzero((emotion != BAD) & (usage != BAD))
    skipped = bad.close(len(good), asked.skip_bad)
    _say_left_out(bad, set(emotion[good].tolist()), words, asked)
    _say_margins(not_square, len(table.number), asked)
    chosen = good[evenly_spaced(len(good), asked.limit)]
    all_of_them = len(chosen) == len(table.number)
    return FaceDataset(
        name=source_name(path),
        kind=kind,
        pixels=table.pixels if all_of_them else take(table.pixels, chosen, asked.name),
        emotion=emotion[chosen],
        usage=usage[chosen],
        group=groups(table, chosen, asked.name),
        source=table.number[chosen].astype(f"U{len(str(table.number[-1]))}"),
        sha256=sha256.result(),
        limit=asked.limit,
        skipped=skipped,
        left_out=bad.by_kind,
    )


def _announce(asked: _Asked, columns: Columns) -> None:
    for line in columns.said:
        tell(line, asked.says)
    if columns.unlabelled:
        log.warning("%s: no labels: %s", asked.name, columns.unlabelled)


def _say_left_out(bad: BadRows, there: set[int], words: Mapping[str, int], asked: _Asked) -> None:
    """Say each kind of bad row, and of which emotions nothing is left."""
    for line in bad.left_out():
        tell(line, asked.says)
    lost = Counter[int]()
    for word, count in bad.words.items():
        emotion = words.get(word, NONE)
        if emotion != NONE and emotion not in there:
            lost[emotion] += count
    for emotion, count in lost.items():
        log.warning(
            "%s: nothing of %s is left: %s bad and left out",
            asked.name,
            EMOTIONS[emotion],
            f"all {count:,} {bad.unit}s were" if count > 1 else f"its one {bad.unit} was",
        )


def _read_folder(folder: Path, asked: _Asked, show: Progress | None) -> FaceDataset:
    name = asked.name
    bad = _bad_files(name)
    listing = list_images(folder, bad)
    layout = place_images(
        listing, folder, name.rstrip("/"), bad, asked.wording, asked.group_by, asked.skip_bad
    )
    bad.close(len(layout.places), asked.skip_bad)  # before 70,000 files are read
    for line in layout.said:
        tell(line, asked.says)
    if layout.unlabelled:
        log.warning("%s: no labels: %s", name, layout.unlabelled)
    places = [layout.places[i] for i in evenly_spaced(len(layout.places), asked.limit)]
    chosen = {place.path: place for place in places}
    total = hashlib.sha256()
    size, color = asked.size, asked.color
    pixels = PixelBuffer((size, size, 3) if color else (size, size), name)
    good: list[Place] = []
    not_square, paths = 0, listing.images
    reading = read_images(folder, paths, chosen, size, color)
    with closing(reading):
        for done, file in enumerate(reading, start=1):
            _add_file(total, file.path, file.sha256)
            if isinstance(file.image, RowError):
                emotion = chosen[file.path].emotion
                word = None if emotion == NONE else EMOTIONS[emotion]
                bad.add(shown_name(file.path), file.image, word=word)
            elif file.image is not None:
                pixels.append(file.image.pixels)
                good.append(chosen[file.path])
                not_square += not file.image.square
            if show:
                show(done, len(paths))
    skipped = bad.close(len(good), asked.skip_bad)
    ids = {each: i for i, each in enumerate(EMOTIONS)}
    unread = {place.emotion for place in layout.places if place.path not in chosen}
    _say_left_out(bad, {place.emotion for place in good} | unread, ids, asked)
    _say_margins(not_square, len(good), asked)
    return FaceDataset(
        name=source_name(folder),
        kind="folder",
        pixels=pixels.array(),
        emotion=np.array([place.emotion for place in good], dtype=np.int8),
        usage=np.array([place.usage for place in good], dtype=np.int8),
        group=np.array([place.group for place in good], dtype=np.str_),
        source=np.array([place.path for place in good], dtype=np.str_),
        sha256=total.hexdigest(),
        limit=asked.limit,
        skipped=skipped,
        left_out={**bad.by_kind, **listing.left_out},
    )


def _say_if_from_one(table: Table, asked: _Asked) -> None:
    """Say that numbers without a 0 are read as FER2013's, though they may count from 1."""
    words = table.emotion.words if table.emotion is not None else []
    numbers = {number for word in words if (number := whole_number(word)) is not None}
    unsaid = asked.wording.labels_as is None and not asked.wording.map
    if unsaid and len(numbers) > 3 and min(numbers) == 1 and max(numbers) == 6:
        tell(
            f"{asked.name}: the emotions are numbers and none is 0: read as FER2013's, "
            "1 disgust to 6 neutral; if they count from 1, say whose they are with labels_as",
            asked.says,
        )


def _say_margins(not_square: int, of: int, asked: _Asked) -> None:
    if not_square:
        are = "is not square: its" if not_square == 1 else "are not square: of each the"
        told = f"{not_square:,} of {one_or_many(of, 'image')} {are} middle square was taken"
        tell(f"{asked.name}: {told}", asked.says)


def _bad_files(name: str) -> BadRows:
    remedies = ("Mend or remove it,", "Mend or remove them,")
    return BadRows(name.rstrip("/"), "file", "/", remedies)


def _add_file(total: "hashlib._Hash", path: str, sha256: bytes) -> None:
    """Add one image file to the hash of its folder; an unreadable one counts as empty."""
    total.update(os.fsencode(path) + b"\0" + sha256)


def _file_sha256(path: Path, name: str) -> str:
    paths = arrays.array_files(path, name) if path.suffix.lower() in arrays.SUFFIXES else (path,)
    digests = []
    for each in paths:
        with each.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
