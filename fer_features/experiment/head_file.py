"""The file of a head: a Keras model that every supported Keras reads, and what it was fitted to.

A ``.keras`` file is a zip archive: ``config.json`` describes the layers, ``model.weights.h5`` holds
their weights. It is written here and not by Keras, each release of which writes settings that
older ones refuse, and read here too: nothing in the file can run. ``head.json``, which Keras passes
over, has the class names, the backbone's fingerprint and the features.
"""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from fer_features.errors import RunError
from fer_features.faces.bad_rows import shown
from fer_features.faces.packed import opened_member, opened_zip
from fer_features.runtimes import one_blas_thread

Layer: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""A Dense layer's kernel, float64 (inputs, outputs), and bias, float64 (outputs,)."""

FORMAT, FORMAT_VERSION = "fer-features/head", 1

BLOCK = 1024
"""Rows at a time where float64 copies are made."""

_ABOUT, _CONFIG, _WEIGHTS = "head.json", "config.json", "model.weights.h5"


def write_head_file(
    path: Path,
    layers: Sequence[Layer],
    *,
    classes: Sequence[str | int | float],
    fingerprint: str | None,
    features: str | None,
) -> None:
    """Write Dense layers, relu between them and softmax at the end; equal ones make equal files.

    Raises
    ------
    RunError
        If the file cannot be written. There is none then, or the one there was.
    """
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "classes": list(classes),
        "fingerprint": fingerprint,
        "features": features,
    }
    members = {
        "metadata.json": json.dumps({"keras_version": "3.5.0"}).encode(),
        _CONFIG: json.dumps(_config(layers)).encode(),
        _WEIGHTS: _weights(layers),
        _ABOUT: json.dumps(about, indent=1).encode(),
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without the time
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(written.getvalue())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written ({error.strerror or error}).") from None


def read_head_file(path: Path) -> tuple[list[Layer], Mapping[str, Any]]:
    """Return the layers and ``classes``, ``fingerprint`` and ``features``.

    Raises
    ------
    RunError
        If there is no such file, or it is no head, a damaged one or one of another version.
    """
    try:
        with path.open("rb") as packed, opened_zip(packed) as archive:
            names = archive.namelist()
            read = {name: _member(archive, name) for name in (_ABOUT, _WEIGHTS) if name in names}
            if _WEIGHTS not in read or _CONFIG not in names:
                raise RunError(
                    f"{path}: no Keras archive, expected a head saved as .keras. Fit it again."
                )
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        # The last two are words for a password and for another compression.
        reason = shown(str(error), 120)
        raise RunError(f"{path}: damaged or no Keras archive ({reason}). Fit it again.") from None
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror or error}), expected a head."
        ) from None
    if _ABOUT not in read:
        raise RunError(
            f"{path}: a Keras model without {_ABOUT}, expected a head that fer_features saved. "
            "Fit it again."
        )
    try:
        about = json.loads(read[_ABOUT])
        kind = about["format"], about["format_version"]
        layers = _read_weights(read[_WEIGHTS]) if kind == (FORMAT, FORMAT_VERSION) else []
        if layers and not (
            isinstance(about["classes"], list)
            and len(about["classes"]) == len(layers[-1][1])
            and all(isinstance(each, str | int | float) for each in about["classes"])
            and all(isinstance(about[name], str | None) for name in ("fingerprint", "features"))
        ):
            raise ValueError(f"{_ABOUT} does not fit the weights")
    except (
        ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError, ArithmeticError,
    ) as error:  # fmt: skip
        reason = shown((str(error).splitlines() or [""])[0], 120)
        raise RunError(f"{path}: damaged or no head ({reason}). Fit it again.") from None
    if not layers:
        raise RunError(
            f"{path}: {shown(str(kind[0]))}, version {shown(str(kind[1]))}, expected {FORMAT}, "
            f"version {FORMAT_VERSION}. Read it with the fer-features that wrote it."
        )
    return layers, about


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member as it lies: what others packed may unpack to anything."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise NotImplementedError(f"{name} is compressed")
    with opened_member(archive, info) as member:
        return member.read()


