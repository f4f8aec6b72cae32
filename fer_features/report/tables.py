"""The tables of a report and the notes below them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_features.experiment.evaluation import Result
from fer_features.report.summary import Group, Section, distinct, seed_said, value_said

NOTHING = "\N{EN DASH}"
"""What a cell shows where there is no number."""

SEED_TASK = {"positive": ["happiness"], "negative": ["anger", "fear", "sadness"]}
"""The one task that the seed's published figures belong to."""

COLUMNS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Avg. precision",
    "log_loss": "Log loss ↓",
    "brier": "Brier ↓",
}

SMALLER_IS_BETTER = ("log_loss", "brier")


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


def score_table(section: Section, split: str) -> Table:
    """Tabulate the mean of each score over the seeds, with the range, a row a group."""
    best: dict[str, str | None] = {}
    for name in COLUMNS:
        means = [mean for group in section.groups if (mean := group.mean(split, name)) is not None]
        choose = min if name in SMALLER_IS_BETTER else max
        differ = len({f"{mean:.4f}" for mean in means}) > 1
        best[name] = f"{choose(means):.4f}" if differ else None
    rows = []
    for group in section.groups:
        cells = [Cell(group.label, _fits(group))]
        for name in COLUMNS:
            mean = group.mean(split, name)
            spread = _spread(group.values(split, name), "{:.4f}")
            text = NOTHING if mean is None else f"{mean:.4f}"
            cells.append(Cell(text, spread, text == best[name]))
        if split == "test":
            seconds = [s for r in group.results if (s := r.seconds.get("fit")) is not None]
            mean_seconds = f"{np.mean(seconds):,.2f}" if seconds else NOTHING
            cells.append(Cell(mean_seconds, _spread(seconds, "{:,.2f}")))
        rows.append(tuple(cells))
    n = int((section.first.predictions["split"] == split).sum())
    several = any(len(group.results) > 1 for group in section.groups)
    means_said = ", mean over the seeds and, small, lowest to highest" if several else ""
    caption = f"{split.capitalize()} scores on {n:,} images{means_said}"
    columns = ("Head", *COLUMNS.values(), *(("Fit, s",) if split == "test" else ()))
    return Table(caption, columns, tuple(rows))


def score_note(section: Section) -> str:
    """Say what the columns of the score tables mean."""
    if len(section.classes) == 2:
        return (
            f"Precision, recall, F1, ROC AUC and average precision are those of "
            f"“{section.classes[0]}”, the positive class; the decision is at a probability of "
            "0.5. Log loss is in nats; of log loss and Brier score (the mean squared error of the "
            "positive class's probability) less is better."
        )
    return (
        "Precision, recall, F1, ROC AUC and average precision are macro averages over the "
        f"{len(section.classes)} classes, each against the rest; the decision is the most "
        "probable class. Log loss is in nats; of log loss and Brier score (squared errors summed "
        "over the classes, 0 to 2) less is better."
    )


def published_table(section: Section) -> Table | None:
    """Tabulate the seed experiment's own figures, where the task is the seed's."""
    if list(section.first.task["classes"].items()) != list(SEED_TASK.items()):
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


def data_table(section: Section) -> Table:
    """Tabulate how many images of each class are in each split."""
    sizes = section.first.split.get("sizes", {})
    rows = []
    for name in section.classes:
        emotions = ", ".join(section.first.task["classes"][name])
        counts = [int(sizes.get(split, {}).get(name, 0)) for split in _SIZED]
        rows.append((Cell(name), Cell(emotions), *(Cell(f"{n:,}") for n in (*counts, sum(counts)))))
    totals = [sum(int(n) for n in sizes.get(split, {}).values()) for split in _SIZED]
    rows.append((Cell("all"), Cell(""), *(Cell(f"{n:,}") for n in (*totals, sum(totals)))))
    columns = ("Class", "Emotions", "Training", "Validation", "Test", "Together")
    return Table("Images of each class in each split", columns, tuple(rows), numbers=2)


