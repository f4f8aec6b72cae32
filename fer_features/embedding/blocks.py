"""Blocks of images: which are still to be computed, and computing them, here or in workers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.engines import Engine, embed, load_engine
from fer_features.embedding.partial import PartialStore
from fer_features.errors import OptionError
from fer_features.faces.dataset import SIDE

Index = npt.NDArray[np.int64]


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
        self.first: Index = first
        self.images = sum(map(len, self.blocks))
        self.known = len(first) - self.images

    def __str__(self) -> str:
        return (
            f"{sum(map(len, self._rows)):,} rows, {len(self.first):,} distinct images: "
            f"{self.known:,} known, {self.images:,} to compute"
        )

    def rows_of(self, block: Index) -> tuple[Index, Index]:
        """Return the rows of a block's images, increasing, and each one's place in the block."""
        groups = [self._rows[image] for image in block]
        rows = np.concatenate(groups)
        places = np.repeat(np.arange(len(block)), [len(group) for group in groups])
        order = np.argsort(rows)
        return rows[order], places[order]


@dataclass(frozen=True)
class Computing:
    """Where and how blocks are computed: one process, local workers, or a Dask cluster."""

    spec: BackboneSpec
    engine: str
    folder: Path
    workers: int = 1
    dask: str | None = None

    def embed(
        self, plan: Plan, pixels: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[Index, npt.NDArray[np.float32]]]:
        """Yield each block with its embeddings, float32 (k, d), in whichever order they end."""
        if self.workers == 1 and self.dask is None:
            engine = load_engine(self.spec, self.engine, self.folder)
            for block in plan.blocks:
                yield block, embed(engine, pixels[plan.first[block]])
            return
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        with self._backend() as backend, parallel_config(**backend):
            # As bytes: joblib lays an array into one Dask worker's memory, from where it is lost
            # with that worker; what travels with the task does not.
            tasks = (
                delayed(_embed_in_worker)(self, number, pixels[plan.first[block]].tobytes())
                for number, block in enumerate(plan.blocks)
            )
            try:
                # At most two blocks a worker are under way, whatever the length of the pass.
                parallel = Parallel(
                    return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1
                )
                for number, embeddings in parallel(tasks):
                    yield plan.blocks[number], embeddings
            except TerminatedWorkerError as error:
                raise OptionError(
                    f"workers: one of {self.workers} ended by itself, expected all to go on. It "
                    "may have run out of memory: call again, it resumes, with fewer --workers."
                ) from error

    @property
    def threads(self) -> int | None:
        """Processor threads of one worker's engine; None leaves it to the engine."""
        from joblib import cpu_count

        return None if self.dask is not None else max(1, cpu_count() // self.workers)

    @contextmanager
    def _backend(self) -> Iterator[dict[str, Any]]:
        if self.dask is None:
            yield {"backend": "loky", "n_jobs": self.workers}
            return
        try:
            from distributed import Client
        except ImportError as error:
            raise OptionError("dask: not installed. Install fer-features[dask].") from error
        try:
            client = Client(self.dask, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise OptionError(
                f"dask: no scheduler answers at {self.dask}, expected an address such as "
                "tcp://host:8786. Start one with dask scheduler."
            ) from error
        with client:
            if not client.scheduler_info()["workers"]:
                raise OptionError(
                    f"dask: the scheduler at {self.dask} has no workers, expected at least one. "
                    f"Start one with dask worker {self.dask}."
                )
            yield {"backend": "dask", "n_jobs": -1, "client": client}


# One block at a time in a worker, also where Dask gives it several threads: engines compute on
# all the threads they have.
_turn = threading.Lock()


def _embed_in_worker(
    computing: Computing, number: int, pixels: bytes
) -> tuple[int, npt.NDArray[np.float32]]:
    faces = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE)
    with _turn:
        return number, embed(_worker_engine(computing), faces)


@lru_cache(maxsize=1)
def _worker_engine(computing: Computing) -> Engine:
    """Build a worker's engine once; loading checks that its weights are the parent's."""
    return load_engine(computing.spec, computing.engine, computing.folder, computing.threads)
