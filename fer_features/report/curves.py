"""A report's curves: what each head's probabilities are worth, and what more data brings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from fer_features.experiment.statistics import Estimate
from fer_features.report.style import GRID, MUTED, STROKES, colour, panel, short, style

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def roc(names: Sequence[str], curves: Sequence[Sequence[Curve]]) -> Figure:
    """Draw true against false positive rates, a colour a head and a line for each seed."""
    with style():
        figure, axes = _unit_square("False positive rate", "True positive rate")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=":")
        axes.annotate(
            "chance",
            (0.5, 0.5),
            xytext=(6, -6),
            textcoords="offset points",
            color=MUTED,
            va="top",
        )
        _lines(axes, names, curves)
        axes.legend(loc="lower right")
    return figure


def precision_recall(
    names: Sequence[str], curves: Sequence[Sequence[Curve]], chance: float
) -> Figure:
    """Draw precision against recall, a colour a head and a line for each seed.

    `chance` is the precision of guessing: the share of the images that are to be found.
    """
    with style():
        figure, axes = _unit_square("Recall", "Precision")
        axes.axhline(chance, color=MUTED, linewidth=1.2, linestyle=":")
        axes.annotate(
            "chance",
            (1.0, chance),
            xytext=(-2, -4),
            textcoords="offset points",
            color=MUTED,
            ha="right",
            va="top",
        )
        _lines(axes, names, curves)
        figure.legend(loc="outside upper center", ncols=1)
    return figure


def calibration(
    names: Sequence[str], curves: Sequence[Curve], shares: Sequence[npt.NDArray[np.float64]]
) -> Figure:
    """Draw how often what was said came true, a dot a bin, larger where more images are."""
    with style():
        figure, axes = _unit_square("Probability that was said", "Share that came true")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=":")
        axes.annotate(
            "as said",
            (0.92, 0.92),
            xytext=(0, 8),
            textcoords="offset points",
            color=MUTED,
            ha="right",
        )
        for i, ((said, came), images) in enumerate(zip(curves, shares, strict=True)):
            axes.plot(
                said,
                came,
                linestyle=STROKES[i % len(STROKES)],
                color=colour(i),
                label=names[i],
            )
            axes.scatter(said, came, s=8 + 160 * images, color=colour(i), alpha=0.8)
        figure.legend(loc="outside upper center", ncols=1)
    return figure


def emotions(
    names: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[Estimate]],
) -> Figure:
    """Draw the share of each original emotion that each head gets wrong, with its interval."""
    with style():
        figure, axes = panel(1.5 + (0.2 + 0.2 * len(names)) * len(rows) + 0.25 * len(names))
        step = min(0.26, 0.7 / len(names))
        for i, of_head in enumerate(values):
            y = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * step
            for at, around in zip(y, of_head, strict=True):
                axes.plot([around.low, around.high], [at, at], color=colour(i))
            share = [each.value for each in of_head]
            marker = _MARKERS[i % len(_MARKERS)]
            axes.scatter(share, y, s=44, marker=marker, color=colour(i), label=names[i], zorder=3)
        axes.set_yticks(range(len(rows)), [short(row, 28) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.hlines(np.arange(1, len(rows)) - 0.5, 0, 1, color=GRID, transform=_across(axes))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Images of the emotion classified wrong")
        figure.legend(loc="outside upper center", ncols=1)
    return figure


def sizes(
    names: Sequence[str], curves: Sequence[tuple[Sequence[int], Sequence[Sequence[float]]]]
) -> Figure:
    """Draw validation log loss over training images: the seeds' mean and, shaded, their range."""
    with style():
        figure, axes = panel(3.4)
        for i, (images, losses) in enumerate(curves):
            mean = [float(np.mean(each)) for each in losses]
            axes.plot(
                images,
                mean,
                marker=_MARKERS[i % len(_MARKERS)],
                linestyle=STROKES[i % len(STROKES)],
                color=colour(i),
                label=names[i],
            )
            if any(len(each) > 1 for each in losses):
                low, high = [min(each) for each in losses], [max(each) for each in losses]
                axes.fill_between(images, low, high, color=colour(i), alpha=0.18, linewidth=0)
        ticks = sorted({n for images, _ in curves for n in images})
        axes.set_xscale("log")
        axes.set_xticks(_apart(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.grid(axis="y")
        axes.set_xlabel("Training images")
        axes.set_ylabel("Validation log loss (nats)")
        axes.legend()
    return figure


_MARKERS = ("o", "s", "D", "^", "v", "P")


def _unit_square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = panel(4.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.grid()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _lines(axes: Axes, names: Sequence[str], curves: Sequence[Sequence[Curve]]) -> None:
    for i, lines in enumerate(curves):
        for j, (x, y) in enumerate(lines):
            axes.plot(
                x,
                y,
                linestyle=STROKES[i % len(STROKES)],
                color=colour(i),
                alpha=1.0 if len(lines) == 1 else 0.7,
                label=names[i] if j == 0 else None,
            )


def _across(axes: Axes) -> Any:
    return axes.get_yaxis_transform()


def _apart(ticks: Sequence[int]) -> list[int]:
    """Return the ticks of a logarithmic axis whose labels do not touch, the largest among them."""
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or np.log(kept[-1] / tick) > 0.13 * np.log(max(ticks) / min(ticks)):
            kept.append(tick)
    return kept
