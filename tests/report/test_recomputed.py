"""Every number in a report, computed again from its runs' files.

Scores with NumPy and scikit-learn alone; intervals and p by calling ``statistics``, whose own tests
hold it against textbooks and simulations, with the rows as they lie on disk.
"""

import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from fer_features.experiment.statistics import Difference, Estimate, difference, estimate, holm
from fer_features.faces.emotions import EMOTIONS

REPORTS = ("one", "forty", "compared", "raters", "embeddings", "crossed", "validation")

SCORES = {
    "Accuracy, %": "accuracy",
    "Balanced accuracy, %": "balanced_accuracy",
    "F1, %": "f1",
    "Precision, %": "precision",
    "ROC AUC": "roc_auc",
    "Log loss ↓": "log_loss",
    "Average precision": "average_precision",
    "Brier score ↓": "brier",
    "Calibration error ↓": "ece",
}


class Files:
    """What lies beside a report: its data, its Markdown, and the runs that it is of."""

    def __init__(self, folder: Path) -> None:
        self.document = json.loads((folder / "report.json").read_text())
        (self.section,) = self.document["sections"]
        self.text = (folder / "report.md").read_text().replace("\\", "").replace("&lt;", "<")
        self.classes = list(self.section["classes"])
        self.split = self.section["split"]
        self.runs = []
        self._means: dict[tuple[str, str, bool], dict[str, float]] = {}
        for run in sorted((folder / "fits").iterdir()):
            rows = pd.read_csv(run / "predictions.csv", dtype={"source": str, "leaked": str})
            document = json.loads((run / "metrics.json").read_text())
            self.runs.append((document, dict(list(rows.fillna("").groupby("split")))))
        self.heads = {head["label"]: self._fits(head) for head in self.section["heads"]}

    def _fits(self, head: dict[str, Any]) -> list[dict[str, pd.DataFrame]]:
        """Return the rows, by split, of the fits of one head on the page."""
        same = ("head", "params", "fingerprint", "features")
        return [
            rows
            for document, rows in self.runs
            if all(document[name] == head[name] for name in same)
            and "train_part" not in document["split"]
            and self.split in rows
        ]

    def judged(self, label: str, leaks: bool = False) -> list[pd.DataFrame]:
        """Return the rows that a head is judged by: without leaks, unless they are asked for."""
        tables = [rows[self.split] for rows in self.heads[label]]
        if "leaked" in tables[0] and not leaks:
            tables = [each[each["leaked"] == ""] for each in tables]
        return [each.reset_index(drop=True) for each in tables]

    def mean(self, label: str, score: str, split: str = "", leaks: bool = False) -> float:
        """Return the mean of a score over the fits of a head."""
        key = (label, split, leaks)
        if key not in self._means:
            tables = self.judged(label, leaks)
            if split:
                tables = [rows[split] for rows in self.heads[label]]
            fits = [scored(each, self.classes) for each in tables]
            self._means[key] = {
                name: float(np.mean([each[name] for each in fits])) for name in fits[0]
            }
        return self._means[key][score]

    def random(self, label: str) -> bool:
        return label.startswith("dense")

    def arrays(self, label: str, leaks: bool = False) -> dict[str, Any]:
        """Return what ``statistics`` takes of the fits of a head, in the rows' own order."""
        tables = self.judged(label, leaks)
        numbered = {name: i for i, name in enumerate(self.classes)}
        first = tables[0]
        return {
            "target": first["target"].map(numbered).to_numpy(),
            "p": np.array([each[[f"p_{name}" for name in self.classes]] for each in tables]),
            "predicted": np.array([each["predicted"].map(numbered) for each in tables]),
            "groups": first["group" if "group" in first else "digest"].to_numpy(),
        }

    def estimated(self, label: str, score: str, **changed: Any) -> Estimate:
        leaks = changed.pop("leaks", False)
        given = self.arrays(label, leaks) | changed
        return estimate(**given, score=score, random=self.random(label))

    def apart(self, one: str, other: str) -> Difference:
        a, b = self.arrays(one), self.arrays(other)
        random = (self.random(one), self.random(other))
        said = {"groups": a["groups"], "predicted": (a["predicted"], b["predicted"])}
        score = self.section["score"]
        return difference(a["target"], a["p"], b["p"], score, random=random, **said)

    def table(self, title: str) -> list[dict[str, str]]:
        """Return the rows of the table whose title begins so, by column."""
        start = self.text.index(f"\n**{title}")
        lines = self.text[start:].split("\n\n")[1].splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        names = [name.strip() for name in cells[0]]
        return [dict(zip(names, row, strict=True)) for row in cells[2:]]


