"""A report's figures, computed again from its runs' files.

Scores with NumPy and scikit-learn alone; intervals and p by calling ``statistics``, whose own tests
hold it against textbooks and simulations, with the rows as they lie on disk.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from fer_features.experiment.scores import SCORES
from fer_features.experiment.statistics import Difference, Estimate, difference, estimate
from fer_features.report.page import write_report

CLASSES = ["positive", "negative"]


@pytest.fixture(scope="module")
def folder(compared, tmp_path_factory) -> Path:
    """Runs as files, and the report on them."""
    out = tmp_path_factory.mktemp("recomputed")
    results = compared()
    for i, result in enumerate(results):
        result.save(out / "fits" / f"{i:02d}")
    write_report(results, out)
    return out


@pytest.fixture(scope="module")
def runs(folder) -> list[dict]:
    """What the files hold: metrics.json, and predictions.csv as a table a split."""
    found = []
    for run in sorted((folder / "fits").iterdir()):
        table = pd.read_csv(run / "predictions.csv", dtype={"source": str})
        document = json.loads((run / "metrics.json").read_text())
        splits = {name: rows.reset_index(drop=True) for name, rows in table.groupby("split")}
        found.append({"document": document, **splits})
    return found


@pytest.fixture(scope="module")
def tested(runs) -> dict[str, list[dict]]:
    """The fits scored on test, by head."""
    heads: dict[str, list[dict]] = {}
    for run in runs:
        if "test" in run:
            heads.setdefault(run["document"]["head"], []).append(run)
    return heads


def table(folder: Path, caption: str) -> list[list[str]]:
    """Return the rows of a table of report.md, as cells."""
    text = (folder / "report.md").read_text().replace("\\", "")
    lines = iter(text[text.index(f"**{caption}") :].splitlines())
    rows = list(_table_lines(lines))
    return [
        [cell.strip().replace("**", "") for cell in row.strip("|").split(" | ")] for row in rows
    ]


def _table_lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("| ---"):
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def number(cell: str) -> float:
    return float(re.match(r"[-+<]? ?[\d,.]+", cell)[0].replace(",", ""))


def scored(rows: pd.DataFrame) -> list[float]:
    """Return the scores of two classes in the order of the report's columns."""
    truth, said, p = rows["target"], rows["predicted"], rows["p_positive"].to_numpy()
    hit = (truth == "positive").to_numpy()
    named = {"pos_label": "positive"}
    return [
        metrics.accuracy_score(truth, said),
        metrics.balanced_accuracy_score(truth, said),
        metrics.precision_score(truth, said, **named),
        metrics.recall_score(truth, said, **named),
        metrics.f1_score(truth, said, **named),
        metrics.roc_auc_score(hit, p),
        metrics.average_precision_score(hit, p),
        metrics.log_loss(hit, p),
        metrics.brier_score_loss(hit, p),
        sum(abs(p[b].mean() - hit[b].mean()) * b.sum() for b in bins(p)) / len(p),
    ]


def bins(p: np.ndarray) -> list[np.ndarray]:
    edges = np.arange(11) / 10
    parts = [(low <= p) & (p < high) for low, high in pairwise(edges[:-1])]
    return [part for part in [*parts, p >= 0.9] if part.any()]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_scores_are_the_means_over_seeds_of_scikit_learns(folder, tested, split):
    rows = table(folder, f"{split.capitalize()} scores on 120 images")
    assert [row[0].split(" (")[0] for row in rows] == list(tested)
    for row, runs in zip(rows, tested.values(), strict=True):
        means = np.mean([scored(run[split]) for run in runs], axis=0)
        np.testing.assert_allclose([number(cell) for cell in row[1:]], means, atol=5.1e-5)


