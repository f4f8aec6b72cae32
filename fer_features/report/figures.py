"""A report's figures: matplotlib and scikit-learn's displays in one style, in light and in dark.

Every colour is one of the palette's, so the dark variant of an SVG is the light one with its
colours exchanged. A head has one colour on the whole page.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    precision_recall_curve,
    roc_curve,
)

from fer_features.errors import RunError
from fer_features.experiment.scores import calibration
from fer_features.experiment.statistics import Difference, Estimate
from fer_features.faces.dataset import FaceDataset
from fer_features.report import content
from fer_features.report.content import SCORE_NAMES, SHOWN_GROUPS, capital
from fer_features.report.sections import DECIDED, Group, Section, rows_of, wrong

INK, MUTED, GRID, SURFACE = "#1b1f24", "#57606a", "#dfe3e8", "#ffffff"

DARK = {
    INK: "#e8eaed",
    MUTED: "#a9b1ba",
    GRID: "#383e46",
    SURFACE: "#1b1f24",
    "#0072b2": "#56b4e9",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc79a",
    "#cc79a7": "#e39ac0",
    "#b58900": "#e6c229",
    "#56b4e9": "#9ad8f7",
    "#7a4fb5": "#b794f0",
    "#8b5a2b": "#c99a6b",
}
"""What stands in the dark variant for each colour of the light one."""

LINES = list(DARK)[4:]
"""A head's colours, after Okabe and Ito: colour-blind readers tell them apart."""

STROKES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P")
"""Of a head's several groups."""

WIDTH = 4.1
"""Width of a figure in inches, but for the forest plot: legible on a phone."""

FOREST_ROWS = 12
"""Groups in the forest plot, those that validation ranks highest."""

A_CLASS, MISTAKES = 6, 12
"""Faces shown of each class; most confident mistakes shown."""

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named "$"
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": SURFACE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": SURFACE,
    "legend.edgecolor": SURFACE,
    "legend.framealpha": 0.85,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
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


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    ``place`` is the part of the page that it belongs to; ``alt`` what it looks like to who cannot
    see it; ``phone`` the same for a narrow screen; ``folded`` whether it opens on a click.
    """

    name: str
    place: str
    title: str
    caption: str
    alt: str
    figure: Figure
    phone: Figure | None = None
    folded: bool = False

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.name}.png"

    @cached_property
    def wide(self) -> Drawing:
        """The figure, drawn."""
        return render(self.figure)

    @cached_property
    def narrow(self) -> Drawing | None:
        """What a narrow screen shows, None where that is the same."""
        return None if self.phone is None else render(self.phone)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, whatever is set; matplotlib's settings are as before afterwards.

    No backend is named or loaded: a figure's canvas is made for it.
    """
    own = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if not name.startswith(("backend", "interactive", "toolbar"))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)  # own defaults
        # A class may be named in a script that the font lacks: it shows as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with matplotlib.rc_context({**own, **_STYLE}):
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


@dataclass(frozen=True)
class Look:
    """How a group is drawn everywhere."""

    colour: str
    stroke: Any
    marker: str


def looks(section: Section) -> dict[str, Look]:
    """Return each group's look, by label: a colour a head, strokes where a head has several.

    Where all are of one head each group has a colour of its own.
    """
    heads = list(dict.fromkeys(group.first.label for group in section.ranked))
    seen: list[str] = []
    found = {}
    for i, group in enumerate(section.ranked):
        name = group.first.label
        at, n = (i, 0) if len(heads) == 1 else (heads.index(name), seen.count(name))
        seen.append(name)
        colour = LINES[at % len(LINES)]
        found[group.label] = Look(colour, STROKES[n % len(STROKES)], MARKERS[n % len(MARKERS)])
    return found


