"""A classifier as one file: uint8 faces in, class probabilities out, for the runtime of choice."""

import contextlib
import importlib.util
import io
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.network import build_model
from fer_features.embedding.openvino import converted_network, save_model
from fer_features.errors import BackboneError, OptionError, RunError
from fer_features.experiment.head_file import Layer
from fer_features.experiment.run_head import RunHead
from fer_features.prediction.run_backbone import with_checked_files
from fer_features.runtimes import (
    import_openvino,
    import_tensorflow,
    native_stderr_silenced,
    plain_keras,
)

log = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "fer-features/classifier", 1

INPUT, OUTPUT, ABOUT = "pixels", "probabilities", "classifier.json"
"""Names in the file: what goes in, what comes out, and what is said of it."""

CLOSE = 1e-5
"""How far a probability of the file may be from the classifier's before that is warned of."""

_OPSET = 18

Loaded: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""An exported file, loaded: uint8 faces to their probabilities, float32 (n, k)."""


class Whole(Protocol):
    """What of a :class:`~fer_features.prediction.classifier.Classifier` is needed here."""

    run: Path
    head: RunHead
    spec: BackboneSpec
    temperature: float

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def network_folder(self) -> Path: ...

    def predict_pixels(self, pixels: npt.NDArray[np.uint8]) -> Any: ...


def export(
    classifier: Whole, path: str | os.PathLike[str], *, overwrite: bool = False
) -> float | None:
    """Write backbone, preprocessing, head and temperature as one model.

    It maps ``pixels``, uint8 (n, h, w) or (n, h, w, 3), 0 to 255, of the run's image form and for
    any n, to ``probabilities``, float32 (n, k), in the order of the classes. Class names, image
    form, fingerprint, features, temperature and version are in the file, as the JSON
    ``classifier.json``: in the ``metadata_props`` of an ONNX file, the ``rt_info`` of an OpenVINO
    one; the other two are zip archives too, with a file of that name. The file is loaded by its
    own runtime, where that is installed, and asked about drawn faces beside the classifier.

    Parameters
    ----------
    classifier : Classifier
        What :meth:`Classifier.load` returned.
    path : path-like
        By its suffix ``.keras`` (Keras 3), ``.onnx`` (ONNX, opset 18), ``.xml`` with a ``.bin``
        beside it (OpenVINO), or ``.tflite`` (LiteRT, once TensorFlow Lite).
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    float, optional
        How far a probability of the file is from the classifier's at most, 0 to 1, over eight drawn
        faces; above 0.00001 there is a warning. None where its runtime is not installed, and
        nothing was compared.

    Raises
    ------
    OptionError
        Another suffix, a package that is not installed, an int8 network in another form than
        OpenVINO's, a file that is there without ``overwrite``, or a folder of that name.
    RunError
        The run's head is another scikit-learn classifier, or the file cannot be written.
    BackboneError
        The network's files are missing, or the converter cannot write this network.

    Examples
    --------
    >>> from fer_features import BackboneSpec, Classifier, LogisticHead, Task, evaluate, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> head = LogisticHead(C=1.0).fit(data.train.X, data.train.y)
    >>> classifier = Classifier.load(evaluate(head, data).save("runs/mine"))
    >>> classifier.export("smile.keras") < 1e-5  # from the classifier's own
    True
    """
    target = Path(path)
    kind = _KINDS.get(target.suffix.lower())
    if kind is None:
        raise OptionError(
            f"{target}: expected a name that ends in {', '.join(_KINDS)}. Name another file."
        )
    if classifier.head.layers is None:
        raise RunError(
            f"{classifier.run}: its head is scikit-learn's {classifier.head.label}, expected a "
            "dense or logistic one, which other runtimes can compute. Ask it with fer-predict, or "
            "fit one of those."
        )
    if classifier.spec.quantised is not None and kind.write is not _write_openvino:
        raise OptionError(
            f"{target}: an int8 network, which OpenVINO alone can run, expected a name that ends "
            "in .xml. Name such a file, or export a run of a float32 store."
        )
    missing = [name for name in kind.writers if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(
            f"{target}: needs {missing[0]}. Install fer-features[{kind.extra}], or export to "
            "another format."
        )
    beside = [target.with_suffix(".bin")] * (kind.write is _write_openvino)
    there = [each for each in (target, *beside) if each.exists()]
    if folders := [each for each in there if each.is_dir()]:
        raise OptionError(f"{folders[0]}: a folder, expected a file's name. Choose another.")
    if there and not overwrite:
        raise OptionError(
            f"{there[0]}: exists, expected a new name. Choose one, or overwrite=True."
        )
    if not target.absolute().parent.is_dir():
        raise RunError(f"{target}: no folder {target.parent}, expected one. Make it first.")
    log.info("writing %s, then comparing it with the run", target)
    with (
        _naming(target),
        tempfile.TemporaryDirectory(
            dir=target.absolute().parent, prefix=f".{target.name}-"
        ) as folder,
    ):
        # In lower case, as the runtimes tell formats by their suffix.
        new = Path(folder) / target.with_suffix(target.suffix.lower()).name
        kind.write(classifier, new)
        difference = _difference(classifier, new, kind)
        # The model itself last: a pair of files counts as there when it is whole.
        for each in sorted(Path(folder).iterdir(), key=lambda file: file == new):
            each.replace(target if each == new else target.with_name(each.name))
    if difference is not None and difference > CLOSE:
        log.warning(
            "%s: its probabilities differ from the run's by up to %.1g on drawn faces, expected "
            "at most %.0e",
            target,
            difference,
            CLOSE,
        )
    return difference


def _about(classifier: Whole) -> str:
    """Return what an exported file says of itself, as JSON."""
    said = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "classes": classifier.head.classes,
        "image": classifier.spec.image,
        "fingerprint": classifier.spec.fingerprint,
        "backbone": classifier.spec.identity,
        "features": classifier.head.features,
        "head": classifier.head.label,
        "temperature": classifier.temperature,
        "fer_features": metadata.version("fer-features"),
    }
    return json.dumps(said, indent=1)


def load_exported(path: str | os.PathLike[str]) -> Loaded:
    """Load an exported file with its own runtime, on the processor: pixels to probabilities."""
    target = Path(path)
    return _KINDS[target.suffix.lower()].load(target)


def _difference(classifier: Whole, path: Path, kind: "_Kind") -> float | None:
    """Return how far a file's probabilities are from the classifier's, on drawn faces."""
    if any(importlib.util.find_spec(name) is None for name in kind.readers):
        log.info("%s: not compared with the run, as its runtime is not installed", path.name)
        return None
    pixels = _drawn(classifier)
    said = classifier.predict_pixels(pixels)
    expected = said[[f"p_{name}" for name in classifier.head.classes]].to_numpy()
    run = kind.load(path)
    found = np.concatenate([run(pixels[:1]), run(pixels[1:])])
    return float(np.abs(found - expected).max())


def _drawn(classifier: Whole) -> npt.NDArray[np.uint8]:
    """Return eight drawn faces of a classifier's form."""
    from PIL import Image

    from fer_features.faces.image import face
    from fer_features.sample.faces import draw_faces

    height, width, channels = classifier.spec.image
    drawn = map(Image.fromarray, draw_faces(8).pixels)
    return np.stack([face(each, (height, width), channels == 3) for each in drawn])


