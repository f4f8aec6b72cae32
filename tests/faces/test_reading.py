"""Reading faces: the CSV layouts, packed and plain, and folders of images."""

import gzip
import hashlib
import io
import logging
import lzma
import os
import re
import tracemalloc
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib import cpu_count
from PIL import Image, ImageDraw

from fer_features.errors import SourceError
from fer_features.faces import image as image_module
from fer_features.faces.bad_rows import RowError
from fer_features.faces.emotions import NONE
from fer_features.faces.image import decode_image
from fer_features.faces.pixel_text import parse_cell, parse_plain
from fer_features.faces.reading import evenly_spaced, read_faces, source_name, source_sha256

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)
PIXELS[0, 0, :4] = (0, 9, 10, 255)
CELLS = [" ".join(map(str, image.ravel())) for image in PIXELS]
USAGES = ["Training", "Training", "PublicTest", "PublicTest", "PrivateTest", "PrivateTest"]
EMOTIONS = [0, 1, 2, 3, 5, 6]

FER2013 = "emotion,pixels,Usage\n" + "".join(
    f"{e},{c},{u}\n" for e, c, u in zip(EMOTIONS, CELLS, USAGES, strict=True)
)
ICML = "emotion, Usage, pixels\n" + "".join(
    f"{e},{u},{c}\n" for e, c, u in zip(EMOTIONS, CELLS, USAGES, strict=True)
)
TRAIN = "emotion,pixels\n" + "".join(f"{e},{c}\n" for e, c in zip(EMOTIONS, CELLS, strict=True))
TEST = "pixels\n" + "".join(f"{c}\n" for c in CELLS)


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    if suffix == ".xz":
        return lzma.compress(content)
    if suffix == ".zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._fer2013.csv", b"\0\1")
            archive.writestr("data/fer2013.csv", content)
            archive.writestr("data/README.txt", b"read me")
        return file.getvalue()
    return content


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


# CSV files


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zip"])
@pytest.mark.parametrize(
    ("name", "text", "emotion", "usage"),
    [
        ("fer2013", FER2013, EMOTIONS, [0, 0, 1, 1, 2, 2]),
        ("icml_face_data", ICML, EMOTIONS, [0, 0, 1, 1, 2, 2]),
        ("train", TRAIN, EMOTIONS, [NONE] * 6),
        ("test", TEST, [NONE] * 6, [NONE] * 6),
    ],
)
def test_each_layout_reads_plain_and_packed(tmp_path, name, text, emotion, usage, suffix):
    path = tmp_path / f"{name}.csv{suffix}"
    path.write_bytes(packed(text.encode(), suffix))
    faces = read_faces(path)
    np.testing.assert_array_equal(faces.pixels, PIXELS)
    assert faces.emotion.tolist() == emotion
    assert faces.usage.tolist() == usage
    assert faces.source.tolist() == ["1", "2", "3", "4", "5", "6"]
    assert (faces.name, faces.kind, faces.limit, faces.skipped) == (name, "csv", None, 0)
    assert faces.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == source_sha256(path)
    assert source_name(path) == name


@pytest.mark.parametrize(
    ("_", "text"),
    [
        ("a byte order mark", "\ufeff" + FER2013),
        ("Windows line ends", FER2013.replace("\n", "\r\n")),
        ("no line end at the end", FER2013.rstrip("\n")),
        ("blank lines at the end", FER2013 + "\n\n"),
        ("quoted cells", re.sub(r"([^,\n]+)", r'"\1"', FER2013)),
        ("shouted names", FER2013.replace("emotion,pixels,Usage", " EMOTION , Pixels,USAGE ")),
        ("shouted usages", FER2013.replace("Training", "TRAINING ")),
        ("an unknown column", FER2013.replace("\n", ",x\n")),
        ("an index without a name", re.sub("^(?=[0-9])", "7,", "," + FER2013, flags=re.M)),
        ("spaces around the pixels", FER2013.replace(",", ", ").replace(CELLS[2], CELLS[2] + "  ")),
        ("two spaces between pixels", FER2013.replace(CELLS[3], CELLS[3].replace(" ", "  "))),
        ("tabs between pixels", FER2013.replace(CELLS[3], CELLS[3].replace(" ", "\t"))),
        ("zeros in front", FER2013.replace(CELLS[0], CELLS[0].replace("0 9 10", "000 09 0010"))),
    ],
)
def test_harmless_variations_read_the_same(tmp_path, _, text):
    (tmp_path / "faces.csv").write_bytes(text.encode())
    faces = read_faces(tmp_path / "faces.csv")
    np.testing.assert_array_equal(faces.pixels, PIXELS)
    assert faces.emotion.tolist() == EMOTIONS
    assert faces.usage.tolist() == [0, 0, 1, 1, 2, 2]


