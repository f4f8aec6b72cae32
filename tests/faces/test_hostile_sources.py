"""Sources made to fill memory, disk or time: one line and little of them, or read as they are."""

import contextlib
import gzip
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image

from fer_features.errors import SourceError
from fer_features.faces import bad_rows, csv_file, image
from fer_features.faces.labels import read_labels
from fer_features.faces.packed import XzFile
from fer_features.faces.reading import read_faces, source_sha256

CELL = " ".join(["7"] * 2304)
GOOD = f"emotion,pixels,Usage\n3,{CELL},Training\n".encode()
GREY = np.full((48, 48), 9, np.uint8)


@contextlib.contextmanager
def within(megabytes: int) -> Iterator[None]:
    """Check how much more memory this process has for a moment."""

    def said(name: str) -> int:
        return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    except OSError:
        yield
        return
    before = said("VmRSS")
    yield
    assert said("VmHWM") - before < megabytes * 1024


def refused(source: Path, megabytes: int = 100, **options: object) -> str:
    """Return the one line that a source is refused with, in so much memory."""
    with within(megabytes), pytest.raises(SourceError) as raised:
        read_faces(source, **options)
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 600
    assert message.startswith(f"{source}")
    return message.removeprefix(f"{source.parent}/")


def packed(path: Path, *parts: tuple[bytes, int]) -> Path:
    """Write parts, each so often one after the other, as .xz or .gz."""
    content = b"".join(part * times for part, times in parts)
    pack = gzip.compress(content, 1) if path.suffix == ".gz" else lzma.compress(content, preset=0)
    path.write_bytes(pack)
    return path


# Text


@pytest.mark.parametrize("name", ["a.csv.xz", "a.csv.gz"])
def test_a_line_without_an_end_is_a_bad_row_and_is_not_held(tmp_path, name):
    path = packed(tmp_path / name, (GOOD, 1), (b"0", 60_000_000))
    assert path.stat().st_size < 300_000
    message = refused(path, 30)
    assert message.startswith(f"{name} row 2: a line of more than 262,144 bytes, expected a row")


def cut_short(path: Path) -> Path:
    """Cut a packed file off at its end, which whoever unpacks all of it will say."""
    path.write_bytes(path.read_bytes()[:-40])
    return path


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_line_as_long_as_no_table_is_given_up(tmp_path, monkeypatch, skip_bad):
    path = cut_short(packed(tmp_path / "a.csv.xz", (GOOD, 1), (b"0", 30_000_000)))
    assert "cannot be unpacked" in refused(path, 30, skip_bad=skip_bad)
    monkeypatch.setattr(csv_file, "_LONGEST_LINE", 2**20)
    message = refused(path, 30, skip_bad=skip_bad)
    assert message.startswith("a.csv.xz: line 2 below the first has more than 1,048,576 bytes")


def test_a_file_that_is_no_text_is_not_unpacked_to_its_end(tmp_path):
    path = cut_short(packed(tmp_path / "a.csv.xz", (b"0", 30_000_000)))
    assert refused(path, 30).startswith("a.csv.xz: not UTF-8 text in lines")


def test_what_comes_after_a_line_that_is_too_long_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(GOOD + b"0" * 3_000_000 + b"\n" + GOOD.splitlines(True)[1] + b"0" * 262_144)
    faces = read_faces(path, skip_bad=True)
    assert faces.source.tolist() == ["1", "3"]
    assert faces.skipped == 2


def test_millions_of_blank_lines_are_counted_and_given_up(tmp_path):
    path = packed(tmp_path / "a.csv.xz", (GOOD, 1), (b"\n", 4_000_000))
    assert path.stat().st_size < 10_000
    assert refused(path, 50).startswith("a.csv.xz row 1048578: the 1,048,577th blank line in a row")


