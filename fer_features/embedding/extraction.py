"""The pass: what is missing goes through the engine, block by block, into the store."""

import importlib.util
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fer_features.embedding.backbone import BackboneSpec, check_files
from fer_features.embedding.engines import Engine, choose_engine, embed, engine_versions
from fer_features.embedding.layout import DamagedStoreError, Positions, is_hdf5
from fer_features.embedding.network import Outputs
from fer_features.embedding.openvino import (
    is_converted,
    quantisation_facts,
    quantise,
    quantised_path,
    quantised_spec,
)
from fer_features.embedding.partial import (
    Content,
    PartialStore,
    create_partial,
    locked,
    naming_the_disk,
    open_partial,
)
from fer_features.embedding.reuse import Known, is_open, known_of, lost_with
from fer_features.embedding.store import CACHE, Store
from fer_features.embedding.workers import Computing, embed_elsewhere, threads_of
from fer_features.errors import BackboneError, OptionError, SourceError, StoreError
from fer_features.faces.dataset import FaceDataset, account
from fer_features.faces.emotions import Wording
from fer_features.faces.reading import (
    read_faces,
    reading_bar,
    source_form,
    source_name,
    source_sha256,
    tell,
)

log = logging.getLogger(__name__)

BATCH_SIZE = 64

LABELLING = ("map", "labels_as", "group_by")
"""How a source's labels and groups are read: what a store says of it beside the limit."""

Source = FaceDataset | str | os.PathLike[str]


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
    image_size: int | None = None,
    color: bool = False,
    map: Mapping[str, str] | None = None,  # noqa: A002  # --map
    labels_as: str | None = None,
    group_by: str | None = None,
    overwrite: bool = False,
    repair: bool = False,
    progress: bool = False,
) -> Store:
    """Embed every distinct image of a source once and keep the embeddings in one HDF5 file.

    Nothing that was computed is computed again or lost unsaid: a pass that was stopped goes on
    where it stopped; a complete store is returned at once; an older store of the same network
    gives the embeddings of the images that it knows, whatever their labels are now; a layer that
    it lacks is computed beside those that it has. A source that lacks an image of the store does
    not replace it.

    Parameters
    ----------
    source : FaceDataset or path-like
        Faces, or the file or image folder to read them from, as :func:`read_faces` does.
    path : path-like, optional
        The store; by default ``cache/SOURCE-BACKBONE-FINGERPRINT8.h5``, with ``-limitN`` after
        SOURCE where there is a limit. Converted and quantised networks are kept in its folder.
    backbone : BackboneSpec, optional
        The network and the layers to keep; by default InceptionResNetV2 with ImageNet's weights.
        Its ``image`` is that of the faces.
    engine : str
        What executes it: "tensorflow", "openvino", or "auto", the default, which takes the fastest
        one installed: OpenVINO, but TensorFlow where it sees a GPU.
    batch_size : int
        Images in a block, at least 1: what is computed, and written, at a time.
    workers : int
        Processes on this machine that share the work, at least 1.
    dask : str, optional
        Address of a Dask scheduler whose workers do it instead, such as ``"tcp://host:8786"``.
    limit, image_size : int, optional
        As for :func:`read_faces`, when ``source`` is a path, like all that follow to ``group_by``.
    skip_bad, color : bool
        As there.
    map : mapping of str to str, optional
        As there. Labels and groups that are read in another way make no other pass: they are
        written beside the embeddings.
    labels_as, group_by : str, optional
        As there.
    overwrite : bool
        Replace what is there, also where images are lost, or another network made it; what can
        be used of it is.
    repair : bool
        Recompute the damaged rows of the store that is there.
    progress : bool
        Show progress on standard error, and at the end what the store holds: rows by emotion, by
        usage, and what was left out.

    Returns
    -------
    Store
        Complete, open for reading. Of each output it has float32 (m, d) of the m distinct images.

    Raises
    ------
    SourceError, BackboneError, StoreError
        Before the network starts, when an input or the output cannot be used. Later a
        BackboneError, when the network gives numbers that are not finite, and a StoreError, when
        the disk is full or fails.
    OptionError
        When an option has a bad value or needs what is not installed, is given with faces that
        are read already, or no worker can be had or goes on.
    MemoryError
        When a single image does not fit in memory.

    Examples
    --------
    A network of three convolutions with random numbers, as the tests have it:

    >>> from fer_features import BackboneSpec, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> store = extract(draw_faces(70), "faces.h5", backbone=tiny)
    >>> store.embeddings().shape, store.embeddings().dtype
    ((70, 16), dtype('float32'))
    """
    spec = backbone or BackboneSpec()
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise OptionError(f"{name}: {value!r}, expected a whole number, at least 1.")
    batch_size, workers = int(batch_size), int(workers)
    if workers > 1 and dask is not None:
        raise OptionError("workers and dask: expected one of the two.")
    wording = Wording(map or {}, labels_as)
    reading = {
        "limit": limit,
        "skip_bad": skip_bad,
        "image_size": image_size,
        "color": color,
        "map": wording.mapped,
        "labels_as": wording.labels_as,
        "group_by": group_by,
    }
    if isinstance(source, FaceDataset):
        given = [name for name, value in reading.items() if value]
        if given:
            raise OptionError(
                f"{given[0]}: given with faces that are read already, expected it where a path is "
                f"read. Pass it to read_faces."
            )
        source = replace(source)  # its digests anew: pixels may have changed since it was made
        spec = replace(spec, image=source.image)
    else:
        spec = replace(spec, image=source_form(source, image_size, color))
    engine = choose_engine(engine, spec.precision)
    this = _Pass(
        source, path, reading, spec, engine, batch_size, workers, dask, overwrite, repair, progress
    )
    if spec.precision == "int8" and spec.quantised is None:
        this.spec = _quantised(this)
    _check_target(this)
    if this.is_finished():
        log.info("%s: complete, nothing to compute", this.target)
        if this.partial.exists():
            log.info("%s: a stopped pass of another call lies there", this.partial)
        return _told(this)
    if not (engine == "openvino" and is_converted(this.spec, this.spec.outputs, this.folder)):
        check_files(this.spec)
    _make_folder(this)
    with locked(this.target):
        # Another process may have finished it meanwhile.
        if not this.is_finished():
            _run(this)
    return _told(this)


