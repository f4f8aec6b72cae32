"""The pass: what is missing goes through the engine, block by block, into the store."""

import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fer_features.embedding.backbone import BackboneSpec, check_weights
from fer_features.embedding.engines import load_engine
from fer_features.embedding.partial import PartialStore, create_partial, locked, open_partial
from fer_features.embedding.store import CACHE, Store
from fer_features.errors import OptionError, SourceError, StoreError, WeightsError
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.reading import read_faces, source_name, source_sha256

log = logging.getLogger(__name__)

BATCH_SIZE = 64


@dataclass(frozen=True)
class _Pass:
    """One call's choices, which every step below needs."""

    target: Path
    backbone: BackboneSpec
    engine: str
    batch_size: int
    progress: bool

    @property
    def partial(self) -> Path:
        return self.target.with_name(self.target.name + ".partial")


def extract(
    source: FaceDataset | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    backbone: BackboneSpec | None = None,
    engine: str = "auto",
    batch_size: int = BATCH_SIZE,
    limit: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    repair: bool = False,
    progress: bool = False,
) -> Store:
    """Embed every distinct image of a source once and keep the embeddings in one HDF5 file.

    A pass that was stopped goes on where it stopped; a complete store is returned at once; an
    older store of the same network gives the embeddings of the images that it knows.

    Parameters
    ----------
    source : FaceDataset or path-like
        Faces, or the CSV file or image folder to read them from.
    path : path-like, optional
        The store; by default ``cache/NAME-FINGERPRINT8.h5``.
    backbone : BackboneSpec, optional
        The network; by default InceptionResNetV2 with ImageNet's weights.
    engine : {"auto", "tensorflow"}
        What executes it.
    batch_size : int
        Images in a block: what is computed, and written, at a time.
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
    if batch_size < 1:
        raise OptionError(f"batch_size: {batch_size}, expected at least 1.")
    if isinstance(source, FaceDataset):
        name, sha256 = source.name, source.sha256
        limit, skip_bad = source.limit, source.skipped > 0
    else:
        name, sha256 = source_name(source), source_sha256(source)
    target = Path(path) if path is not None else default_path(name, spec)
    _check_target(target)
    this = _Pass(target, spec, engine, batch_size, progress)

    def finished() -> Store | None:
        """Return the store that is there if it is of this very source."""
        store = None if overwrite else _known(this)
        if store is None or not _is_of(store, sha256, limit, skip_bad):
            return None
        if repair and store.verify():
            return None
        log.info("%s: complete, nothing to compute", target)
        return store

    if store := finished():
        return store
    check_weights(spec)
    with _naming_the_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if store := finished():
                return store
            if isinstance(source, FaceDataset):
                faces = source
            else:
                faces = _read(source, limit, skip_bad, progress)
            _run(this, faces, overwrite)
    return Store(target)


def default_path(name: str, backbone: BackboneSpec) -> Path:
    """Return ``cache/NAME-FINGERPRINT8.h5``, relative to where the process runs."""
    plain = re.sub(r"[^\w.-]+", "_", name) or "faces"
    return CACHE / f"{plain}-{backbone.fingerprint[:8]}.h5"


def _run(this: _Pass, faces: FaceDataset, overwrite: bool) -> None:
    """Fill a partial file and give it its final name; the lock is held."""
    if not len(faces):
        raise SourceError(f"{faces.name}: no faces, expected at least one.")
    if overwrite or not _resumable(this, faces):
        _start(this, faces, None if overwrite else _known(this, this.partial) or _known(this))
    with open_partial(this.partial) as partial:
        plan = Plan(partial)
        log.info("%s", plan)
        provenance = dict(partial.provenance)
        if plan.blocks:
            provenance |= _compute(this, faces, partial, plan)
        partial.finish(this.target, provenance)


class Plan:
    """Which distinct images are still to be computed, in which blocks.

    Blocks are fixed parts of the list of distinct images in the source's order, and one is
    computed whole or not at all, so that a resumed pass has the batches it would have had. A
    store that reuses an older one's rows has blocks of the images missing now.
    """

    def __init__(self, partial: PartialStore) -> None:
        digests = np.ascontiguousarray(partial.digest).view("V32").ravel()
        _, first, group = np.unique(digests, return_index=True, return_inverse=True)
        counts = np.bincount(group)
        self._rows = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
        unfinished = np.bincount(group, weights=~partial.done()) > 0
        images = np.argsort(first)
        if partial.provenance["reused"]:
            images = images[unfinished[images]]
        size = partial.provenance["block_size"]
        blocks = [images[start : start + size] for start in range(0, len(images), size)]
        self.blocks = [block for block in blocks if unfinished[block].any()]
        self.first: npt.NDArray[np.int64] = first
        self.images = sum(map(len, self.blocks))
        self.known = len(first) - self.images

    def __str__(self) -> str:
        return (
            f"{sum(map(len, self._rows)):,} rows, {len(self.first):,} distinct images: "
            f"{self.known:,} known, {self.images:,} to compute"
        )

    def rows_of(
        self, block: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of a block's images, increasing, and each one's place in the block."""
        groups = [self._rows[image] for image in block]
        rows = np.concatenate(groups)
        places = np.repeat(np.arange(len(block)), [len(group) for group in groups])
        order = np.argsort(rows)
        return rows[order], places[order]