def test_many_blank_lines_at_the_end_are_no_rows(tmp_path):
    path = packed(tmp_path / "a.csv.gz", (GOOD, 1), (b"\r\n", 2**20))
    with within(50):
        assert len(read_faces(path)) == 1


def test_quotes_that_nothing_closes_are_not_joined_without_end(tmp_path):
    line = b'3,"' + b"7 " * 100_000 + b"\n"
    path = packed(tmp_path / "a.csv.gz", (GOOD, 1), (line, 41))
    assert "not CSV (field larger than field limit" in refused(path, 80)


@pytest.mark.parametrize(
    "row",
    [b"3," + b"7 " * 130_000 + b",Training\n", b"," * 262_000 + b"\n", b"\0" * 262_000 + b"\n"],
    ids=["values", "columns", "NULs"],
)
def test_rows_as_long_as_they_may_be_take_little_memory(tmp_path, row):
    path = packed(tmp_path / "a.csv.gz", (GOOD, 1), (row, 20))
    assert "20 bad rows: row 2" in refused(path, 60)


def test_a_source_of_nothing_but_bad_rows_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_rows, "HOPELESS", 1000)
    path = packed(tmp_path / "a.csv.gz", (GOOD, 1), (b"x\n", 100_000))
    for skip_bad in (False, True):
        message = refused(path, skip_bad=skip_bad)
        assert "1,023 bad rows of the first 1,024, and read no further: row 2" in message
    rows = GOOD.splitlines(True)[1]
    path = packed(tmp_path / "b.csv.gz", (GOOD, 1), (rows + b"x\n" * 9, 300))
    assert read_faces(path, skip_bad=True).skipped == 2700


def test_a_column_that_says_something_else_in_each_row_holds_no_emotions(tmp_path):
    rows = [f"{name},{CELL},Training\n" for name in range(100, 1200)]
    (tmp_path / "a.csv").write_text("emotion,pixels,Usage\n" + "".join(rows))
    for skip_bad in (False, True):
        message = refused(tmp_path / "a.csv", skip_bad=skip_bad)
        assert message.startswith("a.csv: more than 1,000 different words in column 'emotion'")


@pytest.mark.parametrize("column", ["emotion", "Usage", "group"])
def test_a_word_without_end_is_a_bad_row(tmp_path, column):
    names = ("emotion", "Usage", "group")
    said = {"emotion": "3", "Usage": "Training", "group": "g"} | {column: "x" * 201}
    row = ",".join([CELL, *(said[name] for name in names)])
    good = ",".join([CELL, "3", "Training", "x" * 200])
    (tmp_path / "a.csv").write_text(f"pixels,{','.join(names)}\n{good}\n{row}\n")
    assert "a.csv row 2: 201 letters in a cell, expected a word of" in refused(tmp_path / "a.csv")


def test_words_of_bad_rows_are_not_all_kept(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD + b"".join(b"w%d,7,\n" % n for n in range(3000)))
    bad = bad_rows.BadRows("a", "row", " ", ("", ""))
    for n in range(3000):
        bad.add(f"row {n}", "bad", word=str(n))
    assert len(bad.words) == 1000
    assert read_faces(tmp_path / "a.csv", skip_bad=True).skipped == 3000
    (tmp_path / "a.csv").write_bytes(GOOD + b"".join(b"%d,7,\n" % n for n in range(3000)))
    assert " and 988 more; as AffectNet's 0 neutral" in refused(tmp_path / "a.csv")


# Archives


