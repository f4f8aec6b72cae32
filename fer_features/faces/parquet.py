"""Faces from a Parquet file: the columns of a CSV file, or images as Hugging Face keeps them.

Read in batches through pyarrow, which is an extra of this package; only one batch is held besides
the pixels.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.bad_rows import BadRows, RowError, in_words, shown
from fer_features.faces.cells import (
    SHAPES,
    from_encoded,
    from_list,
    from_numbers,
    from_text,
    word_of,
)
from fer_features.faces.dataset import SIDE, ImageForm
from fer_features.faces.emotions import USAGES, emotion_of, usage_of
from fer_features.faces.image import Decoded, remarks_ignored
from fer_features.faces.pixel_text import count_values
from fer_features.faces.pixels import PixelBuffer
from fer_features.faces.table import (
    LONGEST_WORD,
    PIXELS,
    Coding,
    Columns,
    Table,
    check_few,
    find_columns,
    may_be_emotion,
    too_long,
)

SUFFIXES = (".parquet",)

_LAYOUT = "a Parquet file with a column 'pixels' or 'image' and, if it has labels, 'emotion'"
_IMAGE = ("image", "img")
_ROWS = {"images": 64, "text": 512, "lists": 512, "wide": 512}  # of a batch, by what is in it
_MOST_BYTES, _MOST_NUMBERS = 2**25, 2**18
"""What a row holds at most, on average: a photograph, or a hundred times a face's pixels."""

_BATCH = 2**25
"""Bytes and numbers of a batch, about."""


class _Form(NamedTuple):
    """How a file is laid out.

    ``kind`` says what the pixels are: encoded ``"images"``, ``"text"``, ``"lists"`` of numbers, or
    ``"wide"``, a column for each. ``classes`` are the names of the emotion's numbers, if the file
    names them; ``usage`` is the usage id that the file's name says, or None.
    """

    names: list[str]
    columns: Columns
    kind: str
    classes: list[str] | None
    usage: int | None


def read_parquet(
    path: Path,
    shown_path: str,
    bad: BadRows,
    size: int,
    color: bool,
    progress: Callable[[int, int], None] | None,
    announce: Callable[[Columns], None],
) -> tuple[Table, int]:
    """Read every row of a Parquet file; bad ones go to ``bad``.

    The pixels of a row are text as in a CSV file, a list of 2,304 whole numbers from 0 to 255 or
    48 lists of 48, such a number in each of 2,304 columns, or an encoded image: its bytes, or
    Hugging Face's struct of bytes and path. Images are decoded on all cores. Where the file says
    the names of an emotion's numbers, as Hugging Face's ClassLabel does, these are its words. Of
    ``train-00000-of-00001.parquet`` every row is Training if no column says otherwise.

    Parameters
    ----------
    path, shown_path : Path, str
        The file, and how it is called in messages.
    bad : BadRows
        Takes the rows without readable pixels.
    size, color : int, bool
        What encoded images are brought to; see :func:`fer_features.faces.image.decode_image`.
    progress : callable, optional
        Called with how many rows are read, of how many.
    announce : callable
        Called with what was found in the schema, before any row is read.

    Returns
    -------
    Table, int
        ``pixels`` is uint8 (n, 48, 48), or (n, size, size) or (n, size, size, 3) of encoded
        images; ``number`` counts all rows from 1. And how many images were not square.

    Raises
    ------
    SourceError
        pyarrow is missing; the file is damaged or of another kind, or has no pixels or no rows; or
        another form is asked of pixels that are not encoded images.
    """
    with _opened(path, shown_path) as file:
        form = _form(file, path, shown_path)
        height, width, channels = _image_form(form, shown_path, size, color)
        announce(form.columns)
        total = file.metadata.num_rows
        if not total:
            raise SourceError(
                f"{shown_path}: columns and no rows, expected a row for each face. "
                "Check that the file is complete."
            )
        pixels = PixelBuffer((height, width, 3) if channels == 3 else (height, width), shown_path)
        said = (Coding(), Coding(), Coding())
        good: list[int] = []
        not_square = done = 0
        with ThreadPoolExecutor(_cores()) as pool, remarks_ignored():
            for batch in _batches(file, form, shown_path):
                faces = _faces(batch, form, size, color, pool)
                words, errors = _words(batch, form)
                rows: list[list[str]] = []
                for i, (face, *row) in enumerate(zip(faces, *words, strict=True)):
                    error = face if isinstance(face, RowError) else errors.get(i)
                    if error is not None:
                        word = row[0] if form.columns.emotion is not None else None
                        bad.add(f"row {done + i + 1}", error, word=word)
                        continue
                    if isinstance(face, Decoded):
                        not_square += not face.square
                        face = face.pixels
                    pixels.append(face)
                    good.append(done + i + 1)
                    rows.append(row)
                for column, cells in zip(said, zip(*rows, strict=True), strict=bool(rows)):
                    column.add(cells)
                done += batch.num_rows
                bad.refuse_if_hopeless(len(good))
                for coding, of in zip(said, ("emotion", "Usage"), strict=False):
                    check_few(shown_path, coding, of)
                if progress:
                    progress(done, total)
    columns = form.columns
    has = (columns.emotion is not None, _says_usage(form), columns.group is not None)
    read = [coding.column() if there else None for coding, there in zip(said, has, strict=True)]
    return Table(pixels.array(), np.array(good, dtype=np.int64), *read), not_square