def pictures(section: Section, prefix: str, faces: FaceDataset | None = None) -> list[Picture]:
    """Draw a section's figures, the forest plot first; their files begin with `prefix`."""
    with style():
        found = list(_pictures(section, looks(section)))
        if faces is not None:
            found += _faces(section, faces)
    for each in found:
        object.__setattr__(each, "name", prefix + each.name)
    return found


def _pictures(section: Section, look: dict[str, Look]) -> Iterator[Picture]:
    shown = section.ranked[:SHOWN_GROUPS]
    yield _forest(section, look)
    yield from _cost(section, look)
    yield from _confusions(section, shown)
    emotions = section.by_emotion[shown[0].label]
    yield Picture(
        "emotions",
        "classes",
        "Errors by emotion",
        f"Share of each emotion's {section.split} images (their number in brackets) that is "
        "classified wrong. Line: 95% interval.",
        "Dot plot of errors by emotion: "
        + ", ".join(f"{name} {1 - each['recall'].value:.0%}" for name, each in emotions.items())
        + f" by {shown[0].label}.",
        _dots(
            [f"{name} ({each['images']:,})" for name, each in emotions.items()],
            {
                group.label: [
                    wrong(section.by_emotion[group.label][name]["recall"]) for name in emotions
                ]
                for group in shown
            },
            look,
        ),
    )
    if all(section.counts.values()):
        yield from _curves(section, shown, look)
    yield _calibration(section, shown, look)
    if section.raters is not None and section.raters.errors:
        errors = section.raters.errors
        yield Picture(
            "raters",
            "raters",
            "Errors by how much raters agree",
            "Share of an image's votes within the task for its commonest class. Line: 95% "
            "interval.",
            "Dot plot of errors by agreement of the raters; the numbers are in the table.",
            _dots(
                [content.agreement_said(share) for share in errors],
                {g.label: [of[g.label] for of in errors.values()] for g in shown},
                look,
            ),
        )
    yield from _sizes([group for group in shown if len(group.by_size) > 1], look)
    yield from _fitted(shown, look)


# --- the first screen ---


def _forest(section: Section, look: dict[str, Look]) -> Picture:
    rows = section.ranked[:FOREST_ROWS]
    percent = section.score in DECIDED
    name = f"{section.split} {SCORE_NAMES[section.score]}"
    titles = [f"{capital(name)}{', %' * percent}"]
    minus = f"Minus the {'chosen' if section.chosen else 'first'}{', points' * percent}"
    titles += [minus] * (len(section.groups) > 1)
    said = "Line: 95% interval."
    said += " Small dots: single seeds." if section.several_seeds else ""
    if section.chosen is not None:
        said += " Filled and bold: what validation chose; rows are in its order."
    if more := len(section.groups) - len(rows):
        said += f" {more} more in the table."
    return Picture(
        "forest",
        "forest",
        titles[0],
        said,
        f"Forest plot of {name} and of the differences to the first, a row for each of {len(rows)} "
        "heads, the best on validation first. The numbers are in the tables of scores.",
        _forest_figure(section, rows, look, titles, wide=True),
        _forest_figure(section, rows, look, titles, wide=False),
    )


