"""The backbone: its identity, the Keras files it can be, and the model that it stands for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import TINY, called, noise_faces

from fer_features import BackboneSpec
from fer_features.embedding.backbone import check_files, fingerprint
from fer_features.embedding.engines import load_engine
from fer_features.embedding.network import (
    build_model,
    interpolation,
    layers_worth_keeping,
    load_network,
)
from fer_features.embedding.weights import inspect_keras_file, load_keras_file
from fer_features.errors import BackboneError

RANDOM = BackboneSpec(weights="random:0")
PIXELS = noise_faces(6, copies=False).pixels


def embedded(spec: BackboneSpec, pixels: np.ndarray = PIXELS) -> dict[str, np.ndarray]:
    said = build_model(spec)(pixels, training=False)
    return {name: np.asarray(values) for name, values in said.items()}


def close(one: np.ndarray, other: np.ndarray, share: float) -> bool:
    """Tell whether two arrays differ by a share of the largest number at most."""
    assert one.shape == other.shape
    return bool(np.abs(one - other).max() <= share * np.abs(other).max() > 0)


def fed(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return what a Keras file is given, by TensorFlow's own resizing: (n, size, size, 3)."""
    import tensorflow as tf

    images = pixels[..., None] if pixels.ndim == 3 else pixels
    images = tf.image.resize(images.astype(np.float32), (size, size)).numpy()
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def chain(keras: Any, side: int | None, end: str, sequential: bool = False) -> Any:
    """Build a small network of seeded weights that ends in a vector, a map or tokens."""
    layers = keras.layers
    parts = [
        keras.Input((side, side, 3)),
        layers.Rescaling(1 / 127.5, offset=-1.0),
        layers.Conv2D(8, 5, strides=4, activation="relu", name="one"),
        layers.BatchNormalization(name="bn"),
        layers.Conv2D(12, 3, padding="same", activation="gelu", name="two"),
    ]
    if end == "vector":
        parts.append(layers.GlobalAveragePooling2D())
    elif end == "tokens":
        parts.append(layers.Reshape((-1, 12)))
    if sequential:
        network = keras.Sequential(parts)
    else:
        x = parts[0]
        for part in parts[1:]:
            x = part(x)
        network = keras.Model(parts[0], x)
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.1, 0.6, w.shape) for w in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a network that takes any size."""
    import keras

    path = tmp_path_factory.mktemp("free") / "free.keras"
    chain(keras, None, "vector").save(path)
    return path


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a network that takes 32 pixels on a side and has a few kinds of layers."""
    import keras

    path = tmp_path_factory.mktemp("fixed") / "fixed.keras"
    layers = keras.layers
    images = keras.Input((32, 32, 3))
    one = layers.Conv2D(4, 3, padding="same", name="one")(images)
    two = layers.Activation("relu", name="two")(layers.Add(name="sum")([one, one + 1.0]))
    seen = layers.GlobalAveragePooling2D(name="pooled")(two)
    keras.Model(images, layers.Dense(5, name="end")(seen)).save(path)
    return path


# ---- identity --------------------------------------------------------------------------------


