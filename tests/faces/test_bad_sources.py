"""What bad sources get: one line with the place, what was found, what was expected, the remedy."""

import gzip
import io
import lzma
import os
import re
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
    "no header, and a number more": (
        "a.csv", f"9,{ROW}8,{ROW}".encode(), "no header, and columns that cannot be told apart by",
    ),
    "misspelt pixels": (
        "a.csv", b"emotion,pixles\n3,9\n",
        "unknown column 'pixles' (did you mean 'pixels'?), expected a CSV file",
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
    "text": ("a.txt", GOOD.encode(), "a.txt: neither a table of faces nor a folder, expected a"),
    "no suffix": ("faces", GOOD.encode(), "faces: neither a table of faces nor a folder"),
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
        "a .parquet, .npz or .npy file, or a folder of images. Check the path."
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    assert "a.csv: neither a table of faces nor a folder" in error_of(tmp_path / "a.csv")


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
        ({"image_size": 96}, "image_size=96", "it"),
        ({"color": True}, "color=True", "it"),
        ({"image_size": 48, "color": True}, "color=True", "it"),
        ({"image_size": 224, "color": True}, "image_size=224 and color=True", "them"),
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
EMOTION = (
    "expected a number from 0 to 6 or a word (anger, disgust, fear, happiness, sadness, surprise, "
    "neutral, contempt)"
)
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
    "an unknown Usage": (f"3,{CELL},Holdout", USAGE.format("Usage 'Holdout'")),
    "a misspelt Usage": (
        f"3,{CELL},Trainnig", USAGE.format("Usage 'Trainnig' (did you mean 'Training'?)"),
    ),
    "a blank Usage": (f"3,{CELL},", USAGE.format("a blank Usage")),
    "a value from 0 to 1": (
        f"3,{with_value('0.5', 9)},Training",
        VALUE.format(10, "0.5") + " (if values run from 0 to 1, multiply them by 255)",
    ),
    "an array cut short": (
        "3,[254 133 9 ... 7 7],Training", "pixels cut short by '...', as NumPy prints long arrays",
    ),
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
    assert message.endswith(". Remove the row or pass skip_bad=True.")


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
    bad = {
        12: f"3,{CELL}\n",
        40: f"3,{CELL[2:]},Training\n",
        60: f"3,{CELL[4:]},Training\n",
        90: f"3,{CELL}x,Training\n",
    }
    path = tmp_path / "fer2013.csv"
    path.write_text(HEADER + "".join(bad.get(row, ROW) for row in range(1, 101)))
    assert error_of(path) == (
        "fer2013.csv: 4 bad rows: row 12: 2 columns, expected 3; "
        "row 40, row 60: 2303 pixels, expected 2304 (48x48); "
        "row 90: pixel 2304 is '7x', expected a whole number from 0 to 255. "
        "Remove the rows or pass skip_bad=True."
    )
    faces = read_faces(path, skip_bad=True)
    assert (len(faces), faces.skipped) == (96, 4)
    assert not {"12", "40", "60", "90"} & set(faces.source)
    assert faces.left_out == {
        "a wrong count of columns": 1,
        "a wrong count of pixels": 2,
        "a pixel that is no whole number from 0 to 255": 1,
    }


def test_many_bad_rows_of_one_kind_are_counted_and_five_named(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + f"3,{CELL[2:]},Training\n" * 1200)
    assert error_of(tmp_path / "a.csv") == (
        "a.csv: 1,200 bad rows: row 4, row 5, row 6, row 7, row 8 and 1,195 more: 2303 pixels, "
        "expected 2304 (48x48). Remove the rows or pass skip_bad=True."
    )


def test_many_kinds_of_bad_rows_are_counted_and_five_shown(tmp_path):
    kinds = ["a pixel missing", "256", "a column more", "an unknown Usage", "a blank Usage"]
    kinds += ["a misspelt Usage", "an array cut short"]
    (tmp_path / "a.csv").write_text(GOOD + "".join(f"{ROWS[kind][0]}\n" for kind in kinds))
    message = error_of(tmp_path / "a.csv")
    assert message.startswith("a.csv: 7 bad rows: row 4: 2303 pixels, expected 2304 (48x48); row 5")
    assert message.count("; row ") == 4
    assert message.endswith("; and 2 kinds more. Remove the rows or pass skip_bad=True.")
    assert sum(read_faces(tmp_path / "a.csv", skip_bad=True).left_out.values()) == 7


UNKNOWN: dict[str, tuple[str, str]] = {
    "x": ("x", "emotion 'x'"),
    "-1": ("-1", "emotion '-1'"),
    "12": ("12", "emotion '12'"),
    "2.5": ("2.5", "emotion '2.5'"),
    "misspelt": ("hapy", "emotion 'hapy' (did you mean 'happy'?)"),
    "blank": (" ", "a blank emotion"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_emotion_that_is_none_is_named_and_the_remedies_in_the_message_work(tmp_path, case):
    cell, found = UNKNOWN[case]
    (tmp_path / "fer2013.csv").write_text(HEADER + ROW * 11 + f"{cell},{CELL},Training\n" + ROW)
    message = error_of(tmp_path / "fer2013.csv")
    assert message.startswith(f"fer2013.csv: {found} (row 12); {EMOTION}. Say what each means with")
    faces = read_faces(tmp_path / "fer2013.csv", skip_bad=True)
    assert "12" not in faces.source
    assert (len(faces), faces.skipped) == (12, 1)
    options = re.findall(r'map={"([^"]*)": "(none|EMOTION)"}', message)
    assert {meant for _, meant in options} == {"none", "EMOTION"}
    for word, meant in [*options, ("*", "none")]:
        mapped = read_faces(
            tmp_path / "fer2013.csv", map={word: meant.replace("EMOTION", "contempt")}
        )
        assert mapped.emotion.tolist() == [3] * 11 + [-1 if meant == "none" else 7] + [3]


def test_all_unknown_words_are_shown_once(tmp_path):
    rows = [f"{word},{CELL},Training\n" for word in ("freude", "wut", "freude", "freude", "hapy")]
    (tmp_path / "a.csv").write_text(GOOD + "".join(rows))
    assert error_of(tmp_path / "a.csv") == (
        "a.csv: emotion 'freude' (3 rows, the first row 4); emotion 'wut' (row 5); emotion 'hapy' "
        f"(did you mean 'happy'?) (row 8); {EMOTION}. Say what each means with "
        'map={"freude": "EMOTION"} or map={"freude": "none"} ("*" is every other word), or pass '
        "skip_bad=True to leave them out."
    )


def test_rows_in_one_block_are_named_in_the_order_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + f"3,{CELL} 7,Training\n" + f"3,{CELL}\n")
    message = error_of(tmp_path / "a.csv")
    assert message.index("row 1: 2305") < message.index("row 2: 2 columns")


def test_nothing_but_bad_rows_is_an_error_even_when_they_may_be_skipped(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + f"3,{CELL} 7,Training\n" * 2)
    assert error_of(tmp_path / "a.csv", skip_bad=True) == (
        "a.csv: no good row left of 2: row 1, row 2: 2305 pixels, expected 2304 (48x48). Mend the "
        "source."
    )
    (tmp_path / "a.csv").write_text(HEADER + f"12,{CELL},Training\n" * 2)
    assert error_of(tmp_path / "a.csv", skip_bad=True).startswith(
        "a.csv: no good row left of 2: row 1 and 1 more: emotion '12', expected"
    )


def test_a_row_beyond_the_limit_is_checked_too(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + f"3,{CELL} 7,Training\n")
    assert "a.csv row 4: 2305 pixels" in error_of(tmp_path / "a.csv", limit=1)
    assert len(read_faces(tmp_path / "a.csv", limit=2, skip_bad=True)) == 2


def test_the_path_stands_in_the_message_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(HEADER + f"3,{CELL} 7,Training\n")
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
    "text": ("a.jpg", b"not found", "no image that can be recognised"),
    "a web page": (
        "a.jpg", b"<html>not found</html>",
        "a web page, not the file itself, expected an image (Download the file again, logged in",
    ),
    "a Git LFS pointer": (
        "a.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
        "a Git LFS pointer, not the file itself, expected an image (Run 'git lfs pull' where it",
    ),
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
    assert message.endswith(". Mend or remove it, or pass skip_bad=True.")
    faces = read_faces(folder, skip_bad=True)
    assert faces.source.tolist() == ["happy/good.png", "sad/good.png"]
    assert faces.skipped == 1
    assert faces.sha256 == source_sha256(folder)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_all_bad_images_are_found_before_the_error(folder):
    for i in range(7):
        (folder / "sad" / f"{i}.png").write_bytes(b"")
    (folder / "happy" / "a.png").write_bytes(b"text")
    assert error_of(folder) == (
        "faces: 8 bad files: happy/a.png: no image that can be recognised, expected one such as "
        "PNG or JPEG; sad/0.png, sad/1.png, sad/2.png, sad/3.png, sad/4.png and 2 more: an empty "
        "file, expected an image. Mend or remove them, or pass skip_bad=True."
    )


def test_bad_images_are_named_in_order_however_long_each_takes(folder):
    (folder / "happy" / "a.png").write_bytes(image_file("PNG", size=3000)[:-100])
    for i in range(40):
        (folder / "sad" / f"{i:02d}.png").write_bytes(b"" if i % 4 else png_of(10_000, 10_000))
    message = error_of(folder)
    assert message.startswith("faces: 41 bad files: happy/a.png: a damaged image")
    bombs = "sad/00.png, sad/04.png, sad/08.png, sad/12.png, sad/16.png and 5 more: more than"
    empty = "sad/01.png, sad/02.png, sad/03.png, sad/05.png, sad/06.png and 25 more: an empty file"
    assert 0 < message.index(bombs) < message.index(empty)
    assert message.endswith(". Mend or remove them, or pass skip_bad=True.")
    assert read_faces(folder, skip_bad=True).skipped == 41


def test_each_of_many_bombs_is_one_and_python_warns_as_it_did(folder):
    for i in range(50):
        (folder / "sad" / f"{i:02d}.png").write_bytes(png_of(10_000, 10_000))
    before = list(warnings.filters)
    message = error_of(folder)
    assert message.startswith(
        "faces: 50 bad files: sad/00.png, sad/01.png, sad/02.png, sad/03.png, sad/04.png and 45 "
        "more: more than 89,478,485 pixels, expected a picture of a face. "
    )
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


KNOWN = "expected anger, disgust, fear, happiness, sadness, surprise, neutral or contempt"
NO_EMOTION = "faces: a folder whose name is no emotion:"
PLACES: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "an unknown class": (
        with_folder("confusion"), f"{NO_EMOTION} confusion (2 images); {KNOWN}. Say what", 2,
    ),
    "a misspelt class": (
        with_folder("suprise"),
        f"{NO_EMOTION} suprise (did you mean 'surprise'?) (2 images); {KNOWN}. Say what", 2,
    ),
    "an unknown class below a usage": (
        with_folder("train/hapy/deep"),
        f"{NO_EMOTION} hapy (did you mean 'happy'?) (2 images, first in train); {KNOWN}. Say what",
        2,
    ),
    "a class by a number of no order": (with_folder("12"), f"{NO_EMOTION} 12 (2 images)", 2),
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
