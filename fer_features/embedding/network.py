"""The network a BackboneSpec stands for: one Keras model, uint8 faces to named outputs.

Preprocessing is part of the model, so every engine, the store, a prediction on a new photograph
and an exported file share one definition.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import FINAL, TINY, BackboneSpec, check_files, unknown_layer
from fer_features.embedding.weights import draw_weights, load_keras_file, load_weights
from fer_features.errors import BackboneError
from fer_features.runtimes import collection_paused, import_tensorflow, plain_keras

Outputs = dict[str, npt.NDArray[np.float32]]
"""Embeddings of a batch by output's name, float32 (k, d) each."""


class Layer(NamedTuple):
    """An inner layer whose output is worth keeping.

    ``dimension`` is its number of channels, ``size`` its map's height and width in pixels, and
    ``place`` the share of the network that lies before it, 0 to 1, counted in operations.
    """

    name: str
    dimension: int
    size: tuple[int, int]
    place: float


def build_model(spec: BackboneSpec, outputs: tuple[str, ...] | None = None) -> Any:
    """Return the frozen Keras model of a spec, with its weights loaded.

    Maps uint8 (n, h, w) or (n, h, w, 3), of the spec's image form and from 0 to 255, to a dict of
    float32 (n, d), one entry an output: ``final`` is the network's own, pooled by global averages;
    an inner layer's is its average over space.

    Parameters
    ----------
    spec : BackboneSpec
    outputs : tuple of str, optional
        Which outputs, in this order; by default all of the spec's.

    Raises
    ------
    BackboneError
        When files are missing or do not fit, or a layer is unknown or has nothing to average.
    """
    outputs = spec.outputs if outputs is None else outputs
    path = check_files(spec)
    network = load_network(spec, path)
    with plain_keras() as keras:
        tapped = keras.Model(network.inputs, {name: _tap(network, name, spec) for name in outputs})
        height, width, channels = spec.image
        shape = (height, width) if channels == 1 else spec.image
        pixels = keras.Input(shape, dtype="uint8", name="pixels")
        images = _resized(keras, keras.ops.cast(pixels, "float32"), spec)
        if channels == 1:
            images = keras.layers.Reshape((spec.input_size, spec.input_size, 1))(images)
            images = keras.layers.Concatenate()([images] * 3)
        if spec.application is not None:
            module = getattr(keras.applications, spec.application.module)
            images = module.preprocess_input(images, data_format="channels_last")
        elif spec.backbone == TINY:
            images = images / 127.5 - 1.0
        try:
            said = tapped(images)
        except ValueError as error:
            raise _too_small(spec) from error
        # Outside the network, whose own operations may have any name.
        pooled = {name: _pooled(keras, said[name], name) for name in outputs}
        model = keras.Model(pixels, pooled, name="backbone")
    model.trainable = False
    return model


class Traced(NamedTuple):
    """A backbone as one TensorFlow graph: uint8 faces to a list of tensors, one an output.

    ``dimensions`` are the lengths of the outputs' vectors by name.
    """

    graph: Any
    dimensions: dict[str, int]


_FEW = 10_000
"""Numbers of a weight that is written into the graph itself."""


@collection_paused()
def trace(spec: BackboneSpec, outputs: Sequence[str]) -> Traced:
    """Build a backbone and trace it at once, so that no later global setting changes it.

    The graph has the weights by value: variables it would refer to weakly, and OpenVINO looks
    each variable up among all others, which takes four times as long. Small ones, which are most,
    are constants of the graph; large ones would be copied several times on their way into it.
    """
    tf = import_tensorflow()
    model = build_model(spec, tuple(outputs))
    assert not model.trainable_variables
    weights = [
        variable.numpy() if np.prod(variable.shape) < _FEW else tf.convert_to_tensor(variable.value)
        for variable in model.non_trainable_variables
    ]

    def embed(pixels: Any) -> Any:
        values = [tf.constant(each) if isinstance(each, np.ndarray) else each for each in weights]
        said, _ = model.stateless_call([], values, pixels, training=False)
        return [said[name] for name in outputs]

    with plain_keras():
        shape = (None, *model.input_shape[1:])
        graph = tf.function(embed, autograph=False).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8)
        )
    said = zip(outputs, graph.structured_outputs, strict=True)
    return Traced(graph, {name: int(tensor.shape[-1]) for name, tensor in said})


