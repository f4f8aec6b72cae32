"""A report's figures of how heads score, learn and confuse, each with one message."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from fer_features.experiment.statistics import Estimate
from fer_features.report.style import (
    INK,
    LINES,
    MUTED,
    STROKES,
    SURFACE,
    WIDTH,
    colour,
    panel,
    short,
    style,
)


def scores(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    estimates: Sequence[Estimate],
    chance: float,
    what: str,
) -> Figure:
    """Draw each head's mean score with its interval, its fits as dots, chance dashed."""
    with style():
        figure, axes = panel(1.8 + 0.55 * len(names))
        for i, (of_fits, around) in enumerate(zip(values, estimates, strict=True)):
            axes.plot([around.low, around.high], [i, i], color=INK, linewidth=2)
            axes.plot([around.value] * 2, [i - 0.16, i + 0.16], color=INK, linewidth=2.4)
            below = [i + 0.3] * len(of_fits)
            axes.scatter(of_fits, below, s=30, color=colour(i), alpha=0.75)
        axes.axvline(chance, color=MUTED, linestyle="--", linewidth=1.2)
        axes.annotate(
            "chance",
            (chance, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=MUTED,
        )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.5)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.set_xlabel(what)
    return figure


def learning_curves(histories: Sequence[Sequence[dict[str, Any]]]) -> Figure:
    """Draw training and validation loss by epoch, one pair of lines for each seed's fit."""
    with style():
        figure, axes = panel(3.4)
        for i, history in enumerate(histories):
            epochs = [entry["epoch"] for entry in history]
            if min(epochs) == 0:
                epochs = [epoch + 1 for epoch in epochs]
            held_out = np.array([entry["val_loss"] for entry in history], dtype=float)
            trained = np.array([entry["loss"] for entry in history], dtype=float)
            label = ("training", "validation") if i == 0 else (None, None)
            faint = 1.0 if len(histories) == 1 else 0.75
            axes.plot(epochs, trained, STROKES[1], color=LINES[1], label=label[0], alpha=faint)
            axes.plot(epochs, held_out, color=LINES[0], label=label[1], alpha=faint)
            best = int(np.nanargmin(held_out)) if np.isfinite(held_out).any() else 0
            axes.plot(
                epochs[best],
                held_out[best],
                "o",
                markersize=7,
                markerfacecolor=SURFACE,
                markeredgecolor=LINES[0],
                markeredgewidth=1.8,
                label="lowest validation loss" if i == 0 else None,
            )
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Loss (nats, with L2 penalty)")
        axes.legend()
    return figure


def regularisation(histories: Sequence[Sequence[dict[str, Any]]]) -> Figure:
    """Draw the validation log loss of each regularisation strength that was tried."""
    with style():
        figure, axes = panel(3.2)
        for i, history in enumerate(histories):
            tried = sorted(history, key=lambda entry: entry["C"])
            strength = [entry["C"] for entry in tried]
            loss = np.array([entry["val_log_loss"] for entry in tried], dtype=float)
            best = int(np.nanargmin(loss)) if np.isfinite(loss).any() else 0
            axes.plot(strength, loss, "o-", color=LINES[0], markersize=5)
            axes.plot(
                strength[best],
                loss[best],
                "o",
                markersize=8,
                markerfacecolor=SURFACE,
                markeredgecolor=LINES[0],
                markeredgewidth=1.8,
                label="chosen: lowest validation loss" if i == 0 else None,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda strength, _: f"{strength:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
        axes.set_xlabel("C (larger: weaker regularisation)")
        axes.set_ylabel("Validation log loss (nats)")
        axes.legend()
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw counts, true classes in rows; a cell is as deep as its share of its row."""
    counts = np.asarray(matrix)
    k = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with style():
        figure, axes = panel(3.1 if k == 2 else 1.9 + 0.5 * k)
        size = 14 if k == 2 else max(6.5, 12 - 0.7 * k)
        for row in range(k):
            for column in range(k):
                share = shares[row, column]
                # At most half opaque: one ink stays legible on it in light and in dark.
                depth = 0.04 + 0.46 * share
                axes.add_patch(
                    Rectangle((column, row), 1, 1, facecolor=LINES[0], alpha=depth, linewidth=0)
                )
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{counts[row, column]:,}\n{share:.1%}"
                    if k <= 4
                    else f"{counts[row, column]:,}\n{share:.0%}",
                    ha="center",
                    va="center",
                    fontsize=size,
                    linespacing=1.35,
                )
        names = [short(name, 16) for name in classes]
        middle = np.arange(k) + 0.5
        upright = k <= 3 and max(map(len, names)) <= 12
        turned: dict[str, Any] = (
            {} if upright else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        )
        axes.set_xticks(middle, names, **turned)
        axes.set_yticks(middle, names)
        axes.set_xlim(0, k)
        axes.set_ylim(k, 0)
        axes.hlines(range(1, k), 0, k, color=SURFACE, linewidth=2)
        axes.vlines(range(1, k), 0, k, color=SURFACE, linewidth=2)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("Predicted class")
        axes.set_ylabel("True class")
    return figure


def targets(target: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Figure:
    """Draw the true and the predicted class of some images side by side, 25 to a panel."""
    names = list(classes)
    panels = max(1, -(-len(target) // 25))
    with style():
        figure = Figure(
            figsize=(WIDTH, 1.0 + panels * (0.75 + 0.24 * len(names))), layout="constrained"
        )
        for i, axes in enumerate(np.atleast_1d(figure.subplots(panels, 1))):
            rows = range(25 * i, min(25 * i + 25, len(target)))
            x = np.array(rows) + 1
            true = np.array([names.index(target[row]) for row in rows])
            said = np.array([names.index(predicted[row]) for row in rows])
            wrong = true != said
            axes.vlines(x[wrong], true[wrong], said[wrong], color=LINES[1], linewidth=1.4)
            hollow = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.3}
            axes.scatter(x, true, s=62, marker="s", label="target", **hollow)
            axes.scatter(
                x[~wrong], said[~wrong], s=20, marker="o", color=LINES[0], label="predicted, right"
            )
            axes.scatter(
                x[wrong], said[wrong], s=34, marker="X", color=LINES[1], label="predicted, wrong"
            )
            axes.set_yticks(range(len(names)), [short(name, 16) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlim(25 * i + 0.2, 25 * i + 25.8)
            axes.set_xticks([each for each in range(25 * i + 1, 25 * i + 26) if each % 5 == 0])
            axes.grid(axis="y")
            axes.tick_params(length=0)
        axes.set_xlabel("Image shown")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=3,
            fontsize=10,
            handletextpad=0.2,
            columnspacing=1.2,
        )
    return figure
