"""The tables of a report and the notes below them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_features.experiment.evaluation import Result
from fer_features.report.summary import Group, Section, seed_said, value_said
from fer_features.report.words import size_curve

NOTHING = "\N{EN DASH}"
"""What a cell shows where there is no number."""

SEED_TASK = {"positive": ["happiness"], "negative": ["anger", "fear", "sadness"]}
"""The one task that the original experiment's published figures belong to."""

COLUMNS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Avg. precision",
    "log_loss": "Log loss ↓",
    "brier": "Brier ↓",
    "ece": "ECE ↓",
}

SMALLER_IS_BETTER = ("log_loss", "brier", "ece")


class Cell(NamedTuple):
    """One cell of a table: what it says, a second thought in small print, whether it leads."""

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A captioned table; `numbers` is the column from which cells are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int = 1


def score_table(section: Section) -> Table:
    """Tabulate the mean of each test score over the seeds, with its interval, a row a group."""
    best = _best(section, "test")
    rows = []
    for group in section.groups:
        cells = [Cell(group.label, _fits(group))]
        for name in COLUMNS:
            mean = group.mean("test", name)
            around = group.intervals.get(name)
            low_to_high = "" if around is None else f"{around.low:.4f}{NOTHING}{around.high:.4f}"
            text = NOTHING if mean is None else f"{mean:.4f}"
            cells.append(Cell(text, low_to_high if mean is not None else "", text == best[name]))
        rows.append(tuple(cells))
    means = "mean over the seeds and, small, " if section.several_seeds else "small: "
    caption = f"Test scores on {len(section.test):,} images, {means}95% interval over test images"
    return Table(caption, ("Head", *COLUMNS.values()), tuple(rows))


def spread_table(section: Section, split: str) -> Table:
    """Tabulate the mean of each score over the seeds with its range, a row a group."""
    best = _best(section, split)
    rows = []
    for group in section.groups:
        cells = [Cell(group.label, _fits(group))]
        for name in COLUMNS:
            mean = group.mean(split, name)
            text = NOTHING if mean is None else f"{mean:.4f}"
            spread = _spread(group.values(split, name), "{:.4f}")
            cells.append(Cell(text, spread, text == best[name]))
        rows.append(tuple(cells))
    n = int((section.first.predictions["split"] == split).sum())
    spread_said = ", mean over the seeds and, small, lowest to highest"
    caption = (
        f"{split.capitalize()} scores on {n:,} images{spread_said if section.several_seeds else ''}"
    )
    return Table(caption, ("Head", *COLUMNS.values()), tuple(rows))


def settings_table(section: Section) -> Table | None:
    """Tabulate every setting that was tried, the best of each head first; None of one a head."""
    if len(section.settings) == len(section.groups):
        return None
    heads = list(dict.fromkeys(group.results[0].head for group, _ in section.settings))
    losses = {
        group.label: group.mean("validation", "log_loss") or 0.0 for group, _ in section.settings
    }
    ordered = sorted(
        section.settings, key=lambda s: (heads.index(s[0].results[0].head), losses[s[0].label])
    )
    rows = []
    for group, scored in ordered:
        spread = _spread(group.values("validation", "log_loss"), "{:.4f}")
        rows.append(
            (
                Cell(group.label, "selected, scored on test" if scored else ""),
                Cell(f"{len(group.results)}"),
                Cell(f"{losses[group.label]:.4f}", spread, scored),
                Cell(f"{group.mean('validation', 'accuracy'):.4f}"),
            )
        )
    columns = ("Setting", "Fits", "Validation log loss", "Validation accuracy")
    return Table("Every setting tried, mean over its fits", columns, tuple(rows))


def pairs_table(section: Section) -> Table | None:
    """Tabulate the paired comparison of every two groups, None of a single one."""
    if len(section.groups) < 2:
        return None
    rows = []
    for pair in section.pairs:
        low, high = 100 * pair.interval.low, 100 * pair.interval.high
        rows.append(
            (
                Cell(f"{pair.first} less {pair.second}", pair.words),
                Cell(f"{100 * pair.difference:+.2f}"),
                Cell(f"{low:+.2f} to {high:+.2f}"),
                Cell(f"{pair.only_first:,}"),
                Cell(f"{pair.only_second:,}"),
                Cell(_p(pair.p)),
                Cell(_p(pair.holm)),
            )
        )
    columns = (
        "Heads",
        "Difference, points",
        "95% interval",
        "Only the first right",
        "Only the second right",
        "McNemar p",
        "p after Holm",
    )
    return Table("Test accuracy of every two heads, in percentage points", columns, tuple(rows))