def test_equal_specs_have_equal_fingerprints_and_each_identity_field_matters() -> None:
    spec = BackboneSpec("VGG16", weights="random")
    assert spec == BackboneSpec("vgg16", weights="random:0") == BackboneSpec("VGG16", spec.weights)
    others = [
        replace(spec, backbone="VGG19"),
        replace(spec, weights="random:1"),
        replace(spec, weights="imagenet"),
        replace(spec, input_size=150),
        replace(spec, precision="int8"),
        replace(spec, precision="int8", quantised="0" * 64),
        replace(spec, precision="int8", quantised="1" * 64),
        replace(spec, image=(48, 48, 3)),
        replace(spec, image=(64, 48, 1)),
    ]
    assert len({spec.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert len({spec, *others}) == len(others) + 1
    version = {**spec.identity, "preprocessing": 2}
    assert fingerprint(version) != spec.fingerprint


def test_which_layers_are_kept_is_not_in_the_identity() -> None:
    spec = BackboneSpec("VGG16", layers=("block4_pool", "block5_conv3"))
    assert spec.fingerprint == BackboneSpec("VGG16").fingerprint
    assert spec.outputs == ("final", "block4_pool", "block5_conv3")


def test_the_identity_has_the_keys_of_its_written_form() -> None:
    keys = ["backbone", "weights", "input_size", "precision", "preprocessing", "image"]
    assert list(RANDOM.identity) == keys
    assert list(replace(RANDOM, precision="int8").identity) == keys
    int8 = replace(RANDOM, precision="int8", quantised="0" * 64)
    assert list(int8.identity) == [*keys, "quantised"]
    assert json.loads(json.dumps(RANDOM.identity)) == RANDOM.identity
    said = json.dumps(RANDOM.identity, sort_keys=True).encode()
    assert RANDOM.fingerprint == hashlib.sha256(said).hexdigest()


def test_the_default_is_the_originals_network_and_size() -> None:
    assert BackboneSpec().identity == {
        "backbone": "InceptionResNetV2",
        "weights": "imagenet",
        "input_size": 139,
        "precision": "float32",
        "preprocessing": 1,
        "image": [48, 48, 1],
    }


def test_every_field_survives_replacing_and_json(fixed: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "own.weights.h5"
    numbers.write_bytes(b"numbers")
    specs = [
        BackboneSpec(),
        TINY,
        BackboneSpec(
            "vgg16", str(numbers), 96, ["block4_pool"], "int8", [64, 48, 3], quantised="0" * 64
        ),
        BackboneSpec(str(fixed), layers="one,two"),
    ]
    for spec in specs:
        for other in (
            replace(spec),
            replace(replace(spec, image=(9, 9, 3)), image=spec.image),
            BackboneSpec(**json.loads(json.dumps(asdict(spec)))),
        ):
            assert other == spec
            assert asdict(other) == asdict(spec)  # the files too, which do not compare
            assert other.fingerprint == spec.fingerprint
    assert specs[2].files == {"weights": str(numbers)}
    assert specs[3].files == {"backbone": str(fixed)}
    assert specs[3].layers == ("one", "two")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("efficientnetv2b0", "EfficientNetV2B0"),
        ("RESNET50", "ResNet50"),
        ("vgg16", "VGG16"),
        ("Tiny", "tiny"),
    ],
)
def test_a_name_is_kept_as_keras_spells_it(given: str, kept: str) -> None:
    assert BackboneSpec(given, weights="random").backbone == kept


def test_a_misspelt_name_is_told_its_nearest_without_tensorflow() -> None:
    code = (
        "import sys; from fer_features import BackboneSpec\n"
        "try: BackboneSpec('EfficentNetB0')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout == (
        "BackboneError backbone 'EfficentNetB0': no network of Keras, expected a name such as "
        "InceptionResNetV2 or the path of a .keras file. Did you mean EfficientNetB0? "
        "fer-extract --backbones lists them.\nset()\n"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision": "float16"}, "precision: 'float16', expected 'float32' or 'int8'"),
        ({"preprocessing": 2}, "preprocessing: 2, expected 1"),
        ({"quantised": "0" * 64}, "quantised: expected with precision int8 alone"),
        ({"input_size": 74}, r"input_size: 74, expected a whole number of pixels from 75 to 2048"),
        ({"input_size": 2049}, "input_size: 2049, expected"),
        ({"input_size": True}, "input_size: True, expected"),
        ({"input_size": 96.0}, "input_size: 96.0, expected"),
        ({"image": (48, 48)}, r"image: \(48, 48\), expected height, width"),
        ({"image": (48, 48, 4)}, r"channels \(1 or 3\)"),
        ({"image": (0, 48, 1)}, r"image: \(0, 48, 1\)"),
        ({"layers": ("final",)}, "layer 'final': .*final is always kept. Leave it out"),
        ({"layers": "one,,two"}, "layer '': .*found none between two commas"),
        ({"layers": ("a/b",)}, "layer 'a/b': .*Rename the layer"),
        ({"layers": ("a+b",)}, r"layer 'a\+b'"),
        ({"backbone": "a" * 5000}, "no network of Keras"),
        ({"backbone": "a\0b"}, "no network of Keras"),
        ({"backbone": "a\0b.keras"}, "cannot be read as a .keras file"),
        ({"backbone": ""}, "no .keras file|no network of Keras"),
    ],
)
def test_a_spec_of_unknown_values_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BackboneError, match=said) as caught:
        BackboneSpec(**{"weights": "random", **values})
    assert "\n" not in str(caught.value)


# ---- the model -------------------------------------------------------------------------------

SIDES = (1, 2, 3, 7, 32, 48, 100, 224)