def test_an_xz_file_that_asks_for_gigabytes_of_memory_is_refused(tmp_path):
    content = bytearray(lzma.compress(GOOD))
    place = content.index(b"\x21\x01") + 2  # of LZMA2, the size of its properties: one byte
    content[place] = 38  # 1 GiB
    end = 12 + (content[12] + 1) * 4
    content[end - 4 : end] = struct.pack("<I", zlib.crc32(content[12 : end - 4]))
    (tmp_path / "a.xz").write_bytes(content)
    assert "cannot be unpacked (Memory usage limit exceeded)" in refused(tmp_path / "a.xz", 20)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_xz_file_of_several_streams_is_read_to_its_end(size):
    content = lzma.compress(b"a" * 9) + bytes(8) + lzma.compress(b"") + lzma.compress(b"b" * 9000)
    found = io.BufferedReader(XzFile(io.BytesIO(content + bytes(4))), size)
    assert found.read() == b"a" * 9 + b"b" * 9000
    with pytest.raises(EOFError):
        XzFile(io.BytesIO(content[:-9])).readall()
    with pytest.raises(lzma.LZMAError):
        XzFile(io.BytesIO(content + b"text")).readall()


def zipped(path: Path, kind: int, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_can_only_be_unpacked_as_a_whole_is_refused(tmp_path, kind):
    path = zipped(tmp_path / "a.zip", kind, **{"a.csv": GOOD + b"0" * 3_000_000})
    assert "(neither stored nor deflated), expected a plain .zip. Unpack it" in refused(path, 20)


def test_a_zip_whose_directory_lies_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, **{"a.csv": GOOD})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    assert "bytes stated, and" in refused(path, 20)
    content[place + 20 : place + 24] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    assert "members that lie in one another" in refused(path, 20)


# Arrays


def header(shape: tuple[int, ...], dtype: str = "|u1", fortran: bool = False) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_2_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def deflated(path: Path, **members: tuple[bytes, int]) -> Path:
    """Write an .npz of arrays, each of a header and so many zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (start, zeros) in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(start)
                for _ in range(zeros // 2**20):
                    file.write(bytes(2**20))
                file.write(bytes(zeros % 2**20))
    return path


def test_one_image_of_a_gigapixel_is_refused_by_its_header(tmp_path):
    path = deflated(tmp_path / "a.npz", images=(header((1, 17_000, 17_000)), 17_000**2))
    said = refused(path, 20)
    assert "times its own" in said or "expected images of at most 2048x2048" in said
    path = deflated(tmp_path / "b.npz", images=(header((1, 2049, 2049)), 2049**2))
    assert "b.npz: 'images' uint8 (1, 2049, 2049), expected images of at most" in refused(path, 20)


def test_arrays_that_unpack_to_hundreds_of_times_their_size_are_refused(tmp_path):
    path = deflated(tmp_path / "a.npz", images=(header((12_000_000, 5, 5)), 300_000_000))
    assert "a.npz: cannot be read (images.npy unpacks to 300,000," in refused(path, 20)


def test_labels_as_long_as_books_are_refused_by_their_header(tmp_path):
    images = (header((50, 48, 48)), 50 * 2304)
    path = deflated(tmp_path / "a.npz", images=images, labels=(header((50,), "<U500000"), 10**8))
    assert "expected words of at most 200 characters" in refused(path, 20)


def test_a_header_as_long_as_the_file_is_refused_unread(tmp_path):
    start = b"\x93NUMPY\2\0" + struct.pack("<I", 100_000_000)
    path = deflated(tmp_path / "a.npz", images=(start, 100_000_000))
    assert "cannot be read (a header of 100,000,000 bytes)" in refused(path, 20)


@pytest.mark.parametrize("order", ["<", ">"])
def test_labels_that_are_no_unicode_are_refused(tmp_path, order):
    labels = np.array(["happy", "sad"], dtype=f"{order}U5")
    np.savez(tmp_path / "good.npz", images=np.stack([GREY, GREY]), labels=labels)
    assert read_faces(tmp_path / "good.npz").emotion.tolist() == [3, 4]
    labels.view(f"{order}u4")[7] = 0x110000
    np.savez(tmp_path / "a.npz", images=np.stack([GREY, GREY]), labels=labels)
    assert "a.npz: cannot be read (texts that are no Unicode)" in refused(tmp_path / "a.npz")


def test_images_in_fortrans_order_are_read_without_holding_them(tmp_path):
    rng = np.random.default_rng(0)
    images = np.asfortranarray(rng.integers(0, 256, (5000, 48, 48), dtype=np.uint8))
    np.savez(tmp_path / "a.npz", images=images, x_val=images[:0])
    np.savez(tmp_path / "b.npz", images=images)
    with pytest.raises(SourceError):  # images of several names
        read_faces(tmp_path / "a.npz")
    assert np.array_equal(read_faces(tmp_path / "b.npz").pixels, images)
    np.savez(tmp_path / "c.npz", x_train=images[:9], x_val=np.asfortranarray(images[:0]))
    assert len(read_faces(tmp_path / "c.npz")) == 9


# Parquet


def test_parquet_rows_that_repeat_one_number_for_ever_are_refused_by_what_they_state(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = pa.array(np.zeros(10**7, np.uint8))
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"pixels": lists, "emotion": [3]}), tmp_path / "a.parquet")
    text = pa.table({"pixels": ["7 " * 17_000_000], "emotion": [3]})
    pq.write_table(text, tmp_path / "b.parquet", compression="zstd")
    del values, lists, text
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    assert "states 10,000,001 numbers in a row" in refused(tmp_path / "a.parquet", 60)
    assert "bytes in a row, expected at most 33,554,432" in refused(tmp_path / "b.parquet", 60)


def test_a_parquet_file_of_nothing_but_bad_rows_is_given_up(tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(bad_rows, "HOPELESS", 1000)
    table = pa.table({"pixels": pa.nulls(100_000, pa.string()), "emotion": [3] * 100_000})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "bad rows of the first 1,024, and read no further" in refused(tmp_path / "a.parquet")


# Folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one good image."""
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    Image.fromarray(GREY).save(tmp_path / "faces" / "happy" / "good.png")
    return tmp_path / "faces"