def load_network(spec: BackboneSpec, path: Path | None) -> Any:
    """Return the network itself, preprocessed images to its output, with its weights loaded."""
    if spec.backbone.startswith("sha256:"):
        assert path is not None
        return load_keras_file(path)
    network = _untrained(spec)
    if path is not None:
        load_weights(network, path, spec.name)
    else:
        assert spec.seed is not None
        draw_weights(network, spec.seed)
    return network


def layers_worth_keeping(spec: BackboneSpec) -> list[Layer]:
    """List the inner layers of a network at which what it has seen so far comes together.

    Where every path leads through one layer's output, and a block ends there: several paths join
    in it, or several layers take it up. Of a network that is a plain chain, the last of each
    resolution; of one whose blocks look further back than one block, the joins themselves. In the
    order of computation; weights do not matter and are not loaded.

    Raises
    ------
    BackboneError
        When the network cannot be built.
    """
    if spec.backbone_file is not None:
        network = load_keras_file(Path(spec.backbone_file))
    else:
        network = _untrained(spec)
    with plain_keras() as keras:
        graph = _Graph(keras.Model(network.inputs, network.outputs).get_config())
        named = _named(network, spec)
        tensors = {
            name: operation.output
            for name, operation in named.items()
            if len(getattr(operation.output, "shape", ())) == 4 and graph.uses[operation.name] == 1
        }
        own = {operation.name: name for name, operation in named.items()}
        ends, is_chain = graph.ends_of_blocks()
        ends = [end for end in ends if own.get(end) in tensors]
        names = [own[end] for end in ends]
        if not names:
            return []
        maps = keras.Model(network.inputs, [tensors[name] for name in names])
        images = keras.KerasTensor((1, spec.input_size, spec.input_size, 3))
        try:
            shapes = [said.shape for said in keras.tree.flatten(maps.compute_output_spec(images))]
        except ValueError as error:
            raise _too_small(spec) from error
    found = [
        Layer(name, shape[3], shape[1:3], graph.place(end))
        for end, name, shape in zip(ends, names, shapes, strict=True)
    ]
    following = [*found[1:], None]
    return [
        layer
        for layer, after in zip(found, following, strict=True)
        if (not is_chain or after is None or after.size != layer.size)
        and layer.name != own.get(graph.averaged)  # its mean is the final output
    ]


_WITHOUT_WEIGHTS = ("MaxPooling2D", "AveragePooling2D", "ZeroPadding2D", "Rescaling")