def parquet_form(path: Path, shown_path: str, size: int, color: bool) -> ImageForm:
    """Return the form in which the images of a Parquet file are read, from its schema.

    (48, 48, 1) for pixels as text or numbers, (size, size, 1 or 3) for encoded images.

    Raises
    ------
    SourceError
        As :func:`read_parquet`, as far as the first rows show it.
    """
    with _opened(path, shown_path) as file:
        return _image_form(_form(file, path, shown_path), shown_path, size, color)


@contextmanager
def _opened(path: Path, shown_path: str) -> Iterator[Any]:
    """Open a Parquet file with pyarrow, or say why not."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise SourceError(
            f"{shown_path}: a Parquet file, expected pyarrow to be installed, which reads it. "
            "Install it with pip install 'fer-features[parquet]', or save the table as CSV."
        ) from error
    with path.open("rb") as stored:
        start = stored.read(512)
        what, remedy = in_words(start) or ("no complete Parquet file", "Get the file again")
        if not start:
            what = "an empty file"
        try:
            if not start.startswith(b"PAR1"):
                raise pyarrow.ArrowInvalid("does not start with PAR1")
            # Without pre_buffer a batch is read when it is due, not all columns of all rows.
            file = pyarrow.parquet.ParquetFile(stored, pre_buffer=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise SourceError(
                f"{shown_path}: {what} ({shown(str(error), 60)}), expected {_LAYOUT}. {remedy}."
            ) from error
        with file:
            yield file


def _batches(file: Any, form: _Form, shown_path: str) -> Iterator[Any]:
    """Yield the columns that are of use, some rows at a time."""
    columns = form.columns
    used = (*columns.pixels, columns.emotion, columns.usage, columns.group)
    names = [form.names[position] for position in used if position is not None]
    yield from _read(file, _ROWS[form.kind], names, shown_path)


def _read(file: Any, rows: int, names: list[str] | None, shown_path: str) -> Iterator[Any]:
    """Yield so many rows at a time, or fewer where they are large."""
    import pyarrow

    stated = _largest_row(file, names)
    for most, found, unit in zip(
        (_MOST_BYTES, _MOST_NUMBERS), stated, ("bytes", "numbers"), strict=True
    ):
        if found > most:
            raise SourceError(
                f"{shown_path}: states {found:,} {unit} in a row, expected at most {most:,} of a "
                "face. Check that it is the right file."
            )
    rows = min(rows, max(1, _BATCH // max(1, sum(stated))))
    try:
        yield from file.iter_batches(batch_size=rows, columns=names)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(
            f"{shown_path}: cannot be read ({shown(str(error), 80)}), expected a complete Parquet "
            "file. Get the file again."
        ) from error


def _largest_row(file: Any, names: list[str] | None) -> tuple[int, int]:
    """Return how many bytes and numbers rows hold in some columns, or all: the largest mean.

    A number takes no room where it is repeated, so they are counted, too.
    """
    size = numbers = 0
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        chunks = list(map(group.column, range(group.num_columns)))
        if names is not None:
            chunks = [each for each in chunks if each.path_in_schema.partition(".")[0] in names]
        rows = max(1, group.num_rows)
        size = max(size, sum(each.total_uncompressed_size for each in chunks) // rows)
        numbers = max(numbers, sum(each.num_values for each in chunks) // rows)
    return size, numbers


def _form(file: Any, path: Path, shown_path: str) -> _Form:
    """Tell what is in which column, from the schema and, where names do not say it, the rows."""
    schema = file.schema_arrow
    names, types = list(schema.names), list(schema.types)
    first = next(_read(file, 16, None, shown_path), None)
    row = dict.fromkeys(names)
    for name, column in zip(names, [] if first is None else first.columns, strict=False):
        row[name] = next((cell for cell in column.to_pylist() if cell is not None), None)
    holding = [i for i, name in enumerate(names) if _holds_pixels(types[i], name, row[name])]
    named = [i for i in holding if names[i].lower() in _IMAGE]
    holds = (named if len(named) == 1 else holding)[:1]
    columns = find_columns(names, shown_path, _LAYOUT, holds[0] if holds else None)
    if columns.pixels == tuple(holds) and len(holding) > 1 and len(named) != 1:
        raise SourceError(
            f"{shown_path}: columns {' and '.join(repr(shown(names[i])) for i in holding)} may "
            f"all be the pixels, expected {_LAYOUT}. Name one 'pixels'."
        )
    kind = _kind(types, columns.pixels, row, names, shown_path)
    columns, classes = _labelled(columns, _class_labels(schema), names, shown_path)
    for position, what in (
        (columns.emotion, "emotion"), (columns.usage, "Usage"), (columns.group, "group"),
    ):  # fmt: skip
        if position is not None and types[position].num_fields:
            raise SourceError(
                f"{shown_path}: column '{shown(names[position])}' holds {types[position]}, "
                f"expected a word or a number in each row as its {what}. If it is one-hot or "
                "votes, put the name of the emotion into it."
            )
    usage = None
    shard = re.match(r"([a-z_]+)-[0-9]+-of-([0-9]+)", path.stem)
    if shard and columns.usage is None:
        usage = usage_of(shard[1])
        more = (
            f", one of {int(shard[2])} files: the others are not read" if int(shard[2]) > 1 else ""
        )
        if usage is not None:
            said = f"{shown_path}: by its name it is {USAGES[usage]}{more}"
            columns = columns._replace(said=(*columns.said, said))
    return _Form(names, columns, kind, classes, usage)


def _what(type_: Any) -> str:
    """Name a column's type: number, text, bytes, image (Hugging Face's struct), lists or other."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return _what(type_.value_type)
    if types.is_struct(type_):
        return "image" if type_.get_field_index("bytes") >= 0 else "other"
    leaf = type_
    while types.is_list(leaf) or types.is_large_list(leaf) or types.is_fixed_size_list(leaf):
        leaf = leaf.value_type
    if types.is_integer(leaf) or types.is_floating(leaf):
        return "number" if leaf is type_ else "lists"
    name = str(type_).removeprefix("large_").removesuffix("_view")
    return {"string": "text", "binary": "bytes"}.get(name, "other")