@pytest.fixture(scope="module")
def files(reports):
    return cache(lambda name: Files(reports[name].parent))


def label_of(cell: str) -> str:
    plain = cell.replace("**", "")
    return re.sub(r" \((\d+ (seeds|fits)|one seed)\)$", "", plain)


def assert_says(cell: str, value: float, found: Any = None, percent: bool = True) -> None:
    """Check a number, to the digits that it is written with, and its interval if it has one."""
    said = re.findall(r"[-+\N{MINUS SIGN}]?[\d,]+(?:\.\d+)?", cell.replace("**", ""))
    wanted = [value] if found is None else [value, found.low, found.high]
    assert len(said) == len(wanted), cell
    for text, number in zip(said, wanted, strict=True):
        digits = len(text.partition(".")[2])
        shown = float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))
        assert shown == pytest.approx((100 if percent else 1) * number, abs=0.51 * 10.0**-digits)


def scored(rows: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    """Return the scores of one fit by scikit-learn."""
    truth, said = rows["target"], rows["predicted"]
    p = rows[[f"p_{name}" for name in classes]].to_numpy()
    two = len(classes) == 2
    hit = np.array([truth == name for name in classes]).T
    macro = {"pos_label": classes[0]} if two else {"average": "macro", "labels": classes}
    each = range(1 if two else len(classes))
    sure = p[:, 0] if two else p.max(axis=1)
    came = hit[:, 0] if two else hit[np.arange(len(p)), p.argmax(axis=1)]
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs((sure - came)[bins == b].sum()) for b in range(10)]
    return {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, said),
        "precision": metrics.precision_score(truth, said, zero_division=0, **macro),
        "recall": metrics.recall_score(truth, said, zero_division=0, **macro),
        "f1": metrics.f1_score(truth, said, zero_division=0, **macro),
        "roc_auc": np.mean([metrics.roc_auc_score(hit[:, c], p[:, c]) for c in each]),
        "average_precision": np.mean(
            [metrics.average_precision_score(hit[:, c], p[:, c]) for c in each]
        ),
        "log_loss": metrics.log_loss(truth, p[:, np.argsort(classes)], labels=sorted(classes)),
        "brier": ((p - hit) ** 2).sum(axis=1).mean() / (2 if two else 1),
        "ece": sum(gaps) / len(p),
    }


@pytest.mark.parametrize("name", REPORTS)
def test_scores_and_intervals(files, name):
    found = files(name)
    seen = 0
    for title in ("Scores on ", "More scores"):
        rows = found.table(title)
        assert {label_of(row["Head"]) for row in rows} == set(found.heads)
        for row in rows:
            label = label_of(row["Head"])
            for column, score in SCORES.items():
                if column in row:
                    value = found.mean(label, score)
                    own = found.estimated(label, score)
                    assert own.value == pytest.approx(value, rel=1e-9)
                    if score == "ece":  # where a bin is right to the last digit its sign is noise
                        assert_says(row[column].partition(" (")[0], value, None, False)
                        continue
                    assert_says(row[column], value, own, column.endswith("%"))
                    kept = next(h for h in found.section["heads"] if h["label"] == label)
                    kept = kept["scores"][found.split][score]
                    assert (kept["mean"], kept["low"], kept["high"]) == pytest.approx(
                        (value, own.low, own.high), rel=1e-9
                    )
                    seen += 1
    assert seen >= 6 * len(found.heads)
    images = f"{len(found.judged(next(iter(found.heads)))[0]):,} {found.split} images"
    assert f"**Scores on {images}" in found.text


