"""The networks of keras.applications: each row against Keras, each network against its numbers."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import called, noise_faces

from fer_features import BackboneSpec
from fer_features.embedding.applications import APPLICATIONS, Application
from fer_features.embedding.engines import load_engine
from fer_features.embedding.network import build_model, layers_worth_keeping, load_network
from fer_features.embedding.weights import draw_weights, imagenet_path
from fer_features.errors import BackboneError

PIXELS = noise_faces(3, copies=False).pixels

QUICK = ("MobileNetV3Small", "EfficientNetB0", "MobileNet")


def mostly_slow(names: Iterable[str], *quick: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


EACH = mostly_slow(APPLICATIONS, *QUICK)


def size_of(row: Application) -> int:
    """Return a small input size that shows what a network computes."""
    return max(row.smallest, 96)


def built(row: Application, size: int, weights: str | None = None) -> Any:
    """Return Keras's own network."""
    import keras

    function = getattr(keras.applications, row.name)
    shape = (size, size, 3)
    return function(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def preprocessed(row: Application, size: int, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """Return what the application is fed by its own words, in NumPy, resized by TensorFlow."""
    import keras
    import tensorflow as tf

    images = tf.image.resize(pixels[..., None].astype(np.float32), (size, size)).numpy()
    images = np.repeat(images, 3, axis=-1)
    return getattr(keras.applications, row.module).preprocess_input(images)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference as a share of the largest number."""
    assert one.shape == other.shape
    assert np.isfinite(other).all()
    return float(np.abs(one - other).max() / np.abs(other).max())


def save_as_published(network: Any, path: Path) -> None:
    """Write weights in the layout of the files that Keras publishes."""
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


# ---- rows ------------------------------------------------------------------------------------


def test_every_network_of_keras_is_offered() -> None:
    import keras

    functions = {name for name in dir(keras.applications) if name[0].isupper()}
    assert len(functions) >= 38
    assert set(APPLICATIONS) == functions


@pytest.mark.parametrize("name", EACH)
def test_a_row_says_what_keras_builds(name: str) -> None:
    row = APPLICATIONS[name]
    network = built(row, row.smallest)
    assert network.output_shape == (None, row.dimension)
    assert network.count_params() == row.parameters
    with pytest.raises(ValueError, match=r"at least|negative|[Ii]nput size|dimension"):
        built(row, row.smallest - 1)


@pytest.mark.parametrize("name", EACH)
def test_the_input_size_is_the_one_that_keras_publishes(name: str) -> None:
    import keras

    row = APPLICATIONS[name]
    whole = getattr(keras.applications, name)(weights=None)
    published = whole.input_shape[1] or 224  # MobileNetV3 takes any, and was trained at 224
    assert row.input_size == (139 if name == "InceptionResNetV2" else published)


class AskedError(Exception):
    """Raised in place of a download."""


@pytest.mark.parametrize("name", EACH)
def test_the_weights_are_those_that_keras_would_download(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras.src.utils import file_utils

    asked: dict[str, Any] = {}

    def get_file(fname: Any = None, origin: Any = None, **more: Any) -> None:
        asked.update(more, fname=fname, origin=origin)
        raise AskedError

    monkeypatch.setattr(file_utils, "get_file", get_file)
    row = APPLICATIONS[name]
    with pytest.raises(AskedError):
        built(row, row.input_size, "imagenet")
    assert asked["origin"] == row.url
    assert asked["fname"] == row.file
    assert asked["cache_subdir"] == "models"
    assert (asked.get("file_hash") or asked.get("md5_hash") or "") == row.hash


def test_every_preprocessing_has_its_module() -> None:
    import keras

    for row in APPLICATIONS.values():
        assert callable(getattr(keras.applications, row.module).preprocess_input)


# ---- numbers ---------------------------------------------------------------------------------


def trained(row: Application, size: int) -> Any:
    """Build a network by Keras's own seeded numbers, which no layer leaves as they came in.

    Larger ones, and shifts, make deep networks amplify the rounding of their first layers, as
    EfficientNetV2's own do: there they are smaller.
    """
    import keras

    keras.utils.set_random_seed(0)
    network = built(row, size)
    rng = np.random.default_rng(0)
    for variable in network.weights:
        values = np.asarray(variable)
        if values.ndim == 1 and values.dtype == np.float32 and np.ptp(values) == 0 < values[0]:
            variable.assign(rng.uniform(0.5, 1.5, values.shape))
        elif values.ndim > 1 and row.module == "efficientnet_v2":
            variable.assign(0.7 * values)
    return network


@pytest.mark.filterwarnings("ignore:.input_shape. is undefined")  # 224's weights at any size
@pytest.mark.parametrize("name", EACH)
def test_a_network_with_published_weights_computes_what_keras_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras builds some networks otherwise where it loads ImageNet's weights itself."""
    import keras
    from keras.src.utils import file_utils

    row = APPLICATIONS[name]
    size = size_of(row)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = imagenet_path(row)
    path.parent.mkdir()
    save_as_published(trained(row, size), path)
    if row.hash:
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(APPLICATIONS, name, row._replace(hash=md5))
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    network = built(row, size, "imagenet")
    images = preprocessed(row, size)
    expected = {"final": network.predict(images.copy(), verbose=0)}

    spec = BackboneSpec(name, input_size=size)
    named = {layer.name for layer in network.layers}
    inner = [layer for layer in layers_worth_keeping(spec) if layer.name in named]
    for layer in inner[len(inner) // 2 :][:1]:  # none where Keras numbers all of them
        maps = keras.Model(network.inputs, network.get_layer(layer.name).output)
        maps = maps.predict(images.copy(), verbose=0)
        assert maps.shape[1:] == (*layer.size, layer.dimension)
        expected[layer.name] = maps.mean(axis=(1, 2))
    for engine in ("tensorflow", "openvino"):
        said = load_engine(spec, tuple(expected), engine, tmp_path)(PIXELS)
        for output, values in expected.items():
            assert difference(said[output], values) <= 1e-4, (engine, output)
    # They tell faces apart, or a wrong network would not be seen.
    assert expected["final"].std(axis=0).max() > 1e-3 * np.abs(expected["final"]).max()


@pytest.mark.parametrize("name", mostly_slow(APPLICATIONS, "MobileNetV3Small", "MobileNet"))
def test_a_network_with_random_weights_computes_what_keras_does(name: str, tmp_path: Path) -> None:
    import keras

    row = APPLICATIONS[name]
    size = size_of(row)
    keras.utils.set_random_seed(7)  # which must not matter
    network = built(row, size)
    draw_weights(network, 0)
    expected = network.predict(preprocessed(row, size), verbose=0)
    # Small as they may be, float32 holds them with room to spare, and they tell faces apart.
    assert 1e-12 < np.abs(expected).max() < 1e6
    assert expected.std(axis=0).max() > 1e-3 * np.abs(expected).max()
    spec = BackboneSpec(name, weights="random", input_size=size)
    for engine in ("tensorflow", "openvino"):
        said = load_engine(spec, spec.outputs, engine, tmp_path)(PIXELS)["final"]
        assert difference(said, expected) <= 1e-4, engine


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of the original's network in both of Keras's layouts, written by Keras."""
    import keras

    folder = tmp_path_factory.mktemp("weights")
    network = load_network(BackboneSpec(weights="random:3"), None)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Trained statistics are not 0 and 1, and folding them must not depend on that.
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.beta.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.beta.shape))
    network.save_weights(folder / "new.weights.h5")
    save_as_published(network, folder / "legacy_notop.h5")
    return folder


@pytest.fixture(scope="module")
def original(weights_dir: Path) -> np.ndarray:
    """The original's preprocessing, then Keras's own network and pooling."""
    import keras
    import tensorflow as tf

    images = tf.image.resize(PIXELS[..., None].astype(np.int32), (139, 139))
    images = np.repeat(images.numpy().astype(np.float32), 3, axis=-1)
    images = keras.applications.inception_resnet_v2.preprocess_input(images)
    network = keras.applications.InceptionResNetV2(
        include_top=False, weights=None, input_shape=(139, 139, 3)
    )
    network.load_weights(weights_dir / "legacy_notop.h5")
    return network.predict(images, verbose=0).mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param("tensorflow", "legacy_notop.h5", marks=pytest.mark.slow),
        ("openvino", "new.weights.h5"),
    ],
)
def test_the_default_equals_the_originals_preprocessing_and_network(
    weights_dir: Path, original: np.ndarray, engine: str, name: str
) -> None:
    spec = BackboneSpec(weights=str(weights_dir / name))
    assert (spec.backbone, spec.input_size) == ("InceptionResNetV2", 139)
    embeddings = load_engine(spec, spec.outputs, engine, weights_dir)(PIXELS)["final"]
    assert embeddings.shape == (3, 1536)
    assert embeddings.dtype == np.float32
    # Engines are held to 1e-5 of each other, so each to half of that of the original.
    assert difference(embeddings, original) <= 5e-6
    assert embeddings.std(axis=0).max() > 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras names each array that is missing
@pytest.mark.parametrize("name", ["one.weights.h5", "one_notop.h5"])
def test_a_file_of_as_many_numbers_in_other_arrays_is_refused(tmp_path: Path, name: str) -> None:
    row = APPLICATIONS["MobileNetV3Small"]
    with h5py.File(tmp_path / name, "w") as file:
        file["numbers"] = np.ones(row.parameters, np.float32)
    spec = BackboneSpec(row.name, weights=str(tmp_path / name), input_size=32)
    with pytest.raises(BackboneError, match=r"one\S+: Keras cannot load it into MobileNetV3Small"):
        build_model(spec)


# ---- layers ----------------------------------------------------------------------------------

WORTH_KEEPING = {
    "VGG16": [f"block{block}_conv{2 if block < 3 else 3}" for block in range(1, 6)],
    "ResNet50": ["conv2_block1_out", "conv3_block4_out", "conv4_block6_out", "conv5_block2_out"],
    "InceptionResNetV2": ["mixed_6a", "mixed_7a", "block8_9_ac"],
    "InceptionV3": ["mixed0", "mixed5", "mixed9"],
    "DenseNet121": ["conv2_block6_concat", "conv5_block16_concat"],
    "MobileNetV2": ["block_2_add", "block_15_add"],
    "EfficientNetB0": ["block2b_add", "block6d_add"],
    "Xception": ["add_5"],
}


@pytest.mark.parametrize("name", mostly_slow(WORTH_KEEPING, *QUICK, "VGG16", "ResNet50"))
def test_the_layers_worth_keeping_are_those_at_which_blocks_end(name: str) -> None:
    spec = BackboneSpec(name, weights="random", input_size=size_of(APPLICATIONS[name]))
    found = {layer.name: layer for layer in layers_worth_keeping(spec)}
    assert set(WORTH_KEEPING[name]) <= set(found)
    places = [layer.place for layer in found.values()]
    assert places == sorted(places)
    sides = [layer.size[0] for layer in found.values()]
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize("name", EACH)
def test_every_listed_layer_can_be_kept(name: str) -> None:
    spec = BackboneSpec(name, weights="random", input_size=size_of(APPLICATIONS[name]))
    listed = layers_worth_keeping(spec)
    assert len(listed) >= 4
    model = build_model(replace(spec, layers=tuple(layer.name for layer in listed)))
    said = model(PIXELS, training=False)
    assert list(said) == ["final", *(layer.name for layer in listed)]
    for layer in listed:
        assert said[layer.name].shape == (3, layer.dimension)
        assert np.isfinite(np.asarray(said[layer.name])).all()
        # What is said already is not worth keeping twice.
        if layer.dimension == said["final"].shape[1]:
            assert not np.allclose(said[layer.name], said["final"], rtol=1e-3, atol=0)


NUMBERED = {
    "MobileNetV3Small": ("activation_5", "re_lu_3", "add_2"),
    "InceptionV3": ("activation_5", "conv2d_3", "batch_normalization_4"),
}


@pytest.mark.parametrize("name", mostly_slow(NUMBERED, *QUICK))
def test_a_name_that_keras_numbers_is_the_same_layer_in_any_process(name: str) -> None:
    import keras

    keras.backend.clear_session()  # as in a process which builds nothing else
    row, size, layers = APPLICATIONS[name], size_of(APPLICATIONS[name]), NUMBERED[name]
    network = built(row, size)
    draw_weights(network, 0)
    images = preprocessed(row, size)
    spec = BackboneSpec(name, weights="random", input_size=size, layers=layers)
    one, other = (build_model(spec)(PIXELS, training=False) for _ in range(2))
    named = {operation.name: operation.output for operation in network.operations}
    for layer in layers:
        maps = keras.Model(network.inputs, named[layer])
        expected = maps.predict(images.copy(), verbose=0).mean(axis=(1, 2))
        assert np.array_equal(one[layer], other[layer])
        assert difference(np.asarray(one[layer]), expected) <= 1e-5


def test_a_misspelt_layer_of_an_application_is_told_its_nearest() -> None:
    spec = BackboneSpec("MobileNetV3Small", weights="random", layers=("activaton_3",))
    with pytest.raises(BackboneError, match=r"Did you mean activation_3\?"):
        build_model(spec)


# ---- the command -----------------------------------------------------------------------------


def test_the_command_lists_every_network_without_tensorflow() -> None:
    code = (
        "import sys, json; from fer_features.cli.extract import main\n"
        "try: main.main(args=['--backbones'])\n"
        "except SystemExit as stop: print(json.dumps([stop.code, 'tensorflow' in sys.modules,"
        " 'keras' in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    *table, status = said.stdout.splitlines()
    assert json.loads(status) == [0, False, False]
    assert table[0].split() == ["network", "dimension", "input", "size", "least", "parameters"]
    rows = [line.split() for line in table[1 : 1 + len(APPLICATIONS)]]
    assert [row[0] for row in rows] == list(APPLICATIONS)
    assert ["InceptionResNetV2", "1,536", "139", "75", "54,336,736"] in rows


def test_the_command_lists_the_layers_of_a_network(tmp_path: Path) -> None:
    said = called("fer-extract", "--backbones", "vgg16", "--input-size", 96, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    lines = [line.split() for line in said.stdout.splitlines()]
    assert lines[0] == ["layer", "dimension", "map", "place"]
    assert [line[0] for line in lines[1:6]] == WORTH_KEEPING["VGG16"]
    assert lines[5][1:3] == ["512", "6x6"]
    assert "VGG16 at 96 pixels" in said.stdout
