"""Engines: they agree, start from what is kept, and batches never break them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import BackboneSpec, extract
from fer_features.embedding.converted import network_facts
from fer_features.embedding.engines import choose_engine, embed, load_engine
from fer_features.embedding.quantisation import compare_embeddings
from fer_features.errors import OptionError, StoreError, WeightsError

PIXELS = noise_faces(20).pixels
INT8 = BackboneSpec(weights="random:0", architecture="tiny", precision="int8")


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_batches_of_any_size_give_the_same_embeddings(engine: str, tmp_path: Path) -> None:
    run = load_engine(TINY, engine, tmp_path)
    whole = run(PIXELS)
    single = np.concatenate([run(PIXELS[i : i + 1]) for i in range(len(PIXELS))])
    assert np.abs(whole - single).max() <= 1e-5 * np.abs(whole).max()


def test_engines_agree(tmp_path: Path) -> None:
    one = load_engine(TINY, "tensorflow", tmp_path)(PIXELS)
    other = load_engine(TINY, "openvino", tmp_path, threads=1)(PIXELS)
    assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()


def test_a_converted_network_is_kept_and_starts_without_tensorflow(tmp_path: Path) -> None:
    load_engine(TINY, "openvino", tmp_path)
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from fer_features import BackboneSpec\n"
        "from fer_features.embedding.engines import load_engine\n"
        "spec = BackboneSpec(weights='random:0', architecture='tiny')\n"
        "print(load_engine(spec, 'openvino', Path('.'))(np.zeros((2, 48, 48), 'u1')).shape)\n"
        "print([m for m in ('tensorflow', 'keras', 'openvino_telemetry') if sys.modules.get(m)])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout == "(2, 16)\n[]\n"


def test_a_damaged_converted_network_is_converted_again(tmp_path: Path) -> None:
    expected = load_engine(TINY, "openvino", tmp_path)(PIXELS)
    [path] = tmp_path.glob("openvino-*.bin")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    assert network_facts(path.with_suffix(".xml")) is None
    assert np.array_equal(load_engine(TINY, "openvino", tmp_path)(PIXELS), expected)
    assert network_facts(path.with_suffix(".xml")) is not None


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("tensrflow", "float32", "engine: 'tensrflow', expected auto or tensorflow or openvino"),
        ("tensorflow", "int8", "int8 needs the openvino engine"),
    ],
)
def test_engines_that_cannot_be_had_are_refused(engine: str, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_engine(engine, precision)


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    sizes = []

    def small(pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise MemoryError
        return pixels[:, 0, :2].astype(np.float32)

    assert np.array_equal(embed(small, PIXELS), PIXELS[:, 0, :2].astype(np.float32))
    assert sizes[:3] == [20, 10, 5]

    def never(pixels: np.ndarray) -> np.ndarray:
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        embed(never, PIXELS)


def test_int8_is_calibrated_once_and_part_of_the_fingerprint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = noise_faces(60)
    with caplog.at_level("INFO"):
        store = extract(faces, tmp_path / "int8.h5", backbone=INT8)
    assert "quantising the network" in caplog.text
    [path] = tmp_path.glob("int8-*.xml")
    sha256 = json.loads(path.with_suffix(".json").read_text())["sha256"]
    assert store.backbone == {**TINY.identity, "precision": "int8", "quantised": sha256}
    cosine = store.provenance["cosine"]
    assert set(cosine) == {"images", "plain", "centred", "warns"}
    assert -1 <= cosine["centred"]["min"] <= cosine["centred"]["median"] <= 1
    assert cosine["plain"]["median"] >= 0.9

    beside = extract(faces, tmp_path / "float32.h5", backbone=TINY)
    assert "cosine" not in beside.provenance

    caplog.clear()
    grown = noise_faces(80)
    with caplog.at_level("INFO"):
        again = extract(grown, tmp_path / "int8.h5", backbone=INT8)
    assert "quantising" not in caplog.text
    assert again.fingerprint == store.fingerprint

    with pytest.raises(StoreError, match="made with precision int8, expected float32"):
        extract(faces, tmp_path / "int8.h5", backbone=TINY)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(WeightsError, match="not the quantised network of this store"):
        extract(faces, tmp_path / "other.h5", backbone=INT8.with_precision("int8", sha256))


def test_int8_far_from_float32_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = extract(noise_faces(60), tmp_path / "int8.h5", backbone=INT8)
    warned = "int8: the embeddings differ from float32" in caplog.text
    assert warned == (store.provenance["cosine"]["centred"]["median"] < 0.95)


def test_cosines_are_of_rows_plain_and_centred() -> None:
    one = np.array([[10.0, 1.0], [10.0, -1.0]], dtype=np.float32)
    other = np.array([[10.0, -1.0], [10.0, 1.0]], dtype=np.float32)
    said = compare_embeddings(one, other)
    assert said["plain"]["median"] == round(99 / 101, 5)
    assert said["centred"] == {"min": -1.0, "median": -1.0}