def _told(this: "_Pass") -> Store:
    """Return the store that is there, having said what it holds."""
    store = Store(this.given)
    left_out = store.dataset.get("left_out", {})
    for line in account(store.dataset["name"], store.emotion, store.usage, left_out):
        tell(line, this.progress)
    return store


def default_path(name: str, backbone: BackboneSpec, limit: int | None = None) -> Path:
    """Return ``cache/SOURCE-BACKBONE-FINGERPRINT8.h5``, relative to where the process runs."""
    parts = (name, None if limit is None else f"limit{limit}", backbone.name)
    plain = "-".join(re.sub(r"[^\w.-]+", "_", part) for part in parts if part)
    return CACHE / f"{plain}-{backbone.fingerprint[:8]}.h5"


@dataclass(eq=False)
class _Pass:
    """One call's choices, and its source, which is read when it must be."""

    source: Source
    path: str | os.PathLike[str] | None
    reading: dict[str, Any]
    spec: BackboneSpec
    engine: str
    batch_size: int
    workers: int
    dask: str | None
    overwrite: bool
    repair: bool
    progress: bool

    @cached_property
    def name(self) -> str:
        if isinstance(self.source, FaceDataset):
            return self.source.name
        return source_name(self.source)

    @cached_property
    def sha256(self) -> str:
        """What the source is recognised by, before it is parsed: never what a caller typed."""
        if isinstance(self.source, FaceDataset):
            return self.source.content_sha256
        return source_sha256(self.source)

    @cached_property
    def faces(self) -> FaceDataset:
        if isinstance(self.source, FaceDataset):
            faces = self.source
        else:
            with reading_bar(self.progress) as show:
                faces = read_faces(self.source, progress=show or False, **self.reading)
        if not len(faces):
            raise SourceError(f"{self.name}: no faces, expected at least one.")
        return faces

    @cached_property
    def target(self) -> Path:
        """The store's file: where its path is a symbolic link, the file behind it."""
        given = self.given
        return Path(os.path.realpath(given)) if given.is_symlink() else given

    @cached_property
    def given(self) -> Path:
        if self.path is not None:
            return Path(self.path)
        limit = self.source.limit if isinstance(self.source, FaceDataset) else self.reading["limit"]
        return default_path(self.name, self.spec, limit)

    @property
    def folder(self) -> Path:
        return CACHE if self.path is None else Path(self.path).parent

    @property
    def partial(self) -> Path:
        return self.target.with_name(self.target.name + ".partial")

    @property
    def new(self) -> Path:
        """The partial file while it is created."""
        return self.target.with_name(self.target.name + ".partial.new")

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """What a store keeps of its source, as its ``dataset`` attribute."""
        faces = self.faces
        is_read = not isinstance(self.source, FaceDataset)
        return {
            "name": faces.name,
            "kind": faces.kind,
            "sha256": faces.sha256 if is_read else self.sha256,
            "image": list(faces.image),
            "rows": len(faces),
            "limit": faces.limit,
            "skipped": faces.skipped,
            "left_out": faces.left_out,
            **{name: self.reading[name] for name in LABELLING},
        }

    def is_finished(self) -> bool:
        """Tell whether the store that is there has all of this very source, without reading it."""
        store = self.known(self.target)
        if store is None or not set(self.spec.outputs) <= set(store.outputs):
            return False
        if self.repair and store.verify():
            return False
        dataset = store.dataset
        if isinstance(self.source, FaceDataset):
            return dataset.get("sha256") == self.sha256 or Content.of(self.source).is_of(store)
        if dataset.get("sha256") != self.sha256:
            return False
        same = all(dataset.get(name) == self.reading[name] for name in ("limit", *LABELLING))
        return same and bool(self.reading["skip_bad"] or dataset.get("skipped") == 0)

    def known(self, path: Path) -> Store | None:
        """Return the store that is there, or a stopped pass's, if the same network made it.

        Another network's or a damaged one is refused, or, to be overwritten, passed over; what is
        in use, or no store of ours, is refused in any case.
        """
        if not path.exists():
            return None
        try:
            store = Store(path)
        except StoreError as error:
            # A partial file is ours to write, whatever it holds; the lock is held.
            if self.overwrite and (isinstance(error, DamagedStoreError) or path == self.partial):
                return None
            raise
        mine, theirs = self.spec.identity, store.backbone
        for name in (*mine, *theirs):
            if mine.get(name) != theirs.get(name):
                if self.overwrite:
                    return None
                raise StoreError(
                    f"{path}: made with {name} {theirs.get(name)}, expected {mine.get(name)}. "
                    f"Its own options are {store.options()}: pass those, choose another output "
                    "with -o, or pass --overwrite to replace it."
                )
        return store

    @property
    def is_alone(self) -> bool:
        """Whether this process computes by itself."""
        return self.workers == 1 and self.dask is None

    def computing(self, outputs: tuple[str, ...]) -> Computing:
        threads = None if self.is_alone else threads_of(self.workers, self.dask)
        # A process of this machine may have been started elsewhere in it.
        return Computing(self.spec, outputs, self.engine, self.folder.absolute(), threads)