def test_every_grey_value_is_read_by_both_parsers_wherever_it_stands():
    for shift in (0, 1):
        values = (np.arange(2304) * (1 + 6 * shift) + shift) % 256
        cell = " ".join(map(str, values)).encode()
        fast = parse_plain([cell, cell])
        assert fast is not None
        assert fast[1].tolist() == values.tolist() == parse_cell(cell).tolist()


BROKEN = {
    "256": "256",
    "260": "260",
    "300": "300",
    "999": "999",
    "1000": "1000",
    "00255": "00255",
    "-1": "-1",
    "+1": "+1",
    "x": "x",
    "1.5": "1.5",
    "1e2": "1e2",
    "1_0": "1_0",
    "a NUL": "1\0",
    "a full-width digit": "\uff11",
    "a blank beside": " 7",
    "a blank alone": "",
    "one more": "7 7",
    "a comma": "7,7",
    "a line break": "7\n7",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_fast_parser_takes_nothing_that_is_not_plain(broken):
    good = " ".join(["7"] * 2304).encode()
    for at in (0, 1, 1000, 2303):
        values = ["7"] * 2304
        values[at] = BROKEN[broken]
        bad = " ".join(values).encode()
        for cells in ([bad], [good, bad], [bad, good], [good, bad, good]):
            assert parse_plain(cells) is None


def test_a_missing_pixel_does_not_take_one_from_the_next_row():
    short, long = " ".join(["7"] * 2303).encode(), " ".join(["7"] * 2305).encode()
    assert parse_plain([short, long]) is None
    assert parse_plain([short + b" ", long]) is None


def test_the_fast_parser_never_disagrees_with_the_exact_one():
    rng = np.random.default_rng(1)
    taken = 0
    for _ in range(300):
        cell = bytearray(CELLS[1].encode())
        for at in rng.integers(0, len(cell), rng.integers(1, 4)):
            cell[at] = rng.choice(list(b"0123456789012345678901234567890123456789  x-."))
        fast = parse_plain([bytes(cell)])
        if fast is not None:
            taken += 1
            np.testing.assert_array_equal(fast[0], parse_cell(bytes(cell)))
    assert 30 < taken < 270  # both ways were tried


def test_blocks_join_without_a_seam(tmp_path):
    order = [row % 6 for row in range(150)]
    text = "pixels,emotion\n" + "".join(f"{CELLS[i]},{EMOTIONS[i]}\n" for i in order)
    (tmp_path / "faces.csv").write_text(text)
    faces = read_faces(tmp_path / "faces.csv")
    np.testing.assert_array_equal(faces.pixels, PIXELS[order])
    assert faces.emotion.tolist() == [EMOTIONS[i] for i in order]
    assert faces.source.tolist() == [str(row) for row in range(1, 151)]


def test_the_text_is_never_held_beside_what_is_read_of_it(tmp_path):
    path = tmp_path / "faces.csv"
    rows = 3000
    path.write_text("pixels\n" + (" ".join(["123"] * 2304) + "\n") * rows)
    tracemalloc.start()
    faces = read_faces(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(faces) == rows
    assert peak < 0.6 * path.stat().st_size  # the pixels themselves are a quarter of the text


def test_progress_counts_the_bytes_of_the_file_up_to_its_size(tmp_path):
    path = tmp_path / "fer2013.csv.gz"
    path.write_bytes(packed(FER2013.encode(), ".gz"))
    calls: list[tuple[int, int]] = []
    read_faces(path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (path.stat().st_size,) * 2
    assert calls == sorted(calls)


# limit


@pytest.mark.parametrize(
    ("n", "limit", "expected"),
    [
        (10, None, list(range(10))),
        (10, 10, list(range(10))),
        (10, 99, list(range(10))),
        (10, 5, [0, 2, 4, 6, 8]),
        (10, 3, [0, 3, 6]),
        (10, 1, [0]),
        (0, 3, []),
    ],
)
def test_a_limit_is_spread_evenly(n, limit, expected):
    assert evenly_spaced(n, limit).tolist() == expected


def test_no_row_is_taken_twice_under_any_limit():
    for n in (7, 100, 35_887):
        for limit in range(1, min(n, 300)):
            assert len(set(evenly_spaced(n, limit).tolist())) == limit


def test_a_limited_source_keeps_its_row_names_and_its_hash(tmp_path):
    (tmp_path / "fer2013.csv").write_text(FER2013)
    faces = read_faces(tmp_path / "fer2013.csv", limit=3)
    assert faces.source.tolist() == ["1", "3", "5"]
    np.testing.assert_array_equal(faces.pixels, PIXELS[::2])
    assert faces.limit == 3
    assert faces.sha256 == source_sha256(tmp_path / "fer2013.csv")


# Folders


def test_a_tree_by_usage_and_emotion_reads_in_the_order_of_its_paths(tmp_path):
    for i, name in enumerate(
        ["train/happy/im1.png", "train/angry/b.png", "test/sad/x/y/z.png", "valid/Fearful/q.PNG"]
    ):
        save(tmp_path / name, PIXELS[i])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "train" / ".DS_Store").write_text("")
    save(tmp_path / ".cache" / "happy" / "c.png", PIXELS[5])
    save(tmp_path / "train" / "happy" / "._im1.png", PIXELS[5])
    (tmp_path / "train" / "notes").mkdir()
    faces = read_faces(tmp_path)
    assert faces.source.tolist() == [
        "test/sad/x/y/z.png", "train/angry/b.png", "train/happy/im1.png", "valid/Fearful/q.PNG",
    ]  # fmt: skip
    assert faces.emotion.tolist() == [4, 0, 3, 2]
    assert faces.usage.tolist() == [2, 0, 0, 1]
    np.testing.assert_array_equal(faces.pixels, PIXELS[[2, 1, 0, 3]])
    assert (faces.name, faces.kind, faces.limit, faces.skipped) == (
        tmp_path.name,
        "folder",
        None,
        0,
    )


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("happy/a.png", NONE),
        ("happy/Training_3908.png", 0),
        ("happy/PublicTest_1.png", 1),
        ("test/happy/PublicTest_1.png", 2),
        ("val/happy/privatetest_1.png", 1),
        ("happy/privatetest_1.png", 2),
        ("TRAIN/happy/a.png", 0),
        ("training/happy/a.png", 0),
        ("val/happy/a.png", 1),
        ("validation/happy/a.png", 1),
        ("PublicTest/happy/a.png", 1),
        ("testing/happy/a.png", 2),
        ("PrivateTest/happy/a.png", 2),
        ("happy/train/a.png", 0),
        ("happy/train/PrivateTest_3.png", 0),
        ("archive/happy/deep/TEST/a.png", 2),
        ("happy/Trainings_1.png", NONE),
    ],
)
def test_usage_comes_from_the_folder_before_the_file_name(tmp_path, name, usage):
    save(tmp_path / name, PIXELS[0])
    faces = read_faces(tmp_path)
    assert faces.usage.tolist() == [usage]
    assert faces.emotion.tolist() == [3]


