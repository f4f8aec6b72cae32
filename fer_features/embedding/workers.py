"""Blocks of images computed by other processes: on this machine, or on a Dask cluster."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.backbone import BackboneSpec, check_files
from fer_features.embedding.engines import PACKAGES, Engine, embed, load_engine
from fer_features.embedding.layout import Positions
from fer_features.embedding.network import Outputs
from fer_features.embedding.openvino import converted_network, network_files
from fer_features.embedding.weights import file_hash
from fer_features.errors import BackboneError, OptionError
from fer_features.runtimes import environment, in_processes

log = logging.getLogger(__name__)

UNDER_WAY = 2
"""Blocks of a worker at a time, one that it computes and one that waits for it."""

LOOK = 1.0
"""Seconds from one look at the workers of a cluster to the next."""

TIMEOUT = 10.0
"""Seconds that a scheduler has to answer."""

PATIENCE = 300.0
"""Seconds that a pass waits for a worker where a cluster has lost its last one."""


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
    machine, or by those of the Dask scheduler at the address ``dask``. At most two a worker are
    under way, whatever the length of the pass.

    Raises
    ------
    OptionError
        When there is no such cluster, it has lost all workers, or they are of other versions; or
        when a process of this machine ends by itself.
    """
    if dask is None:
        return _embed_in_processes(computing, pixels, blocks, workers)
    return _embed_on_cluster(computing, pixels, blocks, dask)


