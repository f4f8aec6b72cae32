"""The tables of a report and the notes below them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_features.experiment.result import Result
from fer_features.experiment.statistics import Estimate
from fer_features.report.summary import (
    SCORE_NAMES,
    Group,
    Section,
    choice,
    seed_said,
    value_said,
)
from fer_features.report.words import interval_said, size_curve

NOTHING = "\N{EN DASH}"
"""What a cell shows where there is no number."""

SEED_TASK = {"positive": ["happiness"], "negative": ["anger", "fear", "sadness"]}
"""The one task that the original experiment's published figures belong to."""

COLUMNS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced acc.",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Avg. precision",
    "log_loss": "Log loss ↓",
    "brier": "Brier ↓",
    "ece": "ECE ↓",
}


class Cell(NamedTuple):
    """One cell of a table: what it says, a second thought in small print, whether it was chosen."""

    text: str
    detail: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Table:
    """A captioned table; `numbers` is the column from which cells are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: int = 1


def score_table(section: Section) -> Table:
    """Tabulate the mean of each score over the seeds, with its interval, a row a group."""
    rows = []
    for group in section.groups:
        cells = [estimated(group.estimates[name]) for name in COLUMNS]
        rows.append((_named(section, group), *cells))
    means = "mean over the seeds and, small, " if section.several_seeds else "small: "
    split = section.split.capitalize()
    caption = f"{split} scores on {len(section.rows):,} images, {means}95% interval"
    return Table(caption, ("Head", *COLUMNS.values()), tuple(rows))


def estimated(found: Estimate) -> Cell:
    """Show a score with its interval, as far as they are known."""
    low_to_high = f"{found.low:.4f}{NOTHING}{found.high:.4f}"
    sure = np.isfinite([found.low, found.high]).all()
    text = NOTHING if np.isnan(found.value) else f"{found.value:.4f}"
    return Cell(text, low_to_high if sure else "")


def spread_table(section: Section, split: str) -> Table:
    """Tabulate the mean of each score over the seeds with its range, a row a group."""
    rows = []
    for group in section.groups:
        cells = [_named(section, group)]
        for name in COLUMNS:
            mean = group.mean(split, name)
            text = NOTHING if mean is None else f"{mean:.4f}"
            decided = split == "validation" and name == section.select and cells[0].chosen
            cells.append(Cell(text, _spread(group.values(split, name), "{:.4f}"), decided))
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
    heads = list(dict.fromkeys(group.results[0].label for group, _ in section.settings))
    ordered = sorted(
        section.settings,
        key=lambda s: (heads.index(s[0].results[0].label), choice(s[0], section.select)),
    )
    shown = (section.select, "log_loss" if section.select == "accuracy" else "accuracy")
    rows = []
    for group, scored in ordered:
        cells = [
            Cell(group.label, "selected, scored on test" if scored else "", scored),
            Cell(f"{len(group.results)}"),
        ]
        for name in shown:
            values = group.values("validation", name)
            spread = _spread(values, "{:.4f}") if name == section.select else ""
            cells.append(Cell(_mean(values) if values else NOTHING, spread))
        rows.append(tuple(cells))
    columns = ("Setting", "Fits", *(f"Validation {SCORE_NAMES[name]}" for name in shown))
    return Table("Every setting tried, mean over its fits", columns, tuple(rows))


def pairs_table(section: Section) -> Table | None:
    """Tabulate the paired comparison of every two groups, None of a single one."""
    if len(section.groups) < 2:
        return None
    rows = []
    for pair in section.pairs:
        apart = pair.difference
        rows.append(
            (
                Cell(f"{pair.first} less {pair.second}", pair.words),
                Cell(f"{100 * apart.value:+.2f}"),
                Cell(
                    interval_said(apart, "{:+.2f}", 100),
                    "" if apart.covers_seeds else "images only",
                ),
                Cell(_p(apart.p)),
                Cell(_p(pair.holm)),
            )
        )
    columns = ("Heads", "Difference, points", "95% interval", "p", "p after Holm")
    score = f"{section.split.capitalize()} {SCORE_NAMES[section.score]}"
    caption = f"{score} of every two heads, in percentage points"
    if section.kept is not None:
        caption += f", on the {len(section.judged):,} images that do not leak"
    return Table(caption, columns, tuple(rows))


def score_note(section: Section) -> str:
    """Say what the columns of the score tables mean."""
    return (
        f"{_columns_said(section)} The interval of the ECE is about the ECE that comes out on as "
        f"many images, which on few is above what it would be on many.{_chosen_said(section)}"
    )


def _chosen_said(section: Section) -> str:
    if section.chosen is None:
        return ""
    return f" Bold: what validation chose, by its {SCORE_NAMES[section.select]}."


def _columns_said(section: Section) -> str:
    if len(section.classes) == 2:
        return (
            f"Precision, recall, F1, ROC AUC and average precision are those of "
            f"“{section.classes[0]}”, the positive class; what a head itself answers decides. "
            "Log loss is in nats; of log loss, Brier score (the mean squared error of the "
            "positive class's probability) and ECE (calibration error, 10 equal-width bins) less "
            "is better."
        )
    return (
        "Precision, recall, F1, ROC AUC and average precision are macro averages over the "
        f"{len(section.classes)} classes, each against the rest; what a head itself answers "
        "decides. Log loss is in nats; of log loss, Brier score (squared errors summed "
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


def confusion_table(label: str, result: Result, split: str) -> Table:
    """Tabulate the counts behind a confusion matrix, with their shares of the rows."""
    rows = []
    for name, counts in zip(result.classes, result.scores[split]["confusion"], strict=True):
        total = max(sum(counts), 1)
        rows.append((Cell(name), *(Cell(f"{n:,}", f"{n / total:.1%}") for n in counts)))
    images = f"{split.capitalize()} images by true class (rows) and predicted class"
    caption = f"{images}, {label}{seed_said(result)}"
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
    """Tabulate the bins of calibration curves, as calibration() in scores returns them."""
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


def _named(section: Section, group: Group) -> Cell:
    """Name a head, with its number of fits, marked where validation chose it."""
    fits = group.times if len(group.results) > 1 else "one seed" if group.lucky else ""
    return Cell(group.label, fits, group is section.chosen)


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ""
    low, high = form.format(min(values)), form.format(max(values))
    return "all alike" if low == high else f"{low}{NOTHING}{high}"


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}"
