"""The pass: each image once, resumed where it stopped, never a silent mix."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import BackboneSpec, FaceDataset, Store, extract
from fer_features.embedding import blocks, extraction
from fer_features.embedding.engines import Engine, embed
from fer_features.embedding.partial import locked
from fer_features.errors import SourceError, StoreError

DATASETS = ("embeddings", "emotion", "usage", "digest", "source", "checksum")

# A pass slow enough to be killed in the middle: the network is real, and waits before each block.
PASS = """
import sys, time
sys.path.insert(0, {tests!r})
from support import TINY, noise_faces
from fer_features import extract
from fer_features.embedding import blocks
embed = blocks.embed
def slow(engine, pixels):
    print("block", flush=True)
    time.sleep({pause})
    return embed(engine, pixels)
blocks.embed = slow
extract(noise_faces(600), "faces.h5", backbone=TINY, batch_size=16, engine={engine!r})
"""


class Counting:
    """Counts the images that go through the engine; stops after some blocks if told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = 0
        self.blocks_left = 1_000_000

        def counted(engine: Engine, pixels: np.ndarray) -> np.ndarray:
            if not self.blocks_left:
                raise KeyboardInterrupt
            self.blocks_left -= 1
            self.images += len(pixels)
            return embed(engine, pixels)

        monkeypatch.setattr(blocks, "embed", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def contents(path: Path) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {name: file[name][()].tobytes() for name in DATASETS}


def test_each_distinct_image_is_computed_once(tmp_path: Path, counting: Counting) -> None:
    store = extract(noise_faces(40), tmp_path / "faces.h5", backbone=TINY)
    assert counting.images == 38
    embeddings = store.embeddings()
    assert np.array_equal(embeddings[3], embeddings[7])
    assert np.array_equal(embeddings[3], embeddings[39])
    assert list(tmp_path.glob("faces*")) == [tmp_path / "faces.h5"]


def test_a_complete_store_is_returned_without_computing(tmp_path: Path, counting: Counting) -> None:
    extract(noise_faces(40), tmp_path / "faces.h5", backbone=TINY)
    before = (tmp_path / "faces.h5").read_bytes()
    extract(noise_faces(40), tmp_path / "faces.h5", backbone=TINY)
    assert counting.images == 38
    assert (tmp_path / "faces.h5").read_bytes() == before


def test_a_source_that_grew_has_only_its_new_images_computed(
    tmp_path: Path, counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = noise_faces(40), noise_faces(60, copies=False)
    pixels = np.concatenate([new.pixels[:30], old.pixels])
    grown = FaceDataset(
        "noise",
        "arrays",
        "9" * 64,
        pixels,
        np.resize(old.emotion, 70),
        np.resize(old.usage, 70),
        np.arange(70).astype(np.str_),
    )
    first = extract(old, tmp_path / "faces.h5", backbone=TINY).embeddings()
    with caplog.at_level("INFO"):
        store = extract(grown, tmp_path / "faces.h5", backbone=TINY)
    fresh = len({d.tobytes() for d in grown.digest} - {d.tobytes() for d in old.digest})
    assert counting.images == 38 + fresh
    assert "38 known" in caplog.text
    assert f"{fresh:,} to compute" in caplog.text
    assert np.array_equal(store.embeddings(np.arange(30, 70)), first)
    assert store.verify() == []


def test_a_stopped_pass_over_other_faces_gives_what_it_knows(
    tmp_path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    counting.blocks_left = 2
    with pytest.raises(KeyboardInterrupt):
        extract(faces, tmp_path / "faces.h5", backbone=TINY, batch_size=16)
    assert counting.images == 32
    counting.blocks_left = 100
    other = replace(faces, pixels=faces.pixels[::-1].copy(), sha256="8" * 64)
    store = extract(other, tmp_path / "faces.h5", backbone=TINY, batch_size=16)
    assert counting.images == 64
    assert store.provenance["reused"] == 32
    whole = extract(other, tmp_path / "whole.h5", backbone=TINY, batch_size=16).embeddings()
    assert np.abs(store.embeddings() - whole).max() <= 1e-5 * np.abs(whole).max()


def test_a_source_that_lacks_most_images_of_a_store_does_not_replace_it(tmp_path: Path) -> None:
    faces, path = noise_faces(40, copies=False), tmp_path / "faces.h5"
    extract(faces, path, backbone=TINY)
    before = path.read_bytes()
    for few, seed in ((19, 0), (40, 1)):
        lost = f"holds 40 images, of which this source .noise. has {few if seed == 0 else 0};"
        with pytest.raises(StoreError, match=f"{lost} the others would be lost.*--overwrite"):
            extract(first_rows(faces, few, seed), path, backbone=TINY)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path] or not list(tmp_path.glob("*.partial*"))
    assert len(extract(first_rows(faces, 20), path, backbone=TINY)) == 20
    assert len(extract(first_rows(faces, 5), path, backbone=TINY, overwrite=True)) == 5


def test_a_stopped_pass_is_not_lost_to_another_source(tmp_path: Path, counting: Counting) -> None:
    counting.blocks_left = 2
    with pytest.raises(KeyboardInterrupt):
        extract(noise_faces(64, copies=False), tmp_path / "f.h5", backbone=TINY, batch_size=16)
    before = (tmp_path / "f.h5.partial").read_bytes()
    with pytest.raises(StoreError, match=r"f\.h5\.partial: holds 32 images, of which"):
        extract(noise_faces(64, 1), tmp_path / "f.h5", backbone=TINY)
    assert (tmp_path / "f.h5.partial").read_bytes() == before


def first_rows(faces: FaceDataset, n: int, seed: int = 0) -> FaceDataset:
    """Return the first n rows, or, with another seed, other noise."""
    source = faces if seed == 0 else noise_faces(n, seed, copies=False)
    parts = {name: getattr(source, name)[:n] for name in ("pixels", "emotion", "usage", "source")}
    return replace(source, **parts, sha256=f"{n:032x}{seed:032x}")


def test_another_network_never_mixes_into_a_store(tmp_path: Path) -> None:
    extract(noise_faces(10), tmp_path / "faces.h5", backbone=TINY)
    other = BackboneSpec(weights="random:1", architecture="tiny")
    before = (tmp_path / "faces.h5").read_bytes()
    with pytest.raises(StoreError, match=r"made with weights random:0@.*expected random:1@"):
        extract(noise_faces(10), tmp_path / "faces.h5", backbone=other)
    assert (tmp_path / "faces.h5").read_bytes() == before
    extract(noise_faces(10), tmp_path / "faces.h5", backbone=other, overwrite=True)
    assert Store(tmp_path / "faces.h5").fingerprint == other.fingerprint


def test_repair_computes_just_the_damaged_rows(tmp_path: Path, counting: Counting) -> None:
    path = tmp_path / "faces.h5"
    faces = noise_faces(40)
    before = extract(faces, path, backbone=TINY).embeddings()
    with h5py.File(path, "r+") as file:
        file["embeddings"][11, 4] += 1
        file["emotion"][20] ^= 1
    assert Store(path).verify() == [11, 20]
    counting.images = 0
    store = extract(faces, path, backbone=TINY, repair=True)
    assert counting.images == 2
    assert store.verify() == []
    assert np.abs(store.embeddings() - before).max() <= 1e-5 * np.abs(before).max()
    assert np.array_equal(store.emotion, faces.emotion)


@pytest.mark.parametrize(
    ("kills", "engine"),
    [(5, "openvino"), pytest.param(20, "tensorflow", marks=pytest.mark.slow)],
    ids=["5 kills", "20 kills"],
)
def test_a_killed_pass_resumes_and_equals_an_uninterrupted_one(
    tmp_path: Path, kills: int, engine: str
) -> None:
    script = PASS.format(tests=str(Path(__file__).parent.parent), pause=0.02, engine=engine)
    rng = np.random.default_rng(kills)
    blocks = 0
    killed = 0
    for after in rng.integers(1, max(2, 30 // kills + 1), kills):
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(after):
            blocks += process.stdout.readline() == "block\n"
        time.sleep(rng.uniform(0, 0.04))
        process.send_signal(signal.SIGKILL)
        blocks += process.communicate()[0].count("block\n")
        killed += process.returncode == -signal.SIGKILL
        assert not (tmp_path / "faces.h5").exists() or process.returncode == 0
    assert killed == kills
    last = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    blocks += last.stdout.count("block\n")
    assert blocks <= 38 + kills  # 598 distinct images in blocks of 16, and one in flight a kill
    whole = extract(
        noise_faces(600), tmp_path / "whole.h5", backbone=TINY, batch_size=16, engine=engine
    )
    assert contents(tmp_path / "faces.h5") == contents(whole.path)
    assert not list(tmp_path.glob("faces.h5.*"))


@pytest.mark.parametrize(
    ("stop", "status", "name"),
    [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_stopped_command_keeps_the_finished_part_and_says_so(
    tmp_path: Path, stop: signal.Signals, status: int, name: str
) -> None:
    (tmp_path / "run.py").write_text(
        "import signal, sys\nfrom fer_features.cli.command import Command\nimport click\n"
        # A shell starts what runs in the background with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "@click.command(cls=Command)\ndef main():\n"
        + "    "
        + PASS.format(
            tests=str(Path(__file__).parent.parent), pause=0.2, engine="openvino"
        ).replace("\n", "\n    ")
        + "\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(stop)
    _, said = process.communicate()
    assert process.returncode == status
    # click ends the terminal's ^C with a line of its own.
    assert (
        said.lstrip()
        == f"Error: stopped by {name}. What is finished is kept; the same call goes on with it.\n"
    )
    partial = Store(tmp_path / "faces.h5.partial")
    assert 0 < len(partial.verify()) < 600


def test_two_passes_on_one_output_the_second_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from fer_features.embedding.partial import locked\n"
        "with locked(Path('faces.h5')): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreError, match=f"being written by process {holder.pid} on"):
        extract(noise_faces(10), path, backbone=TINY)
    holder.kill()
    holder.wait()
    assert (tmp_path / "faces.h5.lock").exists()
    assert len(extract(noise_faces(10), path, backbone=TINY)) == 10
    with locked(path):
        pass
    assert not (tmp_path / "faces.h5.lock").exists()


def test_a_disk_without_room_is_one_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    faces = noise_faces(4000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            StoreError, match=r"File too large, expected to write embeddings there\. Make room"
        ):
            extract(faces, tmp_path / "faces.h5", backbone=TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, kept)
    assert list(tmp_path.glob("faces*")) == []


def test_outputs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StoreError, match="no HDF5 file"):
        extract(noise_faces(10), tmp_path / "file", backbone=TINY, overwrite=True)
    with pytest.raises(StoreError, match="a folder, expected a file name"):
        extract(noise_faces(10), tmp_path, backbone=TINY)
    with pytest.raises(StoreError, match="expected to write"):
        extract(noise_faces(10), tmp_path / "file" / "faces.h5", backbone=TINY)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_failing_engine_is_not_taken_for_a_damaged_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(engine: Engine, pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("the engine's own words")

    monkeypatch.setattr(blocks, "embed", failing)
    with pytest.raises(RuntimeError, match="the engine's own words"):
        extract(noise_faces(10), tmp_path / "faces.h5", backbone=TINY)


def test_a_source_without_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no faces"):
        extract(noise_faces(0, copies=False), tmp_path / "faces.h5", backbone=TINY)


def test_the_default_output_is_named_by_source_and_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = extract(noise_faces(4, copies=False), backbone=TINY)
    assert store.path == Path("cache") / f"noise-{TINY.fingerprint[:8]}.h5"
    assert extraction.CACHE.is_dir()
    assert list(Path("cache").glob("noise*")) == [store.path]