class _Graph:
    """The operations of a functional network, in the order of computation, by its configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.names = [str(layer["name"]) for layer in config["layers"]]
        self.kinds = [str(layer["class_name"]) for layer in config["layers"]]
        self.uses = _uses(config)
        self.output = str(next(iter(_names(config["output_layers"]))))
        position = {name: i for i, name in enumerate(self.names)}
        self.makers = [
            {position[name] for name in _histories(layer.get("inbound_nodes"))}
            for layer in config["layers"]
        ]
        self.takers: list[set[int]] = [set() for _ in self.names]
        for this, makers in enumerate(self.makers):
            for maker in makers:
                self.takers[maker].add(this)

    def place(self, name: str) -> float:
        """Return the share of the operations that lie before one, 0 to 1."""
        return self.names.index(name) / len(self.names)

    def ends_of_blocks(self) -> tuple[list[str], bool]:
        """Return their names, and whether the network is a chain, of which all is returned."""
        # Squeeze and excitation, a product with what pooling makes of the same map, ends no block.
        kinds = enumerate(self.kinds)
        joins = [len(self.makers[i]) > 1 and kind != "Multiply" for i, kind in kinds]
        forks = [
            sum(not self.kinds[taker].startswith("Global") for taker in takers) > 1
            for takers in self.takers
        ]
        narrow = self._narrow()
        ends = [i for i in narrow if joins[i] or forks[i]]
        last = self._last_map(max(narrow, default=0))
        is_chain = not any(joins)
        if is_chain:
            ends = [i for i in narrow if self.kinds[i] not in _WITHOUT_WEIGHTS and i <= last]
        elif len(ends) < 3:
            taken_up = [i for i, join in enumerate(joins) if join and forks[i]]
            ends = [i for i in taken_up if self.kinds[i] == "Concatenate"] or taken_up or ends
        ends = sorted({*ends, last})
        # An activation right after a join is the block's end, and the join is not.
        joined = {self._only_maker(i) for i in ends if self.kinds[i] in ("Activation", "ReLU")}
        return [self.names[i] for i in ends if is_chain or i not in joined], is_chain

    @property
    def averaged(self) -> str:
        """The operation whose average over space is the network's output, if one's is."""
        output = self.names.index(self.output)
        if self.kinds[output] != "GlobalAveragePooling2D":
            return self.output
        return self.names[next(iter(self.makers[output]))]

    def _narrow(self) -> list[int]:
        """Return the operations after which nothing but their own output is needed any more."""
        reach, narrow = -1, []
        for this, takers in enumerate(self.takers):
            if reach <= this and this:
                narrow.append(this)
            reach = max(reach, *takers, -1)
        return narrow

    def _last_map(self, last: int) -> int:
        """Return the last operation before global pooling."""
        pooled = [i for i, kind in enumerate(self.kinds) if kind.startswith("Global")]
        maker = self._only_maker(pooled[-1]) if pooled else None
        return last if maker is None else maker

    def _only_maker(self, this: int) -> int | None:
        return next(iter(self.makers[this])) if len(self.makers[this]) == 1 else None


def _names(layers: Any) -> Iterator[str]:
    """Yield the names in a configuration's ``output_layers``, which Keras nests in several ways."""
    if isinstance(layers, dict):
        layers = list(layers.values())
    if layers and isinstance(layers[0], str):
        yield layers[0]
    else:
        for each in layers:
            yield from _names(each)


def _uses(config: dict[str, Any]) -> dict[str, int]:
    """Return how often a functional network calls each of its operations, by its configuration."""
    return {str(layer["name"]): len(layer["inbound_nodes"]) for layer in config["layers"]}