def _holds_pixels(type_: Any, name: str, value: Any) -> bool:
    """Tell from a column's type, its name and a value of it, whether it may hold images."""
    match _what(type_):
        case "image":
            return True
        case "bytes":
            return len(value or b"") > 64
        case "text":
            return count_values(value or "") >= PIXELS // 4
        case "lists":
            # Of another length it is more often an embedding, unless it is called an image.
            return _count(value) == PIXELS or name.lower() in _IMAGE
    return False


def _count(value: Any) -> int:
    return sum(map(_count, value)) if isinstance(value, list) else 1


def _kind(
    types: Sequence[Any],
    pixels: Sequence[int],
    row: dict[str, Any],
    names: list[str],
    shown_path: str,
) -> str:
    """Tell in which way the pixels are kept; see :class:`_Form`."""
    what = {_what(types[position]) for position in pixels}
    if len(pixels) > 1 and what == {"number"}:
        return "wide"
    position = next(i for i in pixels if len(pixels) == 1 or _what(types[i]) != "number")
    if len(pixels) == 1:
        if what == {"bytes"}:
            # Some write text without saying that it is text.
            text = count_values(word_of(row[names[position]])) >= PIXELS // 4
            return "text" if text else "images"
        kind = {"image": "images", "text": "text", "lists": "lists"}.get(what.pop())
        if kind is not None:
            return kind
    raise SourceError(
        f"{shown_path}: column '{shown(names[position])}' holds "
        f"{shown(str(types[position]))}, expected pixels: text, numbers from 0 to 255, "
        "lists of them, or encoded images. Save them as one of these."
    )


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Return the names of the numbers in the columns that Hugging Face calls a ClassLabel."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = stored.get("info", {}).get("features", {})
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}