@pytest.mark.parametrize(
    ("names", "emotion"),
    [
        (["anger", "angry", "ANGRY"], 0),
        (["disgust", "disgusted"], 1),
        (["fear", "fearful", "Afraid"], 2),
        (["happiness", "happy", "Joy"], 3),
        (["sadness", "sad"], 4),
        (["surprise", "Surprised"], 5),
        (["neutral", "Neutral"], 6),
    ],
)
def test_emotions_go_by_name_whatever_other_folders_there_are(tmp_path, names, emotion):
    for name in names:
        save(tmp_path / name / "a.png", PIXELS[0])
    assert set(read_faces(tmp_path).emotion) == {emotion}


@pytest.mark.parametrize("folder", ["", "test"])
def test_images_without_any_emotion_folder_are_unlabelled(tmp_path, folder):
    save(tmp_path / folder / "b.png", PIXELS[1])
    save(tmp_path / folder / "a.png", PIXELS[0])
    faces = read_faces(tmp_path)
    assert faces.emotion.tolist() == [NONE, NONE]
    assert faces.usage.tolist() == [2 if folder else NONE] * 2
    np.testing.assert_array_equal(faces.pixels, PIXELS[:2])


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    save(tmp_path / "elsewhere" / "one" / "a.png", PIXELS[0])
    save(tmp_path / "elsewhere" / "other" / "a.png", PIXELS[0])
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "happy").symlink_to(tmp_path / "elsewhere" / "one")
    (tmp_path / "faces" / "sad").symlink_to(tmp_path / "elsewhere" / "other")
    assert read_faces(tmp_path / "faces").source.tolist() == ["happy/a.png", "sad/a.png"]


