"""Workers on this machine and on a Dask cluster give what one process gives."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import Store, extract
from fer_features.embedding import extraction, openvino
from fer_features.embedding.engines import load_engine
from fer_features.errors import OptionError

FACES = noise_faces(600)


SPEC = replace(TINY, layers=("one",))


def assert_equal_to_one_process(tmp_path: Path, store: Store) -> None:
    assert store.verify() == []
    alone = extract(FACES, tmp_path / "alone.h5", backbone=SPEC)
    assert np.array_equal(store.image_digest, alone.image_digest)
    assert np.array_equal(store.image, alone.image)
    for name in ("final", "one"):
        expected = alone.embeddings(features=name)
        difference = np.abs(store.embeddings(features=name) - expected)
        assert difference.max() <= 1e-5 * np.abs(expected).max()


def test_two_local_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    store = extract(FACES, tmp_path / "two.h5", backbone=SPEC, workers=2, batch_size=32)
    [entry] = store.provenance["passes"]
    assert entry["images"] == 598
    assert_equal_to_one_process(tmp_path, store)


def test_local_workers_take_images_of_any_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = noise_faces(40, copies=False)
    faces = replace(faces, pixels=rng.integers(0, 256, (40, 30, 50, 3), dtype=np.uint8))
    two = extract(faces, tmp_path / "two.h5", backbone=SPEC, workers=2, batch_size=9)
    alone = extract(faces, tmp_path / "alone.h5", backbone=SPEC).embeddings()
    assert np.abs(two.embeddings() - alone).max() <= 1e-5 * np.abs(alone).max()


def processes() -> dict[int, tuple[int, str]]:
    """Return parent and command of every process, by its number."""
    found = {}
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdecimal():
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(each.name)] = (parent, (each / "cmdline").read_text())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("later", [0.0, 2.0], ids=["as they start", "at work"])
def test_workers_go_when_their_parent_is_killed(tmp_path: Path, later: float) -> None:
    (tmp_path / "run.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from support import TINY, noise_faces\n"
        "from fer_features import extract\n"
        "if __name__ == '__main__':\n"
        "    extract(noise_faces(20000), 'killed.h5', backbone=TINY, workers=2, batch_size=1)\n"
    )
    load_engine(TINY, TINY.outputs, "openvino", tmp_path)
    parent = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path)
    workers: list[int] = []
    try:
        while len(workers) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
            workers = [
                number
                for number, (its, said) in processes().items()
                if its == parent.pid and "popen_loky" in said
            ]
        time.sleep(later)
        assert parent.poll() is None
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        left = set(workers)
        while left and time.monotonic() < killed + 10:
            time.sleep(0.1)
            left = {number for number in left if number in processes()}
        assert left == set()
    finally:
        parent.kill()
        for number in workers:
            with contextlib.suppress(ProcessLookupError):
                if "popen_loky" in processes().get(number, (0, ""))[1]:
                    os.kill(number, signal.SIGKILL)


def test_the_parent_alone_converts_a_network_that_went_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a stopped pass goes on, and nothing but its embeddings is left."""
    path = tmp_path / "faces.h5"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "embed", stopped)
        with pytest.raises(KeyboardInterrupt):
            extract(FACES, path, backbone=SPEC, engine="openvino")
    for each in tmp_path.glob("openvino-*"):
        each.unlink()
    converted = []
    write = openvino.write_network

    def writing(*arguments: object) -> str:
        converted.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(openvino, "write_network", writing)
    store = extract(FACES, path, backbone=SPEC, engine="openvino", workers=2, batch_size=32)
    assert len(converted) == 1  # had a worker done it, this process would not know
    assert store.verify() == []


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
        "from dataclasses import replace\n"
        "from support import TINY, noise_faces\n"
        "from fer_features import extract\n"
        "spec = replace(TINY, layers=('one',))\n"
        "extract(noise_faces(600), 'dask.h5', backbone=spec, batch_size=4, dask=sys.argv[2])"
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
    assert_equal_to_one_process(tmp_path, Store(tmp_path / "dask.h5"))


def done(partial: Path) -> np.ndarray:
    """Tell which images of a running pass have a checksum, past HDF5's own lock."""
    with h5py.File(partial, "r", locking=False) as file:
        return file["images/checksum"][()] != 0


def test_a_scheduler_that_does_not_answer_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(OptionError, match="no scheduler answers at tcp://127"):
        extract(FACES, tmp_path / "dask.h5", backbone=TINY, dask="tcp://127.0.0.1:9")
    assert not (tmp_path / "dask.h5").exists()
    assert len(extract(FACES, tmp_path / "dask.h5", backbone=TINY)) == 600  # it stands in no way
