"""The look of a report's figures, drawn once and shown in light and in dark.

Every colour is one of the palette's, so the dark variant of an SVG is the light one with its
colours exchanged. Figures are about 5 inches wide, legible at the width of a phone.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
    "axes.formatter.useoffset": False,
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


def panel(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of the house's width and of a height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def colour(i: int) -> str:
    """Return the colour of the i-th head."""
    return LINES[i % len(LINES)]


def short(name: str, longest: int) -> str:
    """Return a name on one line, cut to a number of characters."""
    flat = _flat(name)
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def legends(names: Sequence[str], width: int) -> list[str]:
    """Return names on two lines at most, numbered should any two be cut to the same."""
    cut = [
        "\n".join(textwrap.wrap(_flat(name), width, max_lines=2, placeholder="…")) for name in names
    ]
    if len(set(cut)) < len(cut):
        cut = [f"{i}. {name}" for i, name in enumerate(cut, 1)]
    return cut


def _flat(name: str) -> str:
    # matplotlib leaves labels out of a legend that begin with an underscore.
    flat = " ".join(name.split())
    return f" {flat}" if flat.startswith("_") else flat
