"""The backbone on OpenVINO: converted once and kept, in float32 or quantised to 8-bit integers."""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.network import Outputs, trace
from fer_features.embedding.partial import allocate
from fer_features.errors import BackboneError, OptionError
from fer_features.faces.dataset import FaceDataset
from fer_features.runtimes import collection_paused, import_openvino

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 300
HELD_OUT_IMAGES = 128
SEED = 0
BROKEN = 0.5
"""Median centred cosine to float32 below which a pass warns.

Heads decide what int8 is worth, not this: on trained EfficientNet-Lite0, at 0.92, they lost none.
With its errors made larger logistic regression lost 1 point of accuracy at 0.83, 2 at 0.74 and 3 at
0.56; with noise in their place 2 at 0.88, 5 at 0.69, 8 at 0.54 and 11 at 0.44.
"""

# OpenVINO computes in bfloat16 where the processor can, unless told not to.
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}

_PART = 8
"""Most images of one request: more of them take their turns worse."""


class OpenVINOEngine:
    """The backbone on OpenVINO's CPU plugin; starts without TensorFlow when it can.

    A batch is computed in parts, as many side by side as OpenVINO finds fit for the processor: a
    thread that ends its part takes the next, where those of one large request wait for the slowest.
    The numbers are the same to the bit.

    ``folder`` keeps converted networks, by fingerprint, outputs and OpenVINO version.
    """

    def __init__(
        self, spec: BackboneSpec, outputs: Sequence[str], folder: Path, threads: int | None = None
    ) -> None:
        config: dict[str, Any] = {**_FLOAT32, "PERFORMANCE_HINT": "THROUGHPUT"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
            # Pinned, the engines of several workers would all take the first processors.
            config["ENABLE_CPU_PINNING"] = False
        network, _ = converted_network(spec, outputs, folder)
        self.most = sys.maxsize
        openvino = import_openvino()
        compiled = openvino.Core().compile_model(network, "CPU", config)
        self.dimensions = {
            name: int(compiled.output(name).partial_shape[1].get_length()) for name in outputs
        }
        self._side_by_side = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue = openvino.AsyncInferQueue(compiled, self._side_by_side)
        self._one_batch = threading.Lock()  # of whichever thread: they share the queue

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Outputs:
        said = {name: np.empty((len(pixels), d), np.float32) for name, d in self.dimensions.items()}

        def keep(request: Any, rows: slice) -> None:
            for name, values in said.items():
                values[rows] = request.get_tensor(name).data

        part = max(1, min(_PART, -(-len(pixels) // self._side_by_side)))
        try:
            with self._one_batch:
                self._queue.set_callback(keep)
                for start in range(0, len(pixels), part):
                    rows = slice(start, start + part)
                    self._queue.start_async(pixels[rows], rows)
                self._queue.wait_all()
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            raise MemoryError(f"a batch of {len(pixels)} does not fit") from error
        return said


def converted_network(
    spec: BackboneSpec, outputs: Sequence[str], folder: Path
) -> tuple[Any, dict[str, int]]:
    """Return the network as an OpenVINO model, and the dimensions of its outputs by name.

    Converted once, then read without TensorFlow. Maps uint8 faces to outputs of those names,
    float32 (k, d) each. A quantised network is only read, and may have more outputs.

    Raises
    ------
    BackboneError
        When files are missing or do not fit, a layer is unknown, or a quantised network is
        missing.
    """
    kept = _kept(spec, outputs, folder)
    if kept is not None:
        path, facts = kept
        model = import_openvino().Core().read_model(path)
        if spec.quantised is None:
            model = _without_others(model, outputs)
        return model, facts["outputs"]
    path = _converted_path(spec, outputs, folder)
    traced = trace(spec, outputs)
    log.info("converting the network for OpenVINO")
    try:
        with collection_paused():
            model = import_openvino().convert_model(traced.graph)
    except Exception as error:  # of many kinds, and at length
        said = " ".join(str(error).split())[:120]
        raise BackboneError(
            f"{spec.name}: OpenVINO cannot convert it ({said}). Pass --engine tensorflow."
        ) from error
    asked = {tensor.name: name for tensor, name in zip(traced.graph.outputs, outputs, strict=True)}
    for output in list(model.outputs):
        names = {asked[each] for each in output.get_names() if each in asked}
        if names:  # several, where a layer's output is the network's
            output.get_tensor().add_names(names)
        else:  # of a swish, whose own gradient the conversion takes for an output
            model.remove_result(output.get_node())
    facts = {"fingerprint": spec.fingerprint, "outputs": traced.dimensions}
    try:
        write_network(model, path, facts)
        log.info("the converted network is kept as %s", path)
    except OSError as error:
        log.warning(
            "%s: the converted network cannot be kept (%s), and is converted again next time",
            path,
            error.strerror or error,
        )
    return model, traced.dimensions


def network_files(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> list[Path]:
    """Return the files of the network in a folder, converted first where it is not there.

    In another folder they are the same network there.

    Raises
    ------
    BackboneError
        As :func:`converted_network`, or when it cannot be kept.
    """
    kept = _kept(spec, outputs, folder)
    if kept is None:
        converted_network(spec, outputs, folder)
        kept = _kept(spec, outputs, folder)
    if kept is None:
        raise BackboneError(
            f"{folder}: the converted network cannot be kept there, expected it to be, as it is "
            "sent from there. Choose another output with -o."
        )
    return [kept[0].with_suffix(suffix) for suffix in (".xml", ".bin", ".json")]


def is_converted(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> bool:
    """Tell whether a network needs no weights any more; its content is checked when it is read."""
    if spec.quantised is not None:
        kept = _kept_quantised(spec, folder)
        return any(facts["sha256"] == spec.quantised for _, facts in kept)
    if importlib.util.find_spec("openvino") is None:
        return False  # whose version is part of the file's name
    return bool(_converted(spec, outputs, folder))


def quantise(spec: BackboneSpec, faces: FaceDataset, folder: Path) -> BackboneSpec:
    """Return the spec of the quantised network, which is made if ``folder`` holds none yet.

    Quantised after training, by NNCF, on a seeded sample of the faces. How close it comes to
    float32 is measured on images that it was not calibrated on, and kept with it: for each output
    the cosine of each image's two embeddings, plain and after subtracting each kind's mean
    embedding. The second is what tells faces apart; the first is high between any two faces.

    Parameters
    ----------
    spec : BackboneSpec
        The network and the outputs that it must have.
    faces : FaceDataset
        Of which it is calibrated.
    folder : Path
        Where it is kept.

    Raises
    ------
    OptionError
        When NNCF is not installed, or there are too few images.
    """
    return quantised_spec(spec, folder) or _quantise(spec, faces, folder)


def quantised_spec(
    spec: BackboneSpec, folder: Path, wanted: str | None = None
) -> BackboneSpec | None:
    """Return the spec with a quantised network of ``folder`` that has its outputs, if one does.

    Of several the one whose hex sha256 is ``wanted``, else the one of the fewest outputs.
    """
    found = {
        facts["sha256"]: len(facts["outputs"])
        for _, facts in _kept_quantised(spec, folder)
        if set(spec.outputs) <= set(facts["outputs"])
    }
    if not found:
        return None
    chosen = wanted if wanted in found else min(found, key=lambda sha256: found[sha256])
    return replace(spec, quantised=chosen)


def quantised_path(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> Path:
    """Return where the quantised form of a network with these outputs is kept."""
    return folder / f"int8-{_float32(spec).fingerprint[:16]}-{_short_hash(outputs)}.xml"


def quantisation_facts(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return what provenance says of a quantised network, and say how near float32 it comes."""
    if spec.quantised is None:
        return {}
    _, facts = _quantised(spec, outputs, folder)
    cosine = {
        name: {**said, "warns": said["centred"]["median"] < BROKEN}
        for name, said in facts["cosine"].items()
    }
    near = {name: cosine[name] for name in outputs}
    if near:
        log.info(
            "int8: centred cosine to float32 in the median of %d images: %s. Heads alone tell what "
            "that costs them: if it matters, extract in float32 too and pass both stores to "
            "fer-compare.",
            min(said["images"] for said in near.values()),
            ", ".join(f"{name} {said['centred']['median']:.2f}" for name, said in near.items()),
        )
    for name, said in near.items():
        if said["warns"]:
            log.warning(
                "int8: %s keeps little of what tells images apart in float32: centred cosine %.2f "
                "in the median of %d images, expected at least %.1f. Use float32.",
                name,
                said["centred"]["median"],
                said["images"],
                BROKEN,
            )
    return {"cosine": cosine, "calibration": facts["calibration"]}


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


def write_network(model: Any, path: Path, facts: dict[str, Any]) -> str:
    """Keep a network as ``.xml`` and ``.bin``, with what is known of it in ``.json``.

    The last is written last and holds the sha256 of the other two, so a network counts as there
    only when it is whole. Returns that sha256, in hex.

    Raises
    ------
    OSError
        When it cannot be written; nothing of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each process: two may convert the same network at the same time.
    new = path.with_name(f".{os.getpid()}-{path.name}")
    files = [new.with_suffix(suffix) for suffix in (".bin", ".xml", ".json")]
    try:
        files[-1].touch()  # OpenVINO does not say why it cannot write
        save_model(model, new)
        sha256 = _network_sha256(new)
        files[-1].write_text(json.dumps({**facts, "sha256": sha256}, indent=1) + "\n")
        for file in files:
            file.replace(path.with_suffix(file.suffix))
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    return sha256


def save_model(model: Any, path: Path) -> None:
    """Write an OpenVINO model as ``.xml`` and ``.bin``.

    Raises
    ------
    OSError
        When it cannot be written, or only a part of it.
    """
    openvino = import_openvino()
    weights = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    with path.with_suffix(".bin").open("wb+") as file:  # where there is no room, the system says so
        allocate(file.fileno(), sum(node.get_byte_size() for node in weights))
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
        # On a full disk OpenVINO before 2026.2 leaves the start of the files and says nothing.
        openvino.Core().read_model(path)
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())[:80]) from error


def network_facts(path: Path) -> dict[str, Any] | None:
    """Return what is known of a kept network; None when it is not there, or not whole."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        whole = facts["sha256"] == _network_sha256(path) and isinstance(facts["outputs"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if whole else None


def _network_sha256(path: Path) -> str:
    """Return the hex sha256 over a network's ``.xml`` and ``.bin``."""
    total = hashlib.sha256()
    for suffix in (".xml", ".bin"):
        with path.with_suffix(suffix).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _kept(
    spec: BackboneSpec, outputs: Sequence[str], folder: Path
) -> tuple[Path, dict[str, Any]] | None:
    """Return the file and the facts of a kept network that is whole and has these outputs.

    Raises
    ------
    BackboneError
        When it is a quantised one, and missing.
    """
    if spec.quantised is not None:
        return _quantised(spec, outputs, folder)
    for path in _converted(spec, outputs, folder):
        facts = network_facts(path) or {}
        if facts.get("fingerprint") == spec.fingerprint:
            return path, facts
    return None


def _converted_path(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> Path:
    version = metadata.version("openvino").split("-")[0]
    return folder / f"openvino-{version}-{spec.fingerprint[:16]}-{_short_hash(outputs)}.xml"


def _converted(spec: BackboneSpec, outputs: Sequence[str], folder: Path) -> list[Path]:
    """Return the kept networks that have some outputs, the one of exactly these first.

    What is said of them is read, their content is not.
    """
    exact = _converted_path(spec, outputs, folder)
    others = folder.glob(f"{exact.stem[: -len(_short_hash(outputs))]}*.xml")
    found = []
    for path in [exact, *sorted(set(others) - {exact})]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(path.with_suffix(".json").read_text())["outputs"]
            if list(said) == list(outputs) if path == exact else set(outputs) <= set(said):
                found.append(path)
    return found


def _without_others(model: Any, outputs: Sequence[str]) -> Any:
    """Return a network without the outputs that are not asked for, so that none is computed."""
    for output in list(model.outputs):
        if not output.get_names() & set(outputs):
            model.remove_result(output.get_node())
    return model


def _short_hash(outputs: Sequence[str]) -> str:
    return hashlib.sha256(",".join(outputs).encode()).hexdigest()[:8]


def _kept_quantised(spec: BackboneSpec, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the file and the facts of each whole quantised form of a network in a folder."""
    for path in sorted(folder.glob(f"int8-{_float32(spec).fingerprint[:16]}-*.xml")):
        facts = network_facts(path)
        if facts is not None:
            yield path, facts


def _quantised(
    spec: BackboneSpec, outputs: Sequence[str], folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Return the file and the facts of the quantised network that a spec names."""
    for path, facts in _kept_quantised(spec, folder):
        if facts["sha256"] == spec.quantised:
            lacking = [name for name in outputs if name not in facts["outputs"]]
            if lacking:
                raise BackboneError(
                    f"{path}: quantised without layer {lacking[0]}, which an "
                    "int8 network cannot be given later. Extract it into another output."
                )
            return path, facts
    raise BackboneError(
        f"{folder}: no quantised network of sha256 {spec.quantised}, expected the one that the "
        "embeddings are of. Put its int8-… files there, or extract anew into another folder."
    )


def _quantise(spec: BackboneSpec, faces: FaceDataset, folder: Path) -> BackboneSpec:
    try:
        import_openvino()
        import nncf
    except ImportError as error:
        raise OptionError("precision: int8 needs NNCF. Install fer-features[int8].") from error
    pixels = _sample(faces)
    calibration, held_out = pixels[:-HELD_OUT_IMAGES], pixels[-HELD_OUT_IMAGES:]
    if len(calibration) < len(held_out):
        calibration, held_out = pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]
    if len(pixels) < 4:
        raise OptionError(
            f"precision: int8 is calibrated on images, found {len(pixels)} distinct ones, "
            "expected at least 4. Use float32."
        )
    log.info("quantising the network on %d images, once", len(calibration))
    network, dimensions = converted_network(_float32(spec), spec.outputs, folder)
    logging.getLogger("nncf").setLevel(logging.ERROR)  # set_log_level: also of others' handlers
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            network, nncf.Dataset(np.array_split(calibration, -(-len(calibration) // 10)))
        )
    exact, rounded = (_run(each, spec.outputs, held_out) for each in (network, quantised))
    facts = {
        "fingerprint": _float32(spec).fingerprint,
        "outputs": dimensions,
        "calibration": {"source": faces.name, "sha256": faces.sha256, "images": len(calibration)},
        "cosine": {name: compare_embeddings(exact[name], rounded[name]) for name in spec.outputs},
    }
    path = quantised_path(spec, spec.outputs, folder)
    return replace(spec, quantised=write_network(quantised, path, facts))


def _sample(faces: FaceDataset) -> npt.NDArray[np.uint8]:
    """Return distinct images in a seeded order: those to calibrate on, then those held out."""
    digests = np.ascontiguousarray(faces.digest).view("V32").ravel()
    rows = np.sort(np.unique(digests, return_index=True)[1])
    order = np.random.default_rng(SEED).permutation(rows)
    chosen: npt.NDArray[np.uint8] = faces.pixels[order[: CALIBRATION_IMAGES + HELD_OUT_IMAGES]]
    return chosen


def _run(network: Any, outputs: Sequence[str], pixels: npt.NDArray[np.uint8]) -> Outputs:
    compiled = import_openvino().Core().compile_model(network, "CPU", _FLOAT32)
    parts = [compiled(part) for part in np.array_split(pixels, -(-len(pixels) // 32))]
    return {name: np.concatenate([np.array(part[name]) for part in parts]) for name in outputs}


def _float32(spec: BackboneSpec) -> BackboneSpec:
    return replace(spec, precision="float32", quantised=None)
