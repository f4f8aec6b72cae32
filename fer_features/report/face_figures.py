"""Faces of the images that are judged by: some of each class, and the most confident mistakes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_features.errors import RunError
from fer_features.faces.dataset import FaceDataset
from fer_features.report import summary
from fer_features.report.style import WIDTH, short, style
from fer_features.report.summary import Group
from fer_features.report.tables import Table

A_CLASS = 6
"""Faces shown of each class."""

MISTAKES = 12
"""Most confident mistakes shown."""


class Drawn(NamedTuple):
    """A figure before it is rendered; `stem` is its file's name without suffix."""

    stem: str
    title: str
    caption: str
    alt: str
    figure: Figure
    table: Table | None = None


def face_figures(group: Group, classes: Sequence[str], faces: FaceDataset) -> Iterator[Drawn]:
    """Draw faces of each class, and those that the group's first fit is most wrong about.

    Faces are found by the digest of their pixels, so they may come from any copy of the source.

    Raises
    ------
    RunError
        When none of the images that it is judged by is among the faces.
    """
    result = group.results[0]
    rows = summary.rows_of(result, group.split).drop_duplicates("digest")
    place = {bytes(digest).hex(): i for i, digest in enumerate(faces.digest)}
    rows = rows.assign(place=rows["digest"].map(place)).dropna(subset="place")
    if rows.empty:
        raise RunError(
            f"{faces.name}: none of the {group.split} images, expected the source of the "
            "embeddings. Name it with --faces."
        )
    rows = rows.assign(place=rows["place"].astype(int))
    some = [_spaced(rows[rows["target"] == name], A_CLASS) for name in classes]
    yield Drawn(
        "faces",
        "Some faces of each class",
        f"{group.split.capitalize()} images, evenly spaced over the split.",
        f"Faces of the classes {', '.join(classes)}, {A_CLASS} of each at most.",
        _by_class(some, classes, faces.pixels),
    )
    wrong = rows[rows["target"] != rows["predicted"]]
    said = wrong[[f"p_{name}" for name in classes]].max(axis=1)
    worst = wrong.assign(said=said).sort_values("said", ascending=False).head(MISTAKES)
    if len(worst):
        yield Drawn(
            "mistakes",
            f"Most confident mistakes, {group.label}{summary.seed_said(result)}",
            "Over each face its label, below it the prediction and its probability. Some labels "
            "are themselves doubtful.",
            f"The {len(worst)} {group.split} faces that were classified wrong with the highest "
            "probability.",
            _mistakes(worst, faces.pixels),
        )


def _by_class(
    some: Sequence[pd.DataFrame], classes: Sequence[str], pixels: npt.NDArray[np.uint8]
) -> Figure:
    with style():
        figure = Figure(figsize=(WIDTH, 1.4 * len(classes)), layout="constrained")
        lines = figure.subfigures(len(classes), 1, squeeze=False).ravel()
        for name, rows, line in zip(classes, some, lines, strict=True):
            line.suptitle(short(name, 50), x=0.01, ha="left", fontsize=11)
            for axes in (grid := line.subplots(1, A_CLASS)):
                axes.set_axis_off()
            for axes, place, emotion in zip(grid, rows["place"], rows["emotion"], strict=False):
                _show(axes, pixels[place])
                axes.set_title(emotion, fontsize=9.5, pad=3)
    return figure


def _mistakes(rows: pd.DataFrame, pixels: npt.NDArray[np.uint8]) -> Figure:
    columns = 4
    lines = -(-len(rows) // columns)
    with style():
        figure = Figure(figsize=(WIDTH, 0.2 + 1.75 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, (_, row) in zip(grid, rows.iterrows(), strict=False):
            _show(axes, pixels[row["place"]])
            axes.set_title(short(row["emotion"], 14), fontsize=9.5, pad=3)
            said = f"{short(row['predicted'], 14)}\n{row['said']:.1%}"
            axes.text(0.5, -0.05, said, transform=axes.transAxes, ha="center", va="top", size=9.5)
    return figure


def _show(axes: Axes, face: npt.NDArray[np.uint8]) -> None:
    axes.imshow(face, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _spaced(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    spaced = np.linspace(0, max(len(rows) - 1, 0), n).round().astype(int)
    return rows.iloc[np.unique(spaced)[: len(rows)]]