def _histories(value: Any) -> Iterator[str]:
    """Yield the names of the operations whose tensors an operation's arguments refer to."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield str(value["keras_history"][0])
        for each in value.values():
            yield from _histories(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _histories(each)


def _untrained(spec: BackboneSpec) -> Any:
    with plain_keras() as keras:
        assert spec.input_size is not None
        shape = (spec.input_size, spec.input_size, 3)
        if spec.application is None:
            return _tiny(keras, shape)
        build = getattr(keras.applications, spec.application.name)
        network = build(include_top=False, weights=None, input_shape=shape, pooling="avg")
        if spec.application.module == "efficientnet" and spec.weights == "imagenet":
            return _scaled_as_published(keras, network)
        return network


def _scaled_as_published(keras: Any, network: Any) -> Any:
    """Return an EfficientNet with the scaling that ImageNet's weights were trained behind.

    Keras divides by the square root of ImageNet's standard deviation once more, between
    normalisation and network, where it loads those weights itself, and only there.
    """
    scale = [1 / deviation**0.5 for deviation in (0.229, 0.224, 0.225)]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        said = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Normalization):
            said = keras.layers.Rescaling(scale)(said)
        return said

    return keras.models.clone_model(network, call_function=call)


def _tiny(keras: Any, shape: tuple[int, ...]) -> Any:
    """Build three convolutions that stand in for a backbone where logic is tested."""
    layers = keras.layers
    images = layers.Input(shape)
    x = layers.Conv2D(8, 5, strides=4, activation="relu", name="one")(images)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="two")(x)
    x = layers.BatchNormalization(scale=False, name="two_bn")(x)
    x = layers.Activation("relu", name="two_relu")(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="three")(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name="tiny")


def _named(network: Any, spec: BackboneSpec) -> dict[str, Any]:
    """Return a network's operations by name, without its inputs and the networks within it.

    What an application leaves unnamed is numbered by Keras through all that a process builds; here
    it has the number that it has in a process which builds nothing else. A file's names are its
    own.
    """
    operations = [
        operation
        for operation in network.operations
        if type(operation).__name__ != "InputLayer" and not hasattr(operation, "layers")
    ]
    if spec.backbone_file is not None:
        return {operation.name: operation for operation in operations}
    named = {}
    numbered: dict[str, list[tuple[int, Any]]] = {}
    for operation in operations:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", type(operation).__name__)
        kind = kind.lower()
        found = re.fullmatch(rf"{kind}(?:_(\d+))?", operation.name)
        if found:
            numbered.setdefault(kind, []).append((int(found[1] or 0), operation))
        else:
            named[operation.name] = operation
    for kind, each in numbered.items():
        for number, (_, operation) in enumerate(sorted(each, key=lambda pair: pair[0])):
            named[f"{kind}_{number}" if number else kind] = operation
    return named


def _too_small(spec: BackboneSpec) -> BackboneError:
    return BackboneError(
        f"input_size: {spec.name} cannot take images of {spec.input_size}x{spec.input_size}. "
        "Pass another --input-size."
    )


def _tap(network: Any, name: str, spec: BackboneSpec) -> Any:
    """Return the tensor of one output."""
    if name == FINAL:
        return network.outputs[0]
    known = _named(network, spec)
    if name not in known:
        raise unknown_layer(name, known, spec.name)
    if _uses(network.get_config())[known[name].name] > 1:
        raise BackboneError(
            f"layer {name!r}: used several times in {network.name}, expected one output. "
            "Choose another layer."
        )
    return known[name].output


def _pooled(keras: Any, tensor: Any, name: str) -> Any:
    """Average a tensor over space, where it has space."""
    shape: tuple[int | None, ...] = getattr(tensor, "shape", ())
    if len(shape) not in (2, 3, 4) or shape[-1] is None:
        raise BackboneError(
            f"output {name!r}: of shape {tuple(shape)}, expected (n, d), (n, tokens, d) or "
            "(n, height, width, d). Choose another layer."
        )
    tensor = keras.ops.cast(tensor, "float32")
    space = tuple(range(1, len(shape) - 1))
    return keras.ops.mean(tensor, axis=space) if space else tensor


def _resized(keras: Any, images: Any, spec: BackboneSpec) -> Any:
    """Resize grey (n, h, w) or colour (n, h, w, 3) images to (n, size, size[, 3]), bilinearly.

    Two products with constant matrices, because every runtime has products, and exporters get
    resizing wrong.
    """
    height, width, channels = spec.image
    size = spec.input_size
    assert size is not None
    if (height, width) == (size, size):
        return images
    layers = keras.layers
    if channels == 3:
        images = layers.Permute((3, 1, 2))(images)
    swap = (2, 1) if channels == 1 else (1, 3, 2)
    for side, name in ((width, "resize_width"), (height, "resize_height")):
        product = layers.Dense(size, use_bias=False, name=name)
        images = product(images)
        product.set_weights([interpolation(side, size).T])
        images = layers.Permute(swap)(images)
    return images if channels == 1 else layers.Permute((2, 3, 1))(images)


def interpolation(side: int, size: int) -> npt.NDArray[np.float32]:
    """Return the matrix, float32 (size, side), that brings ``side`` pixels to ``size``.

    Bilinear with half-pixel centres and without antialiasing, as ``tf.image.resize`` does by
    default (https://www.tensorflow.org/api_docs/python/tf/image/resize).
    """
    # In float32, as TensorFlow has its positions: in a wide image they are off by 1e-5.
    scale = np.float32(side) / np.float32(size)
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    below = np.floor(centres)
    share = centres - below
    matrix = np.zeros((size, side), np.float32)
    rows = np.arange(size)
    np.add.at(matrix, (rows, np.clip(below, 0, side - 1).astype(int)), 1 - share)
    np.add.at(matrix, (rows, np.clip(below + 1, 0, side - 1).astype(int)), share)
    return matrix
