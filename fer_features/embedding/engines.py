"""What executes the backbone: uint8 (k, 48, 48) pixels in, float32 (k, d) embeddings out."""

import contextlib
import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import (
    BackboneSpec,
    build_network,
    fold_batch_normalisation,
    preprocess,
)
from fer_features.embedding.converted import converted_network
from fer_features.errors import OptionError
from fer_features.slow import import_openvino, import_tensorflow

ENGINES = ("auto", "tensorflow", "openvino")


PACKAGES = {"tensorflow": ("tensorflow", "keras"), "openvino": ("openvino",)}
"""What computes, by engine: packages whose versions the provenance states."""

Engine = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Maps uint8 (k, 48, 48) to float32 (k, d), for any k."""


class TensorFlowEngine:
    """The backbone as one TensorFlow graph, on the GPU when TensorFlow sees one."""

    def __init__(self, spec: BackboneSpec, threads: int | None = None) -> None:
        tf = import_tensorflow()
        if threads is not None:
            with contextlib.suppress(RuntimeError):  # too late in a process that has computed
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        if tf.config.list_physical_devices("GPU"):
            # TensorFloat-32 keeps 10 bits of each factor, which is not what float32 means.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        network = fold_batch_normalisation(build_network(spec))

        @tf.function(input_signature=[tf.TensorSpec((None, 48, 48), tf.uint8)], autograph=False)
        def embed(pixels: object) -> object:
            return network(preprocess(pixels, spec.input_size), training=False)

        self._embed = embed
        self._exhausted = tf.errors.ResourceExhaustedError

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        try:
            return np.asarray(self._embed(pixels), dtype=np.float32)
        except self._exhausted as error:
            raise MemoryError(f"a batch of {len(pixels)} does not fit") from error


class OpenVINOEngine:
    """The backbone converted for OpenVINO's CPU plugin; starts without TensorFlow when it can.

    ``folder`` keeps the converted network, by fingerprint and OpenVINO version.
    """

    def __init__(self, spec: BackboneSpec, folder: Path, threads: int | None = None) -> None:
        # OpenVINO computes in bfloat16 where the processor can, unless told not to.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
            # Pinned, the engines of several workers would all take the first processors.
            config["ENABLE_CPU_PINNING"] = False
        network = converted_network(spec, folder)
        self._embed = import_openvino().Core().compile_model(network, "CPU", config)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        try:
            return np.array(self._embed(pixels)[0], dtype=np.float32)
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            raise MemoryError(f"a batch of {len(pixels)} does not fit") from error


def load_engine(
    spec: BackboneSpec, engine: str, folder: Path, threads: int | None = None
) -> Engine:
    """Return an engine that is ready to embed.

    Parameters
    ----------
    spec : BackboneSpec
    engine : {"tensorflow", "openvino"}
    folder : Path
        Where converted networks are kept.
    threads : int, optional
        Processor threads to use; by default the engine's choice, all of them.

    Raises
    ------
    WeightsError
        When the weights are missing or do not fit.
    """
    if engine == "openvino":
        return OpenVINOEngine(spec, folder, threads)
    return TensorFlowEngine(spec, threads)


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
    if precision == "int8" and importlib.util.find_spec("nncf") is None:
        raise OptionError("precision: int8 needs nncf. Install fer-features[int8].")
    if engine != "auto":
        return engine
    return "openvino" if installed and (precision == "int8" or not _sees_gpu()) else "tensorflow"


def engine_versions(engine: str) -> dict[str, str]:
    """Return the versions of the packages that compute."""
    return {name: metadata.version(name) for name in PACKAGES[engine]}


def embed(engine: Engine, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Embed a batch, in halves of halves where it does not fit in memory whole.

    Raises
    ------
    MemoryError
        When a single image does not fit.
    """
    try:
        return engine(pixels)
    except MemoryError:
        if len(pixels) == 1:
            raise
    half = len(pixels) // 2
    return np.concatenate([embed(engine, pixels[:half]), embed(engine, pixels[half:])])


def _sees_gpu() -> bool:
    """Tell whether TensorFlow sees a GPU, without importing it where there is plainly none."""
    if not Path("/dev/nvidia0").exists():
        return False
    return bool(import_tensorflow().config.list_physical_devices("GPU"))