def test_folders_of_links_to_one_another_are_read_once(folder, tmp_path):
    """Four folders of sixteen links each would list one image 65,536 times."""
    below = tmp_path / "below"
    below.mkdir()
    Image.fromarray(GREY).save(below / "a.png")
    for level in range(4):
        above = tmp_path / f"level{level}"
        above.mkdir()
        for link in range(16):
            (above / f"{link:02d}").symlink_to(below)
        below = above
    (folder / "happy" / "all").symlink_to(below)
    message = refused(folder)
    assert message.startswith("faces: 60 bad files: happy/all/00/00/00/01, happy/all/00/00/00/02,")
    assert "and 55 more: a link to happy/all/00/00/00/00, which is read already. Mend" in message
    faces = read_faces(folder, skip_bad=True)
    assert faces.source.tolist() == ["happy/all/00/00/00/00/a.png", "happy/good.png"]
    assert faces.left_out == {"a link to a folder that is read already": 60}
    assert faces.sha256 == source_sha256(folder)


def test_a_folder_has_its_own_name_before_that_of_a_link_to_it(folder):
    (folder / "anger").symlink_to("happy")
    (folder / "zorn").symlink_to("happy")
    message = refused(folder)
    assert message.startswith("faces: 2 bad files: anger, zorn: a link to happy, which is read")
    assert read_faces(folder, skip_bad=True).source.tolist() == ["happy/good.png"]


def test_links_to_images_are_images(folder):
    (folder / "sad").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "sad" / name).symlink_to("../happy/good.png")
    assert len(read_faces(folder)) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe with a name")
def test_what_is_no_file_in_a_folder_is_not_opened(folder):
    os.mkfifo(folder / "happy" / "pipe")
    (folder / "happy" / "zero").symlink_to("/dev/zero")
    assert read_faces(folder).left_out == {"files that are no images (no suffix)": 2}
    (folder / "happy" / "zero.png").symlink_to("/dev/zero")
    assert refused(folder).startswith("faces/happy/zero.png: no regular file, expected an image")


