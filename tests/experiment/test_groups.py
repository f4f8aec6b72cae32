"""Persons and sequences, which no split may share."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import FaceDataset, Task, extract
from fer_features.errors import TaskError

EVERY = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]})


def people(n: int, seed: int, alone: int = 0):
    """Return emotion, usage, digest and group of n images of persons of uneven size."""
    rng = np.random.default_rng(seed)
    emotion = rng.choice([0, 2, 3, 5, 6], n).astype(np.int8)
    usage = rng.choice(3, n, p=[0.7, 0.15, 0.15]).astype(np.int8)
    digest = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    # Persons by a power law: some have a tenth of all images, many have one or two.
    share = 1 / np.arange(1, n // 6)
    group = rng.choice(len(share), n, p=share / share.sum()).astype(str)
    group[:alone] = ""
    return emotion, usage, digest, group


def shared(group, rows, first: str, second: str) -> int:
    one, two = (set(group[getattr(rows, part)]) - {""} for part in (first, second))
    return len(one & two)


PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alone", [0, 150])
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_no_group_is_in_two_random_splits(seed: int, alone: int, duplicates: str) -> None:
    *rest, group = people(600, seed, alone)
    task = Task(EVERY.classes, split_seed=seed, duplicates=duplicates)
    rows = task.rows(*rest, group)
    for pair in PAIRS:
        assert shared(group, rows, *pair) == 0
    every = np.concatenate(rows)
    assert len(every) == len(set(every)) == (task.class_of(rest[0]) >= 0).sum()
    sizes = np.array([len(part) for part in rows]) / len(every)
    np.testing.assert_allclose(sizes, [0.6, 0.2, 0.2], atol=0.1)
    share = (task.class_of(rest[0])[every] == 0).mean()
    for part in rows:
        assert abs((task.class_of(rest[0])[part] == 0).mean() - share) < 0.06


def test_a_group_that_fills_a_fold_is_trained_on() -> None:
    emotion, usage, digest, group = people(600, 1)
    group[:] = np.arange(600) % 150
    group[:300] = "one"
    rows = EVERY.rows(emotion, usage, digest, group)
    assert "one" in set(group[rows.train])
    assert len(rows.test) < 0.2 * sum(map(len, rows))


def test_the_split_seed_deals_groups_anew() -> None:
    data = people(600, 3)
    first, again, other = (Task(EVERY.classes, split_seed=s).rows(*data) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    assert set(first.test) != set(other.test)


@pytest.mark.parametrize("options", [{}, {"duplicates": "keep"}, {"split": "usage"}])
def test_without_groups_the_rows_are_those_of_a_task_that_knows_none(options) -> None:
    emotion, usage, digest, _ = people(600, 2)
    group = np.where(emotion == 6, "person", "")  # outside the task
    task = Task(EVERY.classes, **options)
    for one, two in zip(
        task.rows(emotion, usage, digest), task.rows(emotion, usage, digest, group), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    """Two thirds have none: were they one group, a split could hold nothing else."""
    *rest, group = people(600, 4, alone=400)
    rows = EVERY.rows(*rest, group)
    for part in rows:
        assert (group[part] == "").mean() > 0.4


@pytest.mark.parametrize("seed", range(3))
def test_a_usage_split_leaves_out_images_whose_group_is_in_a_later_split(seed: int) -> None:
    emotion, usage, digest, group = people(600, seed, alone=100)
    task = Task(EVERY.classes, split="usage")
    rows = task.rows(emotion, usage, digest, group)
    for pair in PAIRS:
        assert shared(group, rows, *pair) == 0
    of_task = task.class_of(emotion) >= 0
    for own, part in enumerate(rows):
        later = range(own + 1, 3)
        taken = set(group[of_task & np.isin(usage, later)]) - {""}
        expected = of_task & (usage == own) & ~np.isin(group, list(taken))
        np.testing.assert_array_equal(np.sort(part), np.flatnonzero(expected))


def test_without_public_test_validation_shares_no_group_with_training() -> None:
    emotion, usage, digest, group = people(800, 5)
    usage[usage == 1] = 0
    task = Task(EVERY.classes, split="usage")
    rows = task.rows(emotion, usage, digest, group)
    for pair in PAIRS:
        assert shared(group, rows, *pair) == 0
    assert 0.1 < len(rows.validation) / (len(rows.validation) + len(rows.train)) < 0.3


@pytest.mark.parametrize(
    ("emotions", "groups", "message"),
    [
        ([3, 0] * 40, ["a", "b", "b", "a"] * 20, "groups: 2; expected 5 or more, as"),
        (
            [0, 0] + [3] * 78,
            ["a", "b", *"cdefghijklmno" * 6],
            "groups: 15, 2 of down; expected 3 or more of",
        ),
    ],
)
def test_too_few_groups_are_refused_with_what_can_be_done(emotions, groups, message) -> None:
    digest = np.random.default_rng(0).integers(0, 256, (80, 32), dtype=np.uint8)
    emotion, usage = np.array(emotions, np.int8), np.zeros(80, np.int8)
    with pytest.raises(TaskError, match=message) as caught:
        EVERY.rows(emotion, usage, digest, np.array(groups))
    assert "\n" not in str(caught.value)
    assert 'Make them smaller with group_by, or use split="usage"' in str(caught.value)
    usage[40:] = 2
    emotion[40:42] = 0
    with pytest.raises(TaskError, match=r"groups: .*a group never crosses a split"):
        Task(EVERY.classes, split="usage", duplicates="keep").rows(
            emotion, usage, digest, np.array(["x"] * 80)
        )


def named_faces(n: int = 240) -> FaceDataset:
    """Return noise whose sources name persons: S00/happy/S00_12.png."""
    faces = noise_faces(n, copies=False)
    person = np.random.default_rng(9).integers(0, 20, n)
    source = np.array([f"S{p:02d}/faces/S{p:02d}_{i}.png" for i, p in enumerate(person)])
    return FaceDataset(
        "named", "folder", faces.pixels, faces.emotion, faces.usage, source,
        group=np.array([f"own {p % 9}" for p in person]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    return extract(named_faces(), tmp_path_factory.mktemp("groups") / "named.h5", backbone=TINY)


def parts(data) -> dict[str, set[str]]:
    return {part: set(getattr(data, part).group) for part in ("train", "validation", "test")}


def test_groups_come_from_the_sources_names_or_from_the_store(store, caplog) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    by_name = Task(EVERY.classes, group_by=r"(S\d+)_").select(store)
    own = Task(EVERY.classes).select(store)
    for data, names in ((by_name, r"S\d\d"), (own, r"own \d")):
        found = parts(data)
        for one, two in PAIRS:
            assert not found[one] & found[two]
        assert all(re.fullmatch(names, each) for each in set().union(*found.values()))
    assert by_name.split["groups"] == {"count": 20, "by": r"(S\d+)_", "left_out": 0}
    assert own.split["groups"] == {"count": 9, "by": None, "left_out": 0}
    assert "Groups: 20, by '(S\\\\d+)_'" in caplog.text
    assert "Groups: 9, the store's own" in caplog.text
    assert set(by_name.split["leaked"].values()) == {0}


def test_groups_that_are_kept_in_two_usages_are_counted(store) -> None:
    task = Task(EVERY.classes, split="usage", duplicates="keep", group_by="^(.*?)/")
    data = task.select(store)
    for part in ("train", "validation"):
        held = set(getattr(data, part).group)
        count = sum(each in held for each in data.test.group)
        assert data.split["leaked"][f"test_groups_in_{part}"] == count > 0
        assert data.split["leaked"][f"test_in_{part}"] == 0
    message = r"no (Training|PublicTest) image is left of \d+, as .*split=\"random\".*\"keep\""
    with pytest.raises(TaskError, match=message):
        Task(EVERY.classes, split="usage").select(store)  # nine groups, each in every usage


def test_left_out_images_are_counted_and_said(caplog, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    faces = named_faces()
    source = np.array([f"p{i // 2}_{i}.png" for i in range(len(faces))])
    given = FaceDataset("pairs", "folder", faces.pixels, faces.emotion, faces.usage, source)
    store = extract(given, tmp_path / "pairs.h5", backbone=TINY)
    task = Task(EVERY.classes, split="usage", group_by="(p[0-9]+)_")
    data = task.select(store)
    of_task = task.class_of(faces.emotion) >= 0
    pairs = np.array([each.split("_")[0] for each in source])
    later = [
        max(faces.usage[of_task & (pairs == pair)], default=-1) > usage
        for pair, usage in zip(pairs, faces.usage, strict=True)
    ]
    left_out = int((of_task & np.array(later)).sum())
    assert data.split["groups"]["left_out"] == left_out > 0
    assert f"{left_out} images left out, as their group is in a later split" in caplog.text
    assert sum(sum(each.values()) for each in data.split["sizes"].values()) == (
        of_task.sum() - left_out
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"group_by: '\(' is no regular expression \(.*\), expected one, such as group_by="),
        (r"S\d+", r"has no group in parentheses, expected one around what names"),
        (7, "group_by: 7 is no regular expression"),
    ],
)
def test_a_pattern_without_a_group_is_refused(pattern, message) -> None:
    with pytest.raises(TaskError, match=message):
        Task(group_by=pattern)


def test_a_source_that_the_pattern_does_not_match_is_shown(store) -> None:
    message = r"named.h5: group_by: '\(Z\)' does not match \d+ of the task's \d+ rows, such as 'S"
    with pytest.raises(TaskError, match=message):
        Task(EVERY.classes, group_by="(Z)").select(store)


def test_a_group_that_is_optional_in_the_pattern_may_be_none(store) -> None:
    data = Task(EVERY.classes, group_by="^(?:S0([0-9])|S)").select(store)
    assert set().union(*parts(data).values()) == {"", *map(str, range(10))}