def score_note(section: Section) -> str:
    """Say what the columns of the score tables mean."""
    return (
        f"{_columns_said(section)} Resampling adds noise to every bin, so the interval of the ECE "
        "lies somewhat too high."
    )


def _columns_said(section: Section) -> str:
    if len(section.classes) == 2:
        return (
            f"Precision, recall, F1, ROC AUC and average precision are those of "
            f"“{section.classes[0]}”, the positive class; the decision is at a probability of "
            "0.5. Log loss is in nats; of log loss, Brier score (the mean squared error of the "
            "positive class's probability) and ECE (calibration error, 10 equal-width bins) less "
            "is better."
        )
    return (
        "Precision, recall, F1, ROC AUC and average precision are macro averages over the "
        f"{len(section.classes)} classes, each against the rest; the decision is the most "
        "probable class. Log loss is in nats; of log loss, Brier score (squared errors summed "
        "over the classes, 0 to 2) and ECE (calibration error of the most probable class, 10 "
        "equal-width bins) less is better."
    )


def published_table(section: Section) -> Table | None:
    """Tabulate the original experiment's own figures, where the task and the labels are its own."""
    first = section.first
    if "labels" in first.split or list(first.task["classes"].items()) != list(SEED_TASK.items()):
        return None
    return Table(
        "Published by the original experiment: validation set, ImageNet weights, not measured here",
        ("", "Accuracy", "Precision", "Recall", "F1", "TN", "FP", "FN", "TP"),
        (
            tuple(
                Cell(text)
                for text in (
                    "InceptionResNetV2 with a dense head",
                    *("0.7944", "0.8065", "0.7747", "0.7903"),
                    *("1,384", "316", "383", "1,317"),
                )
            ),
        ),
    )


def confusion_table(label: str, result: Result) -> Table:
    """Tabulate the counts behind a confusion matrix, with their shares of the rows."""
    rows = []
    for name, counts in zip(result.classes, result.scores["test"]["confusion"], strict=True):
        total = max(sum(counts), 1)
        rows.append((Cell(name), *(Cell(f"{n:,}", f"{n / total:.1%}") for n in counts)))
    caption = f"Test images by true class (rows) and predicted class, {label}{seed_said(result)}"
    return Table(caption, ("True class", *result.classes), tuple(rows))


def size_table(groups: Sequence[Group]) -> Table:
    """Tabulate the validation log loss for each number of training images."""
    rows = []
    for group in groups:
        for images, losses in size_curve(group).items():
            spread = _spread(losses, "{:.4f}")
            rows.append((Cell(group.label), Cell(f"{images:,}"), Cell(f"{_mean(losses)}", spread)))
    columns = ("Head", "Training images", "Validation log loss")
    return Table("Validation log loss by number of training images", columns, tuple(rows))


def calibration_table(labels: Sequence[str], found: Sequence[dict[str, Any]]) -> Table:
    """Tabulate the bins of calibration curves, as calibration() in scoring returns them."""
    rows = [
        (Cell(label), Cell(f"{said:.4f}"), Cell(f"{came:.4f}"), Cell(f"{images:,}"))
        for label, curve in zip(labels, found, strict=True)
        for said, came, images in zip(curve["said"], curve["came"], curve["images"], strict=True)
    ]
    columns = ("Head", "Mean probability said", "Share that came true", "Predictions")
    return Table("Calibration in 10 equal-width bins, the seeds pooled", columns, tuple(rows))


def facts(caption: str, values: dict[str, Any]) -> Table:
    """Tabulate names and values."""
    rows = []
    for name, value in values.items():
        rows.append((Cell(name), Cell(NOTHING if value is None else value_said(value))))
    return Table(caption, ("What", "Which"), tuple(rows), numbers=2)


def _best(section: Section, split: str) -> dict[str, str | None]:
    """Return the best mean of each score as it is shown, None where all are alike."""
    best: dict[str, str | None] = {}
    for name in COLUMNS:
        means = [mean for group in section.groups if (mean := group.mean(split, name)) is not None]
        choose = min if name in SMALLER_IS_BETTER else max
        differ = len({f"{mean:.4f}" for mean in means}) > 1
        best[name] = f"{choose(means):.4f}" if differ else None
    return best


def _fits(group: Group) -> str:
    return "" if len(group.results) == 1 else group.times


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ""
    low, high = form.format(min(values)), form.format(max(values))
    return "all alike" if low == high else f"{low}{NOTHING}{high}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}"
