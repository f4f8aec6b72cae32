"""Blocks of images computed by other processes: on this machine, or on a Dask cluster."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.engines import Engine, embed, load_engine
from fer_features.embedding.layout import Positions
from fer_features.embedding.network import Outputs
from fer_features.embedding.openvino import converted_network
from fer_features.errors import OptionError


@dataclass(frozen=True)
class Computing:
    """What is computed, and by what: all that an engine is loaded from."""

    spec: BackboneSpec
    outputs: tuple[str, ...]
    engine: str
    folder: Path
    threads: int | None = None

    def load(self) -> Engine:
        return load_engine(self.spec, self.outputs, self.engine, self.folder, self.threads)


def embed_elsewhere(
    computing: Computing,
    pixels: npt.NDArray[np.uint8],
    blocks: Sequence[Positions],
    workers: int,
    dask: str | None,
) -> Iterator[tuple[int, Outputs]]:
    """Yield the number of each block with its embeddings, in whichever order they end.

    ``blocks`` are positions in ``pixels``. They are computed by ``workers`` processes of this
    machine, or by those of the Dask scheduler at the address ``dask``.

    Raises
    ------
    OptionError
        When there is no such cluster, or a process of this machine ends by itself.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if computing.engine == "openvino" and dask is None:
        # Once, here: what is kept, and whole, is read by all.
        converted_network(computing.spec, computing.outputs, computing.folder)
    with _backend(workers, dask) as backend, parallel_config(**backend):
        # As bytes: joblib lays an array into one Dask worker's memory, from where it is lost
        # with that worker; what travels with the task does not.
        tasks = (
            delayed(_embed_in_worker)(computing, number, pixels[block].tobytes())
            for number, block in enumerate(blocks)
        )
        try:
            # At most two blocks a worker are under way, whatever the length of the pass.
            parallel = Parallel(
                return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1
            )
            yield from parallel(tasks)
        except TerminatedWorkerError as error:
            raise OptionError(
                f"workers: one of {workers} ended by itself, expected all to go on. It "
                "may have run out of memory: call again, it resumes, with fewer --workers."
            ) from error


def threads_of(workers: int, dask: str | None) -> int | None:
    """Return the processor threads of one worker's engine; None leaves it to the engine."""
    from joblib import cpu_count

    return None if dask is not None else max(1, cpu_count() // workers)


@contextmanager
def _backend(workers: int, dask: str | None) -> Iterator[dict[str, Any]]:
    if dask is None:
        own = {"initializer": watch_parent, "initargs": (os.getpid(),)}
        yield {"backend": "loky", "n_jobs": workers, **own}
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise OptionError("dask: not installed. Install fer-features[dask].") from error
    try:
        client = Client(dask, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"dask: no scheduler answers at {dask}, expected an address such as "
            "tcp://host:8786. Start one with dask scheduler."
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise OptionError(
                f"dask: the scheduler at {dask} has no workers, expected at least one. "
                f"Start one with dask worker {dask}."
            )
        yield {"backend": "dask", "n_jobs": -1, "client": client}


def watch_parent(parent: int, every: float = 1.0) -> None:
    """End this process soon after its parent, which may be killed before it can say so.

    Where the system tells who the parent is now, as Linux and macOS do and Windows does not.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


# One block at a time in a worker, also where Dask gives it several threads: engines compute on
# all the threads they have.
_turn = threading.Lock()


def _embed_in_worker(computing: Computing, number: int, pixels: bytes) -> tuple[int, Outputs]:
    height, width, channels = computing.spec.image
    form = (height, width) if channels == 1 else (height, width, channels)
    faces = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, *form)
    with _turn:
        return number, embed(_worker_engine(computing), faces)


@lru_cache(maxsize=1)
def _worker_engine(computing: Computing) -> Engine:
    """Build a worker's engine once; loading checks that its files are the parent's."""
    return computing.load()
