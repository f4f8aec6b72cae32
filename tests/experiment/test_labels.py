"""Tasks whose labels are not the store's."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import FaceDataset, LogisticHead, Result, Task, extract
from fer_features.errors import SourceError, TaskError
from fer_features.experiment.result import fit_and_evaluate
from fer_features.faces.emotions import EMOTIONS

N = 200
USAGES = ("Training", "PublicTest", "PrivateTest")
ORDER = (6, 3, 5, 4, 0, 1, 2, 7)  # FER+'s columns, as emotion ids
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"


@pytest.fixture(scope="module")
def faces() -> FaceDataset:
    return noise_faces(N, copies=False)


@pytest.fixture(scope="module")
def folder(faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 200 images, and votes for 200 rows that move every fourth emotion by one."""
    folder = tmp_path_factory.mktemp("labels")
    extract(faces, folder / "faces.h5", backbone=TINY)
    lines = [HEADER + ",unknown,NF"]
    for i, each in enumerate(new_emotion(faces)):
        votes = [0] * 10
        votes[9 if each < 0 else ORDER.index(each)] = 8 if i % 2 else 6
        votes[8] = 10 - sum(votes)
        lines.append(f"{USAGES[faces.usage[i]]},f{i}.png,{','.join(map(str, votes))}")
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")
    return folder


def new_emotion(faces: FaceDataset) -> np.ndarray:
    emotion = faces.emotion.copy()
    emotion[::4] += 1  # some neutral ones become contempt
    emotion[5::20] = -1
    return emotion


@pytest.fixture(scope="module")
def store(folder: Path):
    from fer_features import Store

    return Store(folder / "faces.h5")


def test_labels_replace_the_stores_and_what_changed_is_counted(faces, folder, store, caplog):
    caplog.set_level(logging.INFO, "fer_features")
    task = Task(labels=folder / "votes.csv")
    data = task.select(store)
    new, old = new_emotion(faces), faces.emotion
    for part in (data.train, data.validation, data.test):
        rows = part.source.astype(int) - 1
        np.testing.assert_array_equal(part.emotion, new[rows])
        np.testing.assert_array_equal(part.y == "positive", new[rows] == 3)
    said = data.split["labels"]
    assert json.loads(json.dumps(said)) == said
    assert (said["name"], said["kind"], said["min_agreement"]) == ("votes.csv", "ferplus", 0.0)
    assert len(said["sha256"]) == 64
    assert said["labelled"] == (new >= 0).sum()
    assert said["none"] == said["lost"] == (new < 0).sum() > 0
    assert said["changed"] == ((new >= 0) & (new != old)).sum() > 0
    assert said["changed_class"] == (task.class_of(new) != task.class_of(old)).sum() > 0
    assert said["unmatched"] == 0
    assert f"Labels: votes.csv (FER+ votes, sha256 {said['sha256'][:8]}): 190 of 200" in caplog.text
    assert (
        sum(sum(n.values()) for n in data.split["sizes"].values())
        == (task.class_of(new) >= 0).sum()
    )
    half = Task(labels=folder / "votes.csv", min_agreement=0.7).select(store).split["labels"]
    assert half["labelled"] == (new[1::2] >= 0).sum()


def test_the_stores_own_labels_are_not_said(store, caplog) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    data = Task(per_class="min").select(store)
    assert "labels" not in data.split
    assert "groups" not in data.split
    assert caplog.text == ""


def test_labels_that_are_mostly_others_are_doubted(folder, store, caplog, tmp_path) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    lines = [f"{i + 1},{EMOTIONS[(int(e) + 1) % 7]}" for i, e in enumerate(store.emotion)]
    (tmp_path / "other.csv").write_text("source,label\n" + "\n".join(lines) + "\n3000,fear\n")
    Task(labels=tmp_path / "other.csv").select(store)
    assert "(column label, sha256" in caplog.text
    assert "1 labels match no row" in caplog.text
    assert f"They differ in most of the {N} rows that have both: are they of this" in caplog.text


def test_a_limited_store_joins_by_row(faces, folder, tmp_path: Path) -> None:
    chosen = np.arange(0, N, 2)
    some = FaceDataset(
        "some", "csv", faces.pixels[chosen], faces.emotion[chosen], faces.usage[chosen],
        faces.source[chosen], limit=N // 2,
    )  # fmt: skip
    limited = extract(some, tmp_path / "some.h5", backbone=TINY)
    data = Task.all_emotions(labels=folder / "votes.csv").select(limited)
    new = new_emotion(faces)
    for part in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(part.emotion, new[part.source.astype(int) - 1])
    assert data.split["labels"]["labelled"] == (new[chosen] >= 0).sum()
    whole = FaceDataset(
        "some", "csv", some.pixels, some.emotion, some.usage, some.source
    )  # not limited, and yet half of the rows
    other = extract(whole, tmp_path / "whole.h5", backbone=TINY)
    with pytest.raises(SourceError, match="200 rows of votes, the source has 100 rows"):
        Task(labels=folder / "votes.csv").select(other)


