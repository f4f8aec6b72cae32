"""Which rows a task draws, and how it splits them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from fer_features.errors import TaskError
from fer_features.experiment.task import DEFAULT_CLASSES, Task

FER2013_COUNTS = (4953, 547, 5121, 8989, 6077, 4002, 6198)


def distinct(n):
    """Return n different digests, uint8 (n, 32)."""
    digest = np.zeros((n, 32), dtype=np.uint8)
    digest[:, :8] = np.arange(n, dtype=np.uint64).view(np.uint8).reshape(n, 8)
    return digest


@pytest.fixture(scope="module")
def fer2013():
    """Return emotion, usage and digest as FER2013 has them in number, with 1,000 copies."""
    rng = np.random.default_rng(7)
    emotion = np.repeat(np.arange(7, dtype=np.int8), FER2013_COUNTS)
    rng.shuffle(emotion)
    n = len(emotion)
    usage = np.repeat(np.arange(3, dtype=np.int8), (28709, 3589, 3589))
    digest = distinct(n)
    copies = rng.choice(n, size=(2, 1000), replace=False)
    digest[copies[0]] = digest[copies[1]]
    return emotion, usage, digest


def seed_protocol(emotion):
    """Return the original experiment's rows: its pandas and scikit-learn steps, written out."""
    df = pd.DataFrame({"emotion": emotion})
    df["row"] = np.arange(len(df))
    positive = df[df["emotion"] == 3].sample(8500, random_state=42)
    negative = df[df["emotion"].isin([0, 2, 4])].sample(8500, random_state=42)
    positive["emotion"] = 1
    negative["emotion"] = 0
    df = pd.concat([positive, negative])
    df = df.sample(frac=1, random_state=42).reset_index(drop=True)
    X, y = df["row"].to_numpy(), df["emotion"].to_numpy()
    X_train, X_rest, _, y_rest = train_test_split(X, y, test_size=0.40, stratify=y, random_state=42)
    X_validation, X_test, _, _ = train_test_split(
        X_rest, y_rest, test_size=0.50, stratify=y_rest, random_state=42
    )
    return X_train, X_validation, X_test


class ArrayStore:
    """What a task reads of a store, over arrays."""

    path = Path("faces.h5")
    fingerprint = "f" * 64
    backbone = {"backbone": "tiny"}  # noqa: RUF012
    network = "tiny"
    outputs = ("final", "inner")
    dimensions = {"final": 1, "inner": 1}  # noqa: RUF012
    dataset = {"name": "faces", "kind": "csv", "limit": None, "skipped": 0}  # noqa: RUF012
    provenance = {"passes": []}  # noqa: RUF012

    def __init__(self, emotion, usage, digest):
        self.emotion, self.usage, self.digest = emotion, usage, digest
        self.source = np.arange(1, len(emotion) + 1).astype(str)
        self.group = np.full(len(emotion), "")

    def features(self, features):
        return tuple(features.split("+"))

    def check_labels(self):
        pass

    def options(self):
        return "--backbone tiny"

    def embeddings(self, rows, features):
        return np.tile(np.asarray(rows, dtype=np.float32)[:, None], len(features))


def test_keeping_duplicates_selects_and_splits_the_seeds_rows_in_the_seeds_order(fer2013):
    rows = Task(duplicates="keep").rows(*fer2013)
    for mine, seeds in zip(rows, seed_protocol(fer2013[0]), strict=True):
        assert mine.dtype == np.int64
        np.testing.assert_array_equal(mine, seeds)
    assert [len(part) for part in rows] == [10200, 3400, 3400]


def test_no_image_is_in_two_splits_nor_has_copies_that_disagree(fer2013):
    emotion, _, digest = fer2013
    rows = np.concatenate(Task().rows(*fer2013))
    assert len(rows) == 17000
    assert len(np.unique(digest[rows], axis=0)) == 17000
    label = Task().class_of(emotion)
    _, image = np.unique(digest, axis=0, return_inverse=True)
    labels_of_image = pd.Series(label).groupby(image.ravel()).nunique()
    assert (labels_of_image[image.ravel()[rows]] == 1).all()


def test_a_copy_outside_the_task_or_in_another_class_drops_the_image():
    emotion = np.array([3, 3, 3, 6, 3, 0] + [3, 0] * 10, dtype=np.int8)
    digest = distinct(len(emotion))
    digest[1] = digest[0]  # two happy copies: the first stays
    digest[3] = digest[2]  # happy and neutral: neither
    digest[5] = digest[4]  # happy and angry: neither
    rows = Task(per_class="all").rows(emotion, np.full(len(emotion), -1, np.int8), digest)
    assert sorted(np.concatenate(rows)) == [0, *range(6, 26)]


