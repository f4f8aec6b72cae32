"""Engines: they agree, start from what is kept, and neither batches nor settings change them."""

import gc
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import BackboneSpec, extract
from fer_features.embedding import network
from fer_features.embedding.engines import Engine, choose_engine, embed, load_engine
from fer_features.embedding.network import Outputs
from fer_features.embedding.openvino import compare_embeddings, network_facts, write_network
from fer_features.errors import BackboneError, OptionError, StoreError
from fer_features.runtimes import import_openvino, import_tensorflow

PIXELS = noise_faces(20).pixels
ALL = ("final", "one", "two_relu", "three")
INT8 = replace(TINY, precision="int8")
ENGINES = ("tensorflow", "openvino")


def assert_agree(one: Outputs, other: Outputs) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype == np.float32
        assert one[name].shape == other[name].shape
        assert np.abs(one[name] - other[name]).max() <= 1e-5 * np.abs(one[name]).max(), name


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_any_size_give_the_same_embeddings(engine: str, tmp_path: Path) -> None:
    run = load_engine(TINY, ALL, engine, tmp_path)
    whole = run(PIXELS)
    assert {name: values.shape for name, values in whole.items()} == {
        name: (20, d) for name, d in run.dimensions.items()
    }
    for size in (1, 3, 19):
        parts = [run(PIXELS[i : i + size]) for i in range(0, 20, size)]
        assert_agree(whole, {name: np.concatenate([part[name] for part in parts]) for name in ALL})


def test_engines_agree_on_every_output(tmp_path: Path) -> None:
    one = load_engine(TINY, ALL, "tensorflow", tmp_path)(PIXELS)
    other = load_engine(TINY, ALL, "openvino", tmp_path, threads=1)(PIXELS)
    assert_agree(one, other)
    assert np.array_equal(one["final"], one["three"])  # whose average it is
    assert not any(np.array_equal(one["two_relu"], one[name]) for name in ("one", "three"))


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_are_those_asked_for_in_that_order(engine: str, tmp_path: Path) -> None:
    everything = load_engine(TINY, ALL, engine, tmp_path)(PIXELS)
    for outputs in (("three",), ("three", "final"), ("final", "three")):
        run = load_engine(TINY, outputs, engine, tmp_path)
        assert tuple(run.dimensions) == outputs
        assert_agree(run(PIXELS), {name: everything[name] for name in outputs})


