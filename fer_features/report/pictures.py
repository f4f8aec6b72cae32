"""Which figures a report shows, and what is said with each."""

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from fer_features.experiment.result import Result
from fer_features.experiment.scores import calibration
from fer_features.faces.dataset import FaceDataset
from fer_features.report import curves, figures, summary, tables
from fer_features.report.face_figures import Drawn, face_figures
from fer_features.report.style import Drawing, legends, render
from fer_features.report.summary import SCORE_NAMES, Group, Section
from fer_features.report.tables import Table
from fer_features.report.words import interval_said, size_curve, size_said

SHOWN_GROUPS = 6
"""Groups that get figures, those that validation ranks highest; the tables show all."""

SHOWN_TARGETS = 50
"""Images beside their predictions, as many as the original experiment showed."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its file, what it shows, what it looks like to who cannot see it."""

    file: str
    title: str
    caption: str
    alt: str
    drawing: Drawing
    table: Table | None = None

    def uri(self, kind: str) -> str:
        """Return the ``"light"`` or ``"dark"`` SVG as an address that holds the image itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(getattr(self.drawing, kind)).decode(
            "ascii"
        )


def pictures(part: Section, prefix: str, faces: FaceDataset | None = None) -> list[Picture]:
    """Draw a section's figures: those of all heads, then each head's own, then faces if given."""
    kept = part.ranked[:SHOWN_GROUPS]
    shown = [group for group in part.groups if group in kept]
    own = [
        each._replace(stem=f"{each.stem}-{_slug(group.label, i)}") if len(shown) > 1 else each
        for i, group in enumerate(shown)
        for each in _own(part, group)
    ]
    # How they learnt, then what they confuse, then their answers: like beside like.
    own.sort(key=lambda each: each.stem.startswith("confusion") + 2 * each.stem.startswith("targ"))
    pictured = [] if faces is None else list(face_figures(part.ranked[0], part.classes, faces))
    return [
        Picture(
            file=f"{prefix}{each.stem}.png",
            title=each.title,
            caption=each.caption,
            alt=each.alt,
            drawing=render(each.figure),
            table=each.table,
        )
        for each in [*_common(part, shown), *own, *pictured]
    ]


def _common(part: Section, shown: Sequence[Group]) -> Iterator[Drawn]:
    """Draw what sets heads beside one another."""
    names = legends([group.label for group in shown], 24)
    chance = part.chance[1]
    found = [part.headlines[group.label] for group in shown]
    alone = found[0].images < len(part.rows)
    where = f" on the {found[0].images:,} images that do not leak" if alone else ""
    score = f"{part.split} {SCORE_NAMES[part.score]}"
    title = f"{score[0].upper()}{score[1:]}"
    yield Drawn(
        part.score.replace("_", "-"),
        f"{title}{where}",
        "The line is the 95% interval around the mean, a dot one seed's fit; dashed, always "
        "naming one and the same class.",
        f"Mean {score}{where} and its 95% interval, a row for each head. "
        + "; ".join(
            f"{group.label} {each.value:.3f} ({interval_said(each, '{:.3f}')})"
            for group, each in zip(shown, found, strict=True)
        )
        + f". Chance: {chance:.3f}.",
        figures.scores(names, [part.fits(group) for group in shown], found, chance, title),
    )
    if all(group.mean(part.split, "roc_auc") is not None for group in shown):
        yield from _ranking(part, shown)
    yield _calibration(part, shown)
    yield _emotions(shown)
    sized = [group for group in shown if len(size_curve(group)) > 1]
    if sized:
        yield Drawn(
            "sizes",
            "Does more data help?",
            " ".join(map(size_said, sized))
            + " Nested parts of the training set, scored on validation; shaded, the range over "
            "seeds.",
            "Validation log loss over training images. " + " ".join(map(size_said, sized)),
            curves.sizes(
                legends([group.label for group in sized], 34),
                [(list(curve), list(curve.values())) for curve in map(size_curve, sized)],
            ),
            tables.size_table(sized),
        )


def _ranking(part: Section, shown: Sequence[Group]) -> Iterator[Drawn]:
    """Draw ROC and precision-recall curves."""
    of = (
        f"for “{part.classes[0]}”"
        if len(part.classes) == 2
        else "averaged over the classes, each against the rest"
    )
    names = legends([group.label for group in shown], 34)
    labels = {
        score: [
            f"{name}, {said} {g.mean(part.split, score):.3f}"
            for name, g in zip(names, shown, strict=True)
        ]
        for score, said in (("roc_auc", "AUC"), ("average_precision", "AP"))
    }
    yield Drawn(
        "roc",
        f"ROC on the {part.split} images",
        f"The rates {of}; a line is one seed's fit.",
        "ROC curves. Area under the curve: " + _means(shown, "roc_auc"),
        curves.roc(labels["roc_auc"], [_mean_curves(g, _roc) for g in shown]),
    )
    share = 1 / len(part.classes)
    if len(part.classes) == 2:
        share = float((part.rows["target"] == part.classes[0]).mean())
    yield Drawn(
        "precision-recall",
        f"Precision and recall on the {part.split} images",
        f"The two {of}; a line is one seed's fit.",
        "Precision-recall curves. Average precision: " + _means(shown, "average_precision"),
        curves.precision_recall(
            labels["average_precision"],
            [_mean_curves(g, _precision_recall) for g in shown],
            share,
        ),
    )


def _calibration(part: Section, shown: Sequence[Group]) -> Drawn:
    """Draw whether what is said comes true as often, over the predictions of all seeds."""
    found = []
    for group in shown:
        truth, probabilities = [], []
        for result in group.results:
            rows = summary.rows_of(result, part.split)
            truth.append([part.classes.index(name) for name in rows["target"]])
            probabilities.append(rows[[f"p_{name}" for name in part.classes]].to_numpy())
        found.append(calibration(np.concatenate(truth), np.concatenate(probabilities)))
    event = (
        f"the probability of “{part.classes[0]}”"
        if len(part.classes) == 2
        else "the probability of the class that was named"
    )
    names = [
        f"{name}, ECE {group.mean(part.split, 'ece') or 0:.3f}"
        for name, group in zip(legends([g.label for g in shown], 34), shown, strict=True)
    ]
    return Drawn(
        "calibration",
        "Is a probability what it says?",
        f"Of {event}, 10 equal-width bins, larger dots for more images; below the dotted line, "
        "too much was said. A line pools its seeds; ECE is each fit's own mean distance to the "
        "dotted line, averaged over the seeds.",
        "Calibration curves. Expected calibration error: " + _means(shown, "ece"),
        curves.calibration(
            names,
            [(each["said"], each["came"]) for each in found],
            [each["images"] / each["images"].sum() for each in found],
        ),
        tables.calibration_table([group.label for group in shown], found),
    )


def _emotions(shown: Sequence[Group]) -> Drawn:
    """Draw which original emotions are classified wrong."""
    first = shown[0].emotions[0]
    rows = [f"{name} ({first[name]['images']:,})" for name in first]
    return Drawn(
        "emotions",
        "Errors by original emotion",
        f"Share of each emotion's {shown[0].split} images (their number in brackets) that is "
        "classified wrong, mean over the seeds, with 95% intervals.",
        "Dot plot of errors by emotion. "
        + "; ".join(
            f"{group.label}: "
            + ", ".join(f"{name} {group.errors[name].value:.1%}" for name in first)
            for group in shown
        )
        + ".",
        curves.emotions(
            legends([group.label for group in shown], 34),
            rows,
            [[group.errors[name] for name in first] for group in shown],
        ),
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
    first, split = group.results[0], part.split
    which = f"{group.label}{summary.seed_said(first)}"
    yield Drawn(
        "confusion",
        f"Confusion matrix, {which}",
        f"{split.capitalize()} images, with their share of the true class (row).",
        f"Confusion matrix of {len(part.classes)} classes: "
        f"{first.scores[split]['accuracy']:.1%} of the images are on the diagonal.",
        figures.confusion(first.scores[split]["confusion"], part.classes),
        tables.confusion_table(group.label, first, split),
    )
    rows = summary.rows_of(first, split)
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, SHOWN_TARGETS).round().astype(int))]
    right = int((rows["target"] == rows["predicted"]).sum())
    yield Drawn(
        "targets",
        f"{len(rows)} targets beside their predictions, {which}",
        f"{split.capitalize()} images, evenly spaced over the split: {right} of {len(rows)} are "
        "right.",
        f"Target and predicted class of {len(rows)} {split} images; {right} agree.",
        figures.targets(list(rows["target"]), list(rows["predicted"]), part.classes),
    )


def _mean_curves(group: Group, of: Callable[[Any, Any], curves.Curve]) -> list[curves.Curve]:
    return [_mean_curve(result, group.split, of) for result in group.results]


def _mean_curve(result: Result, split: str, of: Callable[[Any, Any], curves.Curve]) -> curves.Curve:
    """Return the positive class's curve, or of more than two classes the mean of each's."""
    rows = summary.rows_of(result, split)
    classes = result.classes
    own = [
        of(rows["target"] == name, rows[f"p_{name}"])
        for name in (classes[:1] if len(classes) == 2 else classes)
    ]
    if len(own) == 1:
        return own[0]
    grid = np.linspace(0.0, 1.0, 501)
    mean = np.mean([np.interp(grid, *curve) for curve in own], axis=0)
    return grid, mean


def _roc(hits: Any, score: Any) -> curves.Curve:
    false, true, _ = roc_curve(hits, score)
    return false, true


def _precision_recall(hits: Any, score: Any) -> curves.Curve:
    precision, recall, _ = precision_recall_curve(hits, score)
    # Steps, as average precision sums them, and without the point that scikit-learn puts at
    # recall 0: a line between two points would show scores that no threshold reaches.
    return np.repeat(recall[::-1], 2)[1:-1], np.repeat(precision[::-1][1:], 2)


def _means(groups: Sequence[Group], score: str) -> str:
    said = (f"{group.label} {group.mean(group.split, score) or 0:.3f}" for group in groups)
    return "; ".join(said) + "."


def _lowest(histories: Sequence[Sequence[dict[str, Any]]], score: str) -> str:
    values = [each[score] for history in histories for each in history if each[score] is not None]
    return f"the lowest {min(values):.4f}" if values else "none known"


def _slug(label: str, i: int) -> str:
    """Return a file name's part that no two heads share."""
    plain = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    return plain if re.fullmatch(r"[a-z][a-z0-9]*", label) else f"{i + 1}-{plain}"[:48].rstrip("-")