def threads_of(workers: int, dask: str | None) -> int | None:
    """Return the processor threads of one worker's engine; a Dask worker knows its own."""
    from joblib import cpu_count

    return None if dask is not None else max(1, cpu_count() // workers)


def _embed_in_processes(
    computing: Computing, pixels: npt.NDArray[np.uint8], blocks: Sequence[Positions], workers: int
) -> Iterator[tuple[int, Outputs]]:
    from joblib import delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if computing.engine == "openvino":
        # Once, here: what is kept, and whole, is read by all.
        converted_network(computing.spec, computing.outputs, computing.folder)
    tasks = (
        delayed(_embed_in_process)(computing, number, pixels[block])
        for number, block in enumerate(blocks)
    )
    try:
        yield from in_processes(tasks, workers)
    except TerminatedWorkerError as error:
        raise OptionError(
            f"workers: one of {workers} ended by itself, expected all to go on. It "
            "may have run out of memory: call again, it resumes, with fewer --workers."
        ) from error


def _embed_in_process(
    computing: Computing, number: int, pixels: npt.NDArray[np.uint8]
) -> tuple[int, Outputs]:
    return number, embed(_process_engine(computing), pixels)


@lru_cache(maxsize=1)
def _process_engine(computing: Computing) -> Engine:
    """Load a process's engine once."""
    return computing.load()


def _embed_on_cluster(
    computing: Computing, pixels: npt.NDArray[np.uint8], blocks: Sequence[Positions], address: str
) -> Iterator[tuple[int, Outputs]]:
    from distributed import CancelledError, KilledWorker

    with _connected(address) as client:
        cluster = _Cluster(client, address, computing)
        waiting = deque(range(len(blocks)))
        under_way: dict[str, int] = {}
        ended: SimpleQueue[Any] = SimpleQueue()
        while waiting or under_way:
            most = UNDER_WAY * cluster.look()
            while waiting and len(under_way) < most:
                number = waiting.popleft()
                # Pixels travel with the task: laid into one worker's memory they would be lost
                # with it.
                faces = pixels[blocks[number]]
                task = client.submit(_embed_on_worker, cluster.network, faces, pure=False)
                under_way[task.key] = number
                task.add_done_callback(ended.put)
            try:
                task = ended.get(timeout=LOOK)
            except Empty:
                continue
            number = under_way.pop(task.key)
            try:
                said = task.result(timeout=PATIENCE)
            except KilledWorker as error:
                raise OptionError(
                    "dask: several workers ended by themselves at the same images, expected them "
                    "to go on. They may have run out of memory, as their logs say: call again, it "
                    "resumes, with a smaller --batch-size."
                ) from error
            except (CancelledError, OSError):
                if task.status == "error":
                    raise
                # The last worker that had the network went, or the scheduler did.
                waiting.appendleft(number)
            else:
                yield number, said


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise OptionError("dask: not installed. Install fer-features[dask].") from error
    # Blocks of large images are as large as they are.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        try:
            client = Client(address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            secure = ", and name the certificates in Dask's settings, under distributed.comm.tls"
            raise OptionError(
                f"dask: no scheduler answers at {address}, expected an address such as "
                "tcp://host:8786. Start one with dask scheduler"
                f"{secure * address.startswith('tls:')}."
            ) from error
        with client:
            yield client


class _Cluster:
    """The workers there are, and the network, which each of them is sent once.

    Attributes
    ----------
    network : Future or None
        It lies in the workers' memory and goes with this client, however that ends.
    """

    def __init__(self, client: Any, address: str, computing: Computing) -> None:
        self._client = client
        self._address = address
        if not client.nthreads():
            raise OptionError(
                f"dask: the scheduler at {address} has no workers, expected at least one. "
                f"Start one with dask worker {address}."
            )
        self._engine = computing.engine
        self._sent = Network(computing)
        self._workers: set[str] = set()
        self._looked, self._seen = -np.inf, time.monotonic()
        self._said = False
        self.network: Any = None

    def look(self) -> int:
        """Return how many workers there are that have the network.

        Raises
        ------
        OptionError
            When one is of another version, or there has been none for too long.
        """
        is_lost = self.network is None or self.network.cancelled()
        if is_lost or time.monotonic() > self._looked + LOOK:
            there = self._met()
            self._workers &= there
            self._looked = time.monotonic()
            if self._workers:
                self._seen = self._looked
            else:
                self._wait()
        return len(self._workers)

    def _met(self) -> set[str]:
        """Return the workers there are; those that can be are met."""
        from distributed import CancelledError

        there: set[str] = set()
        if self._client.status != "closed":
            try:
                there = set(self._client.nthreads())
                self._meet(there)
            except OptionError:
                raise
            except (OSError, RuntimeError, ValueError, KeyError, CancelledError) as error:
                # One went at this very moment, or the scheduler did: the next look tells.
                log.debug("dask: %r", error)
        return there

    def _meet(self, workers: set[str]) -> None:
        """Check those that came, and send them the network, or all where none has it any more."""
        new = workers - self._workers
        if new:
            self._check_versions(new)
        if workers and (self.network is None or self.network.cancelled()):
            log.info("dask: the network goes to %s", _count(len(workers), "worker"))
            self._workers = set()
            self.network = self._client.scatter(self._sent, broadcast=True, hash=False)
        elif new:
            # From those that have it: Dask looks for no others to compute what needs it.
            self._client.replicate(self.network)
        self._workers = workers

    def _check_versions(self, workers: set[str]) -> None:
        for name in ("fer-features", *PACKAGES[self._engine]):
            here = metadata.version(name)
            # A function of Python's own, which a worker has that lacks the package.
            found = self._client.run(
                metadata.version, name, workers=sorted(workers), on_error="return"
            )
            for worker, there in sorted(found.items()):
                if isinstance(there, OSError):  # gone meanwhile
                    raise there
                if there != here:
                    there = "no" if isinstance(there, Exception) else there
                    raise OptionError(
                        f"dask: the worker {worker} has {there} {name}, expected {here} as here. "
                        "Install the same versions everywhere."
                    )

    def _wait(self) -> None:
        """Say once that a cluster has no workers any more, and give up after a while."""
        if self._client.status == "closed":
            raise OptionError(
                f"dask: the scheduler at {self._address} is gone, expected it to stay. Start it "
                "again, with workers, and call again: the pass goes on where it stopped."
            )
        alone = time.monotonic() - self._seen
        if alone > PATIENCE:
            raise OptionError(
                f"dask: no worker at {self._address} for {PATIENCE:.0f} s, expected at least one. "
                f"Start one with dask worker {self._address}, and call again: the pass goes on "
                "where it stopped."
            )
        if not self._said:
            self._said = True
            log.warning(
                "dask: no worker answers at %s; waiting %.0f s for one",
                self._address,
                PATIENCE,
            )


class Network:
    """A network on its way to Dask workers: the files that its engine is loaded from go with it.

    Where the first block asks for the engine they are written into the worker's own folder. They
    go with the last reference, when the pass has ended or its process has.
    """

    def __init__(self, computing: Computing) -> None:
        spec = computing.spec
        if computing.engine == "openvino":
            files = network_files(spec, computing.outputs, computing.folder)
        else:
            weights = check_files(spec)
            files = [] if weights is None else [weights]
        self._computing = computing
        self._files = {file.name: file for file in files}
        self._sha256 = {file.name: file_hash(file) for file in files}
        self._contents: dict[str, npt.NDArray[np.uint8]] | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._engine: Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_contents": self._content(),
            "_folder": None,
            "_engine": None,
        }

    def _content(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return the files' bytes: as they came, or from where they lie here."""
        if self._contents is not None:
            return self._contents
        return {name: np.fromfile(file, np.uint8) for name, file in self._files.items()}

    def engine(self) -> Engine:
        """Return the engine on a Dask worker, loaded once."""
        if self._engine is None:
            self._engine = self._loaded()
        return self._engine

    def _loaded(self) -> Engine:
        from distributed import get_worker

        worker = get_worker()
        try:
            folder = TemporaryDirectory(
                prefix="fer-features-", dir=worker.local_directory, ignore_cleanup_errors=True
            )
            home = Path(folder.name)
            # Where Keras looks for ImageNet's weights, which not every spec gives a path of.
            models = home / "models"
            models.mkdir()
            for name, content in self._content().items():
                content.tofile(models / name)
                if file_hash(models / name) != self._sha256[name]:
                    raise BackboneError(
                        f"dask: {name} came to the worker {worker.address} with another sha256 "
                        "than it was sent with, expected the same file. Call again."
                    )
        except OSError as error:
            raise BackboneError(
                f"dask: the worker {worker.address} cannot keep the network in "
                f"{worker.local_directory} ({error.strerror or error}), expected it to. Make room "
                "there and call again, or start it with another --local-directory."
            ) from error
        self._files = {name: models / name for name in self._files}
        self._contents, self._folder = None, folder
        spec = self._computing.spec
        moved: dict[str, Any] = {
            f"{role}_file": str(models / Path(path).name) for role, path in spec.files.items()
        }
        computing = replace(
            self._computing,
            spec=replace(spec, **moved),
            folder=models,
            threads=worker.state.nthreads,
        )
        with environment(KERAS_HOME=str(home)):
            return computing.load()


# One block at a time in a worker, also where Dask gives it several threads: an engine computes on
# all of them.
_turn = threading.Lock()


def _embed_on_worker(network: Network, pixels: npt.NDArray[np.uint8]) -> Outputs:
    with _turn:
        return embed(network.engine(), pixels)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
