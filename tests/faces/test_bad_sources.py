"""What bad sources get: one line with the place, what was found, what was expected, the remedy."""

import gzip
import io
import lzma
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_features.errors import SourceError
from fer_features.faces.reading import read_faces, source_sha256

CELL = " ".join(["7"] * 2304)
HEADER = "emotion,pixels,Usage\n"
ROW = f"3,{CELL},Training\n"
GOOD = HEADER + ROW * 3
GREY = np.full((48, 48), 9, np.uint8)


def error_of(source: Path, **options: object) -> str:
    """Return the error that reading gives, with the source's folder cut off."""
    with pytest.raises(SourceError) as raised:
        read_faces(source, **options)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    assert message.startswith(str(source))
    assert message.endswith(".")
    return message.removeprefix(f"{source.parent}/")


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_value(value: str, at: int) -> str:
    values = ["7"] * 2304
    values[at] = value
    return " ".join(values)


# Files that cannot be read at all

LOCKED = bytearray(zipped(**{"a.csv": GOOD.encode()}))
LOCKED[6] |= 1
LOCKED[LOCKED.index(b"PK\1\2") + 8] |= 1

FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "a.csv: an empty file, expected a CSV file with a column 'pixels'"),
    "blank first line": ("a.csv", b"\n" + GOOD.encode(), "a.csv: starts with a blank line"),
    "header only": ("a.csv", HEADER.encode(), "a.csv: a header and no rows, expected a row for"),
    "header and blank lines": ("a.csv", HEADER.encode() + b"\n \n", "a header and no rows"),
    "no pixels": ("a.csv", b"emotion,Usage\n3,Training\n", "no column 'pixels' in the header"),
    "no header": ("a.csv", ROW.encode(), "no column 'pixels' in the header '3,7 7 7"),
    "semicolons": ("a.csv", GOOD.replace(",", ";").encode(), "'emotion;pixels;Usage'"),
    "misspelt pixels": (
        "a.csv", GOOD.replace("pixels", "pixel").encode(),
        "unknown column 'pixel' (did you mean 'pixels'?), expected a CSV file",
    ),
    "misspelt emotion": (
        "a.csv", GOOD.replace("emotion", "Emotions").encode(),
        "unknown column 'Emotions' (did you mean 'emotion'?)",
    ),
    "misspelt Usage": (
        "a.csv", GOOD.replace("Usage", "Usgae").encode(),
        "unknown column 'Usgae' (did you mean 'Usage'?)",
    ),
    "two columns of a name": (
        "a.csv", GOOD.replace("emotion", "Pixels").encode(),
        "column 'pixels' occurs 2 times, expected once. Remove all but one.",
    ),
    "binary": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "a.csv: not UTF-8 text in lines"),
    "NULs": ("a.csv", b"emotion\0,pixels\n", "a.csv: not UTF-8 text in lines"),
    "no line break": ("a.csv", b"a" * 100_000, "a.csv: not UTF-8 text in lines"),
    "old Macintosh line ends": ("a.csv", GOOD.replace("\n", "\r").encode(), "not UTF-8 text"),
    "UTF-16": ("a.csv", GOOD.encode("utf-16"), "not UTF-8 text in lines"),
    "gz that is none": ("a.csv.gz", GOOD.encode(), "cannot be unpacked (Not a gzipped file"),
    "gz cut short": ("a.gz", gzip.compress(GOOD.encode())[:-20], "expected a complete .gz file"),
    "gz with a wrong sum": (
        "a.gz", gzip.compress(GOOD.encode())[:-8] + bytes(8), "(CRC check failed",
    ),
    "gz with damage": ("a.gz", gzip.compress(GOOD.encode())[:10] + b"\xff" * 60, "unpacked (Error"),
    "gz of nothing": ("a.csv.gz", gzip.compress(b""), "a.csv.gz: an empty file"),
    "xz that is none": ("a.csv.xz", GOOD.encode(), "(Input format not supported"),
    "xz cut short": ("a.xz", lzma.compress(GOOD.encode())[:-20], "expected a complete .xz file"),
    "zip that is none": ("a.zip", GOOD.encode(), "cannot be unpacked (File is not a zip file)"),
    "zip cut short": ("a.zip", zipped(**{"a.csv": GOOD.encode()})[:-30], "cannot be unpacked"),
    "zip with damage": (
        "a.zip", zipped(**{"a.csv": GOOD.encode()}).replace(b"7 7", b"8 7", 1), "(Bad CRC-32",
    ),
    "zip with a password": ("a.zip", bytes(LOCKED), "Unpack it yourself and pass the CSV file."),
    "zip without a CSV": ("a.zip", zipped(**{"a.jpg": b""}), "a.zip: no CSV files in it, expected"),
    "zip of two": (
        "a.zip", zipped(**{"train.csv": b"", "in/test.csv": b""}),
        "2 CSV files in it (train.csv, in/test.csv), expected exactly one. Unpack it and pass one",
    ),
    "text": ("a.txt", GOOD.encode(), "a.txt: neither a CSV file nor a folder, expected a .csv"),
    "no suffix": ("faces", GOOD.encode(), "faces: neither a CSV file nor a folder"),
    "tar": ("a.tar.gz", b"", "a.tar.gz: a tar archive, expected a .csv file"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_is_no_faces_is_refused(tmp_path, case, skip_bad):
    name, content, expected = FILES[case]
    (tmp_path / name).write_bytes(content)
    assert expected in error_of(tmp_path / name, skip_bad=skip_bad)


def test_a_missing_source_is_refused(tmp_path):
    assert error_of(tmp_path / "a.csv") == (
        "a.csv: no such file or folder, expected a .csv file, plain or packed as .gz, .xz or .zip, "
        "or a folder of images. Check the path."
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    assert "a.csv: neither a CSV file nor a folder" in error_of(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "a.csv").chmod(0)
    assert "cannot be read (Permission denied)" in error_of(tmp_path / "a.csv")
    with pytest.raises(SourceError, match=r"cannot be read \(Permission denied\)"):
        source_sha256(tmp_path / "a.csv")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(tmp_path, limit):
    (tmp_path / "a.csv").write_text(GOOD)
    with pytest.raises(SourceError, match=rf"^limit {limit}: expected at least 1 row\. Leave"):
        read_faces(tmp_path / "a.csv", limit=limit)


@pytest.mark.parametrize("size", [0, -48, 7, 2049, 48.0, "96", True])
def test_an_image_size_out_of_range_is_refused(tmp_path, size):
    with pytest.raises(SourceError) as raised:
        read_faces(tmp_path, image_size=size)
    assert str(raised.value) == (
        f"image size {size!r}: expected a whole number from 8 to 2048. Leave it out to take 48."
    )


@pytest.mark.parametrize(
    ("options", "asked", "them"),
    [
        ({"image_size": 96}, "--image-size 96", "it"),
        ({"color": True}, "--color", "it"),
        ({"image_size": 48, "color": True}, "--color", "it"),
        ({"image_size": 224, "color": True}, "--image-size 224 and --color", "them"),
    ],
)
def test_a_csv_file_has_no_other_form_of_image(tmp_path, options, asked, them):
    (tmp_path / "a.csv").write_text(GOOD)
    assert error_of(tmp_path / "a.csv", **options) == (
        "a.csv: a CSV file, which holds 48x48 grey pixels, expected a folder of images for "
        f"{asked}. Leave {them} out."
    )


def test_a_csv_file_may_be_asked_for_the_form_that_it_has(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    assert read_faces(tmp_path / "a.csv", image_size=48, color=False).image == (48, 48, 1)


# Bad rows

COUNT = "{} pixels, expected 2304 (48x48)"
VALUE = "pixel {} is '{}', expected a whole number from 0 to 255"
EMOTION = "{}, expected a whole number from 0 to 6"
USAGE = "{}, expected Training, PublicTest or PrivateTest"

ROWS: dict[str, tuple[str, str]] = {
    "a pixel missing": (f"3,{CELL[:-2]},Training", COUNT.format(2303)),
    "a pixel more": (f"3,{CELL} 7,Training", COUNT.format(2305)),
    "no pixels": ("3,,Training", "no pixels, expected 2304 (48x48)"),
    "blank pixels": ("3,   ,Training", "no pixels, expected 2304 (48x48)"),
    "256": (f"3,{with_value('256', 2)},Training", VALUE.format(3, 256)),
    "-1": (f"3,{with_value('-1', 0)},Training", VALUE.format(1, -1)),
    "x": (f"3,{with_value('x', 2303)},Training", VALUE.format(2304, "x")),
    "1.5": (f"3,{with_value('1.5', 9)},Training", VALUE.format(10, "1.5")),
    "1_0": (f"3,{with_value('1_0', 9)},Training", VALUE.format(10, "1_0")),
    "a value without end": (
        f"3,{with_value('9' * 5000, 9)},Training", VALUE.format(10, "9" * 37 + "..."),
    ),
    "a strange sign": (f"3,{with_value(chr(0x663), 9)},Training", VALUE.format(10, chr(0x663))),
    "a control character": (f"3,{with_value(chr(27), 9)},Training", VALUE.format(10, "\\x1b")),
    "emotion 7": (f"7,{CELL},Training", EMOTION.format("emotion '7'")),
    "emotion -1": (f"-1,{CELL},Training", EMOTION.format("emotion '-1'")),
    "emotion x": (f"x,{CELL},Training", EMOTION.format("emotion 'x'")),
    "emotion 3.0": (f"3.0,{CELL},Training", EMOTION.format("emotion '3.0'")),
    "a blank emotion": (f" ,{CELL},Training", EMOTION.format("a blank emotion")),
    "an unknown Usage": (f"3,{CELL},Holdout", USAGE.format("Usage 'Holdout'")),
    "a misspelt Usage": (
        f"3,{CELL},Trainnig", USAGE.format("Usage 'Trainnig' (did you mean 'Training'?)"),
    ),
    "a blank Usage": (f"3,{CELL},", USAGE.format("a blank Usage")),
    "a column missing": (f"3,{CELL}", "2 columns, expected 3"),
    "a column more": (f"3,{CELL},Training,", "4 columns, expected 3"),
    "a comma between pixels": (f"3,{with_value('7,7', 4)},Training", "4 columns, expected 3"),
    "a blank line": ("", "an empty line, expected 3 columns"),
    "an open quote": (f'3,"{CELL},Training', "2 columns, expected 3"),
    "a cell without end": (f'3,"{CELL * 40}",Training', "not CSV (field larger than field limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_is_named_with_its_number_below_the_header(tmp_path, case):
    row, finding = ROWS[case]
    (tmp_path / "fer2013.csv").write_bytes((HEADER + ROW * 11 + row + "\n" + ROW).encode())
    message = error_of(tmp_path / "fer2013.csv")
    assert message.startswith(f"fer2013.csv row 12: {finding}")
    assert message.endswith(". Remove the row or pass --skip-bad.")


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_can_be_left_out_and_is_counted(tmp_path, case):
    (tmp_path / "a.csv").write_bytes((HEADER + ROW + ROWS[case][0] + "\n" + ROW * 2).encode())
    faces = read_faces(tmp_path / "a.csv", skip_bad=True)
    assert faces.source.tolist() == ["1", "3", "4"]
    assert faces.skipped == 1
    assert (faces.pixels == 7).all()


def test_a_file_cut_short_in_a_row_is_noticed(tmp_path):
    (tmp_path / "a.csv").write_text((GOOD + ROW)[:-4000])
    assert "a.csv row 4: 2 columns, expected 3" in error_of(tmp_path / "a.csv")


def test_all_bad_rows_are_found_and_the_first_few_named_in_order(tmp_path):
    bad = {12: f"7,{CELL},Training\n", 40: f"3,{CELL[2:]},Training\n", 90: f"3,{CELL}x,Training\n"}
    path = tmp_path / "fer2013.csv"
    path.write_text(HEADER + "".join(bad.get(row, ROW) for row in range(1, 101)))
    assert error_of(path) == (
        "fer2013.csv: 3 bad rows: row 12: emotion '7', expected a whole number from 0 to 6; "
        "row 40: 2303 pixels, expected 2304 (48x48); "
        "row 90: pixel 2304 is '7x', expected a whole number from 0 to 255. "
        "Remove the rows or pass --skip-bad."
    )
    faces = read_faces(path, skip_bad=True)
    assert (len(faces), faces.skipped) == (97, 3)
    assert not {"12", "40", "90"} & set(faces.source)


def test_many_bad_rows_are_counted_and_five_named(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + f"9,{CELL},Training\n" * 200)
    message = error_of(tmp_path / "a.csv")
    assert message.startswith("a.csv: 200 bad rows: row 4: emotion '9'")
    assert "row 8: " in message
    assert "row 9: " not in message
    assert message.endswith("; and 195 more. Remove the rows or pass --skip-bad.")


def test_rows_in_one_block_are_named_in_the_order_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + f"3,{CELL} 7,Training\n" + f"9,{CELL},Training\n")
    message = error_of(tmp_path / "a.csv")
    assert message.index("row 1: 2305") < message.index("row 2: emotion '9'")


def test_nothing_but_bad_rows_is_an_error_even_when_they_may_be_skipped(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + f"9,{CELL},Training\n" * 2)
    assert "a.csv: no good row left of 2: row 1: emotion '9'" in error_of(
        tmp_path / "a.csv", skip_bad=True
    )


def test_a_row_beyond_the_limit_is_checked_too(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + f"9,{CELL},Training\n")
    assert "a.csv row 4: emotion '9'" in error_of(tmp_path / "a.csv", limit=1)
    assert len(read_faces(tmp_path / "a.csv", limit=2, skip_bad=True)) == 2


def test_the_path_stands_in_the_message_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(HEADER + f"9,{CELL},Training\n")
    with pytest.raises(SourceError, match=r"^\./a\.csv row 1: "):
        read_faces("./a.csv")
    with pytest.raises(SourceError, match=r"^\.\./nowhere: no such"):
        read_faces("../nowhere")


# Bad folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with two good images."""
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        Image.fromarray(GREY).save(tmp_path / "faces" / name / "good.png")
    return tmp_path / "faces"


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "notes.txt").write_text("no image")
    assert "faces: no images, expected folders named by emotion" in error_of(tmp_path / "faces")


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def image_file(kind: str, size: int = 64, **options: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def animation(kind: str) -> bytes:
    return image_file(kind, save_all=True, append_images=[Image.fromarray(GREY).resize((64, 64))])


IMAGES: dict[str, tuple[str, bytes, str]] = {
    "zero bytes": ("a.png", b"", "an empty file, expected an image"),
    "text": ("a.jpg", b"<html>not found</html>", "no image that can be recognised"),
    "a cut JPEG": ("a.jpg", image_file("JPEG")[:900], "a damaged image (image file is truncated"),
    "a cut PNG": ("a.png", image_file("PNG")[:900], "a damaged image ("),
    "a cut BMP": ("a.bmp", image_file("BMP")[:900], "a damaged image ("),
    "a cut TIFF": ("a.tif", image_file("TIFF")[:900], "a damaged image ("),
    "a cut GIF": ("a.gif", image_file("GIF")[:900], "a damaged image ("),
    "a cut header": ("a.jpg", image_file("JPEG")[:30], "a"),
    "a PNG with damage": (
        "a.png", image_file("PNG")[:200] + b"\0\1" * 20 + image_file("PNG")[240:], "a damaged",
    ),
    "a bomb": ("a.png", png_of(40_000, 40_000), "more than 89,478,485 pixels, expected a picture"),
    "a smaller bomb": ("a.png", png_of(10_000, 10_000), "more than 89,478,485 pixels"),
    "an animated GIF": ("a.gif", animation("GIF"), "2 frames, expected a single image"),
    "an animated PNG": ("a.png", animation("PNG"), "2 frames, expected a single image"),
    "a TIFF of two pages": ("a.tiff", animation("TIFF"), "2 frames, expected a single image"),
    "PostScript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image that"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
def test_a_bad_image_is_named(folder, case, recwarn, capfd):
    name, content, finding = IMAGES[case]
    (folder / "happy" / name).write_bytes(content)
    message = error_of(folder)
    assert message.startswith(f"faces/happy/{name}: {finding}")
    assert message.endswith(". Mend or remove it, or pass --skip-bad.")
    faces = read_faces(folder, skip_bad=True)
    assert faces.source.tolist() == ["happy/good.png", "sad/good.png"]
    assert faces.skipped == 1
    assert faces.sha256 == source_sha256(folder)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_all_bad_images_are_found_before_the_error(folder):
    for i in range(7):
        (folder / "sad" / f"{i}.png").write_bytes(b"")
    message = error_of(folder)
    assert message.startswith("faces: 7 bad files: sad/0.png: an empty file, expected an image; ")
    assert "sad/4.png" in message
    assert "sad/5.png" not in message


def test_bad_images_are_named_in_order_however_long_each_takes(folder):
    (folder / "happy" / "a.png").write_bytes(image_file("PNG", size=3000)[:-100])
    for i in range(40):
        (folder / "sad" / f"{i:02d}.png").write_bytes(b"" if i % 4 else png_of(10_000, 10_000))
    message = error_of(folder)
    assert message.startswith("faces: 41 bad files: happy/a.png: a damaged image")
    places = [message.index(f"; sad/0{i}.png: ") for i in range(4)]
    assert places == sorted(places)
    assert message.endswith("; and 36 more. Mend or remove them, or pass --skip-bad.")
    assert read_faces(folder, skip_bad=True).skipped == 41


def test_each_of_many_bombs_is_one_and_python_warns_as_it_did(folder):
    for i in range(50):
        (folder / "sad" / f"{i:02d}.png").write_bytes(png_of(10_000, 10_000))
    before = list(warnings.filters)
    message = error_of(folder)
    assert message.count("more than 89,478,485 pixels") == 5
    assert warnings.filters == before


def test_nothing_but_bad_images_is_an_error_even_when_they_may_be_skipped(tmp_path):
    (tmp_path / "faces" / "sad").mkdir(parents=True)
    (tmp_path / "faces" / "sad" / "a.png").write_bytes(b"")
    assert "faces: no good file left of 1: sad/a.png: an empty file" in error_of(
        tmp_path / "faces", skip_bad=True
    )


def with_folder(name: str) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        (folder / name).mkdir(parents=True)
        for image in ("a.png", "b.png"):
            Image.fromarray(GREY).save(folder / name / image)

    return arrange


def with_link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def with_odd_file(folder: Path) -> None:
    os.mkfifo(folder / "happy" / "pipe.png")


def with_loose_image(folder: Path) -> None:
    Image.fromarray(GREY).save(folder / "a.png")


def with_name(name: bytes) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        (folder / "happy" / os.fsdecode(name)).write_bytes(image_file("PNG"))

    return arrange


KNOWN = "expected anger, disgust, fear, happiness, sadness, surprise or neutral"
PLACES: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "an unknown class": (
        with_folder("contempt"),
        f"faces/contempt: a folder of 2 images whose name is no emotion, {KNOWN}", 2,
    ),
    "a misspelt class": (
        with_folder("suprise"),
        f"faces/suprise: a folder of 2 images whose name is no emotion (did you mean 'surprise'?), "
        f"{KNOWN}", 2,
    ),
    "an unknown class below a usage": (
        with_folder("train/hapy/deep"),
        "faces/train/hapy: a folder of 2 images whose name is no emotion (did you mean 'happy'?)",
        2,
    ),
    "a class by number": (with_folder("3"), "faces/3: a folder of 2 images", 2),
    "an image beside the emotions": (
        with_loose_image, "faces/a.png: outside the emotion folders beside it, expected in one", 1,
    ),
    "a link in a circle": (
        with_link("happy/again", ".."), "faces/happy/again: a link back to a folder above it", 1,
    ),
    "a link to itself": (
        with_link("happy/self", "self"), "faces/happy/self: cannot be followed (Too many levels", 1,
    ),
    "a link to nothing": (
        with_link("happy/a.png", "gone.png"), "faces/happy/a.png: cannot be followed (No such", 1,
    ),
    "a pipe": (with_odd_file, "faces/happy/pipe.png: no regular file, expected an image", 1),
    "a name that is not UTF-8": (
        with_name(b"caf\xe9.png"), "faces/happy/caf\\xe9.png: a name that is not UTF-8", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_a_file_in_a_bad_place_is_named(folder, case):
    arrange, expected, skipped = PLACES[case]
    arrange(folder)
    assert error_of(folder).startswith(expected)
    faces = read_faces(folder, skip_bad=True)
    assert faces.source.tolist() == ["happy/good.png", "sad/good.png"]
    assert faces.skipped == skipped
    assert faces.sha256 == source_sha256(folder)


def test_a_line_break_in_a_file_name_does_not_break_the_line(folder):
    (folder / "happy" / "a\nb.png").write_bytes(b"")
    assert error_of(folder).startswith("faces/happy/a\\nb.png: an empty file")


def test_a_link_to_nothing_that_names_no_image_is_passed_over(folder):
    (folder / "happy" / "notes.txt").symlink_to("gone")
    assert len(read_faces(folder)) == 2
