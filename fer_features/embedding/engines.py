"""What executes the backbone: uint8 (k, 48, 48) pixels in, float32 (k, d) embeddings out."""

from collections.abc import Callable
from importlib import metadata

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import (
    BackboneSpec,
    build_network,
    fold_batch_normalisation,
    preprocess,
)
from fer_features.errors import OptionError
from fer_features.slow import import_tensorflow

ENGINES = ("tensorflow",)

Embed = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


class TensorFlowEngine:
    """The backbone as one TensorFlow graph, on the GPU when TensorFlow sees one.

    Calling it maps uint8 (k, 48, 48) to float32 (k, d), for any k.
    """

    name = "tensorflow"

    def __init__(self, spec: BackboneSpec) -> None:
        tf = import_tensorflow()
        if tf.config.list_physical_devices("GPU"):
            # TensorFloat-32 keeps 10 bits of each factor, which is not what float32 means.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        network = fold_batch_normalisation(build_network(spec))

        @tf.function(input_signature=[tf.TensorSpec((None, 48, 48), tf.uint8)], autograph=False)
        def embed(pixels: object) -> object:
            return network(preprocess(pixels, spec.input_size), training=False)

        self._embed = embed

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(self._embed(pixels), dtype=np.float32)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what computes."""
        return {name: metadata.version(name) for name in ("tensorflow", "keras")}


def load_engine(spec: BackboneSpec, engine: str = "auto") -> TensorFlowEngine:
    """Return an engine that is ready to embed.

    Parameters
    ----------
    spec : BackboneSpec
    engine : {"auto", "tensorflow"}
        ``"auto"`` takes the fastest one installed.

    Raises
    ------
    OptionError
        When ``engine`` is not known.
    WeightsError
        When the weights are missing or do not fit.
    """
    if engine not in ("auto", *ENGINES):
        raise OptionError(f"engine: {engine!r}, expected auto or {' or '.join(ENGINES)}.")
    return TensorFlowEngine(spec)