def _forest_figure(
    section: Section, rows: Sequence[Group], look: dict[str, Look], titles: list[str], *, wide: bool
) -> Figure:
    """Draw estimates and differences: side by side with names to the left, or stacked."""
    panels, scale = len(titles), 100 if section.score in DECIDED else 1
    two_lines = any(group.embedding for group in rows)
    tall = len(rows) * (0.28 + 0.14 * two_lines + 0.12 * (not wide)) + 0.75
    width = (7.3 if panels > 1 else 4.6) if wide else 3.7
    figure = Figure(figsize=(width, tall if wide else panels * tall), layout="constrained")
    shape = (1, panels) if wide else (panels, 1)
    for i, axes in enumerate(figure.subplots(*shape, squeeze=False).ravel()):
        for place, group in enumerate(rows):
            own = look[group.label]
            bold = group is section.chosen
            filled = own.colour if bold or len(section.groups) == 1 else SURFACE
            found: Estimate | Difference = section.headline(group)
            if i == 1 and place:
                found = content.turned(section.against[group.label].difference)
            elif i == 1:
                found = Difference(0.0, 0.0, 0.0, None, True)
            elif len(group.results) > 1:
                seeds = [scale * each for each in section.fits(group)]
                axes.plot(
                    seeds,
                    [place + (0.27 if wide else 0.16)] * len(seeds),
                    ".",
                    color=own.colour,
                    markersize=3,
                )
            low, middle, high = (scale * each for each in (found.low, found.value, found.high))
            axes.plot([low, high], [place] * 2, color=own.colour, linewidth=2.4 if bold else 1.5)
            axes.plot(middle, place, own.marker, color=own.colour, markerfacecolor=filled)
        axes.set(ylim=(len(rows) - 0.5, -0.6 if wide else -0.9), yticks=range(len(rows)))
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, pad=6)
        axes.set_title(titles[i], loc="left", fontsize=9.5, color=MUTED)
        if i == 1:
            axes.axvline(0, color=MUTED, linewidth=1.1)
            axes.xaxis.set_major_formatter(lambda value, _: _signed(value))
        else:
            _chance(axes, scale * section.chance[1])
        if wide and i == 1:
            axes.set_yticklabels([])
            continue
        axes.set_yticklabels([_on_two_lines(group) if wide else "" for group in rows])
        for place, (group, label) in enumerate(zip(rows, axes.get_yticklabels(), strict=True)):
            weight = "bold" if group is section.chosen else "normal"
            label.set_fontweight(weight)
            if not wide:
                across = axes.get_yaxis_transform()
                axes.text(0, place - 0.22, _on_two_lines(group), transform=across, va="bottom",
                          fontweight=weight, fontsize=9,
                          bbox={"facecolor": SURFACE, "edgecolor": "none", "pad": 0.8})  # fmt: skip
    return figure


def _on_two_lines(group: Group) -> str:
    return short(group.head, 38) + f"\n{short(group.embedding, 44)}" * bool(group.embedding)


def _chance(axes: Axes, chance: float) -> None:
    """Draw chance, where it is not so far that all else would shrink."""
    low, high = axes.get_xlim()
    if chance > low - 0.5 * (high - low):
        axes.axvline(chance, color=MUTED, linestyle="--", linewidth=1.1)
        axes.text(chance, 1.0, " chance", transform=axes.get_xaxis_transform(), va="top",
                  fontsize=8.5, color=MUTED)  # fmt: skip


def _cost(section: Section, look: dict[str, Look]) -> Iterator[Picture]:
    """Draw the score against images a second, where that is not the same of all."""
    rated = [(g, speed) for g in section.ranked if (speed := content.rate(g.first.store))]
    rated.sort(key=lambda each: section.headline(each[0]).value, reverse=True)
    best: dict[str, tuple[Group, float]] = {}
    for group, speed in rated:
        best.setdefault(group.embedding, (group, speed))
    if len({speed for _, speed in rated}) < 2:
        return  # the features of one pass cost the same
    scale = 100 if section.score in DECIDED else 1
    figure, axes = _panel(3.6)
    for group, speed in rated:
        own, found = look[group.label], section.headline(group)
        axes.plot([speed] * 2, [scale * found.low, scale * found.high], color=own.colour, alpha=0.4)
        filled = own.colour if group is section.chosen else SURFACE
        first = group.label == next(g.label for g, _ in rated if g.first.label == group.first.label)
        axes.plot(speed, scale * found.value, "o", color=own.colour, markerfacecolor=filled,
                  label=_legend(group.first.label) if first else None)  # fmt: skip
    speeds = [speed for _, speed in best.values()]
    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 1.6, max(speeds) * 1.6)
    middle, gap = np.sqrt(min(speeds) * max(speeds)), 0.05 * np.diff(axes.get_ylim())[0]
    lowest: dict[bool, float] = {}
    for name, (group, speed) in best.items():
        left = bool(speed <= middle)
        beside: Any = (
            {"xytext": (8, 0), "ha": "left"} if left else {"xytext": (-8, 0), "ha": "right"}
        )
        y = min(scale * section.headline(group).value, lowest.get(left, np.inf) - gap)
        lowest[left] = y  # names on one side do not touch
        axes.annotate(short(name, 34), (speed, y), textcoords="offset points", va="center",
                      fontsize=8, **beside)  # fmt: skip
    _log_axis(axes, LogLocator(subs=(1, 2, 5)))
    axes.grid(axis="y")
    name = f"{section.split} {SCORE_NAMES[section.score]}"
    axes.set(xlabel="Images a second of the pass", ylabel=f"{capital(name)}{', %' * (scale > 1)}")
    figure.legend(loc="outside upper center", ncols=2)
    yield Picture(
        "cost",
        "scores",
        f"{capital(SCORE_NAMES[section.score])} against cost",
        "What heads reach on each network and features, and what the pass costs where its store "
        "was made. Line: 95% interval; named at its best head.",
        f"{name} over images a second, {len(rated)} heads; the numbers are in the tables.",
        figure,
    )


