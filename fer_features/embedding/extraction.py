"""The pass: what is missing goes through the engine, block by block, into the store."""

import logging
import os
import re
import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_features.embedding.backbone import BackboneSpec, check_weights
from fer_features.embedding.blocks import Computing, Plan
from fer_features.embedding.converted import is_converted, quantised_path
from fer_features.embedding.engines import choose_engine, engine_versions
from fer_features.embedding.partial import (
    PartialStore,
    create_partial,
    locked,
    naming_the_disk,
    open_partial,
)
from fer_features.embedding.quantisation import quantisation_facts, quantise, quantised_spec
from fer_features.embedding.source import GivenSource, Source
from fer_features.embedding.store import CACHE, Store, is_hdf5
from fer_features.errors import OptionError, StoreError, WeightsError
from fer_features.faces.dataset import FaceDataset

log = logging.getLogger(__name__)

BATCH_SIZE = 64


def extract(
    source: Source,
    path: str | os.PathLike[str] | None = None,
    *,
    backbone: BackboneSpec | None = None,
    engine: str = "auto",
    batch_size: int = BATCH_SIZE,
    workers: int = 1,
    dask: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    repair: bool = False,
    progress: bool = False,
) -> Store:
    """Embed every distinct image of a source once and keep the embeddings in one HDF5 file.

    A pass that was stopped goes on where it stopped; a complete store is returned at once; an
    older store of the same network gives the embeddings of the images that it knows. A store of
    which the source lacks more than half of the images is not replaced by it.

    Parameters
    ----------
    source : FaceDataset or path-like
        Faces, or the CSV file or image folder to read them from.
    path : path-like, optional
        The store; by default ``cache/NAME-FINGERPRINT8.h5``. Converted and quantised networks
        are kept in its folder.
    backbone : BackboneSpec, optional
        The network; by default InceptionResNetV2 with ImageNet's weights.
    engine : {"auto", "tensorflow", "openvino"}
        What executes it; "auto" takes the fastest one installed.
    batch_size : int
        Images in a block: what is computed, and written, at a time.
    workers : int
        Processes on this machine that share the work.
    dask : str, optional
        Address of a Dask scheduler whose workers do it instead.
    limit, skip_bad
        As for :func:`read_faces`, when ``source`` is a path.
    overwrite : bool
        Start anew instead of using what is there.
    repair : bool
        Recompute the damaged rows of the store that is there.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    Store

    Raises
    ------
    SourceError, WeightsError, StoreError
        Before the network starts, when an input or the output cannot be used.
    OptionError
        When an option has a bad value.
    """
    spec = backbone or BackboneSpec()
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise OptionError(f"{name}: {value}, expected at least 1.")
    engine = choose_engine(engine, spec.precision)
    given = GivenSource.of(source, limit, skip_bad, progress)
    folder = Path(path).parent if path is not None else CACHE
    with naming_the_disk(folder):
        if spec.precision == "int8" and spec.quantised is None:
            spec = quantised_spec(spec, folder) or _quantise(spec, given, folder)
        target = Path(path) if path is not None else default_path(given.name, spec)
        _check_target(target, repair)
        computing = Computing(spec, engine, target.parent, workers, dask)
        this = _Pass(target, computing, batch_size, progress)
        if _finished(this, given, overwrite, repair):
            log.info("%s: complete, nothing to compute", target)
            return Store(target)
        if not (engine == "openvino" and is_converted(spec, target.parent)):
            check_weights(spec)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            # Another process may have finished it meanwhile.
            if not _finished(this, given, overwrite, repair):
                _run(this, given.faces(), overwrite)
    return Store(target)


def default_path(name: str, backbone: BackboneSpec) -> Path:
    """Return ``cache/NAME-FINGERPRINT8.h5``, relative to where the process runs."""
    plain = re.sub(r"[^\w.-]+", "_", name) or "faces"
    return CACHE / f"{plain}-{backbone.fingerprint[:8]}.h5"


@dataclass(frozen=True)
class _Pass:
    """One call's choices, which every step below needs."""

    target: Path
    computing: Computing
    batch_size: int
    progress: bool

    @property
    def partial(self) -> Path:
        return self.target.with_name(self.target.name + ".partial")


def _quantise(spec: BackboneSpec, given: GivenSource, folder: Path) -> BackboneSpec:
    """Quantise the network, or take what another process has quantised meanwhile."""
    check_weights(spec)
    faces = given.faces()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(quantised_path(spec.with_precision("float32").fingerprint, folder)):
        return quantised_spec(spec, folder) or quantise(spec, faces, folder)


def _finished(this: _Pass, given: GivenSource, overwrite: bool, repair: bool) -> bool:
    """Tell whether the store that is there has all of this very source, without reading it."""
    store = None if overwrite else _known(this, this.target)
    if store is None:
        return False
    dataset = store.dataset
    return (
        dataset["sha256"] == given.sha256
        and dataset["limit"] == given.limit
        and (given.skip_bad or dataset["skipped"] == 0)
        and not (repair and store.verify())
    )


