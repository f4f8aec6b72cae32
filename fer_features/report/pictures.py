"""Which figures a report shows, and what is said with each."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from fer_features.experiment.evaluation import Result
from fer_features.report import figures, summary, tables
from fer_features.report.summary import Group, Section
from fer_features.report.tables import Table

SHOWN_GROUPS = 6
"""Groups that get figures, those of the lowest validation log loss; the tables show all."""

SHOWN_TARGETS = 50
"""Test images beside their predictions, as many as the original experiment showed."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its file, what it shows, what it looks like to who cannot see it."""

    file: str
    title: str
    caption: str
    alt: str
    drawing: figures.Drawing
    table: Table | None = None

    def uri(self, kind: str) -> str:
        """Return the ``"light"`` or ``"dark"`` SVG as an address that holds the image itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(getattr(self.drawing, kind)).decode(
            "ascii"
        )


def pictures(part: Section, prefix: str) -> list[Picture]:
    """Draw a section's figures: those of all heads, then each head's own."""

    def by_validation(group: Group) -> float:
        loss = group.mean("validation", "log_loss")
        return np.inf if loss is None else loss

    kept = sorted(part.groups, key=by_validation)[:SHOWN_GROUPS]
    shown = [group for group in part.groups if group in kept]
    own = [
        each._replace(stem=f"{each.stem}-{_slug(group.label, i)}") if len(shown) > 1 else each
        for i, group in enumerate(shown)
        for each in _own(part, group)
    ]
    # How they learnt, then what they confuse, then their answers: like beside like.
    own.sort(key=lambda each: each.stem.startswith("confusion") + 2 * each.stem.startswith("targ"))
    return [
        Picture(
            file=f"{prefix}{each.stem}.png",
            title=each.title,
            caption=each.caption,
            alt=each.alt,
            drawing=figures.render(each.figure),
            table=each.table,
        )
        for each in [*_common(part, shown), *own]
    ]


class Drawn(NamedTuple):
    """A figure before it is rendered; `stem` is its file's name without suffix."""

    stem: str
    title: str
    caption: str
    alt: str
    figure: Figure
    table: Table | None = None


def _common(part: Section, shown: Sequence[Group]) -> Iterator[Drawn]:
    """Draw what sets heads beside one another: accuracy by seed, and ROC."""
    names = [group.label for group in shown]
    chance = part.chance[1]
    if sum(len(group.results) for group in shown) > 1:
        yield Drawn(
            "accuracy",
            "Test accuracy, fit by fit",
            "A dot is one seed's fit, the bar their mean; dashed, always naming the most common "
            "class.",
            "Dot plot of test accuracy, a row for each head. "
            + _means(shown, "accuracy")
            + f" Chance: {chance:.3f}.",
            figures.accuracies(names, [g.values("test", "accuracy") for g in shown], chance),
        )
    curves = [[_roc(result) for result in group.results] for group in shown]
    if all(value is not None for g in shown for value in [g.mean("test", "roc_auc")]):
        of = (
            f"for “{part.classes[0]}”"
            if len(part.classes) == 2
            else "averaged over the classes, each against the rest"
        )
        yield Drawn(
            "roc",
            "ROC on the test images",
            f"The rates {of}; a line is one seed's fit.",
            "ROC curves. Area under the curve: " + _means(shown, "roc_auc"),
            figures.roc([f"{g.label}, AUC {g.mean('test', 'roc_auc'):.3f}" for g in shown], curves),
        )


def _own(part: Section, group: Group) -> Iterator[Drawn]:
    """Draw what concerns one head: how it learnt, what it confuses, 50 of its answers."""
    histories = [result.history for result in group.results if result.history]
    seeds = "" if len(group.results) == 1 else " A pair of lines is one seed's fit."
    if histories and all("val_loss" in entry for history in histories for entry in history):
        epochs = " and ".join(
            dict.fromkeys(str(n) for n in (min(map(len, histories)), max(map(len, histories))))
        )
        yield Drawn(
            "learning-curve",
            f"Learning curve, {group.label}",
            f"The weights of the epoch with the lowest validation loss are kept.{seeds}",
            f"Training and validation loss by epoch, {epochs} epochs, "
            f"{_lowest(histories, 'val_loss')}.",
            figures.learning_curves(histories),
        )
    elif histories and all(len(h) > 1 and "val_log_loss" in e for h in histories for e in h):
        yield Drawn(
            "regularisation",
            f"Choice of C, {group.label}",
            "The strength with the lowest log loss on the validation images is kept.",
            f"Validation log loss of {len(histories[0])} values of C, "
            f"{_lowest(histories, 'val_log_loss')}.",
            figures.regularisation(histories),
        )
    first = group.results[0]
    which = f"{group.label}{summary.seed_said(first)}"
    yield Drawn(
        "confusion",
        f"Confusion matrix, {which}",
        "Test images, with their share of the true class (row).",
        f"Confusion matrix of {len(part.classes)} classes: "
        f"{first.scores['test']['accuracy']:.1%} of the images are on the diagonal.",
        figures.confusion(first.scores["test"]["confusion"], part.classes),
        tables.confusion_table(group.label, first),
    )
    rows = summary.test_rows(first)
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, SHOWN_TARGETS).round().astype(int))]
    right = int((rows["target"] == rows["predicted"]).sum())
    yield Drawn(
        "targets",
        f"{len(rows)} targets beside their predictions, {which}",
        f"Test images, evenly spaced over the split: {right} of {len(rows)} are right.",
        f"Target and predicted class of {len(rows)} test images; {right} agree.",
        figures.targets(list(rows["target"]), list(rows["predicted"]), part.classes),
    )


def _roc(result: Result) -> figures.Curve:
    """Return false and true positive rates; of more than two classes, the mean over classes."""
    rows = summary.test_rows(result)
    classes = result.classes
    if len(set(rows["target"])) < len(classes):
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    curves = [
        roc_curve(rows["target"] == name, rows[f"p_{name}"])[:2]
        for name in (classes[:1] if len(classes) == 2 else classes)
    ]
    if len(curves) == 1:
        return curves[0]
    grid = np.linspace(0.0, 1.0, 501)
    mean = np.mean([np.interp(grid, *curve) for curve in curves], axis=0)
    return np.concatenate([[0.0], grid]), np.concatenate([[0.0], mean])


def _means(groups: Sequence[Group], score: str) -> str:
    said = (f"{group.label} {group.mean('test', score) or 0:.3f}" for group in groups)
    return "; ".join(said) + "."


def _lowest(histories: Sequence[Sequence[dict[str, Any]]], score: str) -> str:
    values = [each[score] for history in histories for each in history if each[score] is not None]
    return f"the lowest {min(values):.4f}" if values else "none known"


def _slug(label: str, i: int) -> str:
    """Return a file name's part that no two heads share."""
    plain = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    return plain if re.fullmatch(r"[a-z0-9]+", label) else f"{i + 1}-{plain}"[:48].rstrip("-")