# --- classes ---

_SHADE = LinearSegmentedColormap.from_list(
    "shade", [(*to_rgb(LINES[0]), 0.03), (*to_rgb(LINES[0]), 0.55)]
)
"""At most half opaque: one ink stays legible on it in light and in dark."""


def _confusions(section: Section, shown: Sequence[Group]) -> Iterator[Picture]:
    k = len(section.classes)
    names = [short(name, 14) for name in section.classes]
    turned = k > 3 or max(map(len, names)) > 12
    for i, group in enumerate(shown):
        counts = section.confusion(group)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        figure, axes = _panel(2.6 if k == 2 else 1.5 + 0.34 * k)
        display = ConfusionMatrixDisplay(shares, display_labels=names).plot(
            ax=axes,
            cmap=_SHADE,
            colorbar=False,
            xticks_rotation=40 if turned else "horizontal",
            im_kw={"vmin": 0, "vmax": 1, "aspect": "auto"},
            text_kw={"color": INK, "fontsize": 12 if k <= 3 else 9.5},
        )
        for text, count in zip(display.text_.ravel(), counts.ravel(), strict=True):
            text.set_text(f"{count:,.0f}")
        for label in axes.get_xticklabels() if turned else ():
            label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="Predicted", ylabel="True")
        mean = ", mean over the seeds" * (len(group.results) > 1)
        right = ", ".join(f"{name} {shares[j, j]:.0%}" for j, name in enumerate(section.classes))
        yield Picture(
            f"confusion-{i + 1}-{_slug(group.label)}" if i else "confusion",
            "classes",
            f"Confusion, {group.label}",
            f"{capital(section.split)} images{mean}; shade: their share of the true class (row).",
            f"Confusion matrix of {k} classes; right are {right}.",
            figure,
            folded=i > 0,
        )


def _dots(rows: Sequence[str], values: dict[str, list[Estimate]], look: dict[str, Look]) -> Figure:
    """Draw shares with their intervals, a dot for each group in each row."""
    n = len(values)
    figure, axes = _panel(0.8 + (0.16 + 0.12 * n) * len(rows) + 0.2 * n)
    step = min(0.2, 0.75 / n)
    for i, (label, found) in enumerate(values.items()):
        own, y = look[label], np.arange(len(rows)) + (i - (n - 1) / 2) * step
        axes.hlines(y, [e.low for e in found], [e.high for e in found], color=own.colour, lw=1.3)
        shares = [each.value for each in found]
        axes.plot(shares, y, own.marker, color=own.colour, markersize=4.5, label=_legend(label))
    axes.set(yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5), xlabel="Classified wrong")
    axes.set_yticklabels([short(row, 28) for row in rows])
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    across = axes.get_yaxis_transform()
    axes.hlines(np.arange(1, len(rows)) - 0.5, 0, 1, color=GRID, transform=across)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=1)
    return figure