def _check_target(this: _Pass) -> None:
    """Refuse, before anything is read, an output whose loss would be someone's."""
    with naming_the_disk(this.given):
        target = this.target
        for longest in (target, this.new):
            longest.exists()  # a name that is too long, a folder that may not be entered
    if this.repair and not target.exists():
        raise StoreError(f"{target}: no such file, expected a store to repair. Check the path.")
    if target.is_dir():
        raise StoreError(f"{target}: a folder, expected a file name such as {target / 'faces.h5'}.")
    if target.exists() and not (target.is_file() and is_hdf5(target)):
        raise StoreError(
            f"{target}: exists and is no HDF5 file, expected a store or a new name. "
            "Choose another output with -o."
        )


def _make_folder(this: _Pass) -> None:
    with naming_the_disk(this.folder):
        this.folder.mkdir(parents=True, exist_ok=True)


def _quantised(this: _Pass) -> BackboneSpec:
    """Return the spec of the quantised network, which is made if there is none yet.

    Of a store that is there the very network, or none: it cannot be given another layer.
    """
    spec, wanted = this.spec, None
    if this.path is not None and Path(this.path).is_file():
        try:
            store = Store(this.path)
        except StoreError:
            if not this.overwrite:
                raise
        else:
            same = {**spec.identity, "quantised": store.backbone.get("quantised")}
            if same["quantised"] is not None and same == store.backbone:
                wanted = same["quantised"]
                missing = [name for name in store.outputs[1:] if name not in spec.layers]
                spec = replace(spec, layers=(*missing, *spec.layers))
    found = quantised_spec(spec, this.folder, wanted)
    is_other = wanted is not None and (found is None or found.quantised != wanted)
    if is_other and not this.overwrite:
        raise StoreError(
            f"{this.path}: of a quantised network that is not in {this.folder} with the outputs "
            f"{', '.join(spec.outputs)}, expected that one. Put its int8-… files there, or choose "
            "another output with -o: layers are chosen before a network is quantised."
        )
    if found is None:
        if importlib.util.find_spec("nncf") is None:
            raise OptionError("precision: int8 needs nncf. Install fer-features[int8].")
        if quantised_spec(replace(spec, layers=()), this.folder) is not None:
            log.info(
                "int8: the quantised network in %s lacks these layers, so another one is made; "
                "its store is one of its own",
                this.folder,
            )
        check_files(spec)
        faces = this.faces
        _make_folder(this)
        with locked(quantised_path(spec, spec.outputs, this.folder)):
            found = quantise(spec, faces, this.folder)
    return found