def test_a_copy_without_an_emotion_contradicts_nothing():
    emotion = np.array([-1, 3, 0] * 10, dtype=np.int8)
    digest = distinct(30)
    digest[0] = digest[1]
    rows = Task(per_class="all").rows(emotion, np.full(30, -1, np.int8), digest)
    assert sorted(np.concatenate(rows)) == [i for i in range(30) if i % 3]


def test_the_usage_split_keeps_a_copy_in_test_rather_than_in_training():
    emotion = np.array([3, 0] * 9, dtype=np.int8)
    usage = np.repeat(np.arange(3, dtype=np.int8), 6)
    digest = distinct(18)
    digest[0] = digest[6] = digest[12]
    digest[1] = digest[7]
    train, validation, test = Task(split="usage").rows(emotion, usage, digest)
    assert sorted(train) == [2, 3, 4, 5]
    assert sorted(validation) == [7, 8, 9, 10, 11]
    assert sorted(test) == [12, 13, 14, 15, 16, 17]


def test_the_usage_split_is_fer2013s_own(fer2013):
    emotion, usage, digest = fer2013
    rows = Task.all_emotions(split="usage", duplicates="keep").rows(emotion, usage, digest)
    for expected, part in enumerate(rows):
        np.testing.assert_array_equal(np.sort(part), np.flatnonzero(usage == expected))


def test_without_public_test_a_stratified_fifth_of_training_is_validation():
    emotion = np.array([3, 0, 0, 0] * 50, dtype=np.int8)
    usage = np.where(np.arange(200) < 160, 0, 2).astype(np.int8)
    rows = Task(split="usage").rows(emotion, usage, distinct(200))
    assert [len(part) for part in rows] == [128, 32, 40]
    assert (emotion[rows.validation] == 3).sum() == 8
    assert max(rows.train.max(), rows.validation.max()) < 160


def test_any_number_of_classes_is_split_in_the_same_proportions(fer2013):
    rows = Task.all_emotions(per_class="min", duplicates="keep").rows(*fer2013)
    for part, size in zip(rows, (2297, 766, 766), strict=True):
        counts = np.bincount(fer2013[0][part], minlength=7)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1