def _known(this: _Pass, path: Path) -> Store | None:
    """Return the store that is there, or a stopped pass's; refused if another network made it."""
    if not path.exists():
        return None
    store = Store(path)
    mine, theirs = this.computing.spec.identity, store.backbone
    for name in (*mine, *theirs):
        if mine.get(name) != theirs.get(name):
            raise StoreError(
                f"{path}: made with {name} {theirs.get(name)}, expected {mine.get(name)}. "
                "Choose another output with -o, or pass --overwrite."
            )
    return store


def _run(this: _Pass, faces: FaceDataset, overwrite: bool) -> None:
    """Fill a partial file and give it its final name; the lock is held."""
    if overwrite or not _resumable(this, faces):
        known = None if overwrite else _known(this, this.partial) or _known(this, this.target)
        _start(this, faces, known)
    with open_partial(this.partial) as partial:
        plan = Plan(partial)
        log.info("%s", plan)
        provenance = dict(partial.provenance)
        if plan.blocks:
            provenance |= _compute(this, faces, partial, plan)
        partial.finish(this.target, provenance)


def _resumable(this: _Pass, faces: FaceDataset) -> bool:
    if not this.partial.exists():
        return False
    with open_partial(this.partial) as partial:
        return partial.holds(faces, this.computing.spec)


def _start(this: _Pass, faces: FaceDataset, known: Store | None) -> None:
    """Create the partial file with all that is known already, under its name only when whole."""
    digests = [digest.tobytes() for digest in faces.digest]
    row_of = {}
    if known is not None:
        intact = np.setdiff1d(np.arange(len(known)), known.verify())
        row_of = {known.digest[row].tobytes(): row for row in intact}
        _refuse_loss(known.path, row_of.keys(), digests, faces.name)
    rows = np.flatnonzero([digest in row_of for digest in digests])
    provenance = {
        "block_size": this.batch_size,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": this.computing.engine,
        "images": 0,
        "images_per_second": None,
        "resumed": 0,
        "reused": len({digests[row] for row in rows}),
        "seconds": 0.0,
        "versions": _versions(this),
    }
    new = this.partial.with_name(this.partial.name + ".new")
    try:
        create_partial(new, faces, this.computing.spec, provenance)
        if known is not None and len(rows):
            with open_partial(new) as partial:
                for part in np.array_split(rows, len(rows) // 4096 + 1):
                    partial.write(part, known.embeddings([row_of[digests[row]] for row in part]))
        new.replace(this.partial)
    finally:
        new.unlink(missing_ok=True)


def _refuse_loss(path: Path, there: Set[bytes], digests: list[bytes], name: str) -> None:
    """Refuse a source that would replace a store and lose most of its images.

    A picture more or less is an edited source; another source, or a small part of one, is not
    meant to cost a pass that took hours.
    """
    kept = len(there & set(digests))
    if 2 * kept < len(there):
        raise StoreError(
            f"{path}: holds {len(there):,} images, of which this source ({name}) has {kept:,}; the "
            "others would be lost. Choose another output with -o, or pass --overwrite."
        )


def _compute(this: _Pass, faces: FaceDataset, partial: PartialStore, plan: Plan) -> dict[str, Any]:
    """Compute and write the plan's blocks; return what the provenance says of it."""
    spec = this.computing.spec
    started = time.perf_counter()
    first, first_images = 0.0, 0
    with tqdm(
        total=len(plan.first),
        initial=plan.known,
        unit=" images",
        desc="Embedding",
        disable=not this.progress,
    ) as bar:
        for block, embeddings in this.computing.embed(plan, faces.pixels):
            if not np.isfinite(embeddings).all():
                raise WeightsError(
                    f"{spec.weights}: the network gave numbers that are not finite, expected "
                    "finite embeddings. Use another weights file."
                )
            rows, places = plan.rows_of(block)
            partial.write(rows, embeddings[places])
            bar.update(len(block))
            if not first_images:
                # The first block waits for the engine to start, which the rate leaves out.
                first, first_images = time.perf_counter() - started, len(block)
    seconds = time.perf_counter() - started
    later = plan.images - first_images
    return {
        "engine": this.computing.engine,
        "images": plan.images,
        "resumed": plan.known - partial.provenance["reused"],
        "seconds": round(seconds, 3),
        "images_per_second": round(
            later / (seconds - first) if later else plan.images / seconds, 3
        ),
        "versions": _versions(this),
        **quantisation_facts(spec, this.computing.folder),
    }


def _versions(this: _Pass) -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("fer-features", "numpy", "h5py")}
    return found | engine_versions(this.computing.engine)


def _check_target(target: Path, repair: bool) -> None:
    """Refuse, before anything is read, an output whose loss would be someone's."""
    if repair and not target.exists():
        raise StoreError(f"{target}: no such file, expected a store to repair. Check the path.")
    if target.is_dir():
        raise StoreError(f"{target}: a folder, expected a file name such as {target / 'faces.h5'}.")
    if target.exists() and not is_hdf5(target):
        raise StoreError(
            f"{target}: exists and is no HDF5 file, expected a store or a new name. "
            "Choose another output with -o."
        )
