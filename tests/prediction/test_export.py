"""One file for each runtime: loaded there, it says what the classifier says."""

import importlib.util
import json
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from fer_features import Classifier, FaceDataset
from fer_features.errors import BackboneError, OptionError, RunError
from fer_features.prediction.export import CLOSE, export, load_exported
from fer_features.runtimes import import_keras

SUFFIXES = (".keras", ".onnx", ".xml", ".tflite")
RUNS = ("joined", "colour")


def by_keras(path: Path, pixels: np.ndarray) -> np.ndarray:
    return import_keras().saving.load_model(path, safe_mode=True).predict(pixels, verbose=0)


def by_onnxruntime(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "n"
    return session.run(["probabilities"], {"pixels": pixels})[0]


def by_openvino(path: Path, pixels: np.ndarray) -> np.ndarray:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return model({"pixels": pixels})["probabilities"]


def by_litert(path: Path, pixels: np.ndarray) -> np.ndarray:
    return Interpreter(str(path)).get_signature_runner()(pixels=pixels)["probabilities"]


RUNTIMES: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = dict(
    zip(SUFFIXES, (by_keras, by_onnxruntime, by_openvino, by_litert), strict=True)
)


@pytest.fixture(scope="module")
def exported(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported models: RUN.SUFFIX."""
    folder = tmp_path_factory.mktemp("exported")
    for run in RUNS:
        classifier = Classifier.load(home / "runs" / run)
        for suffix in SUFFIXES:
            difference = export(classifier, folder / f"{run}{suffix}")
            assert difference is not None
            assert difference <= CLOSE
    return folder


def pixels_of(classifier: Classifier, faces: FaceDataset) -> np.ndarray:
    pixels = faces.pixels[:7]
    if classifier.image == (48, 48, 1):
        return pixels
    tinted = [Image.merge("RGB", [Image.fromarray(np.roll(p, i, 0)) for i in range(3)])
              for p in pixels]  # fmt: skip
    return np.stack([np.asarray(each.resize((64, 64))) for each in tinted])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("run", RUNS)
def test_its_own_runtime_says_what_the_classifier_says(
    run: str, suffix: str, home: Path, exported: Path, faces: FaceDataset
) -> None:
    classifier = Classifier.load(home / "runs" / run)
    pixels = pixels_of(classifier, faces)
    expected = classifier.predict_pixels(pixels).filter(like="p_").to_numpy()
    assert np.ptp(expected) > 0.01
    path = exported / f"{run}{suffix}"
    for n in (1, 7):
        for said in (RUNTIMES[suffix](path, pixels[:n]), load_exported(path)(pixels[:n])):
            assert said.dtype == np.float32
            np.testing.assert_allclose(said, expected[:n], rtol=0, atol=1e-5)


def said_of(path: Path) -> dict[str, Any]:
    """Read what a file says of itself, with its own runtime."""
    if path.suffix == ".onnx":
        found = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        text = found["classifier.json"]
    elif path.suffix == ".xml":
        text = openvino.Core().read_model(path).get_rt_info("classifier.json").value
    else:
        text = zipfile.ZipFile(path).read("classifier.json").decode()
    return json.loads(text)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("run", RUNS)
def test_a_file_says_what_it_is(run: str, suffix: str, home: Path, exported: Path) -> None:
    from fer_features import __version__

    classifier = Classifier.load(home / "runs" / run)
    said = said_of(exported / f"{run}{suffix}")
    assert said == {
        "format": "fer-features/classifier",
        "format_version": 1,
        "classes": list(classifier.classes),
        "image": list(classifier.image),
        "fingerprint": classifier.spec.fingerprint,
        "backbone": classifier.spec.identity,
        "features": classifier.features,
        "head": classifier.label,
        "temperature": classifier.temperature,
        "fer_features": __version__,
    }


def test_an_onnx_file_is_valid(exported: Path) -> None:
    onnx.checker.check_model(onnx.load(exported / "joined.onnx"), full_check=True)


def test_the_temperature_is_in_the_file_unless_it_is_left_out(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    run = home / "runs/joined"
    plain = Classifier.load(run, calibrate=False)
    export(plain, tmp_path / "plain.xml")
    said = by_openvino(tmp_path / "plain.xml", faces.pixels[:3])
    expected = plain.predict_pixels(faces.pixels[:3]).filter(like="p_")
    calibrated = Classifier.load(run).predict_pixels(faces.pixels[:3]).filter(like="p_")
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert np.abs(said - calibrated.to_numpy()).max() > 1e-3
    assert said_of(tmp_path / "plain.xml")["temperature"] == 1


def test_an_int8_network_exports_to_openvino_alone(
    home: Path, tmp_path: Path, faces: FaceDataset
) -> None:
    classifier = Classifier.load(home / "runs/int8")
    for suffix in (".keras", ".onnx", ".tflite"):
        with pytest.raises(OptionError, match=r"an int8 network.*expected a name that ends in"):
            export(classifier, tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())
    export(classifier, tmp_path / "model.xml")
    expected = classifier.predict_pixels(faces.pixels[:7]).filter(like="p_")
    for n in (1, 7):
        said = by_openvino(tmp_path / "model.xml", faces.pixels[:n])
        np.testing.assert_allclose(said, expected[:n], rtol=0, atol=1e-5)
    kinds = {node.get_type_name() for node in openvino.Core().read_model(tmp_path / "model.xml")
             .get_ops()}  # fmt: skip
    assert "FakeQuantize" in kinds
    assert "quantised" in said_of(tmp_path / "model.xml")["backbone"]


def test_a_foreign_classifier_is_refused_with_what_can_be_done(home: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(home / "runs/neighbors")
    for suffix in SUFFIXES:
        with pytest.raises(
            RunError, match=r"scikit-learn's KNeighborsClassifier, expected.*fer-predict, or fit"
        ):
            export(classifier, tmp_path / f"model{suffix}")


@pytest.mark.parametrize("name", ["model.pb", "model", "model.h5"])
def test_another_suffix_is_refused(name: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in \.keras, \.onnx, \.xml, \.tflite"):
        export(Classifier.load(home / "runs/two"), tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_may_be_in_capitals(suffix: str, home: Path, tmp_path: Path) -> None:
    target = tmp_path / f"m{suffix.upper()}"
    assert export(Classifier.load(home / "runs/two"), target) is not None
    beside = {"m.bin"} if suffix == ".xml" else set()
    assert {path.name for path in tmp_path.iterdir()} == {target.name} | beside


@pytest.mark.parametrize("name", ["m.xml", "m.bin"])
def test_a_folder_is_not_replaced_and_nothing_is_written(
    name: str, home: Path, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OptionError, match=f"{name}: a folder, expected a file's name"):
        export(Classifier.load(home / "runs/two"), tmp_path / "m.xml", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(home: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(home / "runs/two")
    for name in ("a.xml", "b.bin"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OptionError, match=rf"{name}: exists.*overwrite=True"):
            export(classifier, (tmp_path / name).with_suffix(".xml"))
        assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2
    export(classifier, tmp_path / "a.xml", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.xml", "b.bin"]


def test_a_folder_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no folder"):
        export(Classifier.load(home / "runs/two"), tmp_path / "missing" / "model.onnx")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(
    suffix: str, home: Path, tmp_path: Path, full_disk: None
) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(RunError, match=rf"{path}: cannot be written \(.*Make room, or name"):
        export(Classifier.load(home / "runs/two"), path)
    assert not list(tmp_path.iterdir())


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in packages else find(name)
    )


@pytest.mark.parametrize(
    ("package", "suffix", "extra"), [("tf2onnx", ".onnx", "onnx"), ("openvino", ".xml", "openvino")]
)
def test_a_converter_that_is_not_installed_is_named_with_its_extra(
    package: str, suffix: str, extra: str, home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    classifier = Classifier.load(home / "runs/two")
    without(monkeypatch, package)
    with pytest.raises(OptionError, match=rf"needs {package}. Install fer-features\[{extra}\]"):
        export(classifier, tmp_path / f"model{suffix}")


def test_without_its_runtime_a_file_is_written_and_not_compared(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(home / "runs/two")
    without(monkeypatch, "ai_edge_litert")
    assert export(classifier, tmp_path / "model.tflite") is None
    said = by_litert(tmp_path / "model.tflite", np.zeros((2, 48, 48), np.uint8))
    expected = classifier.predict_pixels(np.zeros((2, 48, 48), np.uint8)).filter(like="p_")
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_a_network_that_is_converted_needs_its_file_for_keras_alone(
    own_network: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(own_network / "run", tmp_path / "run")
    Classifier.load(run).predict([Image.new("L", (48, 48))])
    moved = (own_network / "net.keras").rename(tmp_path / "elsewhere.keras")
    try:
        export(Classifier.load(run), tmp_path / "model.xml")
        with pytest.raises(BackboneError, match=r"net\.keras: no such file.*backbone=FILE\.keras"):
            export(Classifier.load(run), tmp_path / "model.keras")
        export(Classifier.load(run, backbone=moved), tmp_path / "model.keras")
    finally:
        moved.rename(own_network / "net.keras")
