"""The pass: each image once, resumed where it stopped, nothing lost unsaid, never a silent mix."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces, write_csv

from fer_features import BackboneSpec, FaceDataset, Store, extract, read_faces
from fer_features.embedding import extraction
from fer_features.embedding.backbone import fingerprint
from fer_features.embedding.engines import Engine, embed, load_engine
from fer_features.embedding.network import Outputs
from fer_features.embedding.partial import Content, create_partial, locked, open_partial, summed_up
from fer_features.errors import BackboneError, OptionError, SourceError, StoreError
from fer_features.faces.dataset import pixel_digests

ONE = replace(TINY, layers=("one",))
ALL = replace(TINY, layers=("one", "two_relu", "three"))

# A pass slow enough to be killed in the middle: the network is real, and waits before each block.
PASS = """
import sys, time
sys.path.insert(0, {tests!r})
from dataclasses import replace
from support import TINY, noise_faces
from fer_features import extract
from fer_features.embedding import extraction
embed = extraction.embed
def slow(engine, pixels):
    print("block", flush=True)
    time.sleep({pause})
    return embed(engine, pixels)
extraction.embed = slow
spec = replace(TINY, layers={layers!r})
extract(noise_faces(600), "faces.h5", backbone=spec, batch_size=16, engine={engine!r})
"""
TESTS = str(Path(__file__).parent.parent)


class Counting:
    """Counts the images that go through the real engine; stops after some blocks if told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.digests: list[bytes] = []
        self.outputs: set[str] = set()
        self.blocks_left = 1_000_000

        def counted(engine: Engine, pixels: np.ndarray) -> Outputs:
            if not self.blocks_left:
                raise KeyboardInterrupt
            self.blocks_left -= 1
            said = embed(engine, pixels)
            self.digests += [digest.tobytes() for digest in pixel_digests(pixels)]
            self.outputs |= set(said)
            return said

        monkeypatch.setattr(extraction, "embed", counted)

    @property
    def images(self) -> int:
        """Images computed since this was last asked."""
        images = len(self.digests)
        self.digests = []
        return images

    def stop_after(self, blocks: int, *arguments: Any, **options: Any) -> int:
        """Run a pass that is stopped after some blocks; return how many images it computed."""
        self.blocks_left = blocks
        with pytest.raises(KeyboardInterrupt):
            extract(*arguments, batch_size=16, **options)
        self.blocks_left = 1_000_000
        return self.images


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faces.h5"


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of every dataset of a file, by name."""
    found: dict[str, bytes] = {}

    def add(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            found[name] = each[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def raw(path: Path, output: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[f"images/embeddings/{output}"][()]


def taken(faces: FaceDataset, rows: Any, **others: Any) -> FaceDataset:
    """Return some rows of faces, in that order."""
    names = ("pixels", "emotion", "usage", "source", "group")
    return replace(faces, **{name: getattr(faces, name)[rows] for name in names}, **others)


def joined(*parts: FaceDataset) -> FaceDataset:
    names = ("pixels", "emotion", "usage", "group")
    values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    n = len(values["pixels"])
    return replace(parts[0], **values, source=np.arange(1, n + 1).astype(np.str_))


def assert_as_computed_alone(store: Store, faces: FaceDataset) -> None:
    """Check that a store is intact and holds what one uninterrupted pass gives for these faces."""
    assert store.verify() == []
    for name, values in embed(alone(store.outputs, faces.image), faces.pixels).items():
        found = store.embeddings(features=name)
        assert np.abs(found - values).max() <= 1e-5 * np.abs(values).max(), name
    for name in ("emotion", "usage", "source", "group", "digest"):
        assert np.array_equal(getattr(store, name), getattr(faces, name)), name


@cache
def alone(outputs: tuple[str, ...], image: tuple[int, int, int]) -> Engine:
    """Return the network on the other engine than the one that passes take here."""
    return load_engine(replace(TINY, image=image), outputs, "tensorflow", Path())


def left_beside(path: Path) -> list[str]:
    """Return what else a pass left under its output's name, but the lock, which stays."""
    return sorted(
        each.name for each in path.parent.glob(f"{path.name}.*") if each.suffix != ".lock"
    )


def test_each_distinct_image_is_computed_once(path: Path, counting: Counting) -> None:
    faces = noise_faces(40)
    store = extract(faces, path, backbone=ALL, batch_size=7)
    assert sorted(counting.digests) == sorted({digest.tobytes() for digest in faces.digest})
    assert counting.images == 38
    embeddings = store.embeddings()
    assert np.array_equal(embeddings[3], embeddings[7])
    assert np.array_equal(embeddings[3], embeddings[39])
    assert_as_computed_alone(store, faces)
    assert left_beside(path) == []


