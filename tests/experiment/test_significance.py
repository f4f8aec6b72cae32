"""Intervals and paired tests, against scikit-learn's scores and textbook values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fer_features.errors import RunError
from fer_features.experiment.bootstrap import (
    Interval,
    emotion_errors,
    in_common_order,
    interval,
    resample_counts,
    resampled_scores,
)
from fer_features.experiment.evaluation import Result
from fer_features.experiment.scoring import score
from fer_features.experiment.significance import Pair, compare_pairs, holm, mcnemar


def drawn(classes: tuple[str, ...], n: int, drawn_by: int = 0, skill: float = 1.0) -> Result:
    """Return a result with random test predictions, more right the more skill; ties included."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, len(classes), n)
    digests = [f"{i:064x}" for i in rng.permutation(n)]
    noise = np.random.default_rng(drawn_by).standard_normal((n, len(classes)))
    p = np.exp(noise + skill * np.eye(len(classes))[truth])
    p = np.round(p / p.sum(axis=1, keepdims=True), 2) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    columns: dict[str, Any] = {
        "source": [str(i) for i in range(n)],
        "digest": digests,
        "split": "test",
        "emotion": "anger",
        "target": np.array(classes)[truth],
        "predicted": np.array(classes)[p.argmax(axis=1)],
        **{f"p_{name}": p[:, i] for i, name in enumerate(classes)},
    }
    scores = {"test": score(list(columns["target"]), p, classes)}
    task = {"classes": {name: [] for name in classes}}
    return Result("drawn", {}, drawn_by, task, {}, scores, [], {}, {}, "", "final", [], {},
                  pd.DataFrame(columns))  # fmt: skip


@pytest.mark.parametrize("classes", [("b", "a"), ("one", "two", "three", "four")])
def test_resampled_scores_are_scikit_learns_on_the_resampled_rows(classes):
    result = drawn(classes, 150)
    resampled = resampled_scores(result)
    rows = in_common_order(result)
    counts = np.concatenate(list(resample_counts(150)))
    assert counts.shape == (1000, 150)
    for b in (0, 1, 500, 999):
        chosen = rows.loc[np.repeat(rows.index, counts[b])]
        p = chosen[[f"p_{name}" for name in classes]].to_numpy()
        expected = score(list(chosen["target"]), p, classes)
        assert set(resampled) == set(expected) - {"confusion"}
        for name, values in resampled.items():
            assert values.shape == (1000,)
            assert values[b] == pytest.approx(expected[name], rel=1e-9), name


@pytest.mark.parametrize(("classes", "n"), [(("b", "a"), 3), (tuple("abcdefg"), 30)])
def test_resampled_scores_of_few_images_are_scikit_learns_and_nan_where_those_are_undefined(
    classes, n
):
    result = drawn(classes, n)
    resampled = resampled_scores(result)
    rows = in_common_order(result)
    undefined = []
    for b, counts in enumerate(np.concatenate(list(resample_counts(n)))[:60]):
        chosen = rows.loc[np.repeat(rows.index, counts)]
        p = chosen[[f"p_{name}" for name in classes]].to_numpy()
        expected = score(list(chosen["target"]), p, classes)
        undefined.append(expected["roc_auc"] is None)
        for name, values in resampled.items():
            known = np.nan if expected[name] is None else expected[name]
            assert values[b] == pytest.approx(known, rel=1e-9, nan_ok=True), name
    assert 0 < sum(undefined) < len(undefined)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = []
    for seed in range(30):
        right = np.random.default_rng(seed).random(400) < 0.7
        result = drawn(("a", "b"), 400, seed)
        table = result.predictions.assign(
            predicted=np.where(right, result.predictions["target"], "")
        )
        p = np.where((table["target"] == "a") == right, 0.9, 0.1)
        table = table.assign(p_a=p, p_b=1 - p)
        found = interval(resampled_scores(replace(result, predictions=table))["accuracy"])
        covered.append(found.low <= 0.7 <= found.high)
    assert 0.8 <= np.mean(covered) <= 1.0