@pytest.mark.parametrize("side", SIDES)
def test_interpolation_equals_tensorflows_resizing(side: int) -> None:
    import tensorflow as tf

    for size in (1, 2, 5, 31, 48, 96, 139, 224, 299):
        unit = np.eye(side, dtype=np.float32)[None, :, :, None]
        expected = tf.image.resize(unit, (size, side)).numpy()[0, :, :, 0]
        assert np.abs(interpolation(side, size) - expected).max() <= 1e-6
        assert np.allclose(interpolation(side, size).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("form", [(48, 48), (7, 61), (48, 48, 3), (50, 33, 3), (24, 24), (1, 1, 3)])
def test_faces_of_any_form_are_resized_as_tensorflow_does(
    form: tuple[int, ...], tmp_path: Path
) -> None:
    import keras

    # What this network says are the pixels that it was given.
    network = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.Flatten()])
    network.save(tmp_path / "pixels.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (5, *form), dtype=np.uint8)
    image = form if len(form) == 3 else (*form, 1)
    said = embedded(BackboneSpec(str(tmp_path / "pixels.keras"), image=image), pixels)["final"]
    assert said.dtype == np.float32
    assert np.abs(said - fed(pixels, 24).reshape(5, -1)).max() <= 1e-6 * 255


@pytest.mark.parametrize("end", ["vector", "map", "tokens"])
@pytest.mark.parametrize("side", [32, None])
@pytest.mark.parametrize("sequential", [False, True])
def test_a_keras_file_computes_what_keras_does_of_faces_from_0_to_255(
    tmp_path: Path, end: str, side: int | None, sequential: bool
) -> None:
    import keras

    network = chain(keras, side, end, sequential)
    network.save(tmp_path / "own.keras")
    spec = BackboneSpec(str(tmp_path / "own.keras"), layers=("one", "bn"))
    assert spec.input_size == (side or 224)
    assert spec.weights is None
    said = embedded(spec)
    images = fed(PIXELS, spec.input_size)
    expected = network.predict(images, verbose=0)
    expected = expected.mean(axis=tuple(range(1, expected.ndim - 1)))
    assert close(said["final"], expected, 1e-5)
    for name in ("one", "bn"):
        inner = keras.Model(network.inputs, network.get_layer(name).output)
        assert close(said[name], inner.predict(images, verbose=0).mean(axis=(1, 2)), 1e-5)


def test_a_network_built_by_its_first_batch_takes_any_number_of_faces(tmp_path: Path) -> None:
    import keras

    network = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    network(np.zeros((2, 16, 16, 3), np.float32))
    network.save(tmp_path / "late.keras")
    spec = BackboneSpec(str(tmp_path / "late.keras"))
    assert spec.input_size == 16
    assert close(embedded(spec)["final"], network.predict(fed(PIXELS, 16), verbose=0), 1e-5)


@pytest.mark.parametrize("size", [32, 75, 301])
def test_a_file_of_any_size_is_given_the_size_asked_for(free: Path, size: int) -> None:
    import keras

    spec = BackboneSpec(str(free), input_size=size)
    expected = keras.models.load_model(free).predict(fed(PIXELS, size), verbose=0)
    assert close(embedded(spec)["final"], expected, 1e-5)


def test_a_size_that_a_file_cannot_take_is_refused(free: Path) -> None:
    said = "input_size: free cannot take images of 2x2. Pass another --input-size"
    with pytest.raises(BackboneError, match=said):
        build_model(BackboneSpec(str(free), input_size=2))
    with pytest.raises(BackboneError, match=said):
        layers_worth_keeping(BackboneSpec(str(free), input_size=2))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("nested", [False, True])
def test_float32_means_float32_whatever_policy_a_file_was_saved_under(
    tmp_path: Path, policy: str, nested: bool
) -> None:
    import keras

    def built() -> Any:
        network = chain(keras, 32, "vector", sequential=nested)
        if not nested:
            return network
        images = keras.Input((32, 32, 3))
        return keras.Model(images, keras.layers.Dense(6)(network(images)))

    twin = built()
    keras.config.set_dtype_policy(policy)
    try:
        network = built()
    finally:
        keras.config.set_dtype_policy("float32")
    network.set_weights(twin.get_weights())
    network.save(tmp_path / "mixed.keras")
    said = embedded(BackboneSpec(str(tmp_path / "mixed.keras")))["final"]
    assert said.dtype == np.float32
    assert close(said, twin.predict(fed(PIXELS, 32), verbose=0), 1e-6)


@pytest.mark.parametrize(
    "setting",
    [
        lambda config: config.set_dtype_policy("mixed_float16"),
        lambda config: config.set_floatx("float16"),
        lambda config: config.set_image_data_format("channels_first"),
    ],
)
def test_a_programs_own_settings_change_nothing_and_are_given_back(
    free: Path, setting: Callable[[Any], None]
) -> None:
    import keras

    config = keras.config
    specs = [BackboneSpec(str(free), input_size=32), TINY]
    expected = [embedded(spec)["final"] for spec in specs]
    try:
        setting(config)
        mine = config.dtype_policy().name, config.floatx(), config.image_data_format()
        models = [build_model(spec) for spec in specs]
        assert mine == (config.dtype_policy().name, config.floatx(), config.image_data_format())
    finally:
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
        config.set_image_data_format("channels_last")
    for model, values in zip(models, expected, strict=True):
        assert np.array_equal(np.asarray(model(PIXELS, training=False)["final"]), values)


def test_random_weights_depend_on_the_seed_alone() -> None:
    import keras

    keras.utils.set_random_seed(1)
    one = load_network(TINY, None).get_weights()
    keras.utils.set_random_seed(2)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    again = load_network(TINY, None).get_weights()
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert all(map(np.array_equal, one, again))
    other = load_network(replace(TINY, weights="random:1"), None).get_weights()
    assert not any(np.allclose(a, b) for a, b in zip(one, other, strict=True) if a.ndim == 4)


def test_random_embeddings_tell_faces_apart() -> None:
    values = embedded(TINY)["final"]
    assert np.isfinite(values).all()
    assert 0.01 < np.abs(values).max() < 100
    assert values.std(axis=0).max() > 0.01 * np.abs(values).max()


# ---- Keras files: identity, and what is refused ----------------------------------------------


def test_a_keras_file_is_identified_by_its_content(fixed: Path, tmp_path: Path) -> None:
    spec = BackboneSpec(str(fixed))
    assert spec.backbone == f"sha256:{hashlib.sha256(fixed.read_bytes()).hexdigest()}"
    assert spec.name == "fixed"
    copy = BackboneSpec(str(shutil.copy(fixed, tmp_path / "elsewhere.KERAS")))
    assert copy == spec
    assert copy.fingerprint == spec.fingerprint
    with zipfile.ZipFile(tmp_path / "elsewhere.KERAS", "a") as archive:
        archive.writestr("more", "bytes")
    other = BackboneSpec(str(tmp_path / "elsewhere.KERAS"))
    assert other.fingerprint != spec.fingerprint


def test_a_relative_path_is_kept_whole(
    fixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fixed.parent)
    spec = BackboneSpec("fixed.keras")
    monkeypatch.chdir(tmp_path)
    assert check_files(spec) == fixed


def test_where_the_file_of_an_identity_lies_must_be_known(fixed: Path) -> None:
    spec = BackboneSpec(BackboneSpec(str(fixed)).backbone, input_size=32)
    with pytest.raises(BackboneError, match=r"where the file lies is not known\. Pass it as --ba"):
        build_model(spec)


@pytest.mark.parametrize("same_size", [False, True])
def test_a_file_that_was_replaced_since_is_refused(
    fixed: Path, tmp_path: Path, same_size: bool
) -> None:
    path = Path(shutil.copy(fixed, tmp_path / "own.keras"))
    spec = BackboneSpec(str(path))
    status = path.stat()
    new = tmp_path / "new.keras"
    shutil.copy(fixed, new)
    with zipfile.ZipFile(new, "a") as archive:
        if same_size:
            archive.comment = b""
        else:
            archive.writestr("more", "bytes")
    if same_size:
        content = bytearray(new.read_bytes())
        at = content.index(b"metadata.json") + 13 + 20  # a byte of what is not read
        content[at] ^= 1
        new.write_bytes(content)
    new.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size == status.st_size) is same_size
    with pytest.raises(BackboneError, match=r"own\.keras: sha256:.*, expected sha256:.*same file"):
        build_model(spec)


