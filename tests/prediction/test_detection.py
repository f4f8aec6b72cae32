"""Faces in photographs: found, cropped as FER2013's are, and asked about."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from fer_features import Classifier
from fer_features.errors import OptionError
from fer_features.prediction.detection import MARGIN, Box, Detector, crop


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A real photograph, 512x512, with a woman's face around (225, 115)."""
    return Image.fromarray(data.astronaut())


def test_the_face_in_a_real_photograph_is_found(astronaut: Image.Image) -> None:
    [box] = Detector().boxes(astronaut)
    assert box.width == box.height
    assert 80 < box.width < 130
    centre = box.left + box.width / 2, box.top + box.height / 2
    assert np.abs(np.subtract(centre, (225, 115))).max() < 10


def test_a_face_is_cut_out_with_a_margin_around_what_opencv_finds(astronaut: Image.Image) -> None:
    import cv2

    path = Path(cv2.__file__).parent / "data/haarcascade_frontalface_alt2.xml"
    grey = np.asarray(astronaut.convert("L"))
    [(left, top, width, height)] = cv2.CascadeClassifier(str(path)).detectMultiScale(
        grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24)
    )
    [box] = Detector().boxes(astronaut)
    assert box.width == round(width * MARGIN)
    assert abs(box.left + box.width / 2 - left - width / 2) <= 1
    assert abs(box.top + box.height / 2 - top - height / 2) <= 1


def test_a_large_photograph_is_searched_in_small_and_its_box_is_in_its_own_pixels(
    astronaut: Image.Image,
) -> None:
    [small] = Detector().boxes(astronaut)
    [large] = Detector().boxes(astronaut.resize((4096, 4096)))
    np.testing.assert_allclose(np.divide(large, 8), small, atol=8)


def test_smaller_faces_than_asked_for_are_passed_over(astronaut: Image.Image) -> None:
    assert Detector(smallest=200).boxes(astronaut) == []


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_beyond_the_border_the_outermost_pixels_go_on(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    inside = np.asarray(crop(image, Box(2, 3, 10, 10)))
    assert (inside == pixels[3:13, 2:12]).all()
    beyond = np.asarray(crop(image, Box(-2, -3, 40, 40)))
    assert beyond.shape[:2] == (40, 40)
    assert (beyond[3:23, 2:32] == pixels).all()
    assert (beyond[:3, 2:32] == pixels[0]).all()
    assert (beyond[23:, 2:32] == pixels[-1]).all()
    assert (beyond[3:23, 32:] == pixels[:, -1:]).all()


@pytest.mark.parametrize("name", ["two", "colour"])
def test_a_face_found_is_classified_as_its_crop_is(
    name: str, home: Path, tmp_path: Path, astronaut: Image.Image
) -> None:
    astronaut.save(tmp_path / "astronaut.png")
    classifier = Classifier.load(home / "runs" / name)
    said = classifier.predict(tmp_path / "astronaut.png", detect=True)
    assert list(said)[:5] == ["source", "left", "top", "width", "height"]
    left, top, width, height = said.loc[0, ["left", "top", "width", "height"]]
    cut = astronaut.crop((left, top, left + width, top + height))
    expected = classifier.predict(cut)
    columns = list(expected)[1:]
    pd.testing.assert_frame_equal(said[columns], expected[columns])


def test_each_face_is_a_row_the_largest_first(
    home: Path, tmp_path: Path, astronaut: Image.Image
) -> None:
    group = Image.new("RGB", (900, 512))
    group.paste(astronaut.resize((384, 384)), (0, 0))
    group.paste(astronaut.crop((100, 0, 400, 512)), (500, 0))
    group.save(tmp_path / "group.png")
    said = Classifier.load(home / "runs/two").predict([tmp_path, astronaut], detect=True)
    assert list(said["source"]) == [str(tmp_path / "group.png")] * 2 + ["1"]
    assert said["width"][0] > said["width"][1]
    assert said["left"][0] > 500 > said["left"][1]


def test_a_photograph_without_a_face_is_said_and_not_bad(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier.load(home / "runs/two")
    [answer] = classifier.stream(Image.new("RGB", (200, 100)), detect=True)
    assert (answer.finding, answer.is_bad, answer.predicted) == ("no face found", False, None)
    with caplog.at_level("WARNING", "fer_features"):
        said = classifier.predict(Image.new("RGB", (200, 100)), detect=True)
    assert said["left"].isna().all()
    assert caplog.messages == ["0: no face found"]


def test_a_photograph_of_any_kind_has_the_same_faces(
    home: Path, astronaut: Image.Image, tmp_path: Path
) -> None:
    grey = np.asarray(astronaut.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16-bit.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    astronaut.convert("RGBA").save(tmp_path / "rgba.png")
    turned = astronaut.rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned back
    turned.save(tmp_path / "turned.png", exif=exif)
    said = Classifier.load(home / "runs/two").predict(
        [*sorted(tmp_path.iterdir()), np.asarray(astronaut)], detect=True
    )
    assert len(said) == 5
    assert said.drop(columns="source").nunique().tolist() == [1] * (len(said.columns) - 1)


def test_rows_of_a_table_are_faces_already(home: Path) -> None:
    classifier = Classifier.load(home / "runs/two")
    said = classifier.predict(home / "faces.csv", detect=True)
    assert said["left"].isna().all()
    assert said["predicted"].notna().all()


def test_without_opencv_or_with_one_that_lacks_the_detector_the_extra_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    classifier = Classifier.load(home / "runs/two")
    with monkeypatch.context() as patch:
        patch.delattr(cv2, "CascadeClassifier")
        with pytest.raises(OptionError, match=r"has no cascades.*fer-features\[detect\]"):
            classifier.stream([], detect=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name)
    )
    with pytest.raises(OptionError, match=r"needs OpenCV. Install fer-features\[detect\]"):
        classifier.stream([], detect=True)