def test_a_score_that_resamples_lack_the_classes_for_has_no_interval():
    result = drawn(("a", "b"), 30)
    table = result.predictions.assign(target="a")
    resampled = resampled_scores(replace(result, predictions=table))
    assert interval(resampled["roc_auc"]) is None
    assert interval(resampled["accuracy"]) is not None


def test_a_head_does_not_differ_from_itself_and_does_from_a_better_one():
    poor, twin = drawn(("a", "b"), 500, 1, skill=0.2), drawn(("a", "b"), 500, 1, skill=0.2)
    good = drawn(("a", "b"), 500, 2, skill=3.0)
    pairs = compare_pairs({"poor": [poor], "twin": [twin], "good": [good]})
    said = {(pair.first, pair.second): pair for pair in pairs}
    assert len(said) == 3
    level = said["poor", "twin"]
    assert (level.difference, level.p, level.holm) == (0.0, 1.0, 1.0)
    assert level.interval == Interval(0.0, 0.0)
    assert level.words == "no evidence that they differ"
    ahead = said["poor", "good"]
    assert ahead.words == "evidence that good is right more often than poor"
    assert ahead.interval.low < ahead.difference < ahead.interval.high < 0
    assert ahead.holm == pytest.approx(3 * ahead.p)


def test_differences_are_of_seed_means_and_mcnemar_of_the_first_seeds_alone():
    one = [drawn(("a", "b"), 300, seed) for seed in (1, 2, 3)]
    other = [drawn(("a", "b"), 300, seed, skill=0.5) for seed in (4, 5)]
    [pair] = compare_pairs({"one": one, "other": other})
    means = [np.mean([r.scores["test"]["accuracy"] for r in results]) for results in (one, other)]
    assert pair.difference == pytest.approx(means[0] - means[1])
    right = [r.predictions["target"] == r.predictions["predicted"] for r in (one[0], other[0])]
    counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (pair.only_first, pair.only_second) == counts
    assert pair.p == mcnemar(*counts)


def test_the_order_of_the_rows_does_not_matter_and_other_images_are_refused():
    one, other = drawn(("a", "b"), 200, 1), drawn(("a", "b"), 200, 2)
    turned = replace(other, predictions=other.predictions.iloc[::-1].reset_index(drop=True))
    assert compare_pairs({"a": [one], "b": [other]}) == compare_pairs({"a": [one], "b": [turned]})
    strange = replace(other, predictions=other.predictions.assign(digest="0"))
    with pytest.raises(RunError, match="other test images"):
        compare_pairs({"a": [one], "b": [strange]})


def test_mcnemar_and_holm_give_textbook_values():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert mcnemar(10, 5) == pytest.approx(0.3017578125)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("bounds", "p", "words"),
    [
        ((0.01, 0.03), 0.001, "evidence that x is right more often than y"),
        ((-0.01, 0.03), 0.2, "no evidence that they differ"),
        ((0.01, 0.03), 0.2, "no firm evidence that they differ, as interval and test disagree"),
        ((-0.01, 0.03), 0.01, "no firm evidence that they differ, as interval and test disagree"),
    ],
)
def test_words_follow_the_interval_and_the_test(bounds, p, words):
    assert Pair("x", "y", 0.02, Interval(*bounds), 30, 10, p, p).words == words


def test_errors_by_emotion_are_seed_means_inside_their_intervals():
    results = [drawn(("a", "b"), 400, seed) for seed in (1, 2)]
    named = np.where(np.arange(400) % 4 == 0, "fear", "sadness")
    results = [replace(r, predictions=r.predictions.assign(emotion=named)) for r in results]
    found = emotion_errors(results)
    assert set(found) == {"fear", "sadness"}
    for emotion, (share, around) in found.items():
        rows = [r.predictions[r.predictions["emotion"] == emotion] for r in results]
        assert share == pytest.approx(np.mean([r["target"] != r["predicted"] for r in rows]))
        assert around.low < share < around.high
    widths = {name: around.high - around.low for name, (_, around) in found.items()}
    assert widths["fear"] > widths["sadness"]  # a third of the images