def _compute(this: _Pass, faces: FaceDataset, partial: PartialStore, plan: Plan) -> dict[str, Any]:
    """Compute and write the plan's blocks; return what the provenance says of it."""
    if this.progress:
        log.info("starting the network")
    engine = load_engine(this.backbone, this.engine)
    started = time.perf_counter()
    with tqdm(
        total=len(plan.first),
        initial=plan.known,
        unit=" images",
        desc="Embedding",
        disable=not this.progress,
    ) as bar:
        for block in plan.blocks:
            embeddings = engine(faces.pixels[plan.first[block]])
            if not np.isfinite(embeddings).all():
                raise WeightsError(
                    f"{this.backbone.weights}: the network gave numbers that are not finite, "
                    "expected finite embeddings. Use another weights file."
                )
            rows, places = plan.rows_of(block)
            partial.write(rows, embeddings[places])
            bar.update(len(block))
    seconds = time.perf_counter() - started
    return {
        "engine": engine.name,
        "versions": partial.provenance["versions"] | engine.versions,
        "images": plan.images,
        "resumed": plan.known - partial.provenance["reused"],
        "seconds": round(seconds, 3),
        "images_per_second": round(plan.images / seconds, 3),
    }


def _start(this: _Pass, faces: FaceDataset, known: Store | None) -> None:
    """Create the partial file with all that is known already, under its name only when whole."""
    digests = [digest.tobytes() for digest in faces.digest]
    row_of = {}
    if known is not None:
        intact = np.setdiff1d(np.arange(len(known)), known.verify())
        row_of = {known.digest[row].tobytes(): row for row in intact}
    rows = np.flatnonzero([digest in row_of for digest in digests])
    provenance = {
        "block_size": this.batch_size,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": None,
        "images": 0,
        "images_per_second": None,
        "resumed": 0,
        "reused": len({digests[row] for row in rows}),
        "seconds": 0.0,
        "versions": {name: metadata.version(name) for name in ("fer-features", "numpy", "h5py")},
    }
    new = this.partial.with_name(this.partial.name + ".new")
    try:
        create_partial(new, faces, this.backbone, provenance)
        if known is not None and len(rows):
            with open_partial(new) as partial:
                for part in np.array_split(rows, len(rows) // 4096 + 1):
                    partial.write(part, known.embeddings([row_of[digests[row]] for row in part]))
        new.replace(this.partial)
    finally:
        new.unlink(missing_ok=True)


def _resumable(this: _Pass, faces: FaceDataset) -> bool:
    if not this.partial.exists():
        return False
    with open_partial(this.partial) as partial:
        return partial.holds(faces, this.backbone)


def _known(this: _Pass, path: Path | None = None) -> Store | None:
    """Return the store that is there, or a stopped pass's; refused if another network made it."""
    path = path or this.target
    if not path.exists():
        return None
    store = Store(path)
    if store.fingerprint != this.backbone.fingerprint:
        name, found, expected = next(
            (name, store.backbone.get(name), value)
            for name, value in this.backbone.identity.items()
            if store.backbone.get(name) != value
        )
        raise StoreError(
            f"{path}: made with {name} {found}, expected {expected}. "
            "Choose another output with -o, or pass --overwrite."
        )
    return store


def _is_of(store: Store, sha256: str, limit: int | None, skip_bad: bool) -> bool:
    """Tell from the source's sha256 whether a store has all of it, before it is parsed."""
    dataset = store.dataset
    return (
        dataset["sha256"] == sha256
        and dataset["limit"] == limit
        and (skip_bad or dataset["skipped"] == 0)
    )


def _read(
    source: str | os.PathLike[str], limit: int | None, skip_bad: bool, progress: bool
) -> FaceDataset:
    with tqdm(desc="Reading", unit_scale=True, disable=not progress) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return read_faces(source, limit=limit, skip_bad=skip_bad, progress=show)


def _check_target(target: Path) -> None:
    """Refuse, before anything is read, an output whose loss would be someone's."""
    if target.is_dir():
        raise StoreError(f"{target}: a folder, expected a file name such as {target / 'faces.h5'}.")
    if target.exists():
        with target.open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                raise StoreError(
                    f"{target}: exists and is no HDF5 file, expected a store or a new name. "
                    "Choose another output with -o."
                )


@contextmanager
def _naming_the_disk(target: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one line with what to do."""
    try:
        yield
    except OSError as error:
        # HDF5 reports the system's errno in a text of its own, of several lines.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        refused = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if error.errno is None or not (full or error.errno in refused):
            raise
        raise StoreError(
            f"{target.parent}: {os.strerror(error.errno)}, expected to write {target.name} there. "
            + (
                "Make room and call again: the finished part is kept."
                if full
                else "Choose another output with -o."
            )
        ) from error