# --- probabilities ---


def _curves(section: Section, shown: Sequence[Group], look: dict[str, Look]) -> Iterator[Picture]:
    """Draw ROC and precision-recall curves: of two classes the positive one's, of more the mean."""
    k, grid = len(section.classes), np.linspace(0.0, 1.0, 501)
    (roc, roc_axes), (precision, precision_axes) = _panel(3.6), _panel(3.6)
    for group in shown:
        answers, own = section.answers(group), look[group.label]
        for i, p in enumerate(answers.p):
            line = {"color": own.colour, "linestyle": own.stroke, "label": None}
            line |= {"alpha": 1.0 if len(answers.p) == 1 else 0.7, "linewidth": 1.4}
            line |= {"label": _legend(group.label)} if i == 0 else {}
            rates, kept = [], []
            for c in range(1 if k == 2 else k):
                rates.append(roc_curve(answers.target == c, p[:, c])[:2])
                precise, recall, _ = precision_recall_curve(answers.target == c, p[:, c])
                # Steps, as average precision sums them, and without the point that scikit-learn
                # puts at recall 0: a line there would show scores that no threshold reaches.
                kept.append((np.repeat(recall[::-1], 2)[1:-1], np.repeat(precise[::-1][1:], 2)))
            (x, y), (recall, precise) = (
                each[0] if k == 2 else (grid, np.mean([np.interp(grid, *c) for c in each], axis=0))
                for each in (rates, kept)
            )
            own_roc = RocCurveDisplay(fpr=x, tpr=y).plot(roc_axes)
            own_precision = PrecisionRecallDisplay(precise, recall).plot(precision_axes)
            for display in (own_roc, own_precision):
                np.atleast_1d(display.line_)[0].set(**line)
    chance: Any = {"color": MUTED, "linewidth": 1.1, "linestyle": ":", "label": "chance"}
    roc_axes.plot([0, 1], [0, 1], **chance)
    share = section.counts[section.classes[0]] / len(section.judged) if k == 2 else 1 / k
    precision_axes.axhline(share, **chance)
    _unit_square(roc, roc_axes, "False positive rate", "True positive rate", "lower right")
    _unit_square(precision, precision_axes, "Recall", "Precision", "lower left")
    of = f"of “{section.classes[0]}”" if k == 2 else "of each class, averaged"
    seeds = "; a line is one seed's fit" * section.several_seeds
    alt = "the areas are in the tables."
    said = f"The rates {of}{seeds}."
    yield Picture("roc", "curves", "ROC", said, f"ROC curves {of}; {alt}", roc)
    title, said = "Precision and recall", f"The two {of}{seeds}."
    alt = f"Precision-recall curves {of}; {alt}"
    yield Picture("precision-recall", "curves", title, said, alt, precision)


def _calibration(section: Section, shown: Sequence[Group], look: dict[str, Look]) -> Picture:
    figure, axes = _panel(3.6)
    for group in shown:
        answers, own = section.answers(group), look[group.label]
        truth = np.tile(answers.target, len(answers.p))
        found = calibration(truth, answers.p.reshape(-1, len(section.classes)))
        CalibrationDisplay(found["came"], found["said"], truth).plot(
            ax=axes, name=_legend(group.label), ref_line=False, color=own.colour,
            linestyle=own.stroke, marker="", linewidth=1.4,
        )  # fmt: skip
        sizes = 6 + 90 * found["images"] / found["images"].sum()
        axes.scatter(found["said"], found["came"], sizes, color=own.colour, alpha=0.8)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.1, linestyle=":", label="as said")
    _unit_square(figure, axes, "Probability that was said", "Share that came true", "upper left")
    two = len(section.classes) == 2
    event = f"of “{section.classes[0]}”" if two else "of the class that was named"
    return Picture(
        "calibration",
        "curves",
        "Calibration",
        f"The probability {event} in 10 equal-width bins, seeds pooled; larger dots, more images. "
        "Below the dotted line too much was said.",
        f"Calibration curves: how often the probability {event} came true.",
        figure,
    )


