"""Networks converted for OpenVINO: kept beside the stores, and checked before they are used."""

import hashlib
import json
import logging
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from fer_features.embedding.backbone import BackboneSpec, build_network, preprocess
from fer_features.errors import WeightsError
from fer_features.slow import import_openvino, import_tensorflow

log = logging.getLogger(__name__)


def converted_network(spec: BackboneSpec, folder: Path) -> Any:
    """Return the network as an OpenVINO model; converted once, then read without TensorFlow.

    Maps uint8 (k, 48, 48) to float32 (k, d). Quantised networks are only read.

    Raises
    ------
    WeightsError
        When the weights are missing or do not fit, or a quantised network is missing.
    """
    if spec.quantised is not None:
        return _quantised(spec, folder)
    path = _converted_path(spec, folder)
    facts = network_facts(path)
    if facts is not None and facts.get("fingerprint") == spec.fingerprint:
        return import_openvino().Core().read_model(path)
    log.info("converting the network for OpenVINO, once: kept as %s", path)
    model = _convert(spec)
    write_network(model, path, {"fingerprint": spec.fingerprint})
    return model


def write_network(model: Any, path: Path, facts: dict[str, Any]) -> str:
    """Keep a network as ``.xml`` and ``.bin``, with what is known of it in ``.json``.

    The last is written last and holds the sha256 of the other two, so a network counts as there
    only when it is whole. Returns that sha256, in hex.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each process: two may convert the same network at the same time.
    new = path.with_name(f".{os.getpid()}-{path.name}")
    import_openvino().save_model(model, new, compress_to_fp16=False)
    sha256 = network_sha256(new)
    new.with_suffix(".bin").replace(path.with_suffix(".bin"))
    new.replace(path)
    note = new.with_suffix(".json")
    note.write_text(json.dumps({**facts, "sha256": sha256}, indent=1, sort_keys=True) + "\n")
    note.replace(path.with_suffix(".json"))
    return sha256


def network_sha256(path: Path) -> str:
    """Return the hex sha256 over a network's ``.xml`` and ``.bin``."""
    total = hashlib.sha256()
    for suffix in (".xml", ".bin"):
        with path.with_suffix(suffix).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def network_facts(path: Path) -> dict[str, Any] | None:
    """Return what is known of a kept network; None when it is not there, or not whole."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        whole = facts["sha256"] == network_sha256(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if whole else None


def quantised_path(float_fingerprint: str, folder: Path) -> Path:
    """Return where the quantised form of a float32 network is kept."""
    return folder / f"int8-{float_fingerprint[:16]}.xml"


def is_converted(spec: BackboneSpec, folder: Path) -> bool:
    """Tell whether a network needs no weights any more; its content is checked when it is read."""
    return spec.quantised is not None or _converted_path(spec, folder).with_suffix(".json").exists()


def _converted_path(spec: BackboneSpec, folder: Path) -> Path:
    version = metadata.version("openvino").split("-")[0]
    return folder / f"openvino-{version}-{spec.fingerprint[:16]}.xml"


def _quantised(spec: BackboneSpec, folder: Path) -> Any:
    path = quantised_path(spec.with_precision("float32").fingerprint, folder)
    facts = network_facts(path)
    if facts is None or facts["sha256"] != spec.quantised:
        raise WeightsError(
            f"{path}: missing or not the quantised network of this store, expected sha256 "
            f"{spec.quantised}. Put it there, or extract into another folder."
        )
    return import_openvino().Core().read_model(path)


def _convert(spec: BackboneSpec) -> Any:
    tf = import_tensorflow()
    openvino = import_openvino()
    network = build_network(spec)

    @tf.function(input_signature=[tf.TensorSpec((None, 48, 48), tf.uint8)], autograph=False)
    def embed(pixels: object) -> object:
        return network(preprocess(pixels, spec.input_size), training=False)

    return openvino.convert_model(embed.get_concrete_function())