def data_note(section: Section) -> str:
    """Say how the rows were split, what became of duplicates, and what leaked."""
    texts = []
    for split in distinct(r.split for group in section.groups for r in group.results):
        if split.get("protocol") == "usage":
            said = "Split: FER2013's own usages."
        else:
            said = f"Split: drawn at random, split seed {split.get('seed')}."
        kept = {
            "drop": "Duplicates were dropped: no image is in two splits.",
            "keep": "Duplicates were kept, as the original experiment did.",
        }
        said += " " + kept.get(str(split.get("duplicates")), "")
        leaked = split.get("leaked", {})
        also = [f"{int(leaked.get(f'test_in_{name}', 0)):,}" for name in ("train", "validation")]
        said += f" Test images that also occur in training: {also[0]}; in validation: {also[1]}."
        texts.append(said)
    return " ".join(texts)


def fits_table(section: Section) -> Table:
    """Tabulate every fit: what it cost and how it did."""
    rows = []
    for group in section.groups:
        for result in group.results:
            seconds = result.seconds.get("fit")
            rows.append(
                (
                    Cell(group.label),
                    Cell(NOTHING if result.seed is None else str(result.seed)),
                    Cell(NOTHING if seconds is None else f"{seconds:,.2f}"),
                    Cell(f"{len(result.history):,}"),
                    Cell(f"{result.scores['validation']['log_loss']:.4f}"),
                    Cell(f"{result.scores['validation']['accuracy']:.4f}"),
                    Cell(f"{result.scores['test']['accuracy']:.4f}"),
                )
            )
    columns = (
        "Head",
        "Seed",
        "Fit, s",
        "Epochs or C tried",
        "Validation log loss",
        "Validation accuracy",
        "Test accuracy",
    )
    return Table("Every fit", columns, tuple(rows))


def pass_note(results: Sequence[Result]) -> list[str]:
    """Say what each pass of a backbone cost; every fit reuses it."""
    said = []
    for store in distinct(result.store for result in results):
        made = store.get("provenance", {})
        images, seconds, rate = (made.get(k) for k in ("images", "seconds", "images_per_second"))
        if images is None or seconds is None:
            said.append(f"What the pass behind {store.get('name')} cost is not recorded.")
            continue
        speed = "" if rate is None else f", {rate:,.1f} images a second"
        kept = [
            f"{made[key]:,} were {how}"
            for key, how in _KEPT.items()
            if isinstance(made.get(key), int) and made[key] > 0
        ]
        said.append(
            f"The backbone ran once over {images:,} distinct images in {seconds:,.1f} s{speed} "
            f"({store.get('name')}{''.join('; ' + each for each in kept)}). "
            "Every fit reuses what it said."
        )
    return said


def provenance_tables(section: Section) -> list[Table]:
    """Tabulate what is needed to repeat the fits: parameters, embeddings, versions."""
    fits = [
        (
            Cell(group.label),
            Cell(", ".join(f"{k}={value_said(v)}" for k, v in group.results[0].params.items())),
            Cell(", ".join(str(result.seed) for result in group.results)),
        )
        for group in section.groups
    ]
    tables = [Table("Heads", ("Head", "Parameters", "Seeds"), tuple(fits), numbers=3)]
    results = [result for group in section.groups for result in group.results]
    tables += [
        _facts("Versions and machine", each)
        for each in distinct(result.versions for result in results)
    ]
    for store in distinct(result.store for result in results):
        facts = {"file": store.get("name"), "fingerprint": store.get("fingerprint")}
        for part, shown in (("backbone", "backbone"), ("dataset", "data"), ("provenance", "pass")):
            facts |= {f"{shown}: {k.replace('_', ' ')}": v for k, v in store.get(part, {}).items()}
        tables.append(_facts("Embeddings", facts))
    return tables


_KEPT = {"resumed": "kept from a pass that was stopped", "reused": "taken from an older store"}

_SIZED = ("train", "validation", "test")


def _fits(group: Group) -> str:
    return "" if len(group.results) == 1 else f"{len(group.results)} seeds"


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ""
    low, high = form.format(min(values)), form.format(max(values))
    return "all alike" if low == high else f"{low}{NOTHING}{high}"


def _facts(caption: str, facts: dict[str, Any]) -> Table:
    rows = []
    for name, value in facts.items():
        rows.append((Cell(name), Cell(NOTHING if value is None else value_said(value))))
    return Table(caption, ("What", "Which"), tuple(rows), numbers=2)