def _config(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the layers as Keras describes a functional model, with Keras's public names alone."""
    width = len(layers[0][0])
    inputs = {"batch_shape": [None, width], "dtype": "float64", "sparse": False}
    described = [_keras_layer("InputLayer", "embedding", inputs)]
    for position, (_, bias) in enumerate(layers, 1):
        before, name = described[-1]["name"], f"dense_{position}"
        tensor = {
            "shape": [None, width],
            "dtype": "float64",
            "keras_history": [before, 0, 0],
        }
        dense = {
            "dtype": "float64",
            "units": len(bias),
            "activation": "softmax" if position == len(layers) else "relu",
            "use_bias": True,
        }
        arguments = [{"class_name": "__keras_tensor__", "config": tensor}]
        described.append(
            _keras_layer("Dense", name, dense)
            | {
                "build_config": {"input_shape": [None, width]},
                "inbound_nodes": [{"args": arguments, "kwargs": {}}],
            }
        )
        width = len(bias)
    model = {
        "name": "head",
        "trainable": True,
        "layers": described,
        "input_layers": [["embedding", 0, 0]],
        "output_layers": [[described[-1]["name"], 0, 0]],
    }
    return {"module": "keras", "class_name": "Model", "config": model, "registered_name": None}


def _keras_layer(kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [],
    }


def _groups(n_layers: int) -> list[str]:
    """Return where Keras keeps the variables of Dense layers in its HDF5 file."""
    return [f"layers/dense{f'_{i}' if i else ''}/vars" for i in range(n_layers)]


def _weights(layers: Sequence[Layer]) -> bytes:
    import h5py  # a report on finished runs reads no head

    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        file.create_group("vars")
        for group, layer in zip(_groups(len(layers)), layers, strict=True):
            for position, array in enumerate(layer):
                file.create_dataset(f"{group}/{position}", data=array, dtype="<f8")
    return written.getvalue()


def _read_weights(written: bytes) -> list[Layer]:
    """Return the layers; ValueError or KeyError unless each fits the one before."""
    import h5py  # a report on finished runs reads no head

    from fer_features.hdf5 import item, lies_whole, structure

    with structure(io.BytesIO(written)) as file:
        held = item(file, "layers")
        groups = _groups(len(held) if isinstance(held, h5py.Group) else 0)
        for each in (item(file, f"{group}/{i}") for group in groups for i in (0, 1)):
            if not isinstance(each, h5py.Dataset) or not lies_whole(each, len(written)):
                raise ValueError("weights that do not lie whole in the file")
    with h5py.File(io.BytesIO(written)) as file:
        layers = [(file[f"{group}/0"][()], file[f"{group}/1"][()]) for group in groups]
    width = len(layers[0][0]) if layers else 0
    for kernel, bias in layers:
        floats = kernel.dtype == bias.dtype == np.float64
        if not floats or bias.ndim != 1 or kernel.shape != (width, *bias.shape):
            raise ValueError("weights that do not fit each other")
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError("weights that are not finite")
        width = len(bias)
    if not width:
        raise ValueError("no weights")
    return layers


def log_probabilities(
    layers: Sequence[Layer], X: npt.NDArray[Any], index: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return log probabilities of some rows of embeddings, (n, d) to float64 (m, k)."""
    log_p = np.empty((len(index), len(layers[-1][1])))
    with one_blas_thread():
        for start in range(0, len(index), BLOCK):
            rows = index[start : start + BLOCK]
            hidden = X[rows].astype(np.float64)
            for kernel, bias in layers[:-1]:
                hidden = np.maximum(hidden @ kernel + bias, 0.0)
            kernel, bias = layers[-1]
            log_p[start : start + BLOCK] = log_softmax(hidden @ kernel + bias, axis=1)
    return log_p
