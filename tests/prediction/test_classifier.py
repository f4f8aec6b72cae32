"""A run made whole: it says of images what the run said of its store."""

import copy
import importlib.util
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support import TINY

from fer_features import (
    BackboneSpec,
    Classifier,
    FaceDataset,
    LogisticHead,
    Store,
    Task,
    compare,
    evaluate,
    extract,
)
from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.openvino import network_facts
from fer_features.errors import BackboneError, OptionError, RunError, SourceError
from fer_features.experiment.head_file import read_head_file, write_head_file
from fer_features.prediction.classifier import BATCH, UNSURE

RUNS = {"two": "faces.csv", "joined": "faces.csv", "neighbors": "faces.csv", "colour": "colours",
        "int8": "faces.csv"}  # fmt: skip

Moved = Callable[[str], Path]


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.filter(like="p_").to_numpy()


@pytest.mark.parametrize("name", RUNS)
def test_predicting_the_store_s_own_source_gives_the_run_s_own_probabilities(
    name: str, home: Path
) -> None:
    run = home / "runs" / name
    source = home / RUNS[name]
    said = Classifier.load(run, calibrate=False).predict(source)
    own = pd.read_csv(run / "predictions.csv", dtype={"source": str})
    joint = "/" if source.is_dir() else ":"
    said = said.set_index(said["source"].str.removeprefix(f"{source}{joint}"))
    found = said.loc[own["source"]]
    assert len(own) > 20
    assert np.ptp(probabilities(found)) > 0.1
    np.testing.assert_allclose(probabilities(found), probabilities(own), rtol=0, atol=1e-5)
    assert list(found["predicted"]) == list(own["predicted"])


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_the_engines_agree(engine: str, home: Path, faces: FaceDataset) -> None:
    auto = Classifier.load(home / "runs/joined").predict_pixels(faces.pixels[:5])
    said = Classifier.load(home / "runs/joined", engine=engine).predict_pixels(faces.pixels[:5])
    np.testing.assert_allclose(probabilities(said), probabilities(auto), atol=1e-5)


