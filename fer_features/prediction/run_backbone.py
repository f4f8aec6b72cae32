"""The network of a run, rebuilt from what its store said of it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_features.embedding.backbone import FINAL, BackboneSpec, check_files, fingerprint
from fer_features.embedding.weights import inspect_keras_file
from fer_features.errors import BackboneError, RunError
from fer_features.experiment.run_head import RunHead


def run_spec(head: RunHead, backbone: Any, weights: Any) -> BackboneSpec:
    """Return the spec of a run's network; its files are those given, or lie where they did.

    Parameters
    ----------
    head : RunHead
        With what the run says of its store.
    backbone, weights : path-like, optional
        A ``.keras`` file, or a file of weights, of the very network.

    Raises
    ------
    BackboneError
        They are another network's.
    RunError
        What the run says of its network does not fit together.
    """
    identity = head.store.get("backbone") or {}
    if fingerprint(identity) != head.fingerprint:
        raise RunError(
            f"{head.folder / 'metrics.json'}: a network of fingerprint "
            f"{fingerprint(identity)[:16]}, expected {head.fingerprint[:16]}, which the head was "
            "fitted to. Fit it again."
        )
    expected = set(BackboneSpec("tiny", weights="random").identity)
    if not expected <= set(identity) <= {*expected, "quantised"} or not (
        isinstance(identity["image"], list) and isinstance(identity["backbone"], str)
    ):
        raise RunError(
            f"{head.folder / 'metrics.json'}: 'store.backbone' is not as the format says. Fit the "
            "head again."
        )
    layers = tuple(name for name in head.features.split("+") if name != FINAL)
    fields = identity | {"image": tuple(identity["image"]), "layers": layers}
    for each in head.store.get("provenance", {}).get("passes", []):
        files = each.get("files") or {}
        fields |= {f"{name}_file": files[name] for name in ("backbone", "weights") if name in files}
    given = {}
    if backbone is not None:
        given["backbone"] = f"sha256:{inspect_keras_file(Path(backbone)).sha256}"
        fields["backbone_file"] = os.fspath(Path(backbone).absolute())
    if weights is not None:
        spec = BackboneSpec(**fields | {"weights": os.fspath(weights)})
        given["weights"] = str(spec.weights)
        fields["weights_file"] = spec.weights_file
    for name, found in given.items():
        if found != identity[name]:
            path = backbone if name == "backbone" else weights
            raise BackboneError(
                f"{path}: {found}, of another fingerprint than {head.folder}'s, expected "
                f"{identity[name] or 'none'}. Pass its own, or leave --{name} out."
            )
    return BackboneSpec(**fields)


def with_checked_files(spec: BackboneSpec) -> BackboneSpec:
    """Return a spec with the files that its network is built of, once their content is checked.

    Raises
    ------
    BackboneError
        One is missing, or another one than when the run's store was made.
    """
    try:
        check_files(spec)
    except BackboneError as error:
        if not spec.files:
            raise
        if spec.weights == "imagenet":
            keras_own = replace(spec, weights_file=None)
            check_files(keras_own)
            return keras_own
        option = "backbone=FILE.keras" if spec.weights is None else "weights=FILE"
        reason = str(error).partition(". ")[0]
        raise BackboneError(
            f"{reason}. The run's store was made with the file there: pass it as {option}."
        ) from error
    return spec