def _layers(classifier: Whole) -> list[Layer]:
    """Return the head's layers, the temperature in the last one, its outputs in task order."""
    assert classifier.head.layers is not None
    *earlier, (kernel, bias) = classifier.head.layers
    order = [classifier.head.columns.index(name) for name in classifier.head.classes]
    divided = kernel[:, order] / classifier.temperature, bias[order] / classifier.temperature
    return [(each.astype(np.float32), b.astype(np.float32)) for each, b in [*earlier, divided]]


def _keras_model(classifier: Whole) -> Any:
    """Return backbone and head as one Keras model; to be called within ``plain_keras``."""
    backbone = build_model(with_checked_files(classifier.spec), classifier.outputs)
    with plain_keras() as keras:
        said = [backbone.output[name] for name in classifier.outputs]
        tensor = said[0] if len(said) == 1 else keras.layers.Concatenate(name="features")(said)
        layers = _layers(classifier)
        for number, (kernel, bias) in enumerate(layers, 1):
            is_last = number == len(layers)
            dense = keras.layers.Dense(
                len(bias),
                activation="softmax" if is_last else "relu",
                name=OUTPUT if is_last else f"head_{number}",
            )
            tensor = dense(tensor)
            dense.set_weights([kernel, bias])
        model = keras.Model(backbone.input, tensor, name="classifier")
    model.trainable = False
    return model


def _write_keras(classifier: Whole, path: Path) -> None:
    model = _keras_model(classifier)
    with plain_keras():
        model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT), _about(classifier))


def _write_openvino(classifier: Whole, path: Path) -> None:
    openvino = import_openvino()
    from openvino import opset13 as ops

    network, _ = converted_network(classifier.spec, classifier.outputs, classifier.network_folder)
    tensors = [network.output(name) for name in classifier.outputs]
    said = [tensor.get_node().input_value(0) for tensor in tensors]
    value = said[0] if len(said) == 1 else ops.concat(said, 1).output(0)
    layers = _layers(classifier)
    for number, (kernel, bias) in enumerate(layers, 1):
        product = ops.matmul(value, ops.constant(kernel), False, False)
        value = ops.add(product, ops.constant(bias[None]))
        value = ops.softmax(value, 1) if number == len(layers) else ops.relu(value)
        value = value.output(0)
    value.get_tensor().set_names({OUTPUT})
    parameters = network.get_parameters()
    model = openvino.Model([ops.result(value)], parameters, "classifier")
    model.inputs[0].get_tensor().set_names({INPUT})
    model.set_rt_info(_about(classifier), ABOUT)
    save_model(model, path)