def test_where_openvino_is_not_installed_tensorflow_answers(
    home: Path, faces: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Classifier.load(home / "runs/joined").predict_pixels(faces.pixels[:5])
    find, version = importlib.util.find_spec, metadata.version

    def absent(name: str) -> str:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    monkeypatch.setattr(metadata, "version", absent)
    found = Classifier.load(home / "runs/joined")
    assert found.engine == "tensorflow"
    said = found.predict_pixels(faces.pixels[:5])
    np.testing.assert_allclose(probabilities(said), probabilities(expected), atol=1e-5)


def test_every_kind_of_input_is_read_alike(
    home: Path, tmp_path: Path, faces: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = faces.pixels[:3]
    pictures = list(map(Image.fromarray, pixels))
    Path("some/inner").mkdir(parents=True)
    paths = [Path("some/0.png"), Path("some/1.bmp"), Path("some/inner/2.tif")]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    np.save("faces.npy", pixels)
    np.savez("faces.npz", images=pixels)
    content = [path.read_bytes() for path in paths]
    pd.DataFrame({"image": content}).to_parquet("faces.parquet")
    text = [" ".join(map(str, face.ravel())) for face in pixels]
    pd.DataFrame({"pixels": text}).to_csv("faces.csv.gz", index=False)
    given: dict[str, Any] = {
        "paths": paths,
        "texts": list(map(str, paths)),
        "a folder": "some",
        "one array": pixels,
        "arrays": list(pixels),
        "grey in three channels": np.repeat(pixels[..., None], 3, axis=3),
        "Pillow": pictures,
        "colour in Pillow": [picture.convert("RGBA") for picture in pictures],
        "bytes": content,
        "open files": [io.BytesIO(each) for each in content],
        "a generator": (path for path in paths),
        "npy": "faces.npy",
        "npz": "faces.npz",
        "parquet": "faces.parquet",
        "csv": "faces.csv.gz",
        "mixed": ["some/0.png", pixels[1], pictures[2]],
    }
    classifier = Classifier.load(home / "runs/two")
    expected = classifier.predict_pixels(pixels)
    for kind, images in given.items():
        said = classifier.predict(images)
        assert "finding" not in said, kind
        pd.testing.assert_frame_equal(said.drop(columns="source"), expected, obj=kind)
    assert list(classifier.predict(given["mixed"])["source"]) == ["some/0.png", "1", "2"]
    with paths[0].open("rb") as file:
        assert list(classifier.predict(file)["source"]) == ["some/0.png"]
    one = classifier.predict(pixels[0])
    assert probabilities(one).tolist() == probabilities(expected[:1]).tolist()


def test_tables_and_images_are_answered_in_the_order_given(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    np.save(tmp_path / "a.npy", faces.pixels[:2])
    np.save(tmp_path / "b.npy", faces.pixels[2:70])
    given = [tmp_path / "b.npy", faces.pixels[0], tmp_path / "a.npy", io.StringIO("text")]
    said = Classifier.load(home / "runs/two").predict(given)
    sources = [f"{tmp_path / 'b.npy'}:{row}" for row in range(1, 69)]
    sources += ["1", f"{tmp_path / 'a.npy'}:1", f"{tmp_path / 'a.npy'}:2", "3"]
    assert list(said["source"]) == sources
    assert said["finding"].tolist()[-1].startswith("open for text, expected bytes")
    assert said["finding"].tolist()[:-1] == [""] * 71


def test_an_image_of_any_size_is_read_as_a_store_s_is(
    home: Path, tmp_path: Path, colours: list[Image.Image]
) -> None:
    """Upright, its middle square, in the run's size and colour."""
    from fer_features.faces.image import decode_image

    wide = colours[0].resize((150, 110))
    exif = wide.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    wide.save(tmp_path / "turned.png", exif=exif)
    for name, size, color in (("two", 48, False), ("colour", 64, True)):
        classifier = Classifier.load(home / "runs" / name)
        pixels = decode_image((tmp_path / "turned.png").read_bytes(), size, color)
        expected = classifier.predict_pixels(pixels[None])
        with Image.open(tmp_path / "turned.png") as opened:
            for given in (tmp_path / "turned.png", opened):
                said = classifier.predict(given)
                pd.testing.assert_frame_equal(said.drop(columns="source"), expected)


def test_temperature_divides_the_logarithms_and_changes_no_answer(home: Path) -> None:
    run = home / "runs/joined"
    temperature = json.loads((run / "metrics.json").read_text())["calibration"]["temperature"]
    plain = Classifier.load(run, calibrate=False).predict(home / "faces.csv")
    calibrated = Classifier.load(run).predict(home / "faces.csv")
    powers = probabilities(plain) ** (1 / temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert abs(temperature - 1) > 0.05
    np.testing.assert_allclose(probabilities(calibrated), expected, atol=1e-12)
    assert list(calibrated["predicted"]) == list(plain["predicted"])


def test_below_the_least_probability_the_answer_is_unsure(home: Path, faces: FaceDataset) -> None:
    classifier = Classifier.load(home / "runs/two")
    said = classifier.predict_pixels(faces.pixels)
    least = float(said["probability"].median())
    asked = classifier.predict_pixels(faces.pixels, min_probability=least)
    unsure = said["probability"] < least
    assert 0 < unsure.sum() < len(said)
    assert (asked["predicted"] == UNSURE).tolist() == unsure.tolist()
    assert asked["predicted"][~unsure].tolist() == said["predicted"][~unsure].tolist()
    assert asked["probability"].tolist() == said["probability"].tolist()
    for least in (-0.1, 1.1, float("nan")):
        for ask in (classifier.predict, classifier.predict_pixels):
            with pytest.raises(OptionError, match="expected a number from 0 to 1"):
                ask(faces.pixels[:1], min_probability=least)


def test_a_class_of_the_name_unsure_is_not_mixed_up_with_being_unsure(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    task = Task({UNSURE: ["happiness"], "down": ["anger"]}, per_class="min")
    data = task.select(Store(home / "stores" / "faces.h5"))
    evaluate(LogisticHead().fit(data.train.X, data.train.y), data).save(tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run")
    assert set(classifier.predict_pixels(faces.pixels[:20])["predicted"]) <= {UNSURE, "down"}
    for ask in (classifier.predict, classifier.predict_pixels):
        with pytest.raises(OptionError, match=r"has a class of the name 'unsure'.*Rename the"):
            ask(faces.pixels[:2], min_probability=0.6)


@pytest.mark.parametrize("least", [None, "0.5", 1.1, float("nan")])
def test_a_least_probability_that_is_no_probability_is_refused(
    least: Any, home: Path, faces: FaceDataset
) -> None:
    with pytest.raises(OptionError, match=r"min_probability: .*, expected a number from 0 to 1"):
        Classifier.load(home / "runs/two").predict(faces.pixels[0], min_probability=least)


@pytest.mark.parametrize(
    ("path", "match"),
    [("", "images: '', expected a path"), ("a" * 300, "cannot be looked at .File name too long")],
)
def test_a_path_that_no_file_can_have_is_refused(path: str, match: str, home: Path) -> None:
    with pytest.raises(SourceError, match=match):
        Classifier.load(home / "runs/two").predict(path)


def test_it_says_what_it_is(home: Path) -> None:
    classifier = Classifier.load(home / "runs/joined")
    assert classifier.classes == ("up", "calm", "down")
    assert classifier.image == (48, 48, 1)
    assert classifier.outputs == ("final", "two_relu")
    assert "dense on final+two_relu of tiny, 48x48 grey to up, calm, down" in repr(classifier)


def test_nothing_to_predict_is_an_empty_table(home: Path, faces: FaceDataset) -> None:
    classifier = Classifier.load(home / "runs/two")
    said = classifier.predict([])
    assert list(said) == ["source", "predicted", "probability", "p_up", "p_down"]
    assert len(said) == len(classifier.predict_pixels(faces.pixels[:0])) == 0
    boxes = ["left", "top", "width", "height"]
    assert list(classifier.predict([], detect=True)) == ["source", *boxes, *list(said)[1:]]


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((48, 48)), r"float64 \(48, 48\)"),
        (np.zeros((100, 90, 4), np.uint8), r"uint8 \(100, 90, 4\)"),
        (np.zeros(48, np.uint8), r"uint8 \(48,\)"),
        ([np.zeros((2, 48, 48), np.uint8)], r"uint8 \(2, 48, 48\)"),
        (3, "a int, expected paths, Pillow images"),
        ([None], "a NoneType, expected paths"),
        ("missing.png", "missing.png: no such file or folder"),
        (["a\nb.png"], r"a\\nb.png: no such file"),
    ],
)
def test_what_is_no_image_is_refused_before_any_is_read(
    images: Any, match: str, home: Path
) -> None:
    classifier = Classifier.load(home / "runs/two")
    with pytest.raises(SourceError, match=match):
        classifier.stream(images)


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (np.zeros((2, 48, 48), np.float32), "float32"),
        (np.zeros((48, 48), np.uint8), r"uint8 \(48, 48\)"),
        (np.zeros((2, 64, 64), np.uint8), r"uint8 \(2, 64, 64\)"),
        (np.zeros((2, 48, 48, 3), np.uint8), r"uint8 \(2, 48, 48, 3\)"),
        ([[1]], "list"),
    ],
)
def test_pixels_of_another_form_are_refused(pixels: Any, found: str, home: Path) -> None:
    with pytest.raises(SourceError, match=rf"pixels: {found}.*expected uint8 \(n, 48, 48\)"):
        Classifier.load(home / "runs/two").predict_pixels(pixels)


def write_bad_images(folder: Path) -> dict[str, str]:
    """Write files that are no image; return what is to be said of each."""
    folder.mkdir()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    (folder / "page.png").write_text("<!doctype html><html></html>")
    content = io.BytesIO()
    Image.effect_noise((90, 90), 80).save(content, "png")
    (folder / "cut.png").write_bytes(content.getvalue()[:2000])
    # 100 megapixels, in a header alone.
    Image.new("1", (10_000, 10_000)).save(folder / "bomb.png")
    Image.new("F", (48, 48)).save(folder / "float.tif")
    return {
        "bomb.png": "more than 89,478,485 pixels",
        "cut.png": "a damaged image",
        "empty.jpg": "an empty file",
        "float.tif": "floating-point or 32-bit pixels",
        "page.png": "a web page",
        "text.png": "no image that can be recognised",
    }


@pytest.mark.parametrize("detect", [False, True])
def test_bad_images_are_named_and_the_rest_go_on(
    detect: bool, home: Path, tmp_path: Path, faces: FaceDataset, caplog: pytest.LogCaptureFixture
) -> None:
    expected = write_bad_images(tmp_path / "some")
    Image.fromarray(faces.pixels[0]).save(tmp_path / "some/good.png")
    classifier = Classifier.load(home / "runs/two")
    given = [tmp_path / "some", *(tmp_path / "some" / name for name in expected)]
    given.append(Image.new("F", (48, 48)))  # type: ignore[arg-type]
    said = classifier.predict(given, detect=detect).set_index("source")
    for name, finding in expected.items():
        lines = said.loc[[str(tmp_path / "some" / name)]]
        assert len(lines) == 2
        assert lines["finding"].str.contains(finding).all(), name
        assert lines["predicted"].isna().all()
        assert lines["probability"].isna().all()
        assert f"{tmp_path / 'some' / name}: {finding}" in caplog.text
    assert "floating-point" in said.loc["7", "finding"]
    good = said.loc[str(tmp_path / "some/good.png")]
    if detect:
        assert good["finding"] == "no face found"
    else:
        alone = classifier.predict_pixels(faces.pixels[:1])
        assert (good["predicted"], good["finding"]) == (alone["predicted"][0], "")


def test_what_cannot_be_looked_at_in_a_folder_is_named(home: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    (some / "nowhere.png").symlink_to("missing.png")
    (some / "circle").symlink_to(some)
    said = Classifier.load(home / "runs/two").predict(some)
    found = " ".join(said["finding"])
    assert "nowhere.png: cannot be followed (No such file" in found
    assert "circle: a link back to a folder above it" in found


def test_images_of_a_kind_that_cannot_be_read_are_bad_and_other_files_are_not(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, faces: FaceDataset
) -> None:
    classifier = Classifier.load(home / "runs/two")
    (tmp_path / "photo.HEIC").write_bytes(b"heic")
    finding = "left out 1 file: images of a kind that cannot be read (.heic)"
    only = classifier.predict(tmp_path)
    assert only[["source", "finding"]].to_numpy().tolist() == [[str(tmp_path), finding]]
    Image.fromarray(faces.pixels[0]).save(tmp_path / "face.png")
    (tmp_path / "notes.txt").write_text("notes")
    caplog.clear()
    with caplog.at_level("INFO", "fer_features"):
        first, second = classifier.stream(tmp_path)
    assert (first.finding, first.is_bad) == (finding, True)
    assert second.source == str(tmp_path / "face.png")
    said = f"{tmp_path}: passed over 1: files that are no images (.txt)"
    assert [record.getMessage() for record in caplog.records] == [said]


def closed(image: Any) -> Any:
    image.close()
    return image


class Endless:
    """An open file without end."""

    def read(self, size: int) -> bytes:
        return bytes(size)


@pytest.mark.parametrize("detect", [False, True])
def test_what_was_given_and_cannot_be_read_is_named_and_the_rest_go_on(
    detect: bool, home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(faces.pixels[0]).save(path)
    with Image.open(path) as never_read:
        pass
    file = path.open("rb")
    no_pixels = "no pixels, expected an image"
    given: list[tuple[Any, str]] = [
        (path.open(encoding="utf-8"), "open for text, expected bytes (open it with mode 'rb')"),
        (closed(path.open("rb")), "cannot be read (read of closed file)"),
        ((tmp_path / "new").open("wb"), "open for writing, expected for reading (mode 'rb')"),
        (Endless(), "more than 256 MB, expected an image"),
        (closed(Image.open(path)), "a closed Pillow image, expected an open one"),
        (never_read, "a closed Pillow image, expected an open one"),
        (Image.new("L", (0, 0)), no_pixels),
        (Image.new("RGB", (0, 5)), no_pixels),
        (np.zeros((0, 5), np.uint8), no_pixels),
        (np.zeros((5, 0, 3), np.uint8), no_pixels),
        (str(path).encode(), "(bytes are taken for the content of an image file)"),
        (file, ""),
        (file, "was read already, expected once"),
        (bytearray(path.read_bytes()), ""),
        (memoryview(path.read_bytes()), ""),
    ]
    images = [image for image, _ in given]
    answers = list(Classifier.load(home / "runs/two").stream(images, detect=detect))
    for answer, (_, finding) in zip(answers, given, strict=True):
        expected = finding or ("no face found" if detect else "")
        assert answer.finding.endswith(expected)
        assert answer.is_bad == bool(finding)
        assert bool(answer.finding) == bool(expected)


@pytest.mark.parametrize("make", [lambda each: pickle.loads(pickle.dumps(each)), copy.deepcopy])
def test_a_classifier_that_was_used_can_be_copied(
    make: Callable[[Classifier], Classifier], home: Path, faces: FaceDataset
) -> None:
    classifier = Classifier.load(home / "runs/two")
    said = classifier.predict_pixels(faces.pixels[:3])
    pd.testing.assert_frame_equal(make(classifier).predict_pixels(faces.pixels[:3]), said)


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_of_a_process_that_used_it_answers_or_is_refused(
    engine: str, home: Path, faces: FaceDataset
) -> None:
    classifier = Classifier.load(home / "runs/two", engine=engine)
    expected = classifier.predict_pixels(faces.pixels[:3])
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(classifier.predict_pixels(faces.pixels[:3]))
        except OptionError as error:
            answers.put(str(error))

    child = fork.Process(target=ask)
    child.start()
    child.join(30)
    child.kill()
    assert child.exitcode == 0
    said = answers.get()
    if engine == "openvino":
        pd.testing.assert_frame_equal(said, expected)
    else:
        assert said.startswith("engine: TensorFlow, which would wait for ever")


def test_of_an_animated_image_the_first_frame_is_taken_and_that_is_said(
    home: Path, tmp_path: Path, faces: FaceDataset, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = map(Image.fromarray, faces.pixels[:3])
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    classifier = Classifier.load(home / "runs/two")
    given = [tmp_path / "moving.gif", tmp_path, (tmp_path / "moving.gif").read_bytes()]
    said = classifier.predict(given)
    expected = probabilities(classifier.predict_pixels(faces.pixels[:1])).tolist()
    assert probabilities(said).tolist() == expected * 3
    assert caplog.text.count("moving.gif: 3 frames, of which the first is taken") == 2


def test_an_image_that_looks_like_no_face_crop_is_mentioned_once(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("a.png", (48, 48)), ("b.png", (640, 400)), ("c.png", (900, 900))):
        Image.new("L", size).save(tmp_path / name)
    classifier = Classifier.load(home / "runs/two")
    classifier.predict(tmp_path / "a.png")
    assert not caplog.records
    classifier.predict([tmp_path])
    assert caplog.text.count("pass --detect") == 1
    assert "b.png: 640x400 pixels, of which the middle is taken" in caplog.text


def test_labels_of_a_table_do_not_matter_and_its_bad_rows_are_named(
    home: Path, tmp_path: Path, faces: FaceDataset, caplog: pytest.LogCaptureFixture
) -> None:
    text = [" ".join(map(str, face.ravel())) for face in faces.pixels[:4]]
    table = tmp_path / "odd.csv"
    rows = [f"banana,{text[0]}", f"99,{text[1]}", "3,1 2 3", f",{text[2]}", f"3,{text[3]}"]
    table.write_text("\n".join(["emotion,pixels", *rows]) + "\n")
    classifier = Classifier.load(home / "runs/two")
    said = classifier.predict(table)
    assert list(said["source"]) == [str(table), *(f"{table}:{row}" for row in (1, 2, 4, 5))]
    assert "row 3: 3 pixels, expected 2304" in said["finding"][0]
    expected = classifier.predict_pixels(faces.pixels[:4])
    assert probabilities(said[1:]).tolist() == probabilities(expected).tolist()
    assert [record.getMessage() for record in caplog.records] == [f"{table}: {said['finding'][0]}"]


def test_a_table_of_another_image_form_is_refused_after_what_came_before_it(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    with pytest.raises(SourceError, match="48x48 grey pixels, expected 64x64 colour ones"):
        Classifier.load(home / "runs/colour").predict(home / "faces.csv")
    np.save(tmp_path / "large.npy", np.zeros((2, 64, 64), np.uint8))
    answers = Classifier.load(home / "runs/two").stream([faces.pixels[0], tmp_path / "large.npy"])
    assert next(answers).source == "0"
    with pytest.raises(SourceError, match=r"large\.npy: 64x64 grey pixels, expected 48x48 grey"):
        next(answers)


def test_a_folder_without_images_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(SourceError, match="no images, expected some"):
        Classifier.load(home / "runs/two").predict(tmp_path)


def test_a_folder_is_read_while_it_is_answered(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    for number in range(3 * BATCH):
        Image.fromarray(faces.pixels[number % 160]).save(tmp_path / f"{number:03d}.png")
    answers = Classifier.load(home / "runs/two").stream(tmp_path)
    next(answers)
    last = tmp_path / f"{3 * BATCH - 1:03d}.png"
    last.unlink()
    *_, answer = answers
    assert answer.source == str(last)
    assert (answer.finding, answer.is_bad) == ("cannot be read (No such file or directory)", True)


def test_the_network_that_a_store_s_engine_converted_is_taken(home: Path) -> None:
    Classifier.load(home / "runs/two").predict(home / "faces.csv")
    assert not list((home / "runs/two").glob("*.xml"))
    assert list((home / "stores").glob("openvino-*.xml"))


def test_a_run_without_its_store_keeps_the_network_itself(moved: Moved, faces: FaceDataset) -> None:
    run = moved("joined")
    expected = Classifier.load(run).predict_pixels(faces.pixels)
    [path] = run.glob("openvino-*.xml")
    before = path.stat().st_mtime_ns
    again = Classifier.load(run).predict_pixels(faces.pixels)
    pd.testing.assert_frame_equal(again, expected)
    assert path.stat().st_mtime_ns == before
    path.with_suffix(".bin").write_bytes(b"damaged")
    mended = Classifier.load(run).predict_pixels(faces.pixels)
    pd.testing.assert_frame_equal(mended, expected)
    assert network_facts(path) is not None


def predicted(run: Path, *images: object, prefix: tuple[str, ...] = ()) -> Any:
    call = [*prefix, sys.executable, "-m", "fer_features.cli.predict", run, *images]
    return subprocess.run(list(map(str, call)), capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_two_processes_that_convert_at_once_agree(moved: Moved, home: Path, tmp_path: Path) -> None:
    run = moved("two")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(predicted, [run] * 2, [home / "colours"] * 2)
    assert one.returncode == other.returncode == 0, one.stderr + other.stderr
    assert one.stdout == other.stdout
    [path] = run.glob("openvino-*.xml")
    assert network_facts(path) is not None
    assert not [each for each in run.iterdir() if each.name.startswith(".")]


def test_a_run_in_a_folder_that_cannot_be_written_answers_and_says_so(
    moved: Moved, home: Path
) -> None:
    run = moved("two")
    run.chmod(0o555)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # who may write anywhere, unless that power is dropped
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv to drop root's power with")
        prefix = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-all")
    image = next((home / "colours").glob("*/1.png"))
    said = predicted(run, image, prefix=prefix)
    run.chmod(0o755)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{image}\t")
    assert "the converted network cannot be kept (Permission denied)" in said.stderr
    assert not list(run.glob("openvino-*"))


def test_a_network_s_file_is_found_where_the_pass_had_it(
    own_network: Path, faces: FaceDataset, tmp_path: Path
) -> None:
    run = shutil.copytree(own_network / "run", tmp_path / "run")
    classifier = Classifier.load(run)
    assert classifier.spec.name == "net"
    classifier.predict_pixels(faces.pixels[:2])
    moved = (own_network / "net.keras").rename(tmp_path / "elsewhere.keras")
    try:
        Classifier.load(run).predict_pixels(faces.pixels[:2])  # converted: needs it no more
        with pytest.raises(
            BackboneError, match=r"own0/net\.keras: no such file.*pass it as backbone=FILE\.keras"
        ):
            Classifier.load(run, engine="tensorflow")
        shutil.copyfile(own_network / "other.keras", own_network / "net.keras")
        with pytest.raises(BackboneError, match=r"net\.keras: sha256:\w+, expected sha256:\w+\. "):
            Classifier.load(run, engine="tensorflow")
        said = Classifier.load(run, engine="tensorflow", backbone=moved)
        said.predict_pixels(faces.pixels[:2])
    finally:
        moved.rename(own_network / "net.keras")


def test_another_network_is_refused(own_network: Path, home: Path) -> None:
    other = own_network / "other.keras"
    for run in (own_network / "run", home / "runs/two"):
        with pytest.raises(BackboneError, match=r"other\.keras: .*another fingerprint"):
            Classifier.load(run, backbone=other)
    with pytest.raises(BackboneError, match="no such file, expected a network"):
        Classifier.load(own_network / "run", backbone="missing.keras")
    with pytest.raises(BackboneError, match=r"carries its own weights.*Leave --weights out"):
        Classifier.load(own_network / "run", weights="weights.h5")


def of_network(run: Path, spec: BackboneSpec, files: dict[str, str]) -> Path:
    """Make a run say that it is of another network, whose files were here."""
    path = run / "metrics.json"
    document = json.loads(path.read_text())
    document |= {"fingerprint": spec.fingerprint}
    document["store"]["backbone"] = spec.identity
    document["store"]["provenance"]["passes"] = [{"images": 1, "files": files}]
    path.write_text(json.dumps(document))
    layers, about = read_head_file(run / "head.keras")
    write_head_file(
        run / "head.keras",
        layers,
        classes=about["classes"],
        fingerprint=spec.fingerprint,
        features=about["features"],
    )
    return run


def write_weights(path: Path, value: int) -> Path:
    """Write as many numbers as NASNetMobile has."""
    with h5py.File(path, "w") as file:
        file["numbers"] = np.full(APPLICATIONS["NASNetMobile"].parameters, value, np.uint8)
    return path


def test_a_file_of_weights_is_found_or_asked_for(
    moved: Moved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = write_weights(tmp_path / "a.h5", 0), write_weights(tmp_path / "b.h5", 1)
    spec = BackboneSpec("NASNetMobile", weights=str(path))
    run = of_network(moved("two"), spec, {"weights": str(path)})
    assert Classifier.load(run).spec.weights_file == str(path)
    with pytest.raises(BackboneError, match=r"b\.h5: sha256:\w+, of another fingerprint"):
        Classifier.load(run, weights=other)
    with pytest.raises(BackboneError, match=r"other\.keras: no such file"):
        Classifier.load(run, backbone="other.keras")
    path.rename(tmp_path / "moved.h5")
    with pytest.raises(BackboneError, match=r"a\.h5: .*pass it as weights=FILE"):
        Classifier.load(run)
    assert Classifier.load(run, weights=tmp_path / "moved.h5").spec == spec
    # ImageNet's are looked for where Keras keeps them, once the recorded file is another.
    imagenet = BackboneSpec("NASNetMobile", weights="imagenet")
    run = of_network(run, imagenet, {"weights": str(other)})
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras/models").mkdir(parents=True)
    own = tmp_path / "keras/models" / APPLICATIONS["NASNetMobile"].file
    shutil.copyfile(tmp_path / "moved.h5", own)
    with pytest.raises(BackboneError, match=rf"{own}: not the published ImageNet weights"):
        Classifier.load(run)


def test_random_weights_of_another_keras_are_refused(moved: Moved) -> None:
    run = of_network(moved("two"), BackboneSpec("tiny", weights="random:0@keras-2.0.0"), {})
    with pytest.raises(BackboneError, match=r"drawn by another Keras than the installed one"):
        Classifier.load(run)


def test_an_int8_network_that_is_gone_is_named(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / "runs/int8", tmp_path / "run")
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(text.replace(str(home / "int8"), str(tmp_path / "gone")))
    with pytest.raises(BackboneError, match="no quantised network of sha256"):
        Classifier.load(run).predict_pixels(np.zeros((1, 48, 48), np.uint8))
    for path in (home / "int8").glob("int8-*"):
        shutil.copy(path, run)
    Classifier.load(run).predict_pixels(np.zeros((1, 48, 48), np.uint8))


def test_a_run_without_a_head_or_with_another_s_is_refused(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / "runs/two", tmp_path / "run")
    shutil.copy(home / "runs/colour/head.keras", run)
    with pytest.raises(RunError, match=r"head\.keras: fingerprint \w+, expected \w+ as metrics"):
        Classifier.load(run)
    shutil.copy(home / "runs/joined/head.keras", run)
    with pytest.raises(RunError, match=r"head\.keras: classes .*'calm'.*, expected "):
        Classifier.load(run)
    (run / "head.keras").write_bytes(b"damaged")
    with pytest.raises(RunError, match="damaged or no Keras archive"):
        Classifier.load(run)
    (run / "head.keras").unlink()
    with pytest.raises(RunError, match=r"no fitted head, expected head\.keras or head\.skops"):
        Classifier.load(run)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other/format"}, r"format 'other/format', expected 'fer-features/result'"),
        ({"format_version": 9}, "format_version 9, this fer-features reads up to 1"),
        ({"store": {}}, "a network of fingerprint .*, expected .*, which the head was fitted to"),
        ({"calibration": {"temperature": 0}}, "expected a number "),
        ({"calibration": {}}, "no 'temperature'"),
    ],
)
def test_a_run_of_another_format_is_refused(
    change: dict[str, Any], match: str, home: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(home / "runs/two", tmp_path / "run")
    document = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(document | change))
    with pytest.raises(RunError, match=match):
        Classifier.load(run)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        Classifier.load(tmp_path / "missing")
    with pytest.raises(RunError, match=r"no metrics\.json, expected the folder of a run"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize("given", [{"run": None}, {"weights": 5}, {"backbone": b"a.keras"}])
def test_what_is_no_path_is_refused(given: dict[str, Any], home: Path) -> None:
    (name,) = given
    with pytest.raises(OptionError, match=f"{name}: .*, expected a path"):
        Classifier.load(**{"run": home / "runs/two"} | given)


def test_an_unknown_engine_is_refused(home: Path) -> None:
    with pytest.raises(OptionError, match="engine: 'onnx', expected"):
        Classifier.load(home / "runs/two", engine="onnx")


def test_of_a_comparison_the_fit_that_validation_chose_is_named(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    task = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]}, per_class="min")
    data = task.select(extract(faces, tmp_path / "store.h5", backbone=TINY))
    heads = {"strong": LogisticHead(C=1e-4), "weak": LogisticHead(C=10.0)}
    compare([data], heads, select="accuracy", out=tmp_path / "runs", seeds=[0])
    with pytest.raises(RunError, match=r"a comparison.*the best on validation by accuracy") as told:
        Classifier.load(tmp_path / "runs")
    named = Path(str(told.value).partition("Name ")[2].partition(", ")[0])
    scores = {
        run: json.loads((run / "metrics.json").read_text())["scores"]["validation"]["accuracy"]
        for run in (tmp_path / "runs/fits").iterdir()
    }
    assert scores[named] == max(scores.values())
    Classifier.load(named)
    (tmp_path / "runs/results.json").write_text("{}")
    with pytest.raises(RunError, match=r"a comparison.*Name one of its fits"):
        Classifier.load(tmp_path / "runs")