def test_all_emotions_are_those_that_the_labels_have(faces, folder, store) -> None:
    assert Task.all_emotions() == Task(classes="all")
    own = Task.all_emotions().select(store)
    assert own.classes == EMOTIONS[:7]
    assert own.task == Task({name: name for name in EMOTIONS[:7]})
    new = Task.all_emotions(labels=folder / "votes.csv").select(store)
    assert new.classes == EMOTIONS
    assert set(new.train.y) == set(new.test.y) == set(EMOTIONS)
    emotion = np.where(faces.emotion == 1, 0, faces.emotion).astype(np.int8)
    task = Task.all_emotions(per_class="all")
    rows = task.rows(emotion, faces.usage, faces.digest)
    named = {name: name for name in EMOTIONS[:7] if name != "disgust"}
    for one, two in zip(rows, Task(named).rows(emotion, faces.usage, faces.digest), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(TaskError, match="emotions: anger alone, expected two or more"):
        task.rows(np.zeros(N, np.int8), faces.usage, faces.digest)


def test_per_class_is_the_original_experiments_for_its_own_labels_only() -> None:
    assert Task().images_per_class == 8500
    assert Task(labels="votes.csv").images_per_class == "all"
    assert Task(labels="votes.csv", per_class=8500).images_per_class == 8500
    assert Task(group_by="(.)").images_per_class == 8500


def test_tasks_with_labels_are_values() -> None:
    one = Task(labels="a.csv", map={"Angst": "fear", "7": "Contempt"}, labels_as="RAF-DB")
    two = Task(labels=Path("a.csv"), map=(("7", "contempt"), ("angst", "fear")), labels_as="rafdb")
    assert one == two
    assert hash(one) == hash(two)
    assert dict(one.map) == {"7": "contempt", "angst": "fear"}
    assert one != Task(labels="a.csv")
    assert Task(labels="a.csv", min_agreement=1).min_agreement == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_agreement": 0.5}, r"min_agreement: given without a file of labels.*labels=FILE"),
        ({"labels_as": "rafdb"}, "labels_as: given without a file of labels"),
        ({"map": {"a": "fear"}}, "map: given without a file of labels"),
        ({"labels": "a", "min_agreement": 2}, "min_agreement: 2, expected a share"),
        ({"labels": "a", "labels_as": "raf"}, "labels_as: 'raf', expected one of fer2013"),
        ({"labels": "a", "map": {"a": "fera"}}, "map: a=fera, expected an emotion"),
        ({"classes": "al"}, "classes: 'al', expected a mapping .*or \"all\""),
    ],
)
def test_a_bad_field_is_one_line_that_names_it(fields, message) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        Task(**fields)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_result_keeps_which_labels_and_groups_it_is_of(folder, store, tmp_path: Path) -> None:
    task = Task(EVERY, labels=folder / "votes.csv", group_by="(.)$")
    data = task.select(store)
    result = fit_and_evaluate(LogisticHead(C=0.1), data)
    kept = Result.load(result.save(tmp_path / "run"))
    assert kept.split["labels"] == data.split["labels"]
    assert kept.split["groups"] == {"count": 10, "by": "(.)$", "left_out": 0}
    assert "unleaked" not in kept.scores
    emotions = {name for names in EVERY.values() for name in names}
    assert set(kept.predictions["emotion"]) == emotions


EVERY = {"up": ["happiness", "surprise"], "down": ["anger", "fear"]}


def test_scores_without_what_leaks_leave_out_images_of_a_known_group(store) -> None:
    task = Task(EVERY, split="usage", duplicates="keep", group_by=r"^(\d+)\d$|^")
    data = task.select(store)
    result = fit_and_evaluate(LogisticHead(C=0.1), data, test=True)
    known = {*data.train.group, *data.validation.group} - {""}
    alone = sum(each not in known for each in data.test.group)
    leaked = data.split["leaked"]
    assert leaked["test_groups_in_train"] > 0
    unleaked = result.scores["test"]["unleaked"]["confusion"]
    assert sum(map(sum, unleaked)) == alone < len(data.test)
