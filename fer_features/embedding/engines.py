"""What executes the backbone: uint8 faces in, float32 embeddings out, one array an output."""

import contextlib
import ctypes
import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.network import Outputs, trace
from fer_features.embedding.openvino import OpenVINOEngine
from fer_features.errors import OptionError
from fer_features.runtimes import import_tensorflow

ENGINES = ("auto", "tensorflow", "openvino")

PACKAGES = {"tensorflow": ("tensorflow", "keras"), "openvino": ("openvino",)}
"""What computes, by engine: packages whose versions the provenance states."""


class Engine(Protocol):
    """A backbone that is ready to compute.

    ``dimensions`` holds the length d of each output's vectors, by name. Calling it maps uint8
    (k, h, w) or (k, h, w, 3), for any k, to :data:`~fer_features.embedding.network.Outputs`; a
    batch that does not fit is a MemoryError. ``most`` is how many images fit, as far as is known.
    """

    dimensions: dict[str, int]
    most: int

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Outputs: ...


class TensorFlowEngine:
    """The backbone as one TensorFlow graph, on the GPU when TensorFlow sees one."""

    def __init__(
        self, spec: BackboneSpec, outputs: Sequence[str], threads: int | None = None
    ) -> None:
        tf = import_tensorflow()
        if threads is not None:
            with contextlib.suppress(RuntimeError):  # too late in a process that has computed
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        if tf.config.list_physical_devices("GPU"):
            # TensorFloat-32 keeps 10 bits of each factor, which is not what float32 means.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        self._traced = trace(spec, outputs)
        self.most = sys.maxsize
        self.dimensions = self._traced.dimensions
        self._exhausted = tf.errors.ResourceExhaustedError
        self._constant = tf.constant

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Outputs:
        try:
            values = self._traced.graph(self._constant(pixels))
            return {
                name: np.asarray(value, dtype=np.float32)
                for name, value in zip(self.dimensions, values, strict=True)
            }
        except self._exhausted as error:
            raise MemoryError(f"a batch of {len(pixels)} does not fit") from error


def load_engine(
    spec: BackboneSpec,
    outputs: Sequence[str],
    engine: str,
    folder: Path,
    threads: int | None = None,
) -> Engine:
    """Return an engine that is ready to embed.

    Parameters
    ----------
    spec : BackboneSpec
    outputs : sequence of str
        Which of the network's outputs to compute, in this order.
    engine : {"tensorflow", "openvino"}
    folder : Path
        Where converted networks are kept.
    threads : int, optional
        Processor threads to use; by default the engine's choice, all of them.

    Raises
    ------
    BackboneError
        When files are missing or do not fit, or a layer is unknown.
    """
    if engine == "openvino":
        return OpenVINOEngine(spec, outputs, folder, threads)
    return TensorFlowEngine(spec, outputs, threads)


def choose_engine(engine: str, precision: str = "float32") -> str:
    """Return which engine ``"auto"`` means here, or the one named if it can be had.

    OpenVINO is the fastest on processors, where it is installed; on a GPU it is TensorFlow.

    Raises
    ------
    OptionError
        When ``engine`` is unknown, not installed, or cannot compute in that precision.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine: {engine!r}, expected {' or '.join(ENGINES)}.")
    installed = importlib.util.find_spec("openvino") is not None
    if engine == "openvino" and not installed:
        raise OptionError(
            "engine: openvino is not installed. Install fer-features[openvino], or pass "
            "--engine tensorflow."
        )
    if precision == "int8" and (engine == "tensorflow" or not installed):
        raise OptionError(
            "precision: int8 needs the openvino engine. Install fer-features[int8] and leave "
            "--engine at auto."
        )
    if engine != "auto":
        return engine
    return "openvino" if installed and (precision == "int8" or not _sees_gpu()) else "tensorflow"


def engine_versions(engine: str) -> dict[str, str]:
    """Return the versions of the packages that compute."""
    return {name: metadata.version(name) for name in PACKAGES[engine]}


def embed(engine: Engine, pixels: npt.NDArray[np.uint8]) -> Outputs:
    """Embed a batch, in parts of what fits in memory where it does not fit whole.

    Raises
    ------
    MemoryError
        When a single image does not fit.
    """
    parts: list[Outputs] = []
    start = 0
    while start < len(pixels):
        part = pixels[start : start + engine.most]
        try:
            parts.append(engine(part))
        except MemoryError:
            if len(part) == 1:
                raise
            engine.most = len(part) // 2  # remembered: the next batch is not tried whole
        else:
            start += len(part)
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}


def _sees_gpu() -> bool:
    """Tell whether TensorFlow sees a GPU, without importing it where there is plainly none."""
    return _may_have_gpu() and bool(import_tensorflow().config.list_physical_devices("GPU"))


def _may_have_gpu() -> bool:
    """Tell whether there is what TensorFlow reaches a GPU through.

    NVIDIA's driver library, also on Jetson and in Windows' Linux; AMD's kernel driver; or the
    folder of plugins, as Apple's and Intel's are.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        plugins = importlib.util.find_spec("tensorflow-plugins")
        return plugins is not None or Path("/dev/kfd").exists()
    return True
