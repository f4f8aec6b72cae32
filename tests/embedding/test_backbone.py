"""The backbone: its identity, its weights, and that it computes what the original did."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import BackboneSpec
from fer_features.embedding import weights as weights_files
from fer_features.embedding.backbone import build_network, check_weights
from fer_features.embedding.engines import load_engine
from fer_features.errors import WeightsError

PIXELS = noise_faces(6, copies=False).pixels


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of the real network in both of Keras's layouts, written by Keras."""
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    folder = tmp_path_factory.mktemp("weights")
    network = build_network(BackboneSpec(weights="random:3"))
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Trained statistics are not 0 and 1, and folding them must not depend on that.
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.beta.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.beta.shape))
    network.save_weights(folder / "new.weights.h5")
    with h5py.File(folder / "legacy_notop.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
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
    ("engine", "name"), [("tensorflow", "legacy_notop.h5"), ("openvino", "new.weights.h5")]
)
def test_embeddings_equal_the_original_preprocessing_and_keras_network(
    weights_dir: Path, original: np.ndarray, engine: str, name: str
) -> None:
    spec = BackboneSpec(weights=str(weights_dir / name))
    embeddings = load_engine(spec, engine, weights_dir)(PIXELS)
    assert embeddings.shape == (6, 1536)
    assert embeddings.dtype == np.float32
    # Engines are held to 1e-5 of each other, so each to half of that of the original.
    assert np.abs(embeddings - original).max() <= 5e-6 * np.abs(original).max()
    assert embeddings.std(axis=0).max() > 0


def test_a_weights_file_is_identified_by_its_content(weights_dir: Path, tmp_path: Path) -> None:
    one = weights_dir / "legacy_notop.h5"
    other = tmp_path / "copy.h5"
    other.write_bytes(one.read_bytes())
    assert BackboneSpec(weights=str(one)) == BackboneSpec(weights=str(other))
    assert BackboneSpec(weights=str(one)).fingerprint != BackboneSpec().fingerprint
    assert BackboneSpec(weights=str(one)).weights.startswith("sha256:")


def test_a_weights_file_cut_short_is_refused(weights_dir: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut_notop.h5"
    cut.write_bytes((weights_dir / "legacy_notop.h5").read_bytes()[:50_000_000])
    with pytest.raises(WeightsError, match=r"cut_notop\.h5: cannot be read .* download it again"):
        check_weights(BackboneSpec(weights=str(cut)))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    build_network(TINY).save_weights(path)
    with pytest.raises(WeightsError, match=r"8 arrays .* expected 896 with 54,336,736"):
        check_weights(BackboneSpec(weights=str(path)))


def test_weights_that_are_not_finite_are_refused(weights_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "nan_notop.h5"
    path.write_bytes((weights_dir / "legacy_notop.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        file[names[400]][...] = np.nan
    with pytest.raises(WeightsError, match="not finite"):
        check_weights(BackboneSpec(weights=str(path)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("imagnet", "Did you mean imagenet"),
        ("random:x", r"random:x: no seed, expected a whole number such as random:1"),
        ("missing.h5", r"missing\.h5: No such file"),
    ],
)
def test_unknown_weights_are_refused_with_what_is_known(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        BackboneSpec(weights=weights)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("weights")
    with pytest.raises(WeightsError, match=r"text\.h5: cannot be read as an HDF5"):
        check_weights(BackboneSpec(weights=str(tmp_path / "text.h5")))


def test_without_a_network_imagenet_fails_in_seconds_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from fer_features.embedding.weights import find_imagenet\n"
        "try: find_imagenet()\n"
        "except Exception as error: print(type(error).__name__, error, 'tensorflow' in sys.modules)"
    )
    # Port 9 of this machine refuses connections, which is what no network looks like.
    env = {**os.environ, "KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert said.stdout.startswith("WeightsError ImageNet weights: cannot be downloaded")
    assert f"{tmp_path}/models, or pass its path as --weights FILE" in said.stdout
    assert said.stdout.endswith("False\n")


def test_a_damaged_download_of_imagenet_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = weights_files.imagenet_path()
    path.parent.mkdir()
    path.write_bytes(b"not the weights")
    with pytest.raises(WeightsError, match="not the published ImageNet weights"):
        check_weights(BackboneSpec())


def test_equal_specs_have_equal_fingerprints_and_each_field_matters() -> None:
    spec = BackboneSpec(weights="random:0")
    assert spec == BackboneSpec(weights="random") == BackboneSpec(weights=spec.weights)
    others = [
        BackboneSpec(weights="random:1"),
        BackboneSpec(weights="imagenet"),
        BackboneSpec(weights="random:0", input_size=150),
        TINY,
    ]
    assert len({spec.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("architecture", "vgg"), ("pooling", "max"), ("precision", "float16"), ("input_size", 48)],
)
def test_a_spec_of_unknown_values_is_refused(field: str, value: object) -> None:
    with pytest.raises(WeightsError, match=f"{field}: {value!r}, expected"):
        BackboneSpec(weights="random", **{field: value})


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    import keras

    def embedded(seed: int) -> np.ndarray:
        spec = BackboneSpec(weights=f"random:{seed}", architecture="tiny")
        return load_engine(spec, "tensorflow", tmp_path)(PIXELS)

    keras.utils.set_random_seed(1)
    one = embedded(0)
    keras.utils.set_random_seed(2)
    assert np.array_equal(embedded(0), one)
    assert not np.allclose(embedded(1), one)


def test_random_weights_of_another_keras_are_refused() -> None:
    with pytest.raises(WeightsError, match="drawn by another Keras"):
        check_weights(BackboneSpec(weights="random:0@keras-2.0.0"))
