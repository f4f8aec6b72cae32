"""The frozen network: which one it is (BackboneSpec), and how it is built.

Preprocessing is part of the network's graph, so every engine, the store and a prediction on a
new photo share one definition: uint8 48x48 pixels in, embedding out.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from fer_features.embedding import weights as weights_files
from fer_features.errors import WeightsError
from fer_features.slow import import_keras, import_tensorflow

DIMENSIONS = {"inception_resnet_v2": 1536, "tiny": 16}
"""Length of the embedding by architecture."""

PREPROCESSING = 1
"""Version of :func:`preprocess`; a change to its numbers must raise it."""


@dataclass(frozen=True)
class BackboneSpec:
    """Identity of a frozen network: whatever changes the embeddings, and nothing else.

    Parameters
    ----------
    weights : str
        ``"imagenet"``; ``"random"`` or ``"random:SEED"``; or the path of a weights file in
        Keras's layout (``..._notop.h5`` or ``.weights.h5``). Kept in its identified form:
        ``"imagenet"`` (also for a file that is the published one), ``"random:0@keras-3.5.0"``,
        ``"sha256:HEX"``.
    architecture : str
        ``"inception_resnet_v2"`` (Szegedy et al., "Inception-v4, Inception-ResNet and the Impact
        of Residual Connections on Learning", 2016; the Keras application of that name), or
        ``"tiny"``: three seeded convolutions, for tests.
    input_size : int
        Height and width, in pixels, that faces are resized to; at least 75.
    pooling : str
        ``"avg"``: global average pooling.
    precision : str
        ``"float32"``, or ``"int8"``: quantised after training, on OpenVINO alone.
    preprocessing : int
        Version of the preprocessing formula.
    quantised : str, optional
        Hex sha256 of the quantised network, which is part of its identity; the pass fills it in.

    Raises
    ------
    WeightsError
        When a value is not one of those above, or the weights file does not exist.
    """

    weights: str = "imagenet"
    architecture: str = "inception_resnet_v2"
    input_size: int = 139
    pooling: str = "avg"
    precision: str = "float32"
    preprocessing: int = PREPROCESSING
    quantised: str | None = None
    weights_file: Path | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[Any, ...]] = {
            "architecture": tuple(DIMENSIONS),
            "pooling": ("avg",),
            "precision": ("float32", "int8"),
            "preprocessing": (PREPROCESSING,),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                expected = " or ".join(repr(value) for value in values)
                raise WeightsError(f"{name}: {getattr(self, name)!r}, expected {expected}.")
        if not isinstance(self.input_size, int) or self.input_size < 75:
            raise WeightsError(
                f"input_size: {self.input_size!r}, expected a whole number of at least 75 pixels."
            )
        if self.quantised is not None and self.precision != "int8":
            raise WeightsError("quantised: expected with precision int8 alone.")
        identified, file = _identify_weights(str(self.weights))
        if self.architecture == "tiny" and not identified.startswith("random:"):
            raise WeightsError(f"weights: {self.weights!r}, expected random:SEED for 'tiny'.")
        object.__setattr__(self, "weights", identified)
        object.__setattr__(self, "weights_file", file)

    @property
    def dimension(self) -> int:
        """Length d of one embedding."""
        return DIMENSIONS[self.architecture]

    @property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint is taken of, as the store keeps it."""
        identity: dict[str, Any] = {
            "architecture": self.architecture,
            "weights": self.weights,
            "input_size": self.input_size,
            "pooling": self.pooling,
            "precision": self.precision,
            "preprocessing": self.preprocessing,
        }
        return identity if self.quantised is None else {**identity, "quantised": self.quantised}

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the identity's JSON with sorted keys."""
        return fingerprint(self.identity)

    def with_precision(self, precision: str, quantised: str | None = None) -> "BackboneSpec":
        """Return the same network in another precision."""
        other = replace(self, precision=precision, quantised=quantised)
        object.__setattr__(other, "weights_file", self.weights_file)
        return other

    @property
    def seed(self) -> int | None:
        """Seed of random weights; None for trained ones."""
        found = re.fullmatch(r"random:(\d+)@.*", self.weights)
        return int(found[1]) if found else None


def fingerprint(identity: dict[str, Any]) -> str:
    """Return the hex sha256 of a backbone identity's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _identify_weights(weights: str) -> tuple[str, Path | None]:
    """Turn what a user passes for weights into its identified form, and its file if it has one."""
    if weights == "imagenet" or re.fullmatch(r"random:\d+@keras-\S+|sha256:[0-9a-f]{64}", weights):
        return weights, None
    random = re.fullmatch(r"random(?::(\d+))?", weights)
    if random:
        return f"random:{int(random[1] or 0)}@keras-{metadata.version('keras')}", None
    sha256 = weights_files.file_sha256(Path(weights))
    if sha256 == weights_files.IMAGENET_SHA256:
        return "imagenet", Path(weights)
    return f"sha256:{sha256}", Path(weights)


def check_weights(spec: BackboneSpec) -> Path | None:
    """Return the checked weights file that ``spec`` needs; None for random weights.

    Takes seconds at most and does not import TensorFlow unless ImageNet's weights must be
    downloaded.

    Raises
    ------
    WeightsError
        When the file is missing, cut short, of another architecture, or cannot be downloaded.
    """
    if spec.seed is not None:
        installed = f"@keras-{metadata.version('keras')}"
        if not spec.weights.endswith(installed):
            raise WeightsError(
                f"weights {spec.weights}: drawn by another Keras than the installed one "
                f"({installed[1:]}). Install that version, or pass --weights random:{spec.seed} "
                "and another output."
            )
        return None
    path = spec.weights_file
    if path is None and spec.weights == "imagenet":
        path = weights_files.find_imagenet()
    if path is None:
        raise WeightsError(f"weights {spec.weights}: where the file lies is not known. Pass it.")
    weights_files.check_file(path)
    if spec.weights.startswith("sha256:"):
        found = f"sha256:{weights_files.file_sha256(path)}"
        if found != spec.weights:
            raise WeightsError(f"{path}: {found}, expected {spec.weights}. Pass the same file.")
    return path


def preprocess(pixels: Any, size: int) -> Any:
    """Map uint8 (n, 48, 48) in [0, 255] to float32 (n, size, size, 3) in [-1, 1].

    The original experiment's formula: ``tf.image.resize`` (bilinear, no antialiasing), the grey
    channel repeated, and ``keras.applications.inception_resnet_v2.preprocess_input``,
    x / 127.5 - 1.
    """
    tf = import_tensorflow()
    images = tf.cast(pixels, tf.float32)[..., tf.newaxis]
    images = tf.image.resize(images, (size, size), method="bilinear", antialias=False)
    return tf.repeat(images / 127.5 - 1.0, 3, axis=-1)


def build_network(spec: BackboneSpec) -> Any:
    """Return the frozen Keras model, preprocessed images to embeddings, with weights loaded.

    Maps float32 (n, input_size, input_size, 3) in [-1, 1] to float32 (n, d).

    Raises
    ------
    WeightsError
        When the weights are missing or do not fit.
    """
    path = check_weights(spec)
    keras = import_keras()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        build = _tiny if spec.architecture == "tiny" else keras.applications.InceptionResNetV2
        shape = (spec.input_size, spec.input_size, 3)
        model = build(include_top=False, weights=None, input_shape=shape, pooling=spec.pooling)
    finally:
        keras.config.set_dtype_policy(policy)
    model.trainable = False
    if path is None:
        assert spec.seed is not None
        weights_files.draw_weights(model, spec.seed)
    else:
        weights_files.load_file(model, path)
    return model


def _tiny(include_top: bool, weights: None, input_shape: tuple[int, ...], pooling: str) -> Any:
    """Build three convolutions that stand in for the backbone where logic is tested."""
    del include_top, weights, pooling
    keras = import_keras()
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(8, 5, strides=4, activation="relu"),
            layers.Conv2D(16, 3, strides=2, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Activation("relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )


def fold_batch_normalisation(model: Any) -> Any:
    """Return an equal network whose batch normalisations are folded into the convolutions.

    In inference a batch normalisation is a scale and a shift per channel; it becomes part of the
    kernel and the bias of the convolution before it (Jacob et al., "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2), which
    leaves one fused kernel to execute. Relative differences are of the order of 1e-6.
    """
    keras = import_keras()

    class Folded(keras.layers.Layer):  # type: ignore[name-defined]
        def call(self, inputs: Any, mask: Any = None) -> Any:
            return inputs

    def replace(layer: Any) -> Any:
        if isinstance(layer, keras.layers.BatchNormalization):
            return Folded(name=layer.name)
        config = layer.get_config()
        if layer.name in normalised:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    normalisations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = {
        layer.name: layer._inbound_nodes[0].parent_nodes[0].operation for layer in normalisations
    }
    normalised = {convolution.name for convolution in before.values()}
    folded = keras.models.clone_model(model, clone_function=replace)
    for layer in model.layers:
        if layer.weights and layer.name not in normalised and layer.name not in before:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    for layer in normalisations:
        convolution = before[layer.name]
        weights = {weight.name: weight.numpy() for weight in layer.weights}
        scale = weights.get("gamma", 1.0) / (weights["moving_variance"] + layer.epsilon) ** 0.5
        shift = weights["beta"] - weights["moving_mean"] * scale
        kernel, *bias = convolution.get_weights()
        folded.get_layer(convolution.name).set_weights(
            [kernel * scale, shift + (bias[0] * scale if bias else 0.0)]
        )
    folded.trainable = False
    return folded
