"""Workers on this machine and on a Dask cluster give what one process gives."""

import os
import shutil
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

from fer_features import BackboneSpec, Store, extract
from fer_features.embedding import extraction, openvino, workers
from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.network import Outputs, load_network
from fer_features.embedding.weights import imagenet_path
from fer_features.embedding.workers import Computing, embed_elsewhere
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Cluster:
    """A scheduler and workers, each a process with a folder and a home of its own."""

    def __init__(self, folder: Path, *security: str) -> None:
        self.folder, self.security = folder, security
        protocol = "tls" if security else "tcp"
        port = free_port()
        self.address = f"{protocol}://127.0.0.1:{port}"
        self.workers: list[subprocess.Popen] = []
        options = ("--host", f"{protocol}://127.0.0.1", "--port", str(port))
        self.scheduler = self._start("scheduler", *options)

    def start(self, *options: str, **environment: str) -> subprocess.Popen:
        """Start a worker of one thread."""
        where = ("--nthreads", "1", "--no-nanny", "--local-directory", "scratch")
        worker = self._start("worker", self.address, *where, *options, **environment)
        self.workers.append(worker)
        return worker

    def _start(self, what: str, *options: str, **environment: str) -> subprocess.Popen:
        home = self.folder / f"{what}{len(self.workers)}"
        home.mkdir()
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, *self.security]
        return subprocess.Popen(
            [*command, "--no-dashboard"],
            cwd=home,
            env={**os.environ, "HOME": str(home), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_for(self, workers: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)

    def has_files_of_networks(self) -> bool:
        return any(self.folder.glob("worker*/**/models/*"))

    def kill(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


def test_one_worker_of_one_thread_computes_all_and_keeps_nothing(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.start()
    cluster.wait_for(1)

    def here(*_: object) -> None:
        raise AssertionError("computed in the parent")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "embed", here)
        store = extract(FACES, tmp_path / "dask.h5", backbone=SPEC, dask=cluster.address)
    assert_equal_to_one_process(tmp_path, store)
    until = time.monotonic() + 10
    while cluster.has_files_of_networks():
        assert time.monotonic() < until
        time.sleep(0.1)


class Pass:
    """A pass on a cluster that goes on block by block, as it is asked to."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.blocks = np.array_split(np.arange(600), 60)
        self.computing = Computing(SPEC, SPEC.outputs, "openvino", folder)
        self.said: dict[int, Outputs] = {}
        self._said = embed_elsewhere(self.computing, FACES.pixels, self.blocks, 1, cluster.address)

    def go_on(self, blocks: int = 60) -> None:
        for _ in range(blocks):
            number, said = next(self._said)
            assert number not in self.said
            self.said[number] = said

    def is_whole(self) -> bool:
        assert next(self._said, None) is None
        engine = self.computing.load()
        for number, block in enumerate(self.blocks):
            for name, expected in engine(FACES.pixels[block]).items():
                difference = np.abs(self.said[number][name] - expected).max()
                assert difference <= 1e-5 * np.abs(expected).max()
        return True


def test_a_worker_that_is_killed_costs_what_it_computed_and_the_last_one_the_pass(
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 2.0)
    first, last = cluster.start(), cluster.start()
    cluster.wait_for(2)
    whole, broken = Pass(tmp_path, cluster), Pass(tmp_path, cluster)
    whole.go_on(20)
    broken.go_on(20)
    first.kill()
    whole.go_on(40)
    assert whole.is_whole()
    last.kill()
    with pytest.raises(
        OptionError, match=rf"no worker at {cluster.address} for 2 s.*goes on where"
    ):
        broken.go_on()
    assert f"no worker answers at {cluster.address}; waiting 2 s for one" in caplog.text


@pytest.mark.slow
def test_a_worker_that_comes_later_gets_the_network_from_whoever_has_it(
    tmp_path: Path, cluster: Cluster
) -> None:
    """From the others, or from the parent where none of them is left."""
    first = cluster.start()
    cluster.wait_for(1)
    this = Pass(tmp_path, cluster)
    this.go_on(5)
    second = cluster.start()
    cluster.wait_for(2)
    time.sleep(1.1)
    this.go_on(5)
    first.kill()
    this.go_on(5)
    cluster.start()
    second.kill()
    this.go_on(45)
    assert this.is_whole()


@pytest.mark.slow
def test_a_scheduler_that_goes_is_one_error(tmp_path: Path, cluster: Cluster) -> None:
    cluster.start()
    cluster.wait_for(1)
    this = Pass(tmp_path, cluster)
    this.go_on(5)
    cluster.scheduler.kill()
    with pytest.raises(OptionError, match=rf"the scheduler at {cluster.address} is gone.*goes on"):
        this.go_on()


@pytest.mark.slow
def test_a_worker_of_another_version_is_named(tmp_path: Path, cluster: Cluster) -> None:
    other = tmp_path / "other" / "openvino-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 1.0\n")
    cluster.start(PYTHONPATH=str(other.parent))
    cluster.wait_for(1)
    with pytest.raises(OptionError, match=r"the worker tcp:.* has 1\.0 openvino, expected 20"):
        extract(FACES, tmp_path / "dask.h5", backbone=TINY, engine="openvino", dask=cluster.address)
    assert not (tmp_path / "dask.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("network", ["imagenet", "a Keras file", "int8"])
def test_a_worker_needs_no_file_of_the_network(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    """What the network is made of is the parent's alone, and travels."""
    cluster.start()
    own = tmp_path / "own"
    own.mkdir()
    from keras.src.legacy.saving import legacy_h5_format  # as Keras's published files are

    engine, faces = "tensorflow", noise_faces(40)
    if network == "imagenet":  # of which Keras publishes no hash
        monkeypatch.setenv("KERAS_HOME", str(own))
        spec = BackboneSpec("MobileNetV2", weights="random", input_size=96)
        published = imagenet_path(APPLICATIONS["MobileNetV2"])
        published.parent.mkdir()
        with h5py.File(published, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, load_network(spec, None))
        spec = replace(spec, weights="imagenet")
    elif network == "a Keras file":
        load_network(TINY, None).save(own / "mine.keras")
        spec = BackboneSpec(str(own / "mine.keras"))
    else:
        pytest.importorskip("nncf")
        spec, engine = replace(TINY, precision="int8"), "auto"
    cluster.wait_for(1)
    store = extract(faces, tmp_path / "a.h5", backbone=spec, engine=engine, dask=cluster.address)
    alone = extract(faces, tmp_path / "b.h5", backbone=spec, engine=engine).embeddings()
    assert store.verify() == []
    assert np.abs(store.embeddings() - alone).max() <= 1e-5 * np.abs(alone).max()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_a_cluster_that_talks_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    made = subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"
        " && openssl req -newkey rsa:2048 -nodes -subj /CN=dask -keyout key.pem -out dask.csr"
        " && openssl x509 -req -in dask.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
        " -out cert.pem",
        shell=True, cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    cluster = Cluster(
        tmp_path_factory.mktemp("tls"), "--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key
    )
    try:
        cluster.start()
        with pytest.raises(
            OptionError, match=r"no scheduler answers at tls://.*name the certificates"
        ):
            extract(FACES, tmp_path / "none.h5", backbone=TINY, dask=cluster.address)
        own = {"ca-file": ca, "client.cert": cert, "client.key": key}
        with dask.config.set({f"distributed.comm.tls.{name}": file for name, file in own.items()}):
            cluster.wait_for(1)
            store = extract(FACES, tmp_path / "tls.h5", backbone=SPEC, dask=cluster.address)
        assert_equal_to_one_process(tmp_path, store)
    finally:
        cluster.kill()


def test_a_scheduler_that_does_not_answer_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "TIMEOUT", 1.0)
    with pytest.raises(OptionError, match="no scheduler answers at tcp://127"):
        extract(FACES, tmp_path / "dask.h5", backbone=TINY, dask="tcp://127.0.0.1:9")
    assert not (tmp_path / "dask.h5").exists()
    assert len(extract(FACES, tmp_path / "dask.h5", backbone=TINY)) == 600  # it stands in no way