def test_a_limit_on_a_folder_decodes_only_the_chosen_images(tmp_path):
    for i in range(6):
        save(tmp_path / ("happy" if i < 3 else "sad") / f"{i}.png", PIXELS[i])
    (tmp_path / "happy" / "1.png").write_bytes(b"damaged")
    faces = read_faces(tmp_path, limit=3)
    assert faces.source.tolist() == ["happy/0.png", "happy/2.png", "sad/4.png"]
    assert faces.sha256 == source_sha256(tmp_path)


def test_a_folders_hash_changes_with_names_contents_and_nothing_else(tmp_path):
    path = save(tmp_path / "happy" / "a.png", PIXELS[0])
    before = source_sha256(tmp_path)
    assert read_faces(tmp_path).sha256 == before
    os.utime(path, (0, 0))
    (tmp_path / "happy" / "notes.txt").write_text("nothing to do with it")
    assert source_sha256(tmp_path) == before
    path.rename(tmp_path / "happy" / "b.png")
    renamed = source_sha256(tmp_path)
    save(tmp_path / "happy" / "b.png", PIXELS[1])
    assert len({before, renamed, source_sha256(tmp_path)}) == 3


def test_progress_counts_the_images_of_a_folder(tmp_path):
    for i in range(3):
        save(tmp_path / "sad" / f"{i}.png", PIXELS[i])
    calls: list[tuple[int, int]] = []
    read_faces(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ({}, (48, 48, 1)),
        ({"image_size": 48}, (48, 48, 1)),
        ({"image_size": np.int64(96)}, (96, 96, 1)),
        ({"color": True}, (48, 48, 3)),
        ({"image_size": 224, "color": True}, (224, 224, 3)),
        ({"image_size": 8}, (8, 8, 1)),
        ({"image_size": 2048}, (2048, 2048, 1)),
    ],
)
def test_a_folder_is_read_in_the_form_asked_for(tmp_path, options, image):
    paths = [
        save(tmp_path / "happy" / "grey.png", PIXELS[0]),
        save(tmp_path / "sad" / "colour.jpg", COLOUR),
    ]
    faces = read_faces(tmp_path, **options)
    assert faces.image == image
    for path, pixels in zip(paths, faces.pixels, strict=True):
        alone = decode_image(path.read_bytes(), image[0], image[2] == 3)
        np.testing.assert_array_equal(pixels, alone)
    assert faces.sha256 == source_sha256(tmp_path)


def test_images_come_in_the_order_of_their_paths_however_long_each_takes(tmp_path):
    for i in range(30):
        size = 2500 if i % 7 == 0 else 48
        save(tmp_path / "happy" / f"{i:02d}.png", np.full((size, size), i, np.uint8))
    done: list[int] = []
    faces = read_faces(tmp_path, progress=lambda count, total: done.append(count))
    assert faces.pixels[:, 24, 24].tolist() == list(range(30))
    assert faces.source.tolist() == [f"happy/{i:02d}.png" for i in range(30)]
    assert done == list(range(1, 31))
    assert faces.sha256 == source_sha256(tmp_path)


def test_each_file_is_read_once_and_a_block_ahead_of_what_is_done(tmp_path, monkeypatch):
    for i in range(200):
        save(tmp_path / "happy" / f"{i}.png", PIXELS[i % 6])
    read: list[Path] = []
    plainly = image_module.content

    def noted(path: Path) -> tuple[bytes, OSError | None]:
        read.append(path)
        return plainly(path)

    monkeypatch.setattr(image_module, "content", noted)
    ahead: list[int] = []
    read_faces(tmp_path, limit=40, progress=lambda done, total: ahead.append(len(read) - done))
    assert len(read) == len(set(read)) == 200
    assert max(ahead) < 64