def _run(this: _Pass) -> None:
    """Fill a partial file and give it its final name; the lock is held."""
    content = Content.of(this.faces)
    target, stopped = this.known(this.target), this.known(this.partial)
    for path, store in ((this.partial, stopped), (this.target, target)):
        if store is None and path.exists():
            log.info("%s: of another network, or damaged: it is dropped, as --overwrite says", path)
    held = [store for store in (stopped, target) if store is not None]
    kept = (name for store in reversed(held) for name in store.outputs)
    outputs = tuple(dict.fromkeys([*kept, *this.spec.outputs]))
    begun = [
        name for name in outputs if not any(name in s.outputs for s in (this.spec, target) if s)
    ]
    if begun:
        log.info("%s: %s, which a stopped pass began, is finished, too", target, ", ".join(begun))
    engine = None
    resumes = _resumes(this, content, outputs, stopped, target)
    for store in held:
        if not (resumes and store is stopped):
            _refuse_loss(this, store, content)
    if not resumes:
        engine = _start(this, content, outputs, held)
    with open_partial(this.partial) as partial:
        _complete(this, content, partial, engine)


def _resumes(
    this: _Pass,
    content: Content,
    outputs: tuple[str, ...],
    stopped: Store | None,
    target: Store | None,
) -> bool:
    """Tell whether the stopped pass was this one, and the store beside it has nothing to add."""
    if stopped is None or stopped.outputs != outputs or stopped.dataset != this.dataset:
        return False
    passes = stopped.provenance["passes"]
    if passes and is_open(passes[-1]) and passes[-1]["engine"] != this.engine:
        return False  # a pass of its own: one entry states one engine
    if not content.is_of(stopped):
        return False
    if target is None:
        return True
    return bool((known_of(content, outputs, target) <= stopped.known()).all())


def _refuse_loss(this: _Pass, store: Store, content: Content) -> None:
    """Refuse a source that would replace a store and lose any of its images."""
    there, lost = lost_with(store, content)
    if not lost:
        return
    stopped = "a stopped pass of another call, " if store.path == this.partial else ""
    said = (
        f"{store.path}: {stopped}holds {there:,} images, of which this source ({this.name}) lacks "
        f"{lost:,}"
    )
    if not this.overwrite:
        raise StoreError(
            f"{said}: they would be lost. Choose another output with -o, or pass --overwrite, "
            "which keeps the embeddings of the others."
        )
    log.info("%s: their embeddings are dropped, as --overwrite says", said)


def _start(
    this: _Pass, content: Content, outputs: tuple[str, ...], held: list[Store]
) -> Engine | None:
    """Create the partial file with all that is known already, under its name only when whole.

    Returns the engine, if it had to be loaded to know how long the vectors are.
    """
    known = Known.of(content, outputs, held)
    needed, lengths = outputs[known.leading.min() :], known.lengths
    engine = None
    if any(name not in lengths for name in needed):
        engine = this.computing(needed).load()
        lengths |= engine.dimensions
    passes = known.passes()
    if needed:
        parameters = this.spec.parameters
        passes.append(
            {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "engine": this.engine,
                "versions": _versions(this),
                "outputs": list(needed),
                "batch_size": this.batch_size,
                "reused": int((known.leading == len(outputs)).sum()),
                "resumed": 0,
                "images": 0,
                "seconds": None,
                "images_per_second": None,
                "files": this.spec.files,
                **({} if parameters is None else {"parameters": parameters}),
            }
        )
    ordered = {name: lengths[name] for name in outputs}
    try:
        create_partial(this.new, content, this.spec, ordered, this.dataset, {"passes": passes})
        with open_partial(this.new) as partial:
            known.fill(partial)
        with naming_the_disk(this.partial):
            this.new.replace(this.partial)
    finally:
        this.new.unlink(missing_ok=True)
    return engine if this.is_alone else None


