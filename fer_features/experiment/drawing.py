"""The steps from a table of rows to three splits: drop duplicates, draw, shuffle, split.

A table has one line a row of the store, indexed by row number, with the columns ``emotion`` and
``usage`` (ids as in a store) and ``label``: the row's class as its position among the task's
class names, -1 outside the task. The draw, the shuffle and the split are the original's pandas and
scikit-learn calls, so that they give its rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from fer_features.errors import TaskError
from fer_features.faces.emotions import NONE, USAGES


class Rows(NamedTuple):
    """Row numbers of a store, int64, in the order in which the original's steps leave them."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def image_keys(digest: npt.NDArray[np.uint8]) -> list[bytes]:
    """Return each row's digest, uint8 (n, 32), as bytes that can be compared and hashed."""
    return [row.tobytes() for row in digest]


def one_copy_each(
    table: pd.DataFrame, digest: npt.NDArray[np.uint8], by_usage: bool
) -> pd.DataFrame:
    """Return the task's rows without images of disagreeing copies, and one copy of each other.

    Copies disagree when they fall into more than one of {each class, outside the task}. A row
    without an emotion says nothing of its class, so it contradicts no copy. The first copy stays,
    or, with ``by_usage``, the first of test, then of validation, then of training.
    """
    labelled = table["emotion"] != NONE
    labelled_rows = table[labelled].assign(image=image_keys(digest[labelled.to_numpy()]))
    agree = labelled_rows.groupby("image")["label"].transform("nunique") == 1
    pool = labelled_rows[agree & (labelled_rows["label"] != NONE)]
    if by_usage:
        pool = pool.sort_values("usage", ascending=False, kind="stable")
    return pool.drop_duplicates("image").sort_index()


def count_copies(table: pd.DataFrame, digest: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Count the task's rows, their distinct images, and the images whose copies disagree.

    Copies disagree as in :func:`one_copy_each`; the rows counted are those with one of the task's
    emotions, before any is dropped or drawn.
    """
    labelled = table[table["emotion"] != NONE]
    labelled = labelled.assign(image=image_keys(digest[labelled.index.to_numpy()]))
    classes = labelled.groupby("image")["label"].agg(["nunique", "max"])
    of_task = classes[classes["max"] != NONE]
    return {
        "rows": int((labelled["label"] != NONE).sum()),
        "images": len(of_task),
        "disagreeing": int((of_task["nunique"] > 1).sum()),
    }


def draw(pool: pd.DataFrame, names: Sequence[str], per_class: int | str, seed: int) -> pd.DataFrame:
    """Draw ``per_class`` rows of each class, in the classes' order, then shuffle them all.

    Raises
    ------
    TaskError
        If a class has fewer rows than ``per_class``, or none.
    """
    counts = _counts(pool, names)
    smallest = min(counts)
    if smallest == 0:
        raise TaskError(f"images: {_listed(pool, names)}; expected some of each class.")
    if per_class == "all":
        sizes = counts
    else:
        sizes = [smallest if per_class == "min" else int(per_class)] * len(names)
    if smallest < min(sizes):
        raise TaskError(
            f"images: {_listed(pool, names)}; expected {min(sizes)} of each class. "
            f"Pass --per-class min, or a number up to {smallest}."
        )
    drawn = [
        pool[pool["label"] == label].sample(n=size, random_state=seed)
        for label, size in enumerate(sizes)
    ]
    return pd.concat(drawn).sample(frac=1, random_state=seed)


def split_at_random(drawn: pd.DataFrame, names: Sequence[str], seed: int) -> Rows:
    """Split 60 % training, 20 % validation, 20 % test, stratified by class."""
    train, rest = _stratified(drawn, 0.40, names, seed)
    validation, test = _stratified(rest, 0.50, names, seed)
    return _rows((train, validation, test), names)


def split_by_usage(drawn: pd.DataFrame, names: Sequence[str], seed: int) -> Rows:
    """Split by FER2013's usage; without PublicTest, 20 % of Training is validation."""
    train, validation, test = (drawn[drawn["usage"] == usage] for usage in range(len(USAGES)))
    if validation.empty:
        train, validation = _stratified(train, 0.20, names, seed)
    return _rows((train, validation, test), names)


def check_usages(usage: "pd.Series[Any]") -> None:
    """Raise TaskError unless the task's rows can be split by their usage."""
    missing = int((usage == NONE).sum())
    if 0 < missing < len(usage):
        raise TaskError(
            f"usage: none in {missing} of the task's {len(usage)} rows, expected "
            f"{', '.join(USAGES)}. Pass --split random."
        )
    for name in ("Training", "PrivateTest"):
        if not (usage == USAGES.index(name)).any():
            raise TaskError(
                f"usage: no row of the task is {name}, expected some for --split usage. "
                "Pass --split random."
            )


def _stratified(
    table: pd.DataFrame, test_size: float, names: Sequence[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    # The original's labels are 1 for positive and 0 for negative, and which rows are drawn depends
    # on the labels' order: so the first class gets the highest.
    labels = len(names) - 1 - table["label"]
    try:
        kept, taken = train_test_split(
            table, test_size=test_size, stratify=labels, random_state=seed
        )
    except ValueError:
        raise TaskError(
            f"images to split: {_listed(table, names)}; too few for {test_size:.0%} of each "
            "class. Give more images."
        ) from None
    return kept, taken


def _rows(parts: Sequence[pd.DataFrame], names: Sequence[str]) -> Rows:
    for part_name, part in zip(Rows._fields, parts, strict=True):
        if 0 in _counts(part, names):
            raise TaskError(
                f"{part_name} split: {_listed(part, names)}; expected some of each class. "
                "Give more images, or pass another --split."
            )
    return Rows(*(part.index.to_numpy(dtype=np.int64) for part in parts))


def _counts(table: pd.DataFrame, names: Sequence[str]) -> list[int]:
    return [int((table["label"] == label).sum()) for label in range(len(names))]


def _listed(table: pd.DataFrame, names: Sequence[str]) -> str:
    return ", ".join(f"{n} {name}" for n, name in zip(_counts(table, names), names, strict=True))