def _unit_square(figure: Figure, axes: Axes, x: str, y: str, corner: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_major_locator(MaxNLocator(5))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid()
    names = axes.get_legend_handles_labels()[1]
    if (own := axes.get_legend()) is not None:  # a display's
        own.remove()
    if len(names) <= 4 and max(map(len, names)) <= 24:
        axes.legend(loc=corner)
    else:
        figure.legend(loc="outside upper center", ncols=1)


# --- training ---


def _sizes(groups: Sequence[Group], look: dict[str, Look]) -> Iterator[Picture]:
    if not groups:
        return
    figure, axes = _panel(3.2)
    for group in groups:
        own = look[group.label]
        images = list(group.by_size)
        fits = group.by_size.values()
        losses = [[each.scores["validation"]["log_loss"] for each in same] for same in fits]
        axes.plot(images, [np.mean(each) for each in losses], marker=own.marker, markersize=4.5,
                  linestyle=own.stroke, color=own.colour, label=_legend(group.label))  # fmt: skip
        low, high = [min(each) for each in losses], [max(each) for each in losses]
        axes.fill_between(images, low, high, color=own.colour, alpha=0.18, linewidth=0)
    _log_axis(axes, LogLocator(subs=(1, 2, 5)))
    axes.grid(axis="y")
    axes.set(xlabel="Training images", ylabel="Validation log loss (nats)")
    figure.legend(loc="outside upper center")
    said = " ".join(map(content.size_said, groups))
    caption = f"{said} Nested parts of the training set; shaded, the seeds' range."
    alt = "Validation log loss over training images."
    yield Picture("sizes", "training", "Does more data help?", caption, alt, figure)


def _fitted(shown: Sequence[Group], look: dict[str, Look]) -> Iterator[Picture]:
    """Draw how the best group of each head learnt, where it noted that."""
    losses = {"epoch": ["loss", "val_loss"], "C": ["val_log_loss"]}
    best = {group.first.label: group for group in reversed(shown)}
    for label, group in reversed(best.items()):
        histories = [pd.DataFrame(each.history) for each in group.results]
        x = next((x for x, ys in losses.items() if all(
            len(each) > 1 and {x, *ys} <= set(each) for each in histories)), None)  # fmt: skip
        if x is None:
            continue
        figure, axes = _panel(2.9)
        colour, epochs = look[group.label].colour, x == "epoch"
        for i, history in enumerate(each.sort_values(x) for each in histories):
            held = history[losses[x][-1]].astype(float)
            names = [None] * 3 if i else ["training", "validation", "lowest, kept"]
            if epochs:
                axes.plot(
                    history[x], history["loss"], "--", color=colour, alpha=0.6, label=names[0]
                )
            axes.plot(history[x], held, color=colour, label=names[1])
            if held.notna().any():
                least = history.loc[[held.idxmin()]]
                axes.plot(least[x], least[losses[x][-1]], "o", color=colour, markersize=6,
                          markerfacecolor=SURFACE, label=names[2])  # fmt: skip
        if epochs:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        else:
            _log_axis(axes, LogLocator())
        axes.grid(axis="y")
        axes.set_xlabel("Epoch" if epochs else "C (larger: weaker regularisation)")
        axes.set_ylabel("Loss (nats, with L2)" if epochs else "Validation log loss (nats)")
        axes.legend()
        title = f"{'Learning curve' if epochs else 'Choice of C'}, {group.label}"
        said = f"What has the lowest validation loss is kept{'; a pair is a seed' * (i > 0)}."
        name = f"{'learning-curve' if epochs else 'regularisation'}-{_slug(label)}"
        yield Picture(name, "training", title, said, f"{title}: loss by {x}.", figure)


# --- faces ---


def _faces(section: Section, faces: FaceDataset) -> Iterator[Picture]:
    """Show faces of each class, and those that the chosen group's first fit is most wrong about.

    Faces are found by the digest of their pixels, so they may come from any copy of the source.
    """
    group = section.ranked[0]
    rows = rows_of(group.first, group.split).drop_duplicates("digest")
    place = {bytes(digest).hex(): i for i, digest in enumerate(faces.digest)}
    rows = rows.assign(place=rows["digest"].map(place)).dropna(subset="place")
    if rows.empty:
        raise RunError(
            f"{faces.name}: none of the {group.split} images, expected the source of the "
            "embeddings. Name it with --faces."
        )
    rows = rows.assign(place=rows["place"].astype(int), below="")
    k = len(section.classes)
    some = Figure(figsize=(WIDTH, 1.1 * k), layout="constrained")
    for name, line in zip(section.classes, some.subfigures(k, 1, squeeze=False).flat, strict=True):
        own = rows[rows["target"] == name]
        spaced = np.linspace(0, max(len(own) - 1, 0), A_CLASS).round().astype(int)
        line.suptitle(short(name, 50), x=0.01, ha="left", fontsize=9.5)
        _show(line.subplots(1, A_CLASS), own.iloc[np.unique(spaced)[: len(own)]], faces)
    said = f"{capital(group.split)} images, evenly spaced over the split."
    alt = f"Faces of the classes {', '.join(section.classes)}, {A_CLASS} of each at most."
    yield Picture("faces", "faces", "Some faces of each class", said, alt, some)
    rows["said"] = rows[[f"p_{name}" for name in section.classes]].max(axis=1)
    worst = rows[rows["target"] != rows["predicted"]].nlargest(MISTAKES, "said")
    if len(worst):
        lines = -(-len(worst) // 4)
        figure = Figure(figsize=(WIDTH, 0.2 + 1.45 * lines), layout="constrained")
        below = [f"{short(p, 14)}\n{s:.0%}" for p, s in worst[["predicted", "said"]].to_numpy()]
        _show(figure.subplots(lines, 4, squeeze=False).ravel(), worst.assign(below=below), faces)
        title = f"Most confident mistakes, {group.label}"
        said = "Over each face its label, below it the prediction and its probability. Some labels "
        alt = f"The {len(worst)} {group.split} faces that are wrong with the highest probability."
        yield Picture("mistakes", "faces", title, said + "are themselves doubtful.", alt, figure)


def _show(grid: Any, rows: pd.DataFrame, faces: FaceDataset) -> None:
    for axes in grid:
        axes.set_axis_off()
    for axes, (_, row) in zip(grid, rows.iterrows(), strict=False):
        pixels = faces.pixels[row["place"]]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(short(row["emotion"], 14), fontsize=8, pad=3)
        across = axes.transAxes
        axes.text(0.5, -0.05, row["below"], transform=across, ha="center", va="top", fontsize=8)


# --- small parts ---


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _signed(value: float) -> str:
    return f"{value:+.4g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _log_axis(axes: Axes, locator: LogLocator) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(lambda n, _: f"{n:,.4g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def short(name: str, longest: int) -> str:
    """Return a name on one line, cut to a number of characters."""
    flat = " ".join(name.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _legend(name: str) -> str:
    """Return a name for a legend, on two lines at most."""
    lines = textwrap.wrap(" ".join(name.split()), 44, max_lines=2, placeholder="…")
    # matplotlib leaves labels out of a legend that begin with an underscore.
    return " " * name.startswith("_") + "\n".join(lines)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40].rstrip("-") or "head"