def test_a_complete_store_is_returned_without_computing(path: Path, counting: Counting) -> None:
    extract(noise_faces(40), path, backbone=TINY)
    before, inode = path.read_bytes(), path.stat().st_ino
    assert counting.images == 38
    for options in ({}, {"overwrite": True}, {"repair": True}, {"workers": 2}):
        extract(noise_faces(40), path, backbone=TINY, **options)
        assert counting.images == 0
        assert path.read_bytes() == before
        assert path.stat().st_ino == inode


def test_a_source_that_grew_by_one_image_has_that_one_computed(
    path: Path, counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = noise_faces(40), noise_faces(9, seed=1, copies=False)
    before = extract(old, path, backbone=TINY).embeddings()
    assert counting.images == 38
    grown = joined(old, taken(new, [4]), taken(old, [11]))
    with caplog.at_level("INFO"):
        store = extract(grown, path, backbone=TINY)
    assert counting.digests == [new.digest[4].tobytes()]
    assert "42 rows, 39 distinct images: 38 known, 1 to compute" in caplog.text
    assert np.array_equal(store.embeddings(slice(40)), before)
    assert_as_computed_alone(store, grown)


def test_provenance_keeps_every_pass(path: Path) -> None:
    old, new = noise_faces(40), noise_faces(9, seed=1, copies=False)
    [first] = extract(old, path, backbone=TINY).provenance["passes"]
    [kept, second] = extract(joined(old, new), path, backbone=TINY).provenance["passes"]
    assert kept == first
    assert (first["images"], first["reused"]) == (38, 0)
    assert (second["images"], second["reused"]) == (9, 38)
    relabelled = replace(old, emotion=(old.emotion + 1).astype(np.int8) % 7)
    store = extract(joined(relabelled, new), path, backbone=TINY)
    assert store.provenance["passes"] == [first, second]  # nothing was computed


def test_very_many_passes_are_summed_up(path: Path, counting: Counting) -> None:
    faces = noise_faces(60, copies=False)
    store = extract(taken(faces, slice(40)), path, backbone=TINY)
    [entry] = store.provenance["passes"]
    # As a hundred and fifty growths would have left it, each of some hundreds of bytes.
    many = [{**entry, "images": i % 3, "files": {"weights": f"{i:04}" * 50}} for i in range(150)]
    many = summed_up([entry, *many])
    images = sum(each["images"] for each in many)
    assert images == 40 + 150
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = np.bytes_(json.dumps({"passes": many}))
    for n in range(41, 46):
        store = extract(taken(faces, slice(n)), path, backbone=TINY)
        passes = store.provenance["passes"]
        images += 1
        assert sum(each["images"] for each in passes) == images
        assert passes[-1]["images"] == 1
        assert passes[0]["passes"] > 50
        assert sum(each.get("passes", 1) for each in passes) == 151 + n - 40
        assert len(json.dumps(passes)) < 50_000
    assert store.verify() == []


@pytest.mark.parametrize("outputs", [2, 60, 600])
def test_what_a_pass_says_of_itself_always_fits(tmp_path: Path, outputs: int) -> None:
    """A pass is never lost over the words on it, however many outputs it speaks of."""
    content = Content.of(noise_faces(9))
    lengths = {"final": 2} | {f"block_number_{i}_output": 1 for i in range(1, outputs)}
    entry = {
        "created": "2030-01-01", "engine": "openvino", "versions": {}, "outputs": list(lengths),
        "images": 0, "seconds": None, "files": {},
    }  # fmt: skip
    earlier = [{**entry, "seconds": 1.0, "images": i} for i in range(60)]
    passes = [*summed_up(earlier), entry]
    partial = tmp_path / "a.h5.partial"
    dataset = {"name": "noise", "image": [48, 48, 1], "skipped": 0}
    create_partial(partial, content, TINY, lengths, dataset, {"passes": passes})
    cosine = {
        "images": 128, "plain": {"min": 0.12345, "median": 0.12345},
        "centred": {"min": 0.12345, "median": 0.12345}, "warns": False,
    }  # fmt: skip
    said = {**entry, "seconds": 2.0, "images": 7, "cosine": dict.fromkeys(lengths, cosine)}
    with open_partial(partial) as unfinished:
        unfinished.finish(tmp_path / "a.h5", {"passes": [*passes[:-1], said]})
    found = Store(tmp_path / "a.h5").provenance["passes"]
    assert found[-1]["images"] == 7
    assert sum(each["images"] for each in found) == sum(range(60)) + 7
    if outputs <= 60:
        assert found[-1] == said


def test_a_source_that_lacks_any_image_of_a_store_does_not_replace_it(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(40, copies=False)
    extract(faces, path, backbone=TINY)
    assert counting.images == 40
    before = path.read_bytes()
    other = noise_faces(9, seed=1, copies=False)
    for lacking, fewer in ((1, taken(faces, slice(1, None))), (40, other)):
        for source in (fewer, joined(fewer, other)):
            said = f"holds 40 images, of which this source .noise. lacks {lacking}: they would be"
            with pytest.raises(StoreError, match=f"faces.h5: {said} lost.*--overwrite"):
                extract(source, path, backbone=TINY)
    assert path.read_bytes() == before
    assert left_beside(path) == []
    assert counting.images == 0
    fewer = joined(taken(faces, slice(1, None)), other)
    store = extract(fewer, path, backbone=TINY, overwrite=True)  # as the message says
    assert sorted(counting.digests) == sorted(digest.tobytes() for digest in other.digest)
    assert_as_computed_alone(store, fewer)


def test_an_overwrite_says_what_it_drops(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faces = noise_faces(40, copies=False)
    extract(faces, path, backbone=TINY)
    with caplog.at_level("INFO"):
        extract(taken(faces, slice(30)), path, backbone=TINY, overwrite=True)
    assert "lacks 10: their embeddings are dropped, as --overwrite says" in caplog.text


def test_a_stopped_overwrite_goes_on_and_the_old_store_stays_till_then(
    path: Path, counting: Counting
) -> None:
    old, new = noise_faces(32, copies=False), noise_faces(64, seed=1, copies=False)
    extract(old, path, backbone=TINY)
    assert counting.images == 32
    before = path.read_bytes()
    other = joined(taken(old, slice(20)), new)
    assert counting.stop_after(2, other, path, backbone=TINY, overwrite=True) == 32
    assert path.read_bytes() == before
    store = extract(other, path, backbone=TINY, batch_size=16, overwrite=True)
    assert counting.images == 32
    assert_as_computed_alone(store, other)


def test_a_stopped_overwrite_of_another_network_goes_on(path: Path, counting: Counting) -> None:
    faces = noise_faces(64, copies=False)
    extract(faces, path, backbone=BackboneSpec("tiny", "random:1"))
    assert counting.images == 64
    assert counting.stop_after(2, faces, path, backbone=TINY, overwrite=True) == 32
    extract(faces, path, backbone=TINY, batch_size=16, overwrite=True)
    assert counting.images == 32
    assert Store(path).fingerprint == TINY.fingerprint


def test_a_stopped_pass_and_the_store_beside_it_are_both_used(
    path: Path, counting: Counting
) -> None:
    old = noise_faces(20, copies=False)
    new, newer = noise_faces(64, seed=1, copies=False), noise_faces(10, seed=2, copies=False)
    extract(old, path, backbone=TINY)
    assert counting.images == 20
    assert counting.stop_after(2, joined(old, new), path, backbone=TINY) == 32
    everything = joined(newer, new, old)
    store = extract(everything, path, backbone=TINY)
    assert counting.images == 32 + 10
    assert_as_computed_alone(store, everything)
    assert [each["images"] for each in store.provenance["passes"]] == [20, 32, 42]


def test_a_store_that_came_beside_a_stopped_pass_is_used_too(
    path: Path, tmp_path: Path, counting: Counting
) -> None:
    old, new = noise_faces(48, copies=False), noise_faces(48, seed=1, copies=False)
    assert counting.stop_after(2, joined(new, old), path, backbone=TINY) == 32
    extract(old, tmp_path / "other.h5", backbone=TINY)
    assert counting.images == 48
    (tmp_path / "other.h5").rename(path)
    store = extract(joined(new, old), path, backbone=TINY, batch_size=16)
    assert counting.images == 16
    assert_as_computed_alone(store, joined(new, old))


def test_a_stopped_pass_over_other_faces_gives_what_it_knows(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    assert counting.stop_after(2, faces, path, backbone=TINY) == 32
    other = taken(faces, slice(None, None, -1))
    store = extract(other, path, backbone=TINY, batch_size=16)
    assert counting.images == 32
    stopped, last = store.provenance["passes"]
    assert (stopped["images"], stopped["stopped"]) == (32, True)
    assert (last["images"], last["reused"]) == (32, 32)
    assert_as_computed_alone(store, other)


def test_a_pass_that_goes_on_with_another_engine_says_what_each_did(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    counting.stop_after(2, faces, path, backbone=TINY, engine="tensorflow")
    store = extract(faces, path, backbone=TINY, engine="openvino")
    assert counting.images == 32
    one, other = store.provenance["passes"]
    assert (one["engine"], one["images"], one["stopped"]) == ("tensorflow", 32, True)
    assert (other["engine"], other["images"], other["reused"]) == ("openvino", 32, 32)
    assert "openvino" in other["versions"]
    assert "openvino" not in one["versions"]


def test_a_stopped_pass_is_not_lost_to_another_source(path: Path, counting: Counting) -> None:
    counting.stop_after(2, noise_faces(64, copies=False), path, backbone=TINY)
    partial = path.with_name("faces.h5.partial")
    before = partial.read_bytes()
    with pytest.raises(
        StoreError, match=r"faces\.h5\.partial: a stopped pass of another call, holds 32 images,"
    ):
        extract(noise_faces(64, 1), path, backbone=TINY)
    assert partial.read_bytes() == before


def test_what_a_stopped_pass_knows_in_part_is_not_lost_to_another_source(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    counting.stop_after(2, faces, path, backbone=TINY)
    counting.stop_after(0, faces, path, backbone=ONE)  # 32 have final, and none has one yet
    with pytest.raises(
        StoreError, match=r"faces\.h5\.partial: a stopped pass of another call, holds 32 images,"
    ):
        extract(noise_faces(64, 1), path, backbone=TINY)
    counting.stop_after(1, faces, path, backbone=ONE)
    store = extract(faces, path, backbone=ONE, batch_size=16)
    assert counting.images == 48
    assert_as_computed_alone(store, faces)


def test_labels_changed_in_python_reach_the_store_without_computing(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(40)
    extract(faces, path, backbone=ONE)
    assert counting.images == 38
    images = {name: each for name, each in contents(path).items() if name.startswith("images/")}
    changes: list[dict[str, np.ndarray]] = [
        {"emotion": np.full(40, 3, np.int8)},
        {"usage": np.full(40, -1, np.int8)},
        {"group": np.array(["a", "b"] * 20)},
        {"source": np.array([f"{i}.png" for i in range(40)])},
    ]
    for change in changes:
        faces = replace(faces, **change)
        store = extract(faces, path, backbone=ONE)
        assert counting.images == 0
        assert_as_computed_alone(store, faces)
    assert images.items() <= contents(path).items()
    turned = taken(faces, slice(None, None, -1))
    assert_as_computed_alone(extract(turned, path, backbone=ONE), turned)
    assert counting.images == 0


def test_labels_changed_in_the_file_reach_the_store_without_computing(
    path: Path, tmp_path: Path, counting: Counting
) -> None:
    faces = noise_faces(40)
    csv = write_csv(tmp_path / "faces.csv", faces)
    extract(csv, path, backbone=TINY)
    assert counting.images == 38
    changed = replace(faces, emotion=faces.emotion[::-1].copy(), usage=faces.usage[::-1].copy())
    write_csv(csv, changed)
    store = extract(csv, path, backbone=TINY)
    assert counting.images == 0
    assert_as_computed_alone(store, changed)


def test_faces_read_in_python_and_their_file_are_one_source(
    path: Path, tmp_path: Path, counting: Counting
) -> None:
    csv = write_csv(tmp_path / "faces.csv", noise_faces(40))
    extract(csv, path, backbone=TINY)
    before = path.read_bytes()
    extract(read_faces(csv), path, backbone=TINY)
    assert path.read_bytes() == before
    assert counting.images == 38


def test_arrays_are_recognised_by_content_not_by_what_a_caller_typed(
    path: Path, counting: Counting
) -> None:
    typed = "ab" * 32
    old = replace(noise_faces(40), sha256=typed)
    extract(old, path, backbone=TINY)
    assert counting.images == 38
    with pytest.raises(StoreError, match="lacks 38"):
        extract(replace(noise_faces(40, seed=1), sha256=typed), path, backbone=TINY)
    grown = replace(joined(old, noise_faces(9, seed=1)), sha256=typed)
    assert_as_computed_alone(extract(grown, path, backbone=TINY), grown)
    assert counting.images == 7  # three of the nine are copies


def test_a_typed_sha256_does_not_pass_for_the_file(
    path: Path, tmp_path: Path, counting: Counting
) -> None:
    faces = noise_faces(40)
    csv = write_csv(tmp_path / "faces.csv", faces)
    real = read_faces(csv)
    extract(taken(real, slice(10)), path, backbone=TINY)  # still says the file's sha256
    assert counting.images == 9
    assert_as_computed_alone(extract(csv, path, backbone=TINY), faces)
    assert counting.images == 38 - 9
    wrong = replace(real, emotion=np.zeros(40, np.int8))
    extract(wrong, path, backbone=TINY)
    assert np.array_equal(extract(csv, path, backbone=TINY).emotion, faces.emotion)


@pytest.mark.parametrize(
    "option", [{"limit": 5}, {"skip_bad": True}, {"image_size": 64}, {"color": True}], ids=str
)
def test_how_to_read_is_refused_with_faces_that_are_read(path: Path, option: Any) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(option))}: .*Pass it to read_faces"):
        extract(noise_faces(40), path, backbone=TINY, **option)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0, expected a whole number, at least 1"),
        ({"workers": 0}, "workers: 0, expected a whole number, at least 1"),
        ({"workers": 2, "dask": "tcp://x:1"}, "expected one of the two"),
        ({"engine": "tensrflow"}, "engine: 'tensrflow'"),
    ],
)
def test_options_with_bad_values_are_refused(path: Path, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        extract(noise_faces(9), path, backbone=TINY, **options)


def test_the_default_output_is_named_by_source_network_and_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = extract(noise_faces(4, copies=False), backbone=TINY)
    assert store.path == Path("cache") / f"noise-tiny-{TINY.fingerprint[:8]}.h5"
    assert [each.name for each in Path("cache").glob("*.h5")] == [store.path.name]
    spaced = replace(noise_faces(4, copies=False), name="my faces/2")
    assert extract(spaced, backbone=TINY).path.name == f"my_faces_2-tiny-{store.fingerprint[:8]}.h5"


def test_a_limited_pass_never_meets_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: Counting
) -> None:
    monkeypatch.chdir(tmp_path)
    csv = write_csv(tmp_path / "faces.csv", noise_faces(40))
    try_ = extract(csv, backbone=TINY, limit=20)
    end = f"tiny-{TINY.fingerprint[:8]}.h5"
    assert (len(try_), try_.path.name) == (20, f"faces-limit20-{end}")
    before = try_.path.read_bytes()
    whole = extract(csv, backbone=TINY)
    assert (len(whole), whole.path.name) == (40, f"faces-{end}")
    other = extract(csv, backbone=TINY, limit=10)
    assert (len(other), other.path.name) == (10, f"faces-limit10-{end}")
    counting.digests = []
    assert extract(read_faces(csv, limit=20), backbone=TINY).path == try_.path
    assert extract(csv, backbone=TINY, limit=20).path == try_.path
    assert counting.images == 0
    assert try_.path.read_bytes() == before


def test_a_limit_on_a_full_stores_own_path_is_refused(
    path: Path, tmp_path: Path, counting: Counting
) -> None:
    csv = write_csv(tmp_path / "faces.csv", noise_faces(40))
    extract(csv, path, backbone=TINY)
    with pytest.raises(StoreError, match=r"38 images, of which this source \(faces\) lacks"):
        extract(csv, path, backbone=TINY, limit=20)
    assert len(Store(path)) == 40


def test_a_layer_that_a_store_lacks_is_computed_beside_what_is_there(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(40)
    extract(faces, path, backbone=TINY)
    before = contents(path)
    counting.outputs, counting.digests = set(), []
    store = extract(faces, path, backbone=replace(TINY, layers=("three",)))
    assert counting.outputs == {"three"}  # final is not computed again
    assert counting.images == 38
    assert store.outputs == ("final", "three")
    counting.outputs = set()
    store = extract(faces, path, backbone=ONE)
    assert store.outputs == ("final", "three", "one")
    assert counting.outputs == {"one"}
    after = contents(path)
    assert {name for name in before if after[name] != before[name]} == {"images/checksum"}
    assert_as_computed_alone(store, faces)
    assert [each["outputs"] for each in store.provenance["passes"]] == [
        ["final"], ["three"], ["one"]
    ]  # fmt: skip


def test_a_pass_stopped_while_it_adds_a_layer_goes_on(path: Path, counting: Counting) -> None:
    faces = noise_faces(64, copies=False)
    extract(faces, path, backbone=TINY, batch_size=16)
    before, old = path.read_bytes(), raw(path, "final")
    uninterrupted = Path(shutil.copy(path, path.with_name("other.h5")))
    extract(faces, uninterrupted, backbone=ONE, batch_size=16)
    counting.digests = []
    assert counting.stop_after(1, faces, path, backbone=ONE) == 16
    assert counting.stop_after(2, faces, path, backbone=ONE) == 32
    assert path.read_bytes() == before
    assert np.array_equal(raw(path.with_name("faces.h5.partial"), "final"), old)
    store = extract(faces, path, backbone=ONE, batch_size=16)
    assert counting.images == 16
    assert contents(path) == contents(uninterrupted)
    assert np.array_equal(raw(path, "final"), old)
    assert_as_computed_alone(store, faces)


def test_a_stopped_layer_does_not_stand_in_the_way_of_others(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    extract(faces, path, backbone=TINY)
    counting.digests = []
    assert counting.stop_after(2, faces, path, backbone=ONE) == 32
    store = extract(faces, path, backbone=replace(TINY, layers=("three",)))
    assert store.outputs == ("final", "one", "three")  # what was computed of one is not dropped
    assert_as_computed_alone(store, faces)


def test_growth_and_a_new_layer_at_once(path: Path, counting: Counting) -> None:
    old, new = noise_faces(40), noise_faces(20, seed=1, copies=False)
    extract(old, path, backbone=TINY, engine="tensorflow")  # whose bits the other engine has not
    before = raw(path, "final")
    counting.digests = []
    grown = joined(old, new)
    store = extract(grown, path, backbone=ONE, batch_size=16, engine="openvino")
    assert counting.images == 58
    assert np.array_equal(raw(path, "final")[:38], before)
    assert_as_computed_alone(store, grown)


def test_a_store_with_more_outputs_than_asked_is_complete_and_keeps_them(
    path: Path, counting: Counting
) -> None:
    old = noise_faces(40)
    extract(old, path, backbone=ALL)
    before, inode = contents(path), path.stat().st_ino
    assert counting.images == 38
    for spec in (TINY, ONE, replace(TINY, layers=("three", "one"))):
        assert extract(old, path, backbone=spec).outputs == ALL.outputs
    assert path.stat().st_ino == inode
    assert counting.images == 0
    grown = joined(old, noise_faces(20, seed=1, copies=False))
    store = extract(grown, path, backbone=TINY)
    assert counting.images == 20
    assert store.outputs == ALL.outputs
    for output in ALL.outputs:
        name = f"images/embeddings/{output}"
        assert contents(path)[name].startswith(before[name])
    assert_as_computed_alone(store, grown)


@pytest.mark.parametrize(
    ("faces", "spec", "field"),
    [
        (noise_faces(10), BackboneSpec("tiny", "random:1"), "weights random:0@.*random:1@"),
        (noise_faces(10), replace(TINY, input_size=48), "input_size 64, expected 48"),
        (
            replace(noise_faces(10), pixels=noise_faces(10).pixels[:, :40]),
            TINY,
            r"image \[48, 48, 1\], expected \[40, 48, 1\]",
        ),
    ],
)
def test_another_network_never_mixes_into_a_store(
    path: Path, faces: FaceDataset, spec: BackboneSpec, field: str
) -> None:
    extract(noise_faces(10), path, backbone=TINY)
    before = path.read_bytes()
    for options in ({}, {"repair": True}):
        with pytest.raises(StoreError, match=rf"faces.h5: made with {field.split('.*')[0]}"):
            extract(faces, path, backbone=spec, **options)
        with pytest.raises(StoreError, match=rf"{field}.*choose another output with -o.*--overwri"):
            extract(faces, path, backbone=spec, **options)
    assert path.read_bytes() == before
    store = extract(faces, path, backbone=spec, overwrite=True)
    assert store.fingerprint == replace(spec, image=faces.image).fingerprint
    assert store.verify() == []


@pytest.mark.parametrize(
    ("damage", "rows", "computed"),
    [
        ({"images/embeddings/final": [(11, 4)]}, [12], 1),
        ({"images/embeddings/one": [(3, 0)]}, [3, 7, 39], 1),
        ({"images/digest": [(20, 31)], "images/checksum": [(30,)]}, [21, 31], 2),
        ({"rows/emotion": [(20,)], "rows/usage": [(2,)], "rows/checksum": [(9,)]}, [2, 9, 20], 0),
        ({"rows/image": [(5,)]}, [5], 0),
        ({"images/embeddings/one": [(11, 4)], "rows/emotion": [(12,), (0,)]}, [0, 12], 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_repair_computes_just_the_damaged_images_and_mends_labels(
    path: Path, counting: Counting, damage: Any, rows: list[int], computed: int
) -> None:
    faces = noise_faces(40)
    extract(faces, path, backbone=ONE)
    before = contents(path)
    with h5py.File(path, "r+") as file:
        for name, places in damage.items():
            for place in places:
                file[name][place] += 1
    assert Store(path).verify() == rows
    counting.digests = []
    store = extract(faces, path, backbone=ONE, repair=True)
    assert counting.images == computed
    assert_as_computed_alone(store, faces)
    if not computed:
        assert contents(path) == before
    elif "final" not in str(damage) and "digest" not in str(damage):
        assert contents(path)["images/embeddings/final"] == before["images/embeddings/final"]


def test_repair_of_what_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match="no such file, expected a store to repair"):
        extract(noise_faces(40), path, backbone=TINY, repair=True)
    assert left_beside(path) == []


@pytest.mark.parametrize(
    ("kills", "engine", "layers"),
    [
        (5, "openvino", ("one",)),
        pytest.param(20, "tensorflow", ("one",), marks=pytest.mark.slow),
    ],
    ids=["5 kills", "20 kills"],
)
def test_a_killed_pass_resumes_and_equals_an_uninterrupted_one(
    tmp_path: Path, kills: int, engine: str, layers: tuple[str, ...]
) -> None:
    script = PASS.format(tests=TESTS, pause=0.02, engine=engine, layers=layers)
    spec = replace(TINY, layers=layers)
    load_engine(spec, spec.outputs, engine, tmp_path)  # converted here, each process starts sooner
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
        noise_faces(600), tmp_path / "whole.h5", backbone=spec, batch_size=16, engine=engine
    )
    assert contents(tmp_path / "faces.h5") == contents(whole.path)
    assert len(contents(whole.path)) == 10
    assert left_beside(tmp_path / "faces.h5") == []


def test_a_pass_killed_while_it_adds_a_layer_leaves_the_store_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    extract(noise_faces(600), path, backbone=TINY, batch_size=16)
    before, old = path.read_bytes(), raw(path, "final")
    script = PASS.format(tests=TESTS, pause=0.05, engine="openvino", layers=("one",))
    load_engine(TINY, ("one",), "openvino", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(10):
        assert process.stdout.readline() == "block\n"
    process.kill()
    blocks = 10 + process.communicate()[0].count("block\n")
    assert path.read_bytes() == before
    last = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert blocks + last.stdout.count("block\n") <= 38 + 1
    assert np.array_equal(raw(path, "final"), old)
    assert_as_computed_alone(Store(path), noise_faces(600))


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
        + PASS.format(tests=TESTS, pause=0.2, engine="openvino", layers=()).replace("\n", "\n    ")
        + "\nmain()\n"
    )
    load_engine(TINY, TINY.outputs, "openvino", tmp_path)
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


def test_two_passes_on_one_output_the_second_says_who_holds_it(tmp_path: Path, path: Path) -> None:
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
    lock = tmp_path / "faces.h5.lock"
    inode = lock.stat().st_ino
    with pytest.raises(StoreError, match=f"being written by process {holder.pid} on"):
        extract(noise_faces(10), path, backbone=TINY)
    assert not path.exists()
    holder.kill()
    holder.wait()
    # The lock goes with its process; its file, and who held it, stay.
    assert len(extract(noise_faces(10), path, backbone=TINY)) == 10
    with locked(path), pytest.raises(StoreError, match="being written by process"), locked(path):
        pass
    assert lock.stat().st_ino == inode
    assert left_beside(path) == []


def test_a_disk_without_room_is_one_error_and_nothing_is_left(path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            StoreError, match=r"File too large, expected to write embeddings there\. Make room"
        ):
            extract(noise_faces(4000), path, backbone=TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, kept)
    assert not path.exists()
    assert left_beside(path) == []


def test_outputs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StoreError, match="no HDF5 file"):
        extract(noise_faces(10), tmp_path / "file", backbone=TINY, overwrite=True)
    with pytest.raises(StoreError, match="a folder, expected a file name"):
        extract(noise_faces(10), tmp_path, backbone=TINY)
    with pytest.raises(StoreError, match="expected to write"):
        extract(noise_faces(10), tmp_path / "file" / "faces.h5", backbone=TINY)
    assert (tmp_path / "file").read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_overwriting_replaces_damaged_stores_but_nobody_elses_file(path: Path) -> None:
    faces = noise_faces(10)
    with h5py.File(path, "w") as file:
        file["weights"] = [1.0, 2.0]
    before = path.read_bytes()
    for options in ({}, {"overwrite": True}, {"repair": True}):
        with pytest.raises(StoreError, match="without the attribute format"):
            extract(faces, path, backbone=TINY, **options)
    assert path.read_bytes() == before
    path.unlink()
    extract(faces, path, backbone=TINY)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(StoreError, match=r"cut short or damaged.*--overwrite"):
        extract(faces, path, backbone=TINY)
    assert_as_computed_alone(extract(faces, path, backbone=TINY, overwrite=True), faces)


def test_a_damaged_stopped_pass_is_named_and_can_be_overwritten(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(64, copies=False)
    counting.stop_after(2, faces, path, backbone=TINY)
    partial = path.with_name("faces.h5.partial")
    partial.write_bytes(partial.read_bytes()[:4000])
    with pytest.raises(StoreError, match=r"faces\.h5\.partial: .*--overwrite"):
        extract(faces, path, backbone=TINY)
    assert_as_computed_alone(extract(faces, path, backbone=TINY, overwrite=True), faces)


def test_overwriting_does_not_take_a_store_in_use_for_a_damaged_one(
    path: Path, counting: Counting
) -> None:
    faces = noise_faces(40, copies=False)
    extract(faces, path, backbone=TINY)
    counting.digests = []
    before = path.read_bytes()
    code = f"import h5py\nwith h5py.File({str(path)!r}, 'r+'):\n print('held')\n input()"
    holder = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreError, match="another process writes it"):
        extract(faces, path, backbone=TINY, overwrite=True)
    holder.communicate(b"\n")
    assert counting.images == 0
    assert path.read_bytes() == before


def test_a_failing_engine_is_not_taken_for_a_damaged_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError, ValueError, KeyError, TypeError):

        def failing(engine: Engine, pixels: np.ndarray, error: Any = error) -> Outputs:
            raise error("the engine's own words")

        monkeypatch.setattr(extraction, "embed", failing)
        with pytest.raises(error, match="the engine's own words"):
            extract(noise_faces(10), path, backbone=TINY)
    assert not path.exists()


def test_a_network_that_gives_no_numbers_is_named(path: Path, tmp_path: Path) -> None:
    import keras

    images = keras.Input((48, 48, 3))
    network = keras.Model(images, keras.layers.Rescaling(3e38)(images))
    network.save(tmp_path / "wild.keras")
    spec = BackboneSpec(str(tmp_path / "wild.keras"))
    with pytest.raises(BackboneError, match="wild: the network gave numbers that are not finite"):
        extract(noise_faces(10), path, backbone=spec)
    assert not path.exists()


def test_a_source_without_faces_is_refused(path: Path) -> None:
    with pytest.raises(SourceError, match="no faces"):
        extract(noise_faces(0, copies=False), path, backbone=TINY)
    assert not path.exists()


@pytest.mark.parametrize(
    "form", [(32, 40), (64, 64), (1, 1), (64, 64, 3), (48, 48, 3), (30, 50, 3)], ids=str
)
def test_images_of_any_form_go_the_whole_way(path: Path, form: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    faces = noise_faces(12, copies=False)
    faces = replace(faces, pixels=rng.integers(0, 256, (12, *form), dtype=np.uint8))
    store = extract(faces, path, backbone=ONE, batch_size=5)
    image = (*form, 1) if len(form) == 2 else form
    assert store.backbone["image"] == store.dataset["image"] == list(image)
    assert store.fingerprint == fingerprint({**TINY.identity, "image": list(image)})
    assert_as_computed_alone(store, faces)


def test_grey_and_colour_of_the_same_bytes_are_different_images(
    path: Path, counting: Counting
) -> None:
    grey = noise_faces(9, copies=False)
    colour = replace(grey, pixels=np.repeat(grey.pixels[..., None], 3, axis=3))
    assert not (grey.digest == colour.digest).all(axis=1).any()
    extract(grey, path, backbone=TINY)
    with pytest.raises(StoreError, match=r"made with image \[48, 48, 1\], expected \[48, 48, 3\]"):
        extract(colour, path, backbone=TINY)


def test_pixels_changed_after_the_faces_were_made_are_embedded_as_they_are(path: Path) -> None:
    faces, other = noise_faces(12), noise_faces(12, seed=1)
    faces.pixels[...] = other.pixels
    store = extract(faces, path, backbone=TINY)
    assert np.array_equal(store.image_digest[0], pixel_digests(other.pixels)[0])


def test_workers_keep_networks_in_the_folder_of_the_call(tmp_path: Path) -> None:
    """Worker processes are kept between calls, and with them the folder they were started in."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with contextlib.chdir(tmp_path / name):
            extract(noise_faces(40), backbone=TINY, workers=2, batch_size=4, engine="openvino")
    kept = [sorted(each.name for each in (tmp_path / name / "cache").iterdir())
            for name in ("one", "two")]  # fmt: skip
    assert kept[0] == kept[1]
    assert any(name.startswith("openvino-") for name in kept[1])


def test_overwriting_an_int8_store_keeps_its_network_and_what_that_said(
    tmp_path: Path, counting: Counting
) -> None:
    spec = BackboneSpec("tiny", "random:0", precision="int8")
    path = tmp_path / "int8.h5"
    extract(noise_faces(60), path, backbone=replace(spec, layers=("one",)))
    extract(noise_faces(60), tmp_path / "other.h5", backbone=spec)
    assert counting.images == 2 * 58
    few = taken(noise_faces(60), slice(20))
    store = extract(few, path, backbone=spec, overwrite=True)
    assert counting.images == 0
    assert store.outputs == ("final", "one")