def save(path: Path, network: Any) -> None:
    network.save(path)


def _inputs_and_outputs(path: Path, inputs: int, outputs: int) -> None:
    import keras

    images = [keras.Input((32, 32, 3)) for _ in range(inputs)]
    seen = [keras.layers.Conv2D(4, 3)(each) for each in images]
    joined = keras.layers.Add()(seen) if inputs > 1 else seen[0]
    save(path, keras.Model(images, [joined] * outputs if outputs > 1 else joined))


def _input(path: Path, shape: tuple[int | None, ...], dtype: str = "float32") -> None:
    import keras

    images = keras.Input(shape, dtype=dtype)
    first = "channels_first" if shape[0] == 3 else "channels_last"
    flat = keras.layers.GlobalAveragePooling2D(data_format=first)
    save(path, keras.Model(images, flat(keras.ops.cast(images, "float32"))))


def _layer_of_another_package(path: Path) -> None:
    import keras

    @keras.saving.register_keras_serializable("theirs")
    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    save(path, keras.Sequential([keras.Input((32, 32, 3)), Twice()]))


def _function_of_another_package(path: Path) -> None:
    import keras

    def swoosh(x: Any) -> Any:
        return x * 2

    layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, activation=swoosh)]
    save(path, keras.Sequential(layers))