def _labelled(
    columns: Columns, classes: dict[str, list[str]], names: list[str], shown_path: str
) -> tuple[Columns, list[str] | None]:
    """Return the columns, and the names of the emotion's numbers where the file says them.

    A label by another name is the emotion if all its names are emotions.
    """
    if columns.emotion is not None:
        return columns, classes.get(names[columns.emotion])
    others = [
        position for position, name in enumerate(names) if may_be_emotion(name) and name in classes
    ]
    meant = [
        position
        for position in others
        if all(emotion_of(word) is not None for word in classes[names[position]])
    ]
    if len(meant) == 1:
        name = names[meant[0]]
        said = (
            f"{shown_path}: column '{shown(name)}' is read as the emotion, by the names that the "
            f"file gives its numbers: {', '.join(map(shown, classes[name]))}"
        )
        return columns._replace(
            emotion=meant[0], unlabelled="", said=(*columns.said, said)
        ), classes[name]
    if others:
        name = names[others[0]]
        named = shown(", ".join(classes[name]), 80)
        unlabelled = (
            f"no column 'emotion'; if '{shown(name)}' ({named}) holds them, name it 'emotion'"
        )
        columns = columns._replace(unlabelled=unlabelled)
    return columns, None


def _image_form(form: _Form, shown_path: str, size: int, color: bool) -> ImageForm:
    """Return the form of the images, or refuse another than pixels have as they are kept."""
    if form.kind == "images":
        return size, size, 3 if color else 1
    asked = [f"image_size={size}"] * (size != SIDE) + ["color=True"] * bool(color)
    if asked:
        raise SourceError(
            f"{shown_path}: a Parquet file of {SIDE}x{SIDE} grey pixels, expected encoded images "
            f"for {' and '.join(asked)}. Leave {'them' if asked[1:] else 'it'} out."
        )
    return SIDE, SIDE, 1


def _says_usage(form: _Form) -> bool:
    return form.columns.usage is not None or form.usage is not None


def _words(batch: Any, form: _Form) -> tuple[list[list[str]], dict[int, RowError]]:
    """Return what the rows say of emotion, usage and group, and what is wrong with a number."""
    columns = form.columns
    said: list[list[str]] = []
    errors: dict[int, RowError] = {}
    for position in (columns.emotion, columns.usage, columns.group):
        if position is None:
            said.append([""] * batch.num_rows)
        else:
            values = batch.column(form.names[position]).to_pylist()
            said.append([word_of(value) for value in values])
            for i, word in enumerate(said[-1]):
                if len(word) > LONGEST_WORD:
                    said[-1][i], errors[i] = "", too_long(len(word))
    if form.usage is not None:
        said[1] = [USAGES[form.usage]] * batch.num_rows
    if form.classes is not None:
        for i, word in enumerate(said[0]):
            # Hugging Face writes -1 where there is no label.
            if word == "-1":
                said[0][i] = ""
            elif word.isdigit() and int(word) < len(form.classes):
                said[0][i] = form.classes[int(word)]
            elif word and word not in form.classes:
                errors[i] = RowError(
                    f"emotion {shown(word)}, expected a number from 0 to {len(form.classes) - 1}, "
                    "which the file names"
                )
    return said, errors


def _faces(
    batch: Any, form: _Form, size: int, color: bool, pool: ThreadPoolExecutor
) -> Sequence[npt.NDArray[np.uint8] | Decoded | RowError]:
    """Return the image of each row, or what is wrong with it."""
    columns = [batch.column(form.names[position]) for position in form.columns.pixels]
    if form.kind == "wide":
        return from_numbers(np.column_stack([_numbers(column) for column in columns]))
    if form.kind == "text":
        return from_text(columns[0].to_pylist())
    if form.kind == "lists":
        values = _even_lists(columns[0])
        if values is not None:
            return from_numbers(values)
        return [from_list(cell) for cell in columns[0].to_pylist()]
    return list(pool.map(lambda cell: from_encoded(cell, size, color), columns[0].to_pylist()))


def _numbers(column: Any) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _even_lists(column: Any) -> npt.NDArray[Any] | None:
    """Return lists of 2,304 or 48 lists of 48 numbers as (n, 2304), or None: some row is none."""
    shape: tuple[int, ...] = ()
    values = column
    while hasattr(values, "flatten") and _what(values.type) == "lists":
        lengths = set(values.value_lengths().to_pylist())
        if values.null_count or len(lengths) != 1:
            return None
        shape += tuple(lengths)
        values = values.flatten()
    if values.null_count or shape not in SHAPES:
        return None
    return _numbers(values).reshape(len(column), PIXELS)


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())