@pytest.mark.parametrize("name", ["forty", "compared", "raters", "embeddings", "crossed"])
def test_differences_to_the_chosen_p_and_every_other_pair(files, name):
    found = files(name)
    losses = {label: found.mean(label, "log_loss", "validation") for label in found.heads}
    order = sorted(losses, key=losses.__getitem__)
    rows = found.table("Scores on ")
    assert sorted(label_of(row["Head"]) for row in rows) == sorted(order)
    shown = [losses[label_of(row["Head"])] for row in rows]
    assert shown == sorted(shown)
    first = label_of(rows[0]["Head"])
    assert rows[0]["Head"].startswith("**") == (len({*shown[:2]}) == 2)
    pairs = {(label_of(a["Head"]), label_of(b["Head"])): None for a, b in combinations(rows, 2)}
    apart = {pair: found.apart(*pair) for pair in pairs}
    corrected = dict(zip(pairs, holm([each.p for each in apart.values()]), strict=True))
    minus = next(column for column in rows[0] if column.startswith("Minus the"))
    for row in rows:
        label = label_of(row["Head"])
        assert_says(row["Validation log loss"], losses[label], percent=False)
        if label == first:
            continue
        own, p = apart[first, label], corrected[first, label]
        turned = Difference(-own.value, -own.high, -own.low, own.p, own.covers_seeds)
        assert_says(row[minus], turned.value, turned)
        assert row["p (Holm)"] == p_said(p)
        clear = p is not None and p < 0.05 and not own.low <= 0 <= own.high
        assert (row["Verdict"] in ("better", "worse")) == clear
        assert row["Verdict"].startswith("no verdict") == (p is None)
        if clear:
            assert row["Verdict"] == ("worse" if own.value > 0 else "better")
    others = [pair for pair in pairs if pair[0] != first]
    table = found.table("Every other pair") if others else []
    assert len(table) == len(others)
    for row in table:
        pair = tuple(row["A minus B"].split(" minus "))
        assert_says(row["Points"], apart[pair].value, apart[pair])
        assert (row["p"], row["p (Holm)"]) == (p_said(apart[pair].p), p_said(corrected[pair]))
    assert len(found.section["pairs"]) == len(pairs)


def p_said(p: float | None) -> str:
    return "\N{EN DASH}" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


@pytest.mark.parametrize("name", REPORTS)
def test_the_answer(files, name):
    found = files(name)
    answer = found.section["answer"]
    assert answer in found.text
    label, score = found.section["chosen"], found.section["score"]
    own = found.estimated(label, score)
    value = found.mean(label, score)
    did = re.search(r"(?:classified|reached) ([\d.]+)% ", answer)[1]
    assert_says(did, value)
    low, high = re.search(r"95% interval ([\d.]+) to ([\d.]+)%", answer).groups()
    assert_says(low, own.low)
    assert_says(high, own.high)
    rows = found.judged(label)[0]
    assert f" {len(rows):,} {found.split} images" in answer
    always = re.search(r"Always answering (?:“(\w+)”|one class) would \w+ \w*\s?([\d.]+)%", answer)
    shares = rows["target"].value_counts(normalize=True)
    assert_says(always[2], shares.max() if always[1] else 1 / len(found.classes))
    second = re.search(
        r"It is (?:([\d.]+) points? (ahead of|behind)|level with) (.+?), second", answer
    )
    if second:
        other = second[3]
        lead = value - found.mean(other, score)
        assert (second[2] == "ahead of") == (lead > 0) or not second[1]
        assert_says(second[1] or "0", abs(lead))
        better = sum(
            p["holm"] is not None and p["holm"] < 0.05 and p["difference"] > 0
            for p in json_pairs(found)
            if p["first"] == label
        )
        assert ("no evidence that it is better than any" in answer) == (better == 0)


def json_pairs(found: Files) -> list[dict[str, Any]]:
    return [pair | {"difference": pair["value"]} for pair in found.section["pairs"]]