@pytest.mark.parametrize("limit", [None, 70])
def test_processes_read_what_one_process_reads(tmp_path, monkeypatch, limit):
    for i in range(150):
        save(tmp_path / ("happy" if i % 3 else "sad") / f"{i}.png", PIXELS[i % 6])
    for name in ("happy/100.png", "sad/99.png"):
        (tmp_path / name).write_bytes(b"damaged")
    (tmp_path / "happy" / "97.png").write_bytes(b"")
    alone = read_faces(tmp_path, skip_bad=True, limit=limit)
    with pytest.raises(SourceError) as said_alone:
        read_faces(tmp_path)
    started: list[object] = []
    monkeypatch.setattr(image_module, "_LONG", -1)  # as though the rest would take long
    plainly = joblib.Parallel.__call__
    monkeypatch.setattr(
        joblib.Parallel, "__call__", lambda *given: started.append(given) or plainly(*given)
    )
    calls: list[tuple[int, int]] = []
    together = read_faces(
        tmp_path, skip_bad=True, limit=limit, progress=lambda *call: calls.append(call)
    )
    with pytest.raises(SourceError) as said_together:
        read_faces(tmp_path)
    assert len(started) == (2 if cpu_count() > 1 else 0)
    assert together.content_sha256 == alone.content_sha256
    assert together.sha256 == alone.sha256 == source_sha256(tmp_path)
    assert together.left_out == alone.left_out
    assert calls == [(done, 150) for done in range(1, 151)]
    assert str(said_together.value) == str(said_alone.value)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(48, 48), (90, 90)], []),
        ([(90, 60)], ["1 of 1 image is not square: its middle square was taken"]),
        ([(90, 60), (48, 48)], ["1 of 2 images is not square: its middle square was taken"]),
        (
            [(90, 60), (48, 48), (47, 48)],
            ["2 of 3 images are not square: of each the middle square was taken"],
        ),
    ],
)
def test_it_is_said_once_how_many_images_lost_their_margins(tmp_path, caplog, sizes, said):
    for i, size in enumerate(sizes):
        save(tmp_path / "photos" / "happy" / f"{i}.png", Image.new("L", size))
    (tmp_path / "photos" / "happy" / "bad.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, "fer_features"):
        read_faces(tmp_path / "photos", skip_bad=True)
    left_out = "left out 1 file: happy/bad.png: an empty file, expected an image"
    assert caplog.messages == [f"{tmp_path}/photos: {line}" for line in (left_out, *said)]


# Images


def decoded(
    image: Image.Image, kind: str = "PNG", size: int = 48, color: bool = False, **options: object
) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return decode_image(file.getvalue(), size, color)


def test_a_48x48_grey_image_is_taken_as_it_is():
    np.testing.assert_array_equal(decoded(Image.fromarray(PIXELS[0])), PIXELS[0])


def test_sixteen_bits_scale_to_eight():
    wide = Image.fromarray(PIXELS[0].astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decoded(wide, kind), PIXELS[0])


COLOUR = np.random.default_rng(2).integers(0, 256, (90, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [8, 48, 96, 224])
@pytest.mark.parametrize("color", [False, True])
def test_a_square_image_is_resized_as_a_whole(size, color):
    image = Image.fromarray(COLOUR)
    expected = image.convert("RGB" if color else "L")
    expected = expected.resize((size, size), Image.Resampling.BILINEAR)
    pixels = decoded(image, size=size, color=color)
    assert pixels.shape == ((size, size, 3) if color else (size, size))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_a_colour_image_of_the_right_size_is_taken_as_it_is():
    np.testing.assert_array_equal(decoded(Image.fromarray(COLOUR), size=90, color=True), COLOUR)


def test_a_grey_image_in_colour_is_three_equal_channels():
    pixels = decoded(Image.fromarray(PIXELS[0]), color=True)
    np.testing.assert_array_equal(pixels, np.repeat(PIXELS[0][..., None], 3, axis=2))
    wide = Image.fromarray(PIXELS[0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decoded(wide, color=True), pixels)


def disc(width: int, height: int) -> Image.Image:
    """A white disc of diameter 60 in the middle of black, with white margins outside a square."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    x, y = width / 2, height / 2
    half = min(width, height) / 2
    for side in (-1, 1):
        if width > height:
            draw.rectangle(sorted_box(x + side * (half + 2), 0, x + side * width, height), fill=255)
        if height > width:
            draw.rectangle(sorted_box(0, y + side * (half + 2), width, y + side * height), fill=255)
    draw.ellipse((x - 30, y - 30, x + 29, y + 29), fill=255)
    return image


def sorted_box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@pytest.mark.parametrize("size", [(200, 80), (80, 200), (82, 80), (80, 640)])
@pytest.mark.parametrize("color", [False, True])
def test_wide_and_tall_images_lose_their_margins_and_keep_their_shape(size, color):
    pixels = decoded(disc(*size), color=color)
    middle = decoded(disc(80, 80), color=color)
    np.testing.assert_allclose(pixels, middle, atol=1)
    bright = (pixels if not color else pixels[..., 0]) > 127
    assert bright.any(axis=0).sum() == bright.any(axis=1).sum() == 60 * 48 // 80
    assert bright.sum() == pytest.approx(np.pi / 4 * 36**2, rel=0.03)
    np.testing.assert_array_equal(bright, bright.T)


def test_a_strip_one_pixel_wide_is_an_image_too():
    strip = Image.fromarray(np.array([[0] * 100 + [90] + [255] * 100], dtype=np.uint8))
    pixels = decoded(strip)
    np.testing.assert_allclose(pixels[:, 23:25], 90, atol=3)
    assert (pixels == pixels[0]).all()


def test_colour_images_lie_on_white_and_stand_upright_too():
    image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 48, 12))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = decoded(image, exif=exif, color=True)
    assert (pixels[:36] == 255).all()
    assert (pixels[36:] == (200, 0, 0)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode):
    image = Image.new(mode, (48, 48), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.paste(Image.new(mode, (48, 24), (0, 0, 0, 255) if mode == "RGBA" else (0, 255)))
    pixels = decoded(image)
    assert (pixels[:24] == 0).all()
    assert (pixels[24:] == 255).all()


def test_half_transparent_pixels_mix_with_white():
    assert set(decoded(Image.new("RGBA", (48, 48), (0, 0, 0, 128))).ravel()) == {127}


def test_a_palette_with_a_transparent_entry_lies_on_white():
    image = Image.new("P", (48, 48), 1)
    image.putpalette([0, 0, 0, 10, 10, 10])
    image.paste(0, (0, 0, 48, 24))
    pixels = decoded(image, transparency=0)
    assert (pixels[:24] == 255).all()
    assert (pixels[24:] == 10).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "BMP", "TIFF"])
def test_a_grey_palette_keeps_its_values(kind):
    image = Image.fromarray(PIXELS[0]).convert("P")
    image.putpalette([value for grey in range(256) for value in (grey,) * 3])
    np.testing.assert_array_equal(decoded(image, kind), PIXELS[0])


def test_cmyk_and_black_and_white_are_read():
    assert abs(int(decoded(Image.new("CMYK", (60, 60), (0, 0, 0, 155)), "JPEG").mean()) - 100) < 4
    assert set(decoded(Image.new("1", (48, 48), 1)).ravel()) == {255}


def test_a_photo_is_turned_as_its_orientation_says():
    upright = np.zeros((48, 48), np.uint8)
    upright[:12] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    lying = Image.fromarray(np.rot90(upright))
    np.testing.assert_array_equal(decoded(lying, exif=exif), upright)


def test_a_cameras_photo_with_previews_is_its_first_picture():
    photo, preview = Image.new("L", (48, 48), 40), Image.new("L", (48, 48), 200)
    pixels = decoded(photo, "MPO", save_all=True, append_images=[preview])
    assert set(pixels.ravel()) == {40}


def test_pixels_whose_white_is_unknown_are_refused():
    with pytest.raises(RowError, match="floating-point or 32-bit pixels"):
        decoded(Image.fromarray(np.full((48, 48), 0.5, np.float32)), "TIFF")
    with pytest.raises(RowError, match="floating-point or 32-bit pixels"):
        decoded(Image.fromarray(np.full((48, 48), 228, np.int32)), "TIFF")


# The real file


@pytest.mark.skipif(
    "FER2013_CSV" not in os.environ, reason="FER2013_CSV does not name a copy of fer2013.csv"
)
def test_the_real_file_has_its_documented_rows():
    faces = read_faces(os.environ["FER2013_CSV"])
    assert len(faces) == 35_887
    assert np.bincount(faces.emotion).tolist() == [4953, 547, 5121, 8989, 6077, 4002, 6198]
    assert np.bincount(faces.usage).tolist() == [28_709, 3589, 3589]
    assert faces.source[[0, -1]].tolist() == ["1", "35887"]
    assert faces.skipped == 0


def test_a_missing_source_has_no_hash_and_no_name(tmp_path):
    for ask in (source_sha256, source_name, read_faces):
        with pytest.raises(SourceError, match=r"nowhere\.csv: no such file or folder"):
            ask(tmp_path / "nowhere.csv")