# Images


def of_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(image.MOST_BYTES + 1)


def tiff_pages(path: Path) -> None:
    """A TIFF file of 100,000 pages, each with the pixels of the first."""
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "TIFF")
    content = bytearray(file.getvalue())
    (place,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, place)
    page = bytes(content[place : place + 2 + 12 * entries])
    struct.pack_into("<I", content, place + len(page), len(content))
    size = len(content)
    for number in range(1, 100_001):
        content += page + struct.pack("<I", size + number * (len(page) + 4))
    path.write_bytes(content)


HOSTILE = {
    "larger than any image": ("a.png", of_holes, "cannot be read (File too large)"),
    "pages without end": ("a.tif", tiff_pages, "1000 or more frames, expected a single image"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_image_file_without_end_is_a_bad_one(folder, case):
    name, write, said = HOSTILE[case]
    write(folder / "happy" / name)
    assert refused(folder, 350).startswith(f"faces/happy/{name}: {said}")
    assert read_faces(folder, skip_bad=True).sha256 == source_sha256(folder)


def large(color: int, depth: int, channels: int) -> bytes:
    """Return a PNG of 16 million pixels that are all 0, in a few kilobytes."""
    rows = zlib.compressobj(9)
    row = bytes(1 + 4000 * channels * depth // 8)
    packed = b"".join([*(rows.compress(row) for _ in range(4000)), rows.flush()])
    content = b"\x89PNG\r\n\x1a\n"
    form = struct.pack(">IIBBBBB", 4000, 4000, depth, color, 0, 0, 0)
    for kind, data in ((b"IHDR", form), (b"IDAT", packed), (b"IEND", b"")):
        held = kind + data
        content += struct.pack(">I", len(data)) + held + struct.pack(">I", zlib.crc32(held))
    return content


@pytest.mark.parametrize(("color", "depth", "channels"), [(6, 8, 4), (0, 16, 1)])
def test_a_large_image_takes_little_more_memory_than_its_pixels(folder, color, depth, channels):
    read_faces(folder)  # what is imported for it counts not
    (folder / "happy" / "a.png").write_bytes(large(color, depth, channels))
    with within(160):
        faces = read_faces(folder)
    assert faces.pixels[0].max() == (255 if channels == 4 else 0)  # white under what is clear


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("color", [False, True])
def test_an_image_in_bands_is_what_it_is_as_a_whole(mode, color, monkeypatch):
    rng = np.random.default_rng(0)
    if mode.startswith("I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        drawn = Image.fromarray(rng.integers(0, 65_536, (61, 83)).astype(kind))
    else:
        drawn = Image.fromarray(rng.integers(0, 256, (61, 83, 4), dtype=np.uint8))
        drawn = drawn.quantize(16) if mode == "P" else drawn.convert(mode)
    whole = np.asarray(image.plain(drawn, color))
    monkeypatch.setattr(image, "_BAND", 500)
    assert np.array_equal(np.asarray(image.plain(drawn, color)), whole)


# Labels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file,emotion\n" + b"\n" * 2**25, "33,554,433 line breaks"),
        (b"," * 100_000, "a first line of 100,000 letters"),
        (b"file,emotion" + b"," * 998 + b"\n" + b"\n" * 40_000, "a table of 40,001,000 cells"),
    ],
    ids=["lines", "columns", "cells"],
)
def test_labels_that_would_make_a_table_of_gigabytes_are_refused(tmp_path, content, said):
    (tmp_path / "a.csv").write_bytes(content)
    with within(250), pytest.raises(SourceError, match=rf"a\.csv: {said}, expected FER\+'s votes"):
        read_labels(tmp_path / "a.csv")


def test_a_device_that_never_ends_is_no_file_of_labels():
    with within(600), pytest.raises(SourceError, match="/dev/zero: more than 268,435,456 bytes"):
        read_labels("/dev/zero")