@pytest.mark.parametrize("few", [0, 100, 10**9])
def test_a_traced_network_holds_its_weights_and_outlives_its_model(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(TINY, layers=("one",))
    model = network.build_model(spec)
    expected = {name: np.asarray(values) for name, values in model(PIXELS).items()}
    monkeypatch.setattr(network, "_FEW", few)
    traced = network.trace(spec, spec.outputs)
    gc.collect()
    assert not traced.graph.graph.variables
    assert bool(traced.graph.captured_inputs) == (few < 10**9)
    said = map(np.asarray, traced.graph(import_tensorflow().constant(PIXELS)))
    assert_agree(dict(zip(spec.outputs, said, strict=True)), expected)


@pytest.mark.parametrize("enabled", [True, False])
def test_pythons_collector_is_as_it_was_after_a_network_is_built(
    tmp_path: Path, enabled: bool
) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        load_engine(TINY, TINY.outputs, "openvino", tmp_path)
        assert gc.isenabled() == enabled
        with pytest.raises(BackboneError):
            network.trace(TINY, ("no_such_layer",))
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_converted_network_is_kept_and_starts_without_tensorflow(tmp_path: Path) -> None:
    load_engine(TINY, ("final", "one"), "openvino", tmp_path)
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from fer_features import BackboneSpec\n"
        "from fer_features.embedding.engines import load_engine\n"
        "spec = BackboneSpec('tiny', weights='random:0')\n"
        "run = load_engine(spec, ('final', 'one'), 'openvino', Path('.'))\n"
        "said = run(np.zeros((2, 48, 48), 'u1'))\n"
        "print({name: values.shape for name, values in said.items()})\n"
        "print([m for m in ('tensorflow', 'keras', 'openvino_telemetry') if sys.modules.get(m)])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout == "{'final': (2, 16), 'one': (2, 8)}\n[]\n"


@pytest.mark.parametrize("suffix", [".bin", ".xml", ".json"])
def test_a_damaged_converted_network_is_converted_again(tmp_path: Path, suffix: str) -> None:
    expected = load_engine(TINY, ALL, "openvino", tmp_path)(PIXELS)
    [path] = tmp_path.glob(f"openvino-*{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    for damaged in (bytes(content), b"", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        if suffix != ".json" or not damaged:
            assert network_facts(path.with_suffix(".xml")) is None
        said = load_engine(TINY, ALL, "openvino", tmp_path)(PIXELS)
        assert all(np.array_equal(said[name], expected[name]) for name in ALL)
        assert network_facts(path.with_suffix(".xml")) is not None
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("room", [1000, 100_000])
def test_a_network_for_which_there_is_no_room_is_not_kept_in_part(
    room: int, tmp_path: Path
) -> None:
    """Neither the description, of more than 1,000 bytes, nor the weights, of 256,000."""
    openvino = import_openvino()
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).normal(size=(64, 1000)).astype(np.float32)
    rows = ops.parameter([-1, 64], np.float32)
    product = ops.matmul(rows, ops.constant(weights), False, False)
    model = openvino.Model([ops.result(product)], [rows], "product")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_network(model, tmp_path / "network.xml", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    write_network(model, tmp_path / "network.xml", {"outputs": {}})
    assert network_facts(tmp_path / "network.xml") is not None


def test_a_converted_network_is_not_taken_for_another_of_its_name(tmp_path: Path) -> None:
    """Its file names hold the start of a hash: what is inside decides."""
    other = BackboneSpec("tiny", weights="random:1")
    expected = load_engine(TINY, ("final",), "openvino", tmp_path)(PIXELS)
    load_engine(other, ("final",), "openvino", tmp_path / "other")
    for path in tmp_path.glob("openvino-*"):
        [taken] = (tmp_path / "other").glob(f"*{path.suffix}")
        shutil.copy(taken, path)
    said = load_engine(TINY, ("final",), "openvino", tmp_path)(PIXELS)
    assert np.array_equal(said["final"], expected["final"])


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


class Small:
    """An engine in whose memory a few images fit."""

    def __init__(self, run: Engine, fit: int) -> None:
        self.run, self.fit = run, fit
        self.dimensions, self.most = run.dimensions, run.most
        self.sizes: list[int] = []

    def __call__(self, pixels: np.ndarray) -> Outputs:
        self.sizes.append(len(pixels))
        if len(pixels) > self.fit:
            raise MemoryError("full")
        return self.run(pixels)


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_what_fits_is_remembered(
    tmp_path: Path,
) -> None:
    run = load_engine(TINY, ("final", "one"), "openvino", tmp_path)
    small = Small(run, 3)
    assert_agree(embed(small, PIXELS), run(PIXELS))
    assert small.sizes[:4] == [20, 10, 5, 2]
    small.sizes.clear()
    assert_agree(embed(small, PIXELS), run(PIXELS))
    assert small.sizes == [2] * 10
    with pytest.raises(MemoryError, match="full"):
        embed(Small(run, 0), PIXELS)


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_an_engine_answers_each_of_several_threads_with_its_own(
    engine: str, tmp_path: Path
) -> None:
    run = load_engine(TINY, ("final", "one"), engine, tmp_path)
    alone = [run(PIXELS[i : i + 1 + i % 3]) for i in range(16)]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            said = threads.map(lambda i: run(PIXELS[i : i + 1 + i % 3]), range(16))
            for one, other in zip(said, alone, strict=True):
                assert_agree(one, other)


@contextmanager
def keras_settings(**settings: str) -> Iterator[None]:
    """Set Keras's global settings as a user's program would, for a while."""
    import keras

    config = keras.config
    before = {name: getattr(config, name)() for name in settings}
    for name, value in settings.items():
        getattr(config, f"set_{name}")(value)
    try:
        yield
        for name, value in settings.items():  # and not another's
            said = getattr(config, name)()
            assert getattr(said, "name", said) == value
    finally:
        for name, value in before.items():
            getattr(config, f"set_{name}")(value)


@contextmanager
def functions_run_eagerly() -> Iterator[None]:
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
        assert tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)


@contextmanager
def all_at_once() -> Iterator[None]:
    plain = {"floatx": "float16", "dtype_policy": "mixed_float16"}
    with keras_settings(image_data_format="channels_first", **plain), functions_run_eagerly():
        yield


SETTINGS = {
    "mixed_float16": lambda: keras_settings(dtype_policy="mixed_float16"),
    "float64": lambda: keras_settings(dtype_policy="float64"),
    "floatx": lambda: keras_settings(floatx="float16"),
    "channels_first": lambda: keras_settings(image_data_format="channels_first"),
    "eager": functions_run_eagerly,
    "all": all_at_once,
}
APPLICATION = BackboneSpec("MobileNetV2", weights="random:0", input_size=32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outputs]:
    """What each engine says without anybody's settings."""
    folder = tmp_path_factory.mktemp("plain")
    said = {("tiny", engine): load_engine(TINY, ALL, engine, folder)(PIXELS) for engine in ENGINES}
    application = load_engine(APPLICATION, ("final",), "tensorflow", folder)
    return said | {("MobileNetV2", "tensorflow"): application(PIXELS)}


@pytest.mark.parametrize(
    ("spec", "engine", "setting"),
    [
        *((TINY, engine, setting) for engine in ENGINES for setting in SETTINGS),
        (APPLICATION, "tensorflow", "all"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_no_global_setting_changes_the_embeddings(
    plain: dict[tuple[str, str], Outputs],
    spec: BackboneSpec,
    engine: str,
    setting: str,
    tmp_path: Path,
) -> None:
    expected = plain[spec.name, engine]
    with SETTINGS[setting]():
        run = load_engine(spec, tuple(expected), engine, tmp_path)
        inside = run(PIXELS)
    outside = run(PIXELS)
    for name, values in expected.items():
        assert np.array_equal(inside[name], values), name
        assert np.array_equal(outside[name], values), name


def test_a_setting_made_after_the_engine_was_loaded_changes_nothing(tmp_path: Path) -> None:
    run = load_engine(TINY, ALL, "tensorflow", tmp_path)
    with all_at_once():
        said = run(PIXELS[:7])
    expected = load_engine(TINY, ALL, "tensorflow", tmp_path)(PIXELS[:7])
    assert all(np.array_equal(said[name], expected[name]) for name in ALL)


def test_a_users_keras_file_and_backend_change_nothing(
    plain: dict[tuple[str, str], Outputs], tmp_path: Path
) -> None:
    settings = {
        "floatx": "float16",
        "image_data_format": "channels_first",
        "backend": "jax",
        "dtype_policy": "mixed_float16",
    }
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np; from pathlib import Path\n"
        "from support import TINY, noise_faces\n"
        "from fer_features.embedding.engines import load_engine\n"
        "for engine in ('tensorflow', 'openvino'):\n"
        "    run = load_engine(TINY, ('final', 'one', 'two_relu', 'three'), engine, Path('.'))\n"
        "    np.savez(engine, **run(noise_faces(20).pixels))\n"
        "import keras\n"
        "print(keras.config.floatx(), keras.config.image_data_format())\n"
        "print(os.environ['KERAS_BACKEND'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent.parent)],
        cwd=tmp_path,
        env={"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert said.stdout == "float16 channels_first\njax\n", said.stderr
    assert json.loads((tmp_path / "keras.json").read_text()) == settings
    for engine in ENGINES:
        with np.load(tmp_path / f"{engine}.npz") as found:
            for name, values in plain["tiny", engine].items():
                assert np.array_equal(found[name], values), (engine, name)


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

    beside = extract(faces, tmp_path / "float32.h5", backbone=TINY)
    assert "cosine" not in beside.provenance["passes"][-1]
    assert beside.fingerprint != store.fingerprint
    assert not np.array_equal(beside.embeddings(), store.embeddings())

    caplog.clear()
    before = path.read_bytes()
    with caplog.at_level("INFO"):
        again = extract(faces, tmp_path / "int8.h5", backbone=INT8)
        grown = extract(noise_faces(80, copies=False), tmp_path / "new.h5", backbone=INT8)
    assert "quantising" not in caplog.text
    assert path.read_bytes() == before
    assert again.fingerprint == store.fingerprint == grown.fingerprint

    with pytest.raises(StoreError, match="made with precision int8, expected float32"):
        extract(faces, tmp_path / "int8.h5", backbone=TINY)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(BackboneError, match=rf"no quantised network of sha256 {sha256}.*int8-"):
        extract(faces, tmp_path / "other.h5", backbone=replace(INT8, quantised=sha256))
    with pytest.raises(StoreError, match=r"int8\.h5: of a quantised network that is not in"):
        extract(noise_faces(60, 1), tmp_path / "int8.h5", backbone=INT8)


def test_layers_are_chosen_before_a_network_is_quantised(tmp_path: Path) -> None:
    faces = noise_faces(60)
    with_layer = replace(INT8, layers=("one",))
    store = extract(faces, tmp_path / "int8.h5", backbone=with_layer)
    exact = extract(faces, tmp_path / "float32.h5", backbone=replace(TINY, layers=("one",)))
    for name in ("final", "one"):
        one, other = store.embeddings(features=name), exact.embeddings(features=name)
        assert one.shape == other.shape
        assert not np.array_equal(one, other)
        cosine = store.provenance["passes"][-1]["cosine"][name]
        assert set(cosine) == {"images", "plain", "centred", "warns"}
        assert -1 <= cosine["centred"]["min"] <= cosine["centred"]["median"] <= 1
        assert cosine["plain"]["median"] >= 0.9
        assert cosine["centred"]["median"] > 0.5
        assert not cosine["warns"]
    assert list(store.provenance["passes"][-1]["cosine"]) == ["final", "one"]
    assert store.provenance["passes"][-1]["calibration"]["images"] == 29

    before = (tmp_path / "int8.h5").read_bytes()
    again = extract(faces, tmp_path / "int8.h5", backbone=INT8)  # fewer than there are
    assert again.outputs == ("final", "one")
    assert (tmp_path / "int8.h5").read_bytes() == before
    further = replace(INT8, layers=("one", "three"))
    with pytest.raises(StoreError, match=r"another output with -o: layers are chosen before"):
        extract(faces, tmp_path / "int8.h5", backbone=further)
    assert (tmp_path / "int8.h5").read_bytes() == before
    other = extract(faces, tmp_path / "other.h5", backbone=further)  # as the message says
    assert other.outputs == ("final", "one", "three")
    assert other.fingerprint != store.fingerprint
    # The first store's network is still the one that it grows with.
    grown = extract(noise_faces(60, copies=False), tmp_path / "int8.h5", backbone=INT8)
    assert grown.fingerprint == store.fingerprint
    assert grown.outputs == ("final", "one")


def test_int8_says_how_near_it_comes_and_warns_of_a_broken_network_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_layer = replace(INT8, layers=("one",))
    with caplog.at_level("INFO"):
        store = extract(noise_faces(60), tmp_path / "a.h5", backbone=with_layer)
    cosine = store.provenance["passes"][-1]["cosine"]
    near = ", ".join(f"{name} {cosine[name]['centred']['median']:.2f}" for name in store.outputs)
    assert f"int8: centred cosine to float32 in the median of 29 images: {near}." in caplog.text
    assert "pass both stores to fer-compare" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]

    [path] = tmp_path.glob("int8-*.json")
    facts = json.loads(path.read_text())
    for median, warns in ((0.5, False), (0.49, True)):
        facts["cosine"]["one"]["centred"]["median"] = median
        path.write_text(json.dumps(facts))
        caplog.clear()
        store = extract(noise_faces(60), tmp_path / f"{median}.h5", backbone=with_layer)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [message[:9] for message in said] == ["int8: one"] * warns
        assert store.provenance["passes"][-1]["cosine"]["one"]["warns"] is warns
        final = store.provenance["passes"][-1]["cosine"]["final"]
        assert final == cosine["final"]


def test_int8_of_too_few_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"calibrated on images, found 3 distinct.*Use float32"):
        extract(noise_faces(3, copies=False), tmp_path / "int8.h5", backbone=INT8)
    assert not (tmp_path / "int8.h5").exists()


def test_cosines_are_of_rows_plain_and_centred() -> None:
    one = np.array([[10.0, 1.0], [10.0, -1.0]], dtype=np.float32)
    other = np.array([[10.0, -1.0], [10.0, 1.0]], dtype=np.float32)
    said = compare_embeddings(one, other)
    assert said["plain"]["median"] == round(99 / 101, 5)
    assert said["centred"] == {"min": -1.0, "median": -1.0}