def test_the_split_seed_decides_the_rows(fer2013):
    first, again, other = (Task(split_seed=s).rows(*fer2013) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    assert set(first.test) != set(other.test)


def test_per_class_is_the_seeds_for_the_default_task_only():
    assert Task().images_per_class == 8500
    assert Task(split="usage").images_per_class == "all"
    assert Task.all_emotions().images_per_class == "all"
    assert Task(dict(reversed(DEFAULT_CLASSES))).images_per_class == "all"
    assert Task(per_class=12).images_per_class == 12


def test_tasks_are_values_and_the_order_of_classes_matters():
    same = Task({"positive": "happiness", "negative": ["anger", "fear", "sadness"]})
    assert same == Task()
    assert hash(same) == hash(Task())
    assert Task(dict(reversed(DEFAULT_CLASSES))) != Task()
    assert Task(dict(Task().classes)) == Task()


def test_selected_data_belongs_together_row_by_row_and_says_what_it_is(fer2013):
    data = Task(duplicates="keep").select(ArrayStore(*fer2013))
    rows = Task(duplicates="keep").rows(*fer2013)
    for part in ("train", "validation", "test"):
        split, chosen = getattr(data, part), getattr(rows, part)
        np.testing.assert_array_equal(split.X[:, 0], chosen)
        np.testing.assert_array_equal(split.y == "positive", split.emotion == 3)
        np.testing.assert_array_equal(split.digest, fer2013[2][chosen])
        assert list(split.source[:3]) == [str(row + 1) for row in chosen[:3]]
    assert data.classes == ("positive", "negative")
    described = json.loads(json.dumps(data.split))
    assert described["sizes"]["train"] == {"positive": 5100, "negative": 5100}
    assert described["per_class"] == 8500
    assert json.loads(json.dumps(data.store))["name"] == "faces.h5"


def test_leaked_counts_test_images_with_copies_in_the_other_splits(fer2013):
    digest = fer2013[2]
    train, validation, test = Task(duplicates="keep").rows(*fer2013)
    leaked = Task(duplicates="keep").select(ArrayStore(*fer2013)).split["leaked"]
    for part, name in ((train, "test_in_train"), (validation, "test_in_validation")):
        same = (digest[test][:, None, :8] == digest[part][None, :, :8]).all(axis=2)
        assert leaked[name] == same.any(axis=1).sum() > 0
    assert set(Task().select(ArrayStore(*fer2013)).split["leaked"].values()) == {0}


def test_classes_are_named_in_words_that_sources_use_and_one_may_have_the_rest():
    classes = dict(Task({"glad": ["Happy", "surprised"], "others": "rest"}).classes)
    assert classes["glad"] == ("happiness", "surprise")
    assert classes["others"] == ("anger", "disgust", "fear", "sadness", "neutral", "contempt")
    assert Task({"others": "rest", "glad": ["joy", "surprise"]}).classes == (
        ("others", classes["others"]),
        ("glad", classes["glad"]),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"classes": {"a": "hapiness", "b": "fear"}},
            r"'hapiness'.*\(did you mean 'happiness'\?\)",
        ),
        ({"classes": {"a": "fear", "b": ["anger", "fear"]}}, "fear is already in class 'a'"),
        ({"classes": {"a": "fear"}}, "1 given, expected two or more. Add .* all other emotions"),
        ({"classes": {"a": "rest", "b": "rest"}}, "class 'b': no emotion is left for 'rest'"),
        ({"classes": {"a": ["rest", "fear"], "b": "anger"}}, "unknown emotion 'rest'"),
        ({"classes": {"a": "none", "b": "anger"}}, "unknown emotion 'none'"),
        ({"classes": {"a": "fear", "b": ()}}, "class 'b': no emotions"),
        ({"classes": {"a": "fear", " ": "anger"}}, "the name ' '"),
        ({"classes": {"a": "fear", "b\r": "anger"}}, r"'b\\r', expected no control characters"),
        ({"classes": [("a", "fear"), ("a", "anger")]}, "'a' is given twice"),
        ({"classes": 3}, "expected a mapping"),
        ({"per_class": 0}, "per_class: 0, expected"),
        ({"per_class": "most"}, "per_class: 'most', expected"),
        ({"per_class": 2.5}, "per_class: 2.5, expected"),
        ({"per_class": True}, "per_class: True, expected"),
        ({"split": "usge"}, r"'usge', expected random or usage \(did you mean 'usage'\?\)"),
        ({"split_seed": -1}, "split_seed: -1, expected"),
        ({"duplicates": "dorp"}, "duplicates: 'dorp', expected drop or keep"),
    ],
)
def test_a_bad_field_is_one_line_that_names_it(fields, message):
    with pytest.raises(TaskError, match=message) as caught:
        Task(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "emotion", "usage", "message"),
    [
        (Task(), [3] * 9 + [0] * 20, None, '9 positive, 20 negative.*Use per_class="min"'),
        (Task(), [-1] * 9, None, "no row has an emotion"),
        (Task(per_class="all"), [3] * 9, None, "9 positive, 0 negative"),
        (Task(per_class="all"), [3, 0] * 2, None, "1 positive, 1 negative; too few"),
        (Task(per_class="all"), [3, 0] + [3] * 40, None, "41 positive, 1 negative; too few"),
        (
            Task(split="usage"),
            [3, 0] * 9,
            [-1] * 18,
            'none in any of the task.s 18 rows.*Use split="random"',
        ),
        (Task(split="usage"), [3, 0] * 9, [0, 0, 1] * 6, "12 Training, 6 PublicTest, expected"),
        (
            Task(split="usage"),
            [3, 0] * 9,
            [0, 0, 1, 1, 2, -1] * 3,
            "6 Training, 6 PublicTest, 3 PrivateTest, 3 none",
        ),
        (Task(split="usage"), [3, 0] * 3, [0, 0, 1, 1, 2, 0], "test split: 1 positive, 0 neg"),
    ],
)
def test_rows_that_cannot_serve_the_task_are_one_line_that_says_why(task, emotion, usage, message):
    n = len(emotion)
    usage = np.array(usage if usage is not None else [-1] * n, dtype=np.int8)
    with pytest.raises(TaskError, match=message) as caught:
        task.rows(np.array(emotion, dtype=np.int8), usage, distinct(n))
    assert "\n" not in str(caught.value)


def test_an_unlabelled_store_is_refused_by_its_path():
    store = ArrayStore(np.full(5, -1, np.int8), np.full(5, -1, np.int8), distinct(5))
    with pytest.raises(TaskError, match=r"^faces\.h5: no row has an emotion"):
        Task().select(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 5}, "labels: 5, expected the path of a file"),
        ({"map": 5}, "map: 5, expected a mapping of words to emotions"),
        ({"map": [("a",)]}, "map: .*expected a mapping of words to emotions"),
        ({"per_class": np.array([1, 2])}, "per_class: .*expected a whole number above 0"),
        ({"split": np.array([1, 2])}, "split: .*expected random or usage"),
        ({"duplicates": ["drop"]}, "duplicates: .*expected drop or keep"),
    ],
)
def test_a_value_of_another_kind_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task(**options)


@pytest.mark.parametrize("store", ["cache/fer.h5", None, 5])
def test_what_is_no_store_is_refused(store: Any) -> None:
    with pytest.raises(TaskError, match=r"store: .*expected a Store, such as Store\("):
        Task().select(store)