def _complete(this: _Pass, content: Content, partial: PartialStore, engine: Engine | None) -> None:
    """Compute and write what the partial file lacks, and give it its final name."""
    outputs = partial.outputs
    known = partial.known()
    missing = known < len(outputs)
    in_part = int((missing & (known > 0)).sum())
    log.info(
        "%s rows, %s distinct images: %s known, %s to compute%s",
        f"{len(this.faces):,}",
        f"{len(known):,}",
        f"{int((~missing).sum()):,}",
        f"{int(missing.sum()):,}",
        f", of which {in_part:,} lack layers alone" if in_part else "",
    )
    passes = partial.provenance["passes"]
    if not (passes and is_open(passes[-1])):
        changed = _changed(this)
        partial.finish(this.target, {"passes": passes})
        log.info("%s: rows and labels written anew, nothing computed%s", this.target, changed)
        return
    *earlier, current = passes
    needed = outputs[known[missing].min() :] if missing.any() else ()
    blocks = _blocks(missing, current["batch_size"], current["reused"])
    started = time.perf_counter()
    first, first_images, images = 0.0, 0, 0
    with tqdm(
        total=len(known),
        initial=len(known) - sum(map(len, blocks)),
        unit=" images",
        desc="Embedding",
        disable=not this.progress,
    ) as bar:
        for block, values in _embedded(this, content, needed, blocks, engine):
            if not all(np.isfinite(each).all() for each in values.values()):
                raise BackboneError(
                    f"{this.spec.name}: the network gave numbers that are not finite, expected "
                    "finite embeddings. Use other weights."
                )
            for there in np.unique(known[block]):
                if there < len(outputs):  # what is there stays as it is
                    chosen = known[block] == there
                    lacking = {name: values[name][chosen] for name in outputs[there:]}
                    partial.write(block[chosen], lacking)
            bar.update(len(block))
            images += len(block)
            if not first_images:
                # The first block waits for the engine to start, which the rate leaves out.
                first, first_images = time.perf_counter() - started, len(block)
    seconds = time.perf_counter() - started
    later = images - first_images
    counted, took = (later, seconds - first) if later else (images, seconds)
    rate = counted / max(took, 1e-9)  # a coarse clock may not have moved
    current |= {
        "engine": this.engine,
        "versions": _versions(this),
        "resumed": int((~missing).sum()) - current["reused"],
        "images": images,
        "seconds": round(seconds, 3),
        "images_per_second": round(rate, 3),
        "files": this.spec.files,
        **quantisation_facts(this.spec, needed, this.folder),
    }
    partial.finish(this.target, {"passes": [*earlier, current]})


def _changed(this: _Pass) -> str:
    """Say in what the store that is there was made of its source in another way."""
    store = this.known(this.target)
    called = {"sha256": "the source's content", "skipped": "how many bad rows are left out"}
    names = ("sha256", "limit", "skipped", *LABELLING)
    then = {} if store is None else store.dataset
    unlike = [called.get(n, n) for n in names if n in then and then[n] != this.dataset[n]]
    return f" (changed: {', '.join(unlike)})" * bool(unlike)


def _blocks(missing: npt.NDArray[np.bool_], size: int, reused: int) -> list[Positions]:
    """Return which images are computed together.

    Blocks are fixed parts of the list of distinct images, and one is computed whole or not at
    all, so that a resumed pass has the batches it would have had. A store that reuses an older
    one's images has blocks of those missing now.
    """
    images = np.flatnonzero(missing) if reused else np.arange(len(missing))
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    return [part for part in parts if missing[part].any()]


def _embedded(
    this: _Pass,
    content: Content,
    needed: tuple[str, ...],
    blocks: list[Positions],
    engine: Engine | None,
) -> Iterator[tuple[Positions, Outputs]]:
    """Yield each block with its embeddings, in whichever order they end."""
    if not blocks:
        return
    pixels, computing = this.faces.pixels, this.computing(needed)
    if not this.is_alone:
        rows = [content.first[block] for block in blocks]
        for number, values in embed_elsewhere(computing, pixels, rows, this.workers, this.dask):
            yield blocks[number], values
        return
    if engine is None:
        engine = computing.load()
    for block in blocks:
        yield block, embed(engine, pixels[content.first[block]])


def _versions(this: _Pass) -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("fer-features", "numpy", "h5py")}
    return found | engine_versions(this.engine)
