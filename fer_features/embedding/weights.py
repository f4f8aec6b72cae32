"""Weights of the backbone: files in Keras's layouts, ImageNet's download, seeded random ones."""

import difflib
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from fer_features.errors import WeightsError
from fer_features.slow import import_keras

IMAGENET_NAME = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_resnet_v2/"
    + IMAGENET_NAME
)
IMAGENET_SHA256 = "937fb087127afa1d6d09f5eed7e560fc9ef20d3c6583b54653141c922a6dee0f"

ARRAYS = 896
NUMBERS = 54_336_736
SHAPES_SHA256 = "3c8ef489cd0012c72b2d9386232166525a7c60a29b5c3c0add1d15ea7b067b2c"
"""sha256 of the repr of the sorted shapes of all arrays of InceptionResNetV2 without its top."""


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a weights file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if str(path).startswith("random:"):
            raise WeightsError(
                f"weights {path}: no seed, expected a whole number such as random:1."
            ) from error
        near = difflib.get_close_matches(str(path), ["imagenet", "random"], n=1)
        raise WeightsError(
            f"weights {path}: {error.strerror or error}. "
            + (f"Did you mean {near[0]}? " if near else "")
            + "Pass imagenet, random, random:SEED or the path of a weights file."
        ) from error


def imagenet_path() -> Path:
    """Return where Keras keeps ImageNet's weights of this backbone once it has downloaded them."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / IMAGENET_NAME


def find_imagenet(timeout: float = 10.0) -> Path:
    """Return the file of ImageNet's weights, downloaded by Keras if it is not there yet.

    Raises
    ------
    WeightsError
        When the file is not the published one, or there is no way to it within ``timeout``
        seconds.
    """
    path = imagenet_path()
    if path.exists():
        if file_sha256(path) != IMAGENET_SHA256:
            raise WeightsError(
                f"{path}: not the published ImageNet weights (its sha256 differs). Remove it, "
                "and it is downloaded again."
            )
        return path
    try:
        # Asked first, because importing Keras takes seconds and its download has no time limit.
        request = urllib.request.Request(IMAGENET_URL, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout).close()
        return Path(
            import_keras().utils.get_file(
                IMAGENET_NAME, IMAGENET_URL, cache_subdir="models", file_hash=IMAGENET_SHA256
            )
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"ImageNet weights: cannot be downloaded ({reason}). Put {IMAGENET_NAME} into "
            f"{path.parent}, or pass its path as --weights FILE, or pass --weights random."
        ) from error


def check_file(path: Path) -> None:
    """Check that a file holds all arrays of InceptionResNetV2 without its top, all finite.

    Raises
    ------
    WeightsError
        When it does not; the message says what it holds instead.
    """
    import h5py

    if not path.name.endswith((".h5", ".hdf5")):
        raise WeightsError(f"{path}: expected a name that ends in .h5, as Keras writes weights.")
    shapes = []
    try:
        with h5py.File(path, "r") as file:
            arrays: list[Any] = []
            file.visititems(
                lambda name, item: (
                    arrays.append(item)
                    if isinstance(item, h5py.Dataset) and not name.startswith("optimizer")
                    else None
                )
            )
            for array in arrays:
                shapes.append(array.shape)
                if not np.isfinite(array[()]).all():
                    raise WeightsError(f"{path}: {array.name} holds numbers that are not finite.")
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{path}: cannot be read as an HDF5 weights file ({_short(error)}). It may be cut "
            "short: copy or download it again."
        ) from error
    numbers = sum(int(np.prod(shape)) for shape in shapes)
    if shapes_sha256(shapes) != SHAPES_SHA256:
        hint = "Pass a file that was saved with include_top=False"
        raise WeightsError(
            f"{path}: {len(shapes)} arrays with {numbers:,} numbers, expected {ARRAYS} with "
            f"{NUMBERS:,} (InceptionResNetV2 without its top). {hint}."
        )


def shapes_sha256(shapes: list[tuple[int, ...]]) -> str:
    """Return the hex sha256 of the sorted shapes, which tells architectures apart."""
    return hashlib.sha256(repr(sorted(shapes)).encode()).hexdigest()


def load_file(model: Any, path: Path) -> None:
    """Load a checked weights file into a network; Keras reads both of its layouts.

    Raises
    ------
    WeightsError
        When the arrays lie in another order than the network's.
    """
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(
            f"{path}: Keras cannot load it into InceptionResNetV2 ({_short(error)}). Save it "
            "again with model.save_weights."
        ) from error


def draw_weights(model: Any, seed: int) -> None:
    """Set kernels to seeded He-uniform numbers and leave the rest as Keras initialises it.

    He et al., "Delving Deep into Rectifiers", 2015: the limit sqrt(6 / fan_in) keeps the size of
    activations through a deep network of rectifiers, so embeddings have the scale of trained ones
    (Keras's default, Glorot uniform, shrinks them some 200 times). Drawn with NumPy, so no global
    random state is read or changed.
    """
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            shape = tuple(layer.kernel.shape)
            limit = (6 / np.prod(shape[:-1])) ** 0.5
            layer.kernel.assign(generator.uniform(-limit, limit, shape).astype(np.float32))


def _short(error: BaseException) -> str:
    """Return an exception's first line, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
