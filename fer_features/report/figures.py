"""The figures of a report, each with one message, drawn once and shown in light and in dark.

Every colour is one of the palette's, so the dark variant of an SVG is the light one with its
colours exchanged. Figures are about 5 inches wide, legible at the width of a phone.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

INK, MUTED, GRID, SURFACE = "#1b1f24", "#57606a", "#dfe3e8", "#ffffff"

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours that stand out on white and that colour-blind readers tell apart."""

DARK = {
    INK: "#e8eaed",
    MUTED: "#a9b1ba",
    GRID: "#383e46",
    SURFACE: "#1b1f24",
    "#0072b2": "#56b4e9",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc79a",
    "#cc79a7": "#dd94bb",
    "#e69f00": "#e69f00",
    "#56b4e9": "#f0e442",
}
"""What stands in the dark variant for each colour of the light one."""

STROKES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
"""Line styles beside the colours, so that no line is told by its colour alone."""

WIDTH = 5.2
"""Width of a figure in inches."""

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named "$"
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": SURFACE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": SURFACE,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "fer-features",  # the same results give the same bytes
}


@dataclass(frozen=True)
class Drawing:
    """A figure as files: two SVGs and a PNG, with its size on the page in CSS pixels."""

    light: bytes
    dark: bytes
    png: bytes
    width: int
    height: int


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style; matplotlib's settings are as before afterwards."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A class may be named in a script that the font lacks: it shows as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def render(figure: Figure) -> Drawing:
    """Write a figure as SVG, light and dark, and as PNG at 160 dots an inch."""
    with style():
        vector, raster = io.BytesIO(), io.BytesIO()
        FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None})
        figure.set_layout_engine("none")  # what it laid out stays; a second time costs as much
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(160)
        canvas.print_png(raster, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    light = vector.getvalue()
    width, height = figure.get_size_inches() * 96
    return Drawing(light, darkened(light), raster.getvalue(), round(width), round(height))


def darkened(svg: bytes) -> bytes:
    """Exchange the palette's light colours in an SVG for its dark ones, all at once."""
    pattern = re.compile("|".join(DARK).encode())
    return pattern.sub(lambda found: DARK[found[0].decode()].encode(), svg)


def accuracies(names: Sequence[str], values: Sequence[Sequence[float]], chance: float) -> Figure:
    """Draw the accuracy of each fit as a dot, a row a head, with chance as a dashed line."""
    with style():
        figure, axes = _panel(1.8 + 0.5 * len(names))
        for i, accuracy in enumerate(values):
            axes.scatter(accuracy, [i] * len(accuracy), s=46, color=_colour(i), alpha=0.75)
            axes.plot([np.mean(accuracy)] * 2, [i - 0.28, i + 0.28], color=INK, linewidth=2)
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
        axes.set_yticks(range(len(names)), [_short(name, 24) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.set_xlabel("Test accuracy")
    return figure


def learning_curves(histories: Sequence[Sequence[dict[str, Any]]]) -> Figure:
    """Draw training and validation loss by epoch, one pair of lines for each seed's fit."""
    with style():
        figure, axes = _panel(3.4)
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
        figure, axes = _panel(3.2)
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
        figure, axes = _panel(3.1 if k == 2 else 1.9 + 0.5 * k)
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
        names = [_short(name, 16) for name in classes]
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


Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def roc(names: Sequence[str], curves: Sequence[Sequence[Curve]]) -> Figure:
    """Draw true against false positive rates, a colour a head and a line for each seed."""
    with style():
        figure, axes = _panel(4.2)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=":")
        axes.annotate(
            "chance",
            (0.5, 0.5),
            xytext=(6, -6),
            textcoords="offset points",
            color=MUTED,
            va="top",
        )
        for i, lines in enumerate(curves):
            for j, (false_positive, true_positive) in enumerate(lines):
                axes.plot(
                    false_positive,
                    true_positive,
                    linestyle=STROKES[i % len(STROKES)],
                    color=_colour(i),
                    alpha=1.0 if len(lines) == 1 else 0.7,
                    label=_short(names[i], 34) if j == 0 else None,
                )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        axes.grid()
        axes.set_xlabel("False positive rate")
        axes.set_ylabel("True positive rate")
        axes.legend(loc="lower right")
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
            axes.set_yticks(range(len(names)), [_short(name, 16) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlim(25 * i + 0.2, 25 * i + 25.8)
            axes.set_xticks([each for each in range(25 * i + 1, 25 * i + 26) if each % 5 == 0])
            axes.grid(axis="y")
            axes.tick_params(length=0)
        axes.set_xlabel("Test image shown")
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


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _colour(i: int) -> str:
    return LINES[i % len(LINES)]


def _short(name: str, longest: int) -> str:
    flat = " ".join(name.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