def arrays(runs: list[dict], split: str = "test") -> dict:
    """Return what ``statistics`` takes of some fits on the same rows, in the rows' own order."""
    tables = [run[split] for run in runs]
    assert all((each["digest"] == tables[0]["digest"]).all() for each in tables)
    numbered = {name: i for i, name in enumerate(CLASSES)}
    return {
        "target": tables[0]["target"].map(numbered).to_numpy(),
        "p": np.array([each[[f"p_{name}" for name in CLASSES]] for each in tables]),
        "predicted": np.array([each["predicted"].map(numbered) for each in tables]),
    }


def is_random(head: str) -> bool:
    return head == "dense"


def estimated(head: str, runs: list[dict], score: str) -> Estimate:
    return estimate(**arrays(runs), score=score, random=is_random(head))


def apart(one: str, other: str, tested: dict[str, list[dict]]) -> Difference:
    first, second = arrays(tested[one]), arrays(tested[other])
    return difference(
        first["target"],
        first["p"],
        second["p"],
        random=(is_random(one), is_random(other)),
        predicted=(first["predicted"], second["predicted"]),
    )


def test_intervals_are_those_of_the_rows_on_disk(folder, tested):
    document = json.loads((folder / "report.json").read_text())
    heads = {head["label"].split(" (")[0]: head for head in document["sections"][0]["heads"]}
    for row, (head, runs) in zip(table(folder, "Test scores on"), tested.items(), strict=True):
        for cell, score in zip(row[1:], SCORES, strict=True):
            found = estimated(head, runs, score)
            assert re.findall(r"\d\.\d+", cell) == [
                f"{each:.4f}" for each in (found.value, found.low, found.high)
            ]
            kept = heads[head]["scores"]["test"][score]
            assert kept["covers_seeds"] is found.covers_seeds is True
            assert (kept["low"], kept["high"]) == pytest.approx((found.low, found.high), rel=1e-9)


def test_the_answer_is_the_accuracy_of_the_rows_on_disk(folder, tested):
    answer = json.loads((folder / "report.json").read_text())["sections"][0]["answer"]
    best = re.match(r"The (\w+)", answer)[1]
    accuracy = np.mean(
        [np.mean(r["test"]["target"] == r["test"]["predicted"]) for r in tested[best]]
    )
    found = estimated(best, tested[best], "accuracy")
    assert f"classified {accuracy:.1%} of the 120 test images" in answer
    assert f"95% interval {found.low:.1%} to {found.high:.1%})" in answer


def test_pairs_have_the_interval_and_the_p_of_the_rows_on_disk(folder, tested):
    [row] = table(folder, "Test accuracy of every two heads")
    first, second = row[0].split(" (")[0].split(" less ")
    right = {
        head: [(r["test"]["target"] == r["test"]["predicted"]).to_numpy() for r in runs]
        for head, runs in tested.items()
    }
    by_hand = np.mean(right[first]) - np.mean(right[second])
    assert number(row[1]) == pytest.approx(100 * by_hand, abs=0.0051)
    found = apart(first, second, tested)
    assert row[2] == f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    assert row[3] == ("&lt; 0.0001" if found.p < 0.0001 else f"{found.p:.4f}")
    assert row[4] == row[3]  # Holm's correction of a single pair is none
    losses = {
        head: np.mean([scored(r["validation"])[7] for r in runs]) for head, runs in tested.items()
    }
    assert losses[first] < losses[second]


def test_the_selected_setting_has_the_least_mean_validation_log_loss(runs, tested):
    losses: dict[float, list[float]] = {}
    for run in runs:
        document = run["document"]
        if document["head"] == "dense" and "train_part" not in document["split"]:
            losses.setdefault(document["params"]["l2"], []).append(scored(run["validation"])[7])
    assert len(losses) == 2
    best = min(losses, key=lambda l2: np.mean(losses[l2]))
    assert {run["document"]["params"]["l2"] for run in tested["dense"]} == {best}
    assert sum("test" in run for run in runs) == 3


