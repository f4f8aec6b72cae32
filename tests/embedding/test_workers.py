"""Workers on this machine and on a Dask cluster give what one process gives."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import extract
from fer_features.errors import OptionError

FACES = noise_faces(600)


def assert_equal_to_one_process(tmp_path: Path, embeddings: np.ndarray) -> None:
    alone = extract(FACES, tmp_path / "alone.h5", backbone=TINY).embeddings()
    assert np.abs(embeddings - alone).max() <= 1e-5 * np.abs(alone).max()


def test_two_local_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    store = extract(FACES, tmp_path / "two.h5", backbone=TINY, workers=2, batch_size=32)
    assert store.verify() == []
    assert_equal_to_one_process(tmp_path, store.embeddings())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler and two worker processes that talk over TCP."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "distributed.cli"]
    scheduler = subprocess.Popen(
        [*dask[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
         "--no-dashboard"], **quiet,
    )  # fmt: skip
    workers = [
        subprocess.Popen(
            [
                *dask[:2],
                "distributed.cli.dask_worker",
                address,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--local-directory",
                str(tmp_path),
            ],
            **quiet,
        )
        for _ in range(2)
    ]
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, workers
    for process in (*workers, scheduler):
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_cluster_that_loses_a_worker_completes_the_store(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen]]
) -> None:
    address, workers = cluster
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from support import TINY, noise_faces\n"
        "from fer_features import extract\n"
        "extract(noise_faces(600), 'dask.h5', backbone=TINY, batch_size=4, dask=sys.argv[2])"
    )
    tests = str(Path(__file__).parent.parent)
    run = subprocess.Popen([sys.executable, "-c", code, tests, address], cwd=tmp_path)
    partial = tmp_path / "dask.h5.partial"
    while not (partial.exists() and any(done(partial))):
        assert run.poll() is None
        time.sleep(0.05)
    assert run.poll() is None, "the pass was over before a worker could be killed"
    workers[0].kill()
    assert run.wait(timeout=120) == 0
    from fer_features import Store

    store = Store(tmp_path / "dask.h5")
    assert store.verify() == []
    assert_equal_to_one_process(tmp_path, store.embeddings())


def done(partial: Path) -> np.ndarray:
    """Tell which rows of a running pass have a checksum, past HDF5's own lock."""
    import h5py

    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
    with h5py.File(partial, "r", locking=False) as file:
        return file["checksum"][()] != 0


def test_a_scheduler_that_does_not_answer_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(OptionError, match="no scheduler answers at tcp://127"):
        extract(FACES, tmp_path / "dask.h5", backbone=TINY, dask="tcp://127.0.0.1:9")