def _lambda(path: Path) -> None:
    import keras

    layers = [keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x * 2)]
    save(path, keras.Sequential(layers))


def _cut(path: Path) -> None:
    _input(path, (32, 32, 3))
    path.write_bytes(path.read_bytes()[:-100])


def _without_configuration(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model_weights"] = np.ones(3)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "two inputs": (partial(_inputs_and_outputs, inputs=2, outputs=1), "2 inputs, expected one"),
    "two outputs": (partial(_inputs_and_outputs, inputs=1, outputs=2), "2 outputs, expected one"),
    "grey": (partial(_input, shape=(32, 32, 1)), r"takes float32 \(any, 32, 32, 1\), expected"),
    "four channels": (partial(_input, shape=(32, 32, 4)), r"float32 \(any, 32, 32, 4\)"),
    "channels first": (partial(_input, shape=(3, 32, 32)), r"float32 \(any, 3, 32, 32\).*ls last"),
    "uint8": (partial(_input, shape=(32, 32, 3), dtype="uint8"), r"takes uint8 \(any, 32, 32, 3"),
    "not square": (partial(_input, shape=(32, 48, 3)), r"of \(32, 48\), expected square ones"),
    "half free": (partial(_input, shape=(32, None, 3)), r"of \(32, any\), expected square ones"),
    "custom layer": (_layer_of_another_package, r"needs code that is not in the file \(theirs>Tw"),
    "custom function": (_function_of_another_package, r"not in the file \(swoosh\)"),
    "lambda": (_lambda, r"not in the file \(Lambda\)"),
    "no zip": (lambda path: path.write_text("no zip"), "cannot be read as a .keras file .*File is"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a .keras file"),
    "cut": (_cut, "cannot be read as a .keras file .*cut short"),
    "no configuration": (_without_configuration, "no item named 'config.json'"),
    "HDF5": (_h5, "cannot be read as a .keras file .*another format: save the network with"),
    "folder": (Path.mkdir, r"cannot be read \(Is a directory\)"),
    "missing": (lambda path: None, "no such file, expected a network that Keras wrote"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_serve_is_refused_with_what_it_has(kind: str, tmp_path: Path) -> None:
    write, said = REFUSED[kind]
    path = tmp_path / "theirs.keras"
    write(path)
    with pytest.raises(BackboneError, match=said) as caught:
        BackboneSpec(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_model_in_the_old_format_is_refused_with_how_to_save_it(tmp_path: Path) -> None:
    _h5(tmp_path / "model.h5")
    with pytest.raises(BackboneError, match=r"no \.keras file, .*model\.save\('NAME\.keras'\)"):
        BackboneSpec(str(tmp_path / "model.h5"))


def test_weights_beside_a_keras_file_are_refused(fixed: Path) -> None:
    for weights in ("imagenet", "random", "own.weights.h5"):
        with pytest.raises(BackboneError, match=rf"weights {weights}: .*Leave --weights out"):
            BackboneSpec(str(fixed), weights=weights)


def test_another_size_than_a_files_own_is_refused(fixed: Path) -> None:
    with pytest.raises(BackboneError, match=r"48, expected 32: fixed takes images of 32x32 alone"):
        BackboneSpec(str(fixed), input_size=48)
    assert BackboneSpec(str(fixed), input_size=32) == BackboneSpec(str(fixed))


def rewrite(path: Path, new: Path, config: str) -> Path:
    """Copy a Keras file with another config.json."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in old.infolist():
            archive.writestr(item, config if item.filename == "config.json" else old.read(item))
    return new


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize(
    "config",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '"' + "x" * 70_000_000 + '"',
        "",
        "null",
        "[]",
        "{}",
        "\ud83d".encode("utf-8", "surrogatepass").decode("latin-1"),
        '{"config": null}',
        '{"config": {"layers": [{"class_name": "InputLayer"}]}}',
    ],
    ids=[
        "deep list",
        "deep dict",
        "huge",
        "empty",
        "null",
        "list",
        "dict",
        "bytes",
        "none",
        "bare",
    ],
)
def test_a_hostile_configuration_is_refused_in_one_line(
    fixed: Path, tmp_path: Path, config: str
) -> None:
    path = rewrite(fixed, tmp_path / "hostile.keras", config)
    with pytest.raises(BackboneError, match=r"hostile\.keras: cannot be read") as caught:
        BackboneSpec(str(path))
    assert len(str(caught.value)) < 500 + len(str(path))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where each part of a configuration is, from the outermost inwards."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, part in parts:
        found.append((*at, key))
        if isinstance(part, dict | list):
            found += places(part, (*at, key))
    return found


def damaged(config: Any) -> list[str]:
    """Return a configuration with each of its parts replaced by each of a few values, or gone."""
    found = []
    for *way, last in places(config):
        for value in (None, 0, 2.5, "x", [], {}, [None] * 4, True):
            new = json.loads(json.dumps(config))
            inner = new
            for key in way:
                inner = inner[key]
            if value is True:
                del inner[last]
            else:
                inner[last] = value
            found.append(json.dumps(new))
    return found


def refusal(action: Callable[[], object]) -> str | None:
    """Return what an action is refused with; None where it is not."""
    try:
        action()
    except BackboneError as error:
        return str(error)
    return None


def test_whatever_a_configuration_says_it_is_refused_or_builds(fixed: Path, tmp_path: Path) -> None:
    configs = damaged(config_of(fixed))
    assert len(configs) > 1000
    taken, path = [], tmp_path / "damaged.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    for config in configs:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", config)
        said = refusal(lambda: BackboneSpec(str(path)))
        if said is None:
            taken.append(config)
        else:
            assert "\n" not in said
    # Some are as good as the whole one; of the others Keras must say what is wrong with them.
    assert 0 < len(taken) < len(configs)
    for config in taken[:: max(1, len(taken) // 10)]:
        spec = BackboneSpec(str(rewrite(fixed, path, config)))
        for use in (build_model, layers_worth_keeping):
            assert "\n" not in (refusal(partial(use, spec)) or "")


def test_a_file_whose_compressed_bytes_are_damaged_is_refused(fixed: Path, tmp_path: Path) -> None:
    path = rewrite(fixed, tmp_path / "damaged.keras", json.dumps(config_of(fixed)))
    with zipfile.ZipFile(path) as archive:
        item = archive.getinfo("config.json")
        start = item.header_offset + 30 + len(item.filename)
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"damaged\.keras: cannot be read as a \.keras file"):
        BackboneSpec(str(path))


def test_a_file_without_its_weights_is_refused(fixed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bare.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config_of(fixed)))
        archive.writestr("metadata.json", "{}")
    spec = BackboneSpec(str(tmp_path / "bare.keras"))
    with pytest.raises(BackboneError, match=r"bare\.keras: Keras \S+ cannot load it"):
        build_model(spec)


# ---- layers ----------------------------------------------------------------------------------


def test_every_listed_layer_of_a_file_can_be_kept(fixed: Path) -> None:
    found = layers_worth_keeping(BackboneSpec(str(fixed)))
    assert [layer.name for layer in found] == ["one", "two"]
    assert [layer.dimension for layer in found] == [4, 4]
    spec = BackboneSpec(str(fixed), layers=tuple(layer.name for layer in found))
    said = embedded(spec)
    assert list(said) == ["final", "one", "two"]
    assert [values.shape for values in said.values()] == [(6, 5), (6, 4), (6, 4)]


def test_the_maps_of_a_file_of_any_size_are_those_of_the_size_asked_for(tmp_path: Path) -> None:
    import keras

    images = maps = keras.Input((None, None, 3))
    for name in ("one", "two", "three"):
        maps = keras.layers.Conv2D(4, 3, strides=2, padding="same", name=name)(maps)
    keras.Model(images, maps).save(tmp_path / "free.keras")
    for size in (224, 32):
        found = layers_worth_keeping(BackboneSpec(str(tmp_path / "free.keras"), input_size=size))
        assert [(layer.name, layer.size) for layer in found] == [
            ("one", (size // 2, size // 2)),
            ("two", (size // 4, size // 4)),
        ]  # the third is the output


def test_a_misspelt_layer_is_told_its_nearest(fixed: Path) -> None:
    spec = BackboneSpec(str(fixed), layers=("pooledd",))
    with pytest.raises(
        BackboneError,
        match=r"layer 'pooledd': \S+ has none of that name\. Did you mean pooled\? fer-extract "
        r"--backbones NAME\|FILE\.keras lists its layers",
    ):
        build_model(spec)


def test_a_layer_that_is_used_twice_is_refused(tmp_path: Path) -> None:
    import keras

    images, layer = keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1, name="shared")
    keras.Model(images, layer(layer(images))).save(tmp_path / "twice.keras")
    with pytest.raises(BackboneError, match="layer 'shared': used several times"):
        build_model(BackboneSpec(str(tmp_path / "twice.keras"), layers=("shared",)))


def test_an_output_that_has_nothing_to_average_is_refused(tmp_path: Path) -> None:
    import keras

    images = keras.Input((16, 16, 3))
    maps = keras.layers.Reshape((4, 4, 16, 3), name="blocks")(images)
    keras.Model(images, keras.layers.Flatten()(maps)).save(tmp_path / "blocks.keras")
    with pytest.raises(BackboneError, match=r"output 'blocks': of shape \(None, 4, 4, 16, 3\)"):
        build_model(BackboneSpec(str(tmp_path / "blocks.keras"), layers=("blocks",)))


def test_the_command_lists_the_layers_of_a_file(fixed: Path, free: Path, tmp_path: Path) -> None:
    said = called("fer-extract", "--backbones", fixed, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0].split() == ["layer", "dimension", "map", "place"]
    assert [line.split()[:3] for line in lines[1:-2]] == [
        ["one", "4", "32x32"],
        ["two", "4", "32x32"],
    ]
    assert lines[-1] == "fixed at 32 pixels; keep some with --layers NAME,NAME."
    said = called("fer-extract", "--backbones", free, "--input-size", 32, cwd=tmp_path)
    assert said.stdout.startswith("free: no layer to name")


# ---- a real network --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_file() -> Path:
    path = os.environ.get("BACKBONE_KERAS")
    if not path:
        pytest.skip("BACKBONE_KERAS names no .keras file of a trained network")
    return Path(path)


def test_a_trained_network_computes_what_keras_does(real_file: Path) -> None:
    import keras

    spec = BackboneSpec(str(real_file))
    layers = [layer.name for layer in layers_worth_keeping(spec)]
    assert len(layers) >= 3
    spec = replace(spec, layers=tuple(layers[-3:]))
    said = embedded(spec)
    network = keras.models.load_model(real_file, compile=False)
    images = fed(PIXELS, spec.input_size)
    for name, values in said.items():
        tapped = network if name == "final" else None
        tapped = tapped or keras.Model(network.inputs, network.get_layer(name).output)
        expected = tapped.predict(images, verbose=0)
        expected = expected.mean(axis=tuple(range(1, expected.ndim - 1)))
        assert close(values, expected, 1e-5)


def test_inspecting_a_file_says_what_loading_it_shows(free: Path, fixed: Path) -> None:
    for path in (free, fixed):
        found = inspect_keras_file(path)
        assert load_keras_file(path).input_shape == (None, found.side, found.side, 3)


# ---- networks that others built ----------------------------------------------------------------


def test_a_network_saved_under_a_mixed_policy_keeps_its_adapted_normalization(
    tmp_path: Path,
) -> None:
    import keras

    images = keras.Input((16, 16, 3))
    normalised = keras.layers.Normalization(name="norm")
    normalised.adapt(np.random.default_rng(0).uniform(100, 200, (8, 16, 16, 3)))
    maps = keras.layers.Conv2D(4, 3, name="conv")(normalised(images))
    plain = keras.Model(images, maps)
    plain.save(tmp_path / "plain.keras")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Normalization(name="norm"),
                                  keras.layers.Conv2D(4, 3, name="conv")])  # fmt: skip
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(plain.get_weights())
    mixed.save(tmp_path / "mixed.keras")
    said = {
        name: np.asarray(build_model(BackboneSpec(str(tmp_path / name)))(PIXELS)["final"])
        for name in ("plain.keras", "mixed.keras")
    }
    assert said["plain.keras"].std() > 0
    assert np.allclose(said["mixed.keras"], said["plain.keras"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_a_layer_whose_output_is_the_networks_has_it_under_both_names(
    engine: str, tmp_path: Path
) -> None:
    import keras

    images = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="gap")(keras.layers.Conv2D(4, 3)(images))
    keras.Model(images, keras.layers.Dropout(0.5)(pooled)).save(tmp_path / "drop.keras")
    spec = BackboneSpec(str(tmp_path / "drop.keras"), layers=("gap",))
    for _ in range(2):  # converted, and read
        said = load_engine(spec, spec.outputs, engine, tmp_path)(PIXELS)
        assert list(said) == ["final", "gap"]
        assert np.array_equal(said["final"], said["gap"])


def test_a_network_may_have_operations_of_any_name(tmp_path: Path) -> None:
    """In a process of its own: Keras numbers names through all that a process builds."""
    import keras

    images = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(4, 3, name="cast")(images)
    pooled = keras.ops.mean(maps, axis=(1, 2), keepdims=True)
    keras.Model(images, pooled).save(tmp_path / "named.keras")
    code = (
        "import numpy as np; from fer_features import BackboneSpec\n"
        "from fer_features.embedding.network import build_model\n"
        "model = build_model(BackboneSpec('named.keras', layers=('cast',)))\n"
        "print(sorted(model(np.zeros((2, 48, 48), 'u1'))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert said.stdout == "['cast', 'final']\n", said.stderr[-500:]


def test_what_openvino_cannot_convert_is_told_the_other_engine(tmp_path: Path) -> None:
    import keras

    images = keras.Input((32, 32, 3))
    small = keras.layers.Resizing(16, 16, antialias=True)(images)
    keras.Model(images, keras.layers.Conv2D(4, 3)(small)).save(tmp_path / "aa.keras")
    spec = BackboneSpec(str(tmp_path / "aa.keras"))
    with pytest.raises(BackboneError, match=r"aa: OpenVINO cannot convert .*--engine tensorflow"):
        load_engine(spec, spec.outputs, "openvino", tmp_path)
    assert load_engine(spec, spec.outputs, "tensorflow", tmp_path)(PIXELS)["final"].std() > 0


def test_keras_epsilon_is_its_own_whatever_a_program_has_set(tmp_path: Path) -> None:
    import keras

    images = keras.Input((16, 16, 3))
    keras.Model(images, keras.layers.Normalization(mean=0.0, variance=1e-4)(images)).save(
        tmp_path / "norm.keras"
    )
    spec = BackboneSpec(str(tmp_path / "norm.keras"))
    usual = load_engine(spec, spec.outputs, "tensorflow", tmp_path)(PIXELS)["final"]
    before = keras.config.epsilon()
    keras.config.set_epsilon(0.5)
    try:
        said = load_engine(spec, spec.outputs, "tensorflow", tmp_path)(PIXELS)["final"]
        assert keras.config.epsilon() == 0.5
    finally:
        keras.config.set_epsilon(before)
    assert np.array_equal(said, usual)


def test_a_file_that_is_not_there_leaves_its_size_unknown() -> None:
    with pytest.raises(BackboneError, match="input_size: not known without the file"):
        BackboneSpec("sha256:" + "0" * 64)
    assert BackboneSpec("sha256:" + "0" * 64, input_size=48).input_size == 48


def test_parameters_are_counted_without_loading_the_network(tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Normalization(),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),  # its generator's state is no parameter
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    network.compile("adam", "mse")  # nor is what an optimizer remembers
    network.fit(np.zeros((2, 32, 32, 3)), np.zeros((2, 2)), verbose=0)
    network.save(tmp_path / "own.keras")
    spec = BackboneSpec(str(tmp_path / "own.keras"))
    assert spec.parameters == network.count_params()
    (tmp_path / "own.keras").unlink()
    assert spec.parameters is None
    assert TINY.parameters == load_network(TINY, None).count_params()
    assert BackboneSpec("MobileNetV2").parameters == 2_257_984  # a test holds these against Keras