def test_scores_by_emotion_are_of_the_emotions_own_rows(folder, tested):
    rows = table(folder, "Test scores by original emotion")
    assert len(rows) == 2 * 4
    for row in rows:
        emotion, head = row[0].split(" (")[0], row[0].rstrip(")").split(", ")[-1]
        found = []
        for run in tested[head]:
            test = run["test"]
            own = test[test["emotion"] == emotion]
            target = own["target"].iloc[0]
            both = pd.concat([own, test[test["target"] != target]])
            hit, p = both["target"] == target, both[f"p_{target}"]
            own_p = own[f"p_{target}"]
            found.append(
                [
                    (own["predicted"] == target).mean(),
                    metrics.precision_score(hit, both["predicted"] == target),
                    metrics.f1_score(hit, both["predicted"] == target),
                    metrics.roc_auc_score(hit, p),
                    metrics.average_precision_score(hit, p),
                    -np.log(own_p).mean(),
                    ((1 - own_p) ** 2).mean(),
                ]
            )
        expected = np.mean(found, axis=0)
        assert int(row[1]) == len(own)
        assert number(row[2]) == pytest.approx(100 * expected[0], abs=0.051)
        said = [number(cell) for cell in row[4:10]]
        np.testing.assert_allclose(said, expected[1:], atol=5.1e-5)


def test_confusion_matrices_are_the_first_seeds(folder, tested):
    for head, runs in tested.items():
        rows = table(
            folder, f"Test images by true class (rows) and predicted class, {head}, seed 0"
        )
        expected = pd.crosstab(runs[0]["test"]["target"], runs[0]["test"]["predicted"])
        for row in rows:
            assert [int(number(cell)) for cell in row[1:]] == list(expected.loc[row[0], CLASSES])


def test_the_calibration_curve_pools_the_seeds(folder, tested):
    rows = table(folder, "Calibration in 10 equal-width bins")
    expected = []
    for head, runs in tested.items():
        pooled = pd.concat([run["test"] for run in runs])
        p, hit = pooled["p_positive"].to_numpy(), (pooled["target"] == "positive").to_numpy()
        expected += [[head, p[b].mean(), hit[b].mean(), b.sum()] for b in bins(p)]
    assert [row[0] for row in rows] == [line[0] for line in expected]
    said = [[number(cell) for cell in row[1:]] for row in rows]
    np.testing.assert_allclose(said, [line[1:] for line in expected], atol=5.1e-5)


def test_the_size_curve_is_the_mean_validation_log_loss_of_each_size(folder, runs, tested):
    rows = table(folder, "Validation log loss by number of training images")
    losses: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        document = run["document"]
        if "test" in run or "train_part" in document["split"]:
            size = sum(document["split"]["sizes"]["train"].values())
            loss = scored(run["validation"])[7]
            losses.setdefault((document["head"], size), []).append(loss)
    assert {(row[0], int(row[1].replace(",", ""))) for row in rows} == set(losses)
    for row in rows:
        expected = np.mean(losses[row[0], int(row[1].replace(",", ""))])
        assert number(row[2]) == pytest.approx(expected, abs=5.1e-5)


def test_costs_are_sums_and_the_computed_one_follows_the_measured_rate(folder, runs):
    rows = {row[0]: row for row in table(folder, "Cost of the fits")}
    for head, row in rows.items():
        own = [run["document"] for run in runs if run["document"]["head"] == head]
        epochs = [8 if head == "dense" else 1 for _ in own]
        images = [sum(d["split"]["sizes"]["train"].values()) + 120 for d in own]
        seconds = float(np.dot(epochs, images)) / 47.2
        assert int(row[1]) == len(own)
        assert number(row[2]) == pytest.approx(
            np.mean([d["seconds"]["fit"] for d in own]), abs=0.0051
        )
        assert int(row[4]) == sum(epochs)
        said = number(row[5]) * (60 if row[5].endswith("min") else 1)
        assert said == pytest.approx(seconds, abs=30 if row[5].endswith("min") else 0.051)
