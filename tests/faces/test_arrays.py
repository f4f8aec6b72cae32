"""Faces in .npz, .npy and .parquet: what is read, as what, and what each bad file gets."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_features.errors import SourceError
from fer_features.faces.array_file import blocks, stored_arrays
from fer_features.faces.arrays import array_files, arrays_form, read_arrays
from fer_features.faces.bad_rows import BadRows
from fer_features.faces.parquet import parquet_form, read_parquet
from fer_features.faces.table import Column, Columns, Table

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 256, (6, 48, 48), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 40, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 6, 2, 2, 5])
WORDS = ["3", "0", "6", "2", "2", "5"]


class Read:
    """What reading a source gives: its table, its bad rows, and what was announced."""

    def __init__(self, path: Path, size: int = 48, color: bool = False) -> None:
        self.announced: list[Columns] = []
        self.progress: list[tuple[int, int]] = []
        self.bad = BadRows(path.name, "row", " ", ("Remove the row", "Remove the rows"))
        self.not_square = 0
        self.table: Table
        self.path = path

        def progress(done: int, total: int) -> None:
            assert self.announced, "rows are read before the columns are announced"
            self.progress.append((done, total))

        if path.suffix == ".parquet":
            self.table, self.not_square = read_parquet(
                path, path.name, self.bad, size, color, progress, self.announced.append
            )
        else:
            self.table = read_arrays(path, path.name, self.bad, progress, self.announced.append)
        (self.columns,) = self.announced

    @property
    def emotion(self) -> list[str]:
        return words(self.table.emotion)

    @property
    def said(self) -> str:
        return "\n".join(self.columns.said)

    def error(self) -> str:
        with pytest.raises(SourceError) as raised:
            self.bad.close(len(self.table.number), False)
        return str(raised.value)


def words(column: Column | None) -> list[str]:
    assert column is not None
    assert column.codes.dtype == np.int32
    return [column.words[code] for code in column.codes]


def npz(folder: Path, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as raised:
        Read(path, **options)
    message = str(raised.value)
    assert message.startswith(path.name)
    assert message.endswith(".")
    assert len(message.splitlines()) == 1
    assert len(message) < 900
    return message


# .npz


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_of_images_and_labels_is_read_as_it_is(tmp_path: Path, compressed: bool) -> None:
    read = Read(npz(tmp_path, compressed, images=FACES, labels=LABELS))
    assert np.array_equal(read.table.pixels, FACES)
    assert read.table.pixels.dtype == np.uint8
    assert read.table.number.tolist() == [1, 2, 3, 4, 5, 6]
    assert read.emotion == WORDS
    assert (read.table.usage, read.table.group) == (None, None)
    assert read.columns.unlabelled == ""
    assert read.progress[-1] == (6, 6)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("x", "y"), ("X", "Y"), ("pixels", "emotion"), ("faces", "label"),
     ("data", "emotions"), ("arr_0", "arr_1")],
)  # fmt: skip
def test_the_usual_names_of_images_and_labels_are_known(
    tmp_path: Path, images: str, labels: str
) -> None:
    read = Read(npz(tmp_path, **{images: FACES, labels: LABELS}))
    assert np.array_equal(read.table.pixels, FACES)
    assert read.emotion == WORDS
    assert f"'{labels}' is read as the emotion" in read.said


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (FACES, FACES),
        (FACES[..., None], FACES),
        (FACES[:, None], FACES),
        (FACES.reshape(6, 2304), FACES),
        (np.asfortranarray(FACES), FACES),
        (COLOUR, COLOUR),
        (np.moveaxis(COLOUR, -1, 1), COLOUR),
        (np.ascontiguousarray(np.moveaxis(COLOUR, -1, 1)), COLOUR),
        (COLOUR[..., 0], COLOUR[..., 0]),
        (FACES.astype(np.int64), FACES),
        (FACES.astype(">i2"), FACES),
        (FACES.astype(np.float32), FACES),
        (FACES.astype(np.float16), FACES),
    ],
    ids=["n-h-w", "n-h-w-1", "n-1-h-w", "n-2304", "fortran", "colour", "channels first, fortran",
         "channels first", "not square", "int64", "big-endian", "float32", "float16"],
)  # fmt: skip
@pytest.mark.parametrize("compressed", [False, True])
def test_every_unmistakable_form_gives_the_same_pixels(
    tmp_path: Path, stored: np.ndarray, expected: np.ndarray, compressed: bool
) -> None:
    path = npz(tmp_path, compressed, images=stored, labels=LABELS)
    assert np.array_equal(Read(path).table.pixels, expected)
    form = (*expected.shape[1:3], 3 if expected.ndim == 4 else 1)
    assert arrays_form(path, path.name) == form


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (LABELS.astype(np.float64), WORDS),
        (LABELS[:, None], WORDS),
        (np.array(["happy", "sad", "fear", "sad", "Neutral", " anger "]),
         ["happy", "sad", "fear", "sad", "Neutral", "anger"]),
        (np.array([b"happy", b"sad", b"fear", b"sad", b"neutral", b"\xff"]),
         ["happy", "sad", "fear", "sad", "neutral", "\\xff"]),
        (np.array([1.0, np.nan, 2.5, 0, 0, 0]), ["1", "", "2.5", "0", "0", "0"]),
        (np.array([-1, 0, 0, 0, 0, 300]), ["-1", "0", "0", "0", "0", "300"]),
    ],
    ids=["floats", "column", "words", "bytes", "absent and fraction", "far numbers"],
)  # fmt: skip
def test_labels_are_what_their_cells_say(
    tmp_path: Path, labels: np.ndarray, expected: list[str]
) -> None:
    assert Read(npz(tmp_path, images=FACES, labels=labels)).emotion == expected


def test_usage_and_group_are_read_where_arrays_say_them(tmp_path: Path) -> None:
    usage = np.array(["train"] * 4 + ["val", "test"])
    read = Read(npz(tmp_path, images=FACES, labels=LABELS, split=usage, subject=np.arange(6)))
    assert words(read.table.usage) == usage.tolist()
    assert words(read.table.group) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
     ("train_images", "train_labels", "valid_images", "valid_labels", "test_images", "test_labels"),
     ("X_Train", "Y_Train", "X_dev", "Y_dev", "X_Test", "Y_Test"),
     ("trainX", "trainy", "valX", "valy", "testX", "testy"),
     ("data_training", "emotion_training", "data_publictest", "emotion_publictest",
      "data_privatetest", "emotion_privatetest")],
    ids=lambda names: names[0],
)  # fmt: skip
def test_splits_are_joined_in_their_order_with_their_usage(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    arrays = dict(zip(names, (FACES[:3], LABELS[:3], FACES[3:4], LABELS[3:4], FACES[4:],
                              LABELS[4:]), strict=True))  # fmt: skip
    read = Read(npz(tmp_path, **dict(reversed(arrays.items()))))
    assert np.array_equal(read.table.pixels, FACES)
    assert read.emotion == WORDS
    assert words(read.table.usage) == ["Training"] * 3 + ["PublicTest"] + ["PrivateTest"] * 2
    assert f"'{names[0]}' as Training, '{names[2]}' as PublicTest" in read.said
    assert read.progress[-1] == (6, 6)


def test_a_split_without_labels_is_said_and_has_blank_cells(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=FACES[:4], y_train=LABELS[:4], x_test=FACES[4:])
    read = Read(path)
    assert read.emotion == [*WORDS[:4], "", ""]
    assert "'x_test' uint8 (2, 48, 48) has no labels" in read.said


def test_a_bad_row_of_a_split_is_named_by_its_place_there(tmp_path: Path) -> None:
    test = FACES[4:].astype(np.int16)
    test[1, 0, 2] = 256
    path = npz(tmp_path, x_train=FACES[:4], y_train=LABELS[:4], x_test=test, y_test=LABELS[4:])
    assert Read(path).error().startswith("a.npz row 6 (x_test[1]): pixel 3 is '256', expected")


def test_class_names_in_the_file_say_what_its_numbers_are(tmp_path: Path) -> None:
    """Folders read in the order of the alphabet have neutral as 4, which FER2013 calls sad."""
    names = np.array(["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"])
    read = Read(npz(tmp_path, images=FACES, labels=LABELS, class_names=names))
    assert read.emotion == [names[label] for label in LABELS]
    assert "in the words of 'class_names'" in read.said
    read = Read(npz(tmp_path, images=FACES, labels=names[LABELS], class_names=names))
    assert read.emotion == [names[label] for label in LABELS]
    assert "not read: 'class_names'" in read.said
    assert error_of(npz(tmp_path, images=FACES, labels=LABELS, class_names=names[:4])) == (
        "a.npz: a label 5 in 'labels' int64 (6,) and 4 names of labels, expected 0 to 3. "
        "Save the names of all, or none."
    )


def test_images_alone_are_announced_as_unlabelled(tmp_path: Path) -> None:
    read = Read(npz(tmp_path, images=FACES, extra=np.arange(3)))
    assert read.table.emotion is None
    assert read.columns.emotion is None
    assert read.columns.unlabelled.startswith("no array 'labels' or 'emotion' beside 'images'")
    assert "not read: 'extra' int64 (3,)" in read.said
    read = Read(npz(tmp_path, images=FACES, target=LABELS))
    assert "if 'target' holds them, save it as 'emotion'" in read.columns.unlabelled
    read = Read(npz(tmp_path, x_train=FACES, labels=LABELS))
    assert "labels by the names of no images: 'labels' int64 (6,)" in read.columns.unlabelled


def test_bad_pixels_are_bad_rows_of_one_kind(tmp_path: Path) -> None:
    images = FACES.astype(np.float64)
    images[1, 0, 0], images[3, 1, 0], images[5, 47, 47] = 0.5, np.nan, -1
    read = Read(npz(tmp_path, images=images, labels=LABELS))
    assert read.table.number.tolist() == [1, 3, 5]
    assert np.array_equal(read.table.pixels, FACES[[0, 2, 4]])
    assert read.emotion == ["3", "6", "2"]
    assert read.bad.by_kind == {"a pixel that is no whole number from 0 to 255": 3}
    assert read.bad.words == {"0": 1, "2": 1, "5": 1}
    assert "row 2" in read.error()
    assert "pixel 1 is '0.5', expected a whole number from 0 to 255" in read.error()


@pytest.mark.parametrize("images", [FACES / 255, (FACES > 99).astype(np.float32)])
def test_images_scaled_to_1_are_refused_as_a_whole(tmp_path: Path, images: np.ndarray) -> None:
    message = error_of(npz(tmp_path, images=images, labels=LABELS))
    assert "with values from 0 to 1, expected whole numbers from 0 to 255" in message
    assert message.endswith("Save (images * 255).round().astype('uint8').")


def test_images_scaled_otherwise_are_refused_as_a_whole(tmp_path: Path) -> None:
    message = error_of(npz(tmp_path, images=FACES / 127.5 - 1, labels=LABELS))
    assert "with values from -1 to 1, expected whole numbers" in message
    assert message.endswith("Save the images as they were before they were scaled.")


OBJECTS = np.array([np.zeros((48, 48)), np.zeros((50, 50))], dtype=object)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no known name": ({"a": FACES, "b": LABELS}, "holds 'a' uint8 (6, 48, 48), 'b' int64 (6,), ex"),
    "nothing": ({}, "holds no arrays, expected images and labels by name"),
    "four without names": (
        {"arr_0": FACES, "arr_1": LABELS, "arr_2": FACES, "arr_3": LABELS}, "by name. Save them",
    ),
    "misspelt labels": (
        {"images": FACES, "lables": LABELS}, "unknown array 'lables' (did you mean 'labels'?)",
    ),
    "two of images": (
        {"images": FACES, "faces": FACES, "y": LABELS}, "may be the images, expected one. Save",
    ),
    "two of labels": ({"x": FACES, "y": LABELS, "emotion": LABELS}, "may be the labels, expected"),
    "two of a split": ({"x_val": FACES, "x_valid": FACES}, "may be the images, expected one"),
    "all and a split": ({"x": FACES, "x_test": FACES}, "expected images and labels by name"),
    "objects": ({"images": OBJECTS, "labels": LABELS[:2]}, "Save images of one size with np.stack"),
    "words as objects": (
        {"images": FACES, "labels": np.array(["sad"] * 6, dtype=object)},
        "'labels' object (6,), Python objects in a pickle, which may run any code, expected",
    ),
    "class names as objects": (
        {"images": FACES, "y": LABELS, "class_names": np.array(["sad"], dtype=object)},
        "'class_names' object (1,), Python objects",
    ),
    "one-hot": (
        {"x": FACES, "y": np.eye(7)[LABELS]},
        "'y' float64 (6, 7), one-hot, expected one label for each image, (6,). Save its "
        "argmax(axis=1) and, as 'class_names'",
    ),
    "one-hot of eight": ({"x": FACES, "y": np.eye(8)[LABELS]}, "one-hot"),
    "counts": (
        {"x": FACES, "y": LABELS[:5]},
        "'y' int64 (5,) for 'x' uint8 (6, 48, 48), expected one for each image, (6,). Check",
    ),
    "usage's count": ({"x": FACES, "usage": LABELS[:5]}, "'usage' int64 (5,) for 'x'"),
    "images last": (
        {"x": np.moveaxis(np.concatenate([FACES, FACES]), 0, -1), "y": np.zeros(12)},
        "save np.moveaxis(images, -1, 0)",
    ),
    "images last, no labels": (
        {"x": np.moveaxis(np.concatenate([FACES, FACES]), 0, -1)}, "not images for certain",
    ),
    "labels of dates": (
        {"x": FACES, "y": np.zeros(6, "M8[D]")}, "expected whole numbers or words",
    ),
    "no images": ({"x": FACES[:0], "y": LABELS[:0]}, "no images in 'x' uint8 (0, 48, 48), expect"),
    "one image": ({"x": FACES[0]}, "'x' uint8 (48, 48), which are not images for certain"),
    "one colour image": ({"x": COLOUR[0]}, "not images for certain"),
    "vectors": ({"x": np.zeros((6, 512))}, "not images for certain"),
    "four channels": ({"x": np.zeros((6, 48, 48, 4), np.uint8)}, "not images for certain"),
    "channels on both sides": ({"x": np.zeros((6, 3, 48, 3), np.uint8)}, "not images for certain"),
    "film": ({"x": np.zeros((2, 3, 48, 48, 3), np.uint8)}, "not images for certain"),
    "bool images": ({"x": FACES > 9}, "'x' bool (6, 48, 48), expected uint8. Save the pixels as"),
    "words as images": ({"x": np.array(["a"])}, "expected uint8"),
    "two forms": (
        {"x_train": FACES, "x_test": COLOUR}, "of 48x48 grey and 'x_test' uint8 (6, 40, 32, 3) of",
    ),
    "class names that are numbers": (
        {"x": FACES, "y": LABELS, "class_names": np.array([["a"]])}, "expected the names of the",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "expected"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_are_not_labelled_images_for_certain_are_refused(
    tmp_path: Path, arrays: dict[str, Any], expected: str
) -> None:
    assert expected in error_of(npz(tmp_path, **arrays))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def packed(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


NPY = saved(FACES)
NPZ = packed("images.npy", NPY)
BAD_CRC = bytearray(NPZ)
BAD_CRC[5000] ^= 255
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "empty npz": ("a.npz", b"", "an empty file, expected an .npz file of NumPy's. Get the file"),
    "empty npy": ("a.npy", b"", "an empty file, expected an .npy file"),
    "LFS pointer": ("a.npz", LFS, "a Git LFS pointer, not the file itself, expected"),
    "web page": ("a.npy", b"<!DOCTYPE html><html>", "a web page, not the file itself, expected"),
    "text": ("a.npz", b"emotion,pixels", "no .npz file, expected an .npz file of NumPy's. Check"),
    "npy as npz": ("a.npz", NPY, "an .npy file by its content, expected an .npz file of NumPy's."),
    "npz as npy": ("a.npy", NPZ, "an .npz file by its content"),
    "pickle": ("a.npy", b"\x80\x04K\x01.", "a pickle, which may run any code, expected"),
    "half an npy": ("a.npy", NPY[:5000], "ends early: 5,000 bytes, expected 13,952. Get the file"),
    "half a header": ("a.npy", NPY[:40], "cannot be read ("),
    "two in an npy": ("a.npy", NPY + saved(LABELS), "goes on after the array: "),
    "half an npz": ("a.npz", NPZ[:5000], "cannot be read (File is not a zip file), expected a"),
    "a flipped bit": ("a.npz", bytes(BAD_CRC), "cannot be read (Bad CRC-32"),
    "npz of half an npy": ("a.npz", packed("images.npy", NPY[:5000]), "ends early: 5,000 bytes"),
    "npz of text": ("a.npz", packed("images.npy", b"a" * 99), "cannot be read (the magic string"),
    "zip of a CSV": ("a.npz", packed("a.csv", b"emotion"), "holds no arrays, expected images and"),
    "objects": ("a.npy", b"", ""),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_named_as_what_they_are(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if not expected:
        np.save(path, OBJECTS, allow_pickle=True)
        expected = "Python objects in a pickle"
    assert expected in error_of(path)


def test_nothing_in_a_file_is_ever_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    trap = np.array([Trap()] * 6, dtype=object)
    read = Read(npz(tmp_path, images=FACES, labels=LABELS, meta=trap))
    assert "not read: 'meta' object (6,)" in read.said
    assert "Python objects" in error_of(npz(tmp_path, images=FACES, labels=trap))
    assert not (tmp_path / "ran").exists()


def test_pixels_are_read_in_blocks(tmp_path: Path) -> None:
    many = np.broadcast_to(FACES[:1], (4000, 48, 48))
    path = npz(tmp_path, compressed=True, images=many)
    (array,) = stored_arrays(path, path.name)
    assert [len(block) for block in blocks(array, path.name)] == [1820, 1820, 360]
    read = Read(path)
    assert read.progress == [(1820, 4000), (3640, 4000), (4000, 4000)]
    assert np.array_equal(read.table.pixels, many)


# .npy


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("X", "y"), ("x", "y"), ("pixels", "labels"), ("faces", "labels"),
     ("data", "labels"), ("fer_images", "fer_labels"), ("X_train", "y_train"),
     ("fer2013_X_test", "fer2013_y_test"), ("fer2013", "fer2013_labels"), ("Xtrain", "ytrain"),
     ("train", "train_labels"), ("train-images", "train-labels"), ("data_x", "data_y"),
     ("faces", "faces_emotions")],
)  # fmt: skip
def test_labels_beside_images_are_found_by_their_name(
    tmp_path: Path, images: str, labels: str
) -> None:
    path, beside = tmp_path / f"{images}.npy", tmp_path / f"{labels}.npy"
    np.save(path, FACES)
    np.save(beside, LABELS)
    np.save(tmp_path / "other_labels.npy", LABELS[:2])
    read = Read(path)
    assert np.array_equal(read.table.pixels, FACES)
    assert read.emotion == WORDS
    assert f"'{labels}.npy' is read as its emotion" in read.said
    assert array_files(path, path.name) == (path, beside)
    assert arrays_form(path, path.name) == (48, 48, 1)


def test_an_npy_without_labels_beside_it_is_unlabelled(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", FACES)
    np.save(tmp_path / "y_other.npy", LABELS)
    read = Read(tmp_path / "images.npy")
    assert read.table.emotion is None
    assert "no labels beside it" in read.columns.unlabelled
    assert "'images_labels.npy'" in read.columns.unlabelled


def test_a_split_in_the_name_is_the_usage(tmp_path: Path) -> None:
    np.save(tmp_path / "X_val.npy", FACES)
    read = Read(tmp_path / "X_val.npy")
    assert words(read.table.usage) == ["PublicTest"] * 6
    assert "by its name it is PublicTest" in read.said


def test_usage_and_group_may_lie_beside_too(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", FACES)
    np.save(tmp_path / "usage.npy", np.array(["train"] * 5 + ["test"]))
    np.save(tmp_path / "subjects.npy", np.arange(6))
    read = Read(tmp_path / "images.npy")
    assert words(read.table.usage)[-1] == "test"
    assert words(read.table.group) == list("012345")


def test_two_files_that_may_be_the_labels_are_refused(tmp_path: Path) -> None:
    for name in ("labels", "y"):
        np.save(tmp_path / f"{name}.npy", LABELS)
    np.save(tmp_path / "images.npy", FACES)
    message = error_of(tmp_path / "images.npy")
    assert "beside it 'labels.npy' and 'y.npy' may be its labels, expected one file" in message


def test_labels_passed_themselves_name_the_file_of_images(tmp_path: Path) -> None:
    np.save(tmp_path / "y_train.npy", LABELS)
    assert "Pass the file of the images;" in error_of(tmp_path / "y_train.npy")
    np.save(tmp_path / "X_train.npy", FACES)
    assert "Pass 'X_train.npy';" in error_of(tmp_path / "y_train.npy")


def test_labels_beside_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", FACES)
    np.save(tmp_path / "y.npy", LABELS[:4])
    assert "'y.npy' int64 (4,) for 'X.npy'" in error_of(tmp_path / "X.npy")
    (tmp_path / "y.npy").write_bytes(LFS)
    with pytest.raises(SourceError, match=r"^folder/y.npy: a Git LFS pointer"):
        read_arrays(tmp_path / "X.npy", "folder/X.npy", BadRows("", "", "", ("", "")), None, print)


# .parquet

TEXTS = [" ".join(map(str, face.ravel())) for face in FACES]
FLAT = FACES.reshape(6, 2304)


def parquet(
    folder: Path, name: str = "a.parquet", classes: dict[str, list[str]] | None = None,
    **columns: Any,
) -> Path:  # fmt: skip
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if classes:
        features = {
            column: {"names": names, "_type": "ClassLabel"} for column, names in classes.items()
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, folder / name, row_group_size=4)
    return folder / name


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def typed(values: Any, of: str, depth: int = 1) -> Any:
    pa = pytest.importorskip("pyarrow")
    type_ = getattr(pa, of)()
    for _ in range(depth):
        type_ = pa.list_(type_)
    return pa.array(values, type_)


CELLS: dict[str, Any] = {
    "text": lambda: {"pixels": TEXTS},
    "text by another name": lambda: {"face": TEXTS},
    "text as bytes": lambda: {"pixels": [text.encode() for text in TEXTS]},
    "bracketed text": lambda: {"pixels": [str(face.ravel().tolist()) for face in FACES]},
    "lists of uint8": lambda: {"pixels": typed(FLAT.tolist(), "uint8")},
    "lists of int64": lambda: {"pixels": FLAT.tolist()},
    "lists of floats": lambda: {"pixels": typed(FLAT.tolist(), "float32")},
    "lists of lists": lambda: {"image": FACES.tolist()},
    "lists with a channel": lambda: {"image": FACES[..., None].tolist()},
    "wide": lambda: {f"pixel{i}": FLAT[:, i] for i in range(2304)},
    "wide floats": lambda: {f"pixel{i}": FLAT[:, i].astype(np.float64) for i in range(2304)},
    "encoded": lambda: {"image": [png(face) for face in FACES]},
    "Hugging Face's": lambda: {"image": [{"bytes": png(face), "path": "a.png"} for face in FACES]},
}


@pytest.mark.parametrize("columns", CELLS.values(), ids=CELLS)
def test_every_kind_of_cell_gives_the_same_pixels(tmp_path: Path, columns: Any) -> None:
    path = parquet(tmp_path, emotion=LABELS, **columns())
    read = Read(path)
    assert np.array_equal(read.table.pixels, FACES)
    assert read.table.number.tolist() == [1, 2, 3, 4, 5, 6]
    assert read.emotion == WORDS
    assert read.progress[-1] == (6, 6)
    assert parquet_form(path, path.name, 48, False) == (48, 48, 1)


def test_emotion_usage_and_group_are_words(tmp_path: Path) -> None:
    path = parquet(
        tmp_path, pixels=TEXTS, Usage=["train", None, "val", "test", "test", "test"],
        emotion=["happy", "sad", None, "fear", "fear", "fear"], subject=[1, 2, 3, 4, None, 6],
    )  # fmt: skip
    read = Read(path)
    assert read.emotion == ["happy", "sad", "", "fear", "fear", "fear"]
    assert words(read.table.usage) == ["train", "", "val", "test", "test", "test"]
    assert words(read.table.group) == ["1", "2", "3", "4", "", "6"]


def test_a_class_label_says_what_its_numbers_are(tmp_path: Path) -> None:
    names = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]
    emotion = [3, 0, 6, -1, None, 9]
    path = parquet(tmp_path, pixels=TEXTS, emotion=emotion, classes={"emotion": names})
    read = Read(path)
    assert read.emotion == ["surprise", "neutral", "anger", "", ""]
    assert "row 6: emotion 9, expected a number from 0 to 6, which the file names" in read.error()


def test_a_label_is_the_emotion_only_if_the_file_names_emotions(tmp_path: Path) -> None:
    names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    read = Read(parquet(tmp_path, pixels=TEXTS, label=LABELS, classes={"label": names}))
    assert read.emotion == [names[label] for label in LABELS]
    assert "column 'label' is read as the emotion, by the names that the file gives" in read.said
    assert read.columns.unlabelled == ""
    read = Read(parquet(tmp_path, pixels=TEXTS, label=LABELS))
    assert read.table.emotion is None
    assert (
        read.columns.unlabelled == "no column 'emotion'; if 'label' holds them, name it 'emotion'"
    )
    read = Read(parquet(tmp_path, pixels=TEXTS, label=LABELS, classes={"label": ["cat"] * 7}))
    assert read.table.emotion is None
    assert "if 'label' (cat, cat" in read.columns.unlabelled


def test_a_shard_says_its_usage_by_its_name(tmp_path: Path) -> None:
    read = Read(parquet(tmp_path, "test-00000-of-00002-ab12.parquet", pixels=TEXTS))
    assert words(read.table.usage) == ["PrivateTest"] * 6
    assert "by its name it is PrivateTest, one of 2 files: the others are not read" in read.said


def test_encoded_images_take_the_size_and_colour_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path, image=[png(face) for face in COLOUR])
    read = Read(path, size=32, color=True)
    assert read.table.pixels.shape == (6, 32, 32, 3)
    assert read.not_square == 6
    assert np.array_equal(read.table.pixels[0], COLOUR[0, 4:36])
    assert parquet_form(path, path.name, 32, True) == (32, 32, 3)


def with_value(row: int, value: Any) -> list[Any]:
    cells: list[Any] = FLAT.tolist()
    cells[row] = value
    return cells


SCALED = (FLAT[0] / 255).tolist()

BAD_CELLS: dict[str, tuple[Any, str]] = {
    "null text": (lambda: {"pixels": [*TEXTS[:5], None]}, "row 6: no pixels, expected 2304"),
    "short text": (lambda: {"pixels": [*TEXTS[:5], "7 7"]}, "row 6: 2 pixels, expected 2304"),
    "null list": (lambda: {"pixels": with_value(5, None)}, "row 6: no pixels, expected 2304"),
    "short list": (lambda: {"pixels": with_value(5, [1, 2])}, "row 6: 2 pixels, expected 2304"),
    "null in a list": (
        lambda: {"pixels": with_value(5, [None, *FLAT[5, 1:].tolist()])}, "row 6: missing pixels",
    ),
    "256": (
        lambda: {"pixels": with_value(5, [256] * 2304)},
        "row 6: pixel 1 is '256', expected a whole number from 0 to 255.",
    ),
    "scaled": (
        lambda: {"pixels": typed(with_value(5, SCALED), "float64")},
        "expected a whole number from 0 to 255 (if values run from 0 to 1, multiply them by 255)",
    ),
    "ragged": (
        lambda: {"image": [*FACES[:5].tolist(), [[1, 2], [3]]]}, "row 6: missing pixels or lines",
    ),
    "64x64": (
        lambda: {"image": [*FACES[:5].tolist(), np.ones((64, 64), int).tolist()]},
        "row 6: 64x64 pixels, expected 2304 (48x48)",
    ),
    "null in a wide row": (
        lambda: {f"pixel{i}": [*FLAT[:5, i].tolist(), None if i == 3 else 1] for i in range(2304)},
        "row 6: pixel 4 is 'nan', expected a whole number",
    ),
    "no image": (lambda: {"image": [png(FACES[0])] * 5 + [None]}, "row 6: no image, expected its"),
    "damaged image": (
        lambda: {"image": [png(FACES[0])] * 5 + [b"x" * 99]}, "row 6: no image that can be recogn",
    ),
    "path alone": (
        lambda: {"image": [{"bytes": png(FACES[0]), "path": ""}] * 5
                 + [{"bytes": None, "path": "a.png"}]},
        "row 6: no image, only the path 'a.png', expected its bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "expected"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_cell_is_a_bad_row_and_the_others_are_read(
    tmp_path: Path, columns: Any, expected: str
) -> None:
    read = Read(parquet(tmp_path, emotion=LABELS, **columns()))
    assert read.table.number.tolist() == [1, 2, 3, 4, 5]
    assert len(read.table.pixels) == 5
    assert read.emotion == WORDS[:5]
    assert expected in read.error()
    assert read.bad.words == {"5": 1}


REFUSED_TABLES: dict[str, tuple[Any, str]] = {
    "no rows": (lambda: {"pixels": typed([], "string", 0)}, "columns and no rows, expected a row"),
    "numbers": (lambda: {"pixels": [1] * 6}, "column 'pixels' holds int64, expected pixels: text"),
    "lists of words": (lambda: {"pixels": [["a"]] * 6}, "column 'pixels' holds list<"),
    "wide words": (
        lambda: {f"pixel{i}": ["7"] for i in range(2304)}, "column 'pixel0' holds string, expected",
    ),
    "one-hot": (
        lambda: {"pixels": TEXTS, "emotion": np.eye(7)[LABELS].tolist()},
        "expected a word or a number in each row as its emotion. If it is one-hot or votes",
    ),
    "two columns of images": (
        lambda: {"left": [png(FACES[0])], "right": [png(FACES[0])]},
        "columns 'left' and 'right' may all be the pixels, expected a Parquet file",
    ),
    "labels of files": (
        lambda: {"image": ["a.png"], "emotion": ["happy"]}, "a list of labels without pixels",
    ),
    "misspelt": (
        lambda: {"pixels": TEXTS, "emotoin": LABELS}, "unknown column 'emotoin' (did you mean",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "expected"), REFUSED_TABLES.values(), ids=REFUSED_TABLES)
def test_tables_that_are_not_faces_are_refused(tmp_path: Path, columns: Any, expected: str) -> None:
    assert expected in error_of(parquet(tmp_path, **columns()))


def test_text_has_no_other_form(tmp_path: Path) -> None:
    path = parquet(tmp_path, pixels=TEXTS)
    message = error_of(path, size=64, color=True)
    assert "expected encoded images for image_size=64 and color=True. Leave them out" in message
    with pytest.raises(SourceError, match="Leave it out"):
        parquet_form(path, path.name, 64, False)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "an empty file"), (LFS, "a Git LFS pointer"), (b"<html>", "a web page"),
     (b"PAR1", "no complete Parquet file"), (b"a,b\n1,2\n", "no complete Parquet file")],
)  # fmt: skip
def test_a_file_that_is_no_parquet_is_named_as_what_it_is(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert expected in error_of(path)


def test_damaged_parquet_is_one_line(tmp_path: Path) -> None:
    path = parquet(tmp_path, pixels=TEXTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert "no complete Parquet file" in error_of(path)
    path.write_bytes(whole[:4] + bytes(255 - byte for byte in whole[4:400]) + whole[400:])
    assert "cannot be read (" in error_of(path)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    assert "Install it with pip install 'fer-features[parquet]'" in error_of(path)