def test_networks_and_features(files):
    found = files("embeddings")
    rows = found.table("Test accuracy in % by network, features and head")
    seen = 0
    for row in rows:
        for head in ("dense", "logistic"):
            label = f"{head} on {row['Network']} {row['Features']}"
            value = found.mean(label, "accuracy")
            assert_says(row[head], value, found.estimated(label, "accuracy"))
            seen += 1
    assert seen == len(found.heads) == 6
    assert [(r["Dimension"], r["Parameters"], r["Images/s"]) for r in rows if r["Network"] == "tiny"
            ] == [("20", "54,336,736", "47.2")]  # fmt: skip
    # No mean is printed twice: the table of scores leaves out what this one has.
    assert "Accuracy, %" not in found.table("Scores on ")[0]


@pytest.mark.parametrize("name", REPORTS)
def test_classes_and_emotions(files, name):
    found = files(name)
    two = len(found.classes) == 2
    chosen = found.section["chosen"]
    for row in found.table("By class"):
        label = label_of(row["Head"]) if two else chosen
        for i, of in enumerate(found.classes):
            if not two and row["Class"] != of:
                continue
            given = found.arrays(label)
            one = given["p"][..., i]
            against = {
                "target": (given["target"] != i).astype(int),
                "p": np.stack([one, 1 - one], axis=-1),
                "predicted": (given["predicted"] != i).astype(int),
            }
            for score in ("precision", "recall", "f1"):
                said = {"f1": "F1"}.get(score, score.capitalize())
                column = f"{said} of {of}, %" if two else f"{said}, %"
                if column not in row:
                    assert (two, i, score) == (True, 0, "f1")  # the table of scores has it
                    continue
                metric = getattr(metrics, f"{score}_score")
                value = np.mean(
                    [
                        metric(r["target"] == of, r["predicted"] == of, zero_division=0)
                        for r in found.judged(label)
                    ]
                )
                assert_says(row[column], value, found.estimated(label, score, **against))
    emotions = [
        name for names in found.section["classes"].values() for name in names if len(names) > 1
    ]
    table = found.table("Recall by original emotion") if emotions else []
    assert [row["Emotion"] for row in table] == [e for e in EMOTIONS if e in emotions]
    for row in table:
        for label in set(row) & set(found.heads):
            tables = [r[r["emotion"] == row["Emotion"]] for r in found.judged(label)]
            right = [(each["target"] == each["predicted"]).mean() for each in tables]
            assert int(row["Images"]) == len(tables[0])
            assert_says(re.sub(r" \(.*", "", row[label]), np.mean(right))
    head = next(each for each in found.section["heads"] if each["label"] == chosen)
    counts = [
        metrics.confusion_matrix(r["target"], r["predicted"], labels=found.classes)
        for r in found.judged(chosen)
    ]
    assert np.mean(counts, axis=0).tolist() == head["confusion"]


