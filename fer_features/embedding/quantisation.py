"""The network in 8-bit integers: calibrated once on faces of the pass, then only read."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.converted import (
    converted_network,
    network_facts,
    quantised_path,
    write_network,
)
from fer_features.errors import OptionError
from fer_features.faces.dataset import FaceDataset
from fer_features.slow import import_openvino

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 300
HELD_OUT_IMAGES = 128
SEED = 0
CLOSE = 0.95
"""Median centred cosine to float32 below which embeddings are said to differ."""


def quantised_spec(spec: BackboneSpec, folder: Path) -> BackboneSpec | None:
    """Return the spec with the quantised network kept in ``folder``; None if there is none."""
    facts = network_facts(quantised_path(_float32(spec).fingerprint, folder))
    return None if facts is None else spec.with_precision("int8", facts["sha256"])


def quantise(spec: BackboneSpec, faces: FaceDataset, folder: Path) -> BackboneSpec:
    """Quantise the network on a seeded sample of faces, keep it, and return its spec.

    NNCF's post-training quantisation. How close it comes to float32 is measured on images that
    it was not calibrated on, and kept with it: the cosine of each image's two embeddings, plain
    and after subtracting each kind's mean embedding. The second is what tells faces apart; the
    first is high between any two faces.

    Raises
    ------
    OptionError
        When NNCF is not installed, or there are fewer than two images to measure on.
    """
    try:
        import_openvino()
        import nncf
    except ImportError as error:
        raise OptionError("precision: int8 needs NNCF. Install fer-features[int8].") from error
    pixels = _sample(faces)
    calibration, held_out = pixels[:-HELD_OUT_IMAGES], pixels[-HELD_OUT_IMAGES:]
    if len(calibration) < len(held_out):
        calibration, held_out = pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]
    if len(held_out) < 2:
        raise OptionError(
            f"precision: int8 is calibrated on images, found {len(pixels)} distinct ones, "
            "expected at least 4. Use float32."
        )
    log.info("quantising the network on %d images, once", len(calibration))
    network = converted_network(_float32(spec), folder)
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            network, nncf.Dataset(np.array_split(calibration, -(-len(calibration) // 10)))
        )
    cosine = compare_embeddings(_run(network, held_out), _run(quantised, held_out))
    facts = {
        "fingerprint": _float32(spec).fingerprint,
        "calibration": {"source": faces.name, "sha256": faces.sha256, "images": len(calibration)},
        "cosine": {**cosine, "warns": cosine["centred"]["median"] < CLOSE},
    }
    sha256 = write_network(quantised, quantised_path(_float32(spec).fingerprint, folder), facts)
    return spec.with_precision("int8", sha256)


def quantisation_facts(spec: BackboneSpec, folder: Path) -> dict[str, Any]:
    """Return what provenance says of a quantised network; warn when it is far from float32."""
    if spec.quantised is None:
        return {}
    facts = network_facts(quantised_path(_float32(spec).fingerprint, folder)) or {}
    cosine = facts.get("cosine")
    if cosine and cosine.get("warns"):
        log.warning(
            "int8: the embeddings differ from float32 ones: centred cosine %.3f in the median of "
            "%d images, expected at least %.2f. Judge by the heads' scores, or use float32.",
            cosine["centred"]["median"],
            cosine["images"],
            CLOSE,
        )
    return {name: facts[name] for name in ("cosine", "calibration") if name in facts}


def compare_embeddings(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Return minimum and median cosine of rows, float32 (n, d) each, plain and centred."""

    def cosines(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> dict[str, float]:
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        values = (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
        return {"min": round(float(values.min()), 5), "median": round(float(np.median(values)), 5)}

    a, b = one.astype(np.float64), other.astype(np.float64)
    return {
        "images": len(a),
        "plain": cosines(a, b),
        "centred": cosines(a - a.mean(axis=0), b - b.mean(axis=0)),
    }


def _sample(faces: FaceDataset) -> npt.NDArray[np.uint8]:
    """Return distinct images in a seeded order: those to calibrate on, then those held out."""
    digests = np.ascontiguousarray(faces.digest).view("V32").ravel()
    rows = np.sort(np.unique(digests, return_index=True)[1])
    order = np.random.default_rng(SEED).permutation(rows)
    return faces.pixels[order[: CALIBRATION_IMAGES + HELD_OUT_IMAGES]]


def _run(network: Any, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = import_openvino().Core().compile_model(network, "CPU", hint)
    parts = [np.array(compiled(part)[0]) for part in np.array_split(pixels, -(-len(pixels) // 32))]
    return np.concatenate(parts)


def _float32(spec: BackboneSpec) -> BackboneSpec:
    return spec.with_precision("float32")