def _write_onnx(classifier: Whole, path: Path) -> None:
    tf = import_tensorflow()
    with _quiet("tf2onnx", "tensorflow"):
        import onnx
        from tf2onnx import convert, tf_loader

    keras_model = _keras_model(classifier)
    classify = tf.function(lambda pixels: keras_model(pixels, training=False), autograph=False)
    with plain_keras():
        shape = (None, *keras_model.input_shape[1:])
        graph = classify.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
    with _quiet("tf2onnx", "tensorflow"):
        inputs, outputs = [graph.inputs[0].name], [graph.outputs[0].name]
        # Frozen here: tf2onnx's own way from a function takes constants of layers for inputs.
        frozen = tf_loader.from_function(graph, inputs, outputs)
        unknown = {node.op for node in frozen.node if "PartitionedCall" in node.op}
        if unknown:
            raise BackboneError(
                f"{classifier.spec.name}: has grouped convolutions, which tf2onnx cannot write as "
                "ONNX, expected none. Export to .xml or .tflite."
            )
        model, _ = convert.from_graph_def(
            frozen, input_names=inputs, output_names=outputs, opset=_OPSET
        )
    _rename(model, {inputs[0]: INPUT, outputs[0]: OUTPUT})
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.helper.set_model_props(model, {ABOUT: _about(classifier)})
    onnx.save(model, path)


def _write_litert(classifier: Whole, path: Path) -> None:
    tf = import_tensorflow()
    if not hasattr(tf, "lite"):
        raise OptionError(
            f"{path.name}: TensorFlow {tf.__version__} has no converter to LiteRT, expected one "
            "that does, such as 2.21. Install that, or export to another format."
        )
    model = _keras_model(classifier)
    with (
        plain_keras() as keras,
        _quiet("tensorflow", "absl"),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory(dir=path.parent) as saved,
    ):
        try:
            keras.Model(model.input, {OUTPUT: model.output}).export(saved)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        content = tf.lite.TFLiteConverter.from_saved_model(saved).convert()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT), _about(classifier))
    # As TensorFlow Lite's metadata packs associated files: an archive behind the model.
    path.write_bytes(content + packed.getvalue())


def _rename(model: Any, names: dict[str, str]) -> None:
    """Give tensors of an ONNX model other names."""
    for node in model.graph.node:
        for held in (node.input, node.output):
            for i, name in enumerate(held):
                held[i] = names.get(name, name)
    for tensor in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)


def _load_keras(path: Path) -> Loaded:
    with plain_keras() as keras:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda pixels: np.asarray(model(pixels, training=False))


def _load_openvino(path: Path) -> Loaded:
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    model = import_openvino().Core().compile_model(path, "CPU", config)
    return lambda pixels: np.array(model(pixels)[OUTPUT])


def _load_onnx(path: Path) -> Loaded:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        said: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: pixels})[0]
        return said

    return run


def _load_litert(path: Path) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    index = interpreter.get_input_details()[0]["index"]

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with native_stderr_silenced():  # its kernels announce themselves there, past any logger
            interpreter.resize_tensor_input(index, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(index, pixels)
        interpreter.invoke()
        said: npt.NDArray[np.float32] = interpreter.get_tensor(
            interpreter.get_output_details()[0]["index"]
        )
        return said

    return run


class _Kind(NamedTuple):
    """A format: what writes and reads it, the packages those need, and the extra that has them."""

    write: Callable[[Whole, Path], None]
    load: Callable[[Path], Loaded]
    writers: Sequence[str]
    readers: Sequence[str]
    extra: str


_KINDS = {
    ".keras": _Kind(_write_keras, _load_keras, (), (), ""),
    ".onnx": _Kind(_write_onnx, _load_onnx, ("tf2onnx", "onnx"), ("onnxruntime",), "onnx"),
    ".xml": _Kind(_write_openvino, _load_openvino, ("openvino",), ("openvino",), "openvino"),
    ".tflite": _Kind(_write_litert, _load_litert, (), ("ai_edge_litert",), "litert"),
}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that is written into one line."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or ' '.join(str(error).split())[:80]}). "
            "Make room, or name another file."
        ) from error


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep the remarks of converters to errors, and what they do to logging to themselves.

    What their C++ says goes past any logger; what stops it they raise.
    """
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    handlers = list(logging.root.handlers)
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with native_stderr_silenced():
            yield
    finally:
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)
        for logger, level in levels.items():
            logger.setLevel(level)