def test_raters_and_heads_are_scored_on_the_same_votes(files):
    found = files("raters")
    columns = [f"votes_{name}" for name in found.classes]
    rows = found.judged(found.section["chosen"])[0]
    lines, tied, outside = [], 0, 0
    for image, votes in enumerate(rows[columns].to_numpy()):
        outside += (
            int(rows.loc[image, [f"votes_{e}" for e in (*EMOTIONS, "other")]].sum()) - votes.sum()
        )
        for said, n in enumerate(votes):
            others = votes - (np.arange(len(votes)) == said)
            top = np.flatnonzero(others == others.max())
            for _ in range(n):
                if len(top) == 1 and others.max() > 0:
                    lines.append((image, said, top[0]))
                else:
                    tied += 1
    image, said, target = np.array(lines).T
    groups = rows["group"].to_numpy()[image]
    table = found.table("Heads beside one rater")
    p = np.eye(len(found.classes))[None, said]
    rater = estimate(target, p, random=False, groups=groups, predicted=said[None])
    assert (said == target).mean() == pytest.approx(rater.value)
    assert_says(table[0]["Accuracy, %"], rater.value, rater)
    for row in table[1:]:
        label = label_of(row["Who"])
        given = found.arrays(label)
        own = {"predicted": given["predicted"][:, image], "groups": groups}
        head = estimate(target, given["p"][:, image], random=found.random(label), **own)
        assert_says(row["Accuracy, %"], (own["predicted"] == target).mean(), head)
        apart = head.value - rater.value
        assert_says(re.sub(r" \(.*", "", row["Minus one rater, points"]), apart)
    text = found.text[found.text.index("## What raters say") :]
    votes = len(lines) + tied + outside
    assert f"Of {votes:,} votes {outside / votes:.0%} are for nothing in the task" in text
    assert f"of the rest {tied / (votes - outside):.0%} are, as" in text
    assert f"{len(lines):,} votes on {len(set(image)):,} images count" in text
    within = rows[columns].to_numpy()
    share = within.max(axis=1) / np.maximum(within.sum(axis=1), 1)
    for row in found.table("Test images classified wrong"):
        numbers = [float(each) / 100 for each in re.findall(r"(\d+)%", row["Raters who agree"])]
        low, high = numbers if len(numbers) == 2 else (0.0, numbers[0])
        held = (share > low) & (share <= high)
        assert int(row["Images"]) == held.sum()
        for label in found.heads:
            wrong = [(r["target"] != r["predicted"])[held].mean() for r in found.judged(label)]
            assert_says(re.sub(r" \(.*", "", row[label]), np.mean(wrong))


@pytest.mark.parametrize("name", REPORTS)
def test_data_fits_and_leaks(files, name):
    found = files(name)
    sizes = found.runs[0][0]["split"]["sizes"]
    for row in found.table("Images by class and split"):
        own = found.classes if row["Class"] == "all" else [row["Class"]]
        for split in ("train", "validation", "test"):
            said = int(row[split.capitalize()].replace(",", ""))
            assert said == sum(sizes[split].get(each, 0) for each in own)
    every = found.table("Every fit")
    assert len(every) == len(found.runs)
    losses = sorted(scored(rows["validation"], found.classes)["log_loss"] for _, rows in found.runs)
    shown = sorted(
        float(row["Validation log loss"]) for row in every if "Validation log loss" in row
    )
    np.testing.assert_allclose(shown, losses, atol=5.1e-5)
    if name == "raters":
        for row in found.table("With leaks: scores on all 120 test images, 15 that leak among"):
            label = label_of(row["Head"])
            for column in ("Accuracy, %", "Log loss ↓"):
                score = SCORES[column]
                value = found.mean(label, score, leaks=True)
                own = found.estimated(label, score, leaks=True)
                assert_says(row[column], value, own, column.endswith("%"))
    else:
        assert "With leaks" not in found.text


def test_settings_that_were_not_chosen_and_the_curve_over_sizes(files):
    found = files("compared")
    left: dict[str, list[float]] = {}
    sizes: dict[str, dict[str, list[float]]] = {}
    for document, rows in found.runs:
        loss = scored(rows["validation"], found.classes)["log_loss"]
        part = document["split"].get("train_part")
        if part is None and "test" not in rows:
            left.setdefault(document["head"], []).append(loss)
        if part is not None or "test" in rows:
            size = str(sum(document["split"]["sizes"]["train"].values()))
            sizes.setdefault(document["head"], {}).setdefault(size, []).append(loss)
    rows = {label_of(row["Setting"]).split(" (")[0]: row for row in found.table("Settings that")}
    assert set(rows) == set(left)
    for head, losses in left.items():
        assert_says(rows[head]["Validation log loss"], np.mean(losses), percent=False)
        assert int(rows[head]["Fits"]) == len(losses)
    for head in found.section["heads"]:
        kept = head["validation_log_loss_by_size"]
        assert list(kept) == ["60", "120", "360"]
        for size, losses in kept.items():
            assert sorted(losses) == pytest.approx(sorted(sizes[head["head"]][size]), rel=1e-9)
