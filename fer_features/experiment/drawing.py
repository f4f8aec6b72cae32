"""The steps from a store's rows to three splits: label, group, drop duplicates, draw, split.

A table has one line a row of the store, indexed by row number, with the columns ``emotion`` and
``usage`` (ids as in a store), ``group`` (text, empty for none) and ``label``: the row's class as
its position among the task's class names, -1 outside the task. The draw, the shuffle and the
split of rows without groups are the original's pandas and scikit-learn calls, so that they give
its rows.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from fer_features.errors import TaskError
from fer_features.faces.emotions import EMOTIONS, NONE, USAGES
from fer_features.faces.folder import compiled
from fer_features.faces.joining import Joined
from fer_features.faces.labels import read_labels

if TYPE_CHECKING:
    from fer_features.embedding.store import Store

FOLDS = 5
"""Groups are dealt into five folds: one test, one validation, three training."""


class Rows(NamedTuple):
    """Row numbers of a store, int64, in the order in which the original's steps leave them."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def check_same_rows(first: "Store", other: "Store") -> None:
    """Check that two stores are of the same rows, in whichever order.

    Embeddings, and the form of the images, may differ; sources, emotions, usages and groups may
    not, nor the images where they are of one form.

    Raises
    ------
    TaskError
        They are not.
    """
    remedy = "Extract both from one source with the same options."
    sources = [each.source for each in (first, other)]
    for store, source in zip((first, other), sources, strict=True):
        if len(set(source.tolist())) < len(source):
            raise TaskError(
                f"{store.path}: several rows of one source, expected each once, as rows are "
                "matched by it. Name them apart, and extract again."
            )
    alone = set(sources[0].tolist()) ^ set(sources[1].tolist())
    if alone:
        raise TaskError(
            f"{other.path}: {len(other):,} rows, {first.path} has {len(first):,}, and "
            f"{len(alone):,} are in one of the two alone, such as {min(alone)!r}; expected the "
            f"same ones. {remedy}"
        )
    one, two = (np.argsort(source) for source in sources)
    parts = ["emotion", "usage", "group"]
    if first.backbone["image"] == other.backbone["image"]:
        parts.insert(0, "digest")
    for part in parts:
        unlike = getattr(first, part)[one] != getattr(other, part)[two]
        rows = np.flatnonzero(unlike.any(axis=1) if unlike.ndim == 2 else unlike)
        if len(rows):
            what = "image" if part == "digest" else part
            raise TaskError(
                f"{other.path}: another {what} than in {first.path} in {len(rows):,} of "
                f"{len(first):,} rows, such as {str(sources[0][one[rows[0]]])!r}; expected equal "
                f"ones. {remedy}"
            )


def places(store: "Store", source: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the rows of a store that have these sources, int64 (k,).

    Raises
    ------
    TaskError
        It lacks one.
    """
    row = {each: i for i, each in enumerate(store.source.tolist())}
    try:
        return np.array([row[each] for each in source.tolist()], dtype=np.int64)
    except KeyError as error:
        raise TaskError(
            f"{store.path}: no row of source {error}, expected those that were chosen of it. "
            "It was written anew: select the task's rows again."
        ) from None


def unknown_images(
    store: "Store", table: pd.DataFrame, known: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Return a store's rows that a head trained on other images can be tested on, and counts.

    One row an image of the task, none of whose copies disagree, and no image of the digests that
    are ``known``, uint8 (m, 32).
    """
    pool = one_copy_each(table, store.digest, by_usage=False)
    there = set(image_keys(known))
    rows = pool.index.to_numpy(dtype=np.int64)
    new = np.array([key not in there for key in image_keys(store.digest[rows])], dtype=np.bool_)
    copies = count_copies(table, store.digest)
    return rows[new], {
        "rows": len(store),
        "outside": len(store) - copies["rows"],
        "images": copies["images"],
        "disagreeing": copies["disagreeing"],
        "left_out": int((~new).sum()),
    }


def labels_of(store: "Store", labels: str, **options: Any) -> tuple[Joined, dict[str, Any]]:
    """Return what a file of labels says of each row, and what is to be kept of it.

    ``options`` are those of :func:`~fer_features.faces.labels.read_labels`.
    """
    file = read_labels(labels, **options)
    joined = file.join(store.source, store.digest, store.usage, store.dataset)
    now, before = joined.emotion != NONE, store.emotion != NONE
    return joined, {
        "name": file.name,
        "sha256": file.sha256,
        "kind": file.kind,
        "column": file.column,
        **options,
        "labelled": int(now.sum()),
        "none": int((~now).sum()),
        "lost": int((before & ~now).sum()),
        "both": int((before & now).sum()),
        "changed": int((before & now & (joined.emotion != store.emotion)).sum()),
        "unmatched": joined.unmatched,
    }


def groups_by(
    pattern: str, source: npt.NDArray[np.str_], label: npt.NDArray[np.int64]
) -> npt.NDArray[np.str_]:
    """Return what a pattern's first group finds in each source, str (n,).

    Raises
    ------
    TaskError
        It does not match a row of the task; a row of which ``label`` is -1 need not match.
    """
    found = [compiled(pattern).search(each) for each in source.tolist()]
    without = [i for i in np.flatnonzero(label != NONE) if found[i] is None]
    if without:
        of_task = source[label != NONE].tolist()
        raise TaskError(
            f"group_by: {pattern!r} does not match {len(without):,} of the task's "
            f"{len(of_task):,} rows, such as {str(source[without[0]])!r}; "
            "expected a match in each source, whose first group is the person or sequence. "
            f"{_remedy(of_task)}"
        )
    return np.array([(each and each[1]) or "" for each in found], dtype=np.str_)


def _remedy(sources: Sequence[str]) -> str:
    """Say what to do of a pattern that does not match these sources, by one that would."""
    if all(each.isdecimal() for each in sources):
        return (
            'These are row numbers, which name nobody: give the file a column "group" and extract '
            "it again, which computes nothing anew."
        )
    parts = ("^(.*)/", "^([^_]+)_", "^([^-]+)-")
    fit = [part for part in parts if all(re.search(part, each) for each in sources)]
    return f'Mend it, such as group_by="{fit[0]}".' if fit else "Mend it, or leave it out."


def labels_said(labels: Mapping[str, Any], rows: int) -> str:
    """Say in one line what a file of labels did to the rows."""
    votes = "FER+ votes, " if labels["kind"] == "ferplus" else ""
    column = labels["column"]
    which = f"column {column}, " if column and column.casefold() != "emotion" else ""
    least = f", at least {labels['min_agreement']:.0%} agreeing" if labels["min_agreement"] else ""
    doubt = (
        f". They differ in most of the {labels['both']:,} rows that have both: are they of this "
        "source?"
        if labels["changed"] * 2 > labels["both"]
        else ""
    )
    unmatched = f"; {labels['unmatched']:,} labels match no row" * bool(labels["unmatched"])
    return (
        f"Labels: {labels['name']} ({votes}{which}sha256 {labels['sha256'][:8]}{least}): "
        f"{labels['labelled']:,} of {rows:,} rows have an emotion by them, {labels['none']:,} "
        f"none. Against the store {labels['changed']:,} have another one and {labels['lost']:,} "
        f"have lost theirs; {labels['changed_class']:,} rows change class, join the task or leave "
        f"it{unmatched}{doubt}"
    )


def groups_said(groups: Mapping[str, Any]) -> str:
    """Say in one line which groups there are and what they cost."""
    by = "the store's own" if groups["by"] is None else f"by {groups['by']!r}"
    left_out = (
        f"; {groups['left_out']:,} images left out, as their group is in a later split too"
        if groups["left_out"]
        else ""
    )
    return f"Groups: {groups['count']:,}, {by}{left_out}"


def test_on_said(test_on: Mapping[str, Any], images: int, known: str) -> str:
    """Say in one line of which data set the test images are, and what is left out of it."""
    return (
        f"Test: {images:,} images of {test_on['dataset']}, none of which is in {known} "
        f"({test_on['left_out']:,} that are were left out). {test_on['outside']:,} of its "
        f"{test_on['rows']:,} rows are of no emotion of the task"
    )


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


def one_usage_each(pool: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without those whose group also occurs in a usage that goes before theirs.

    As of copies, those of test stay, then those of validation, then those of training.

    Raises
    ------
    TaskError
        If a usage is left without any.
    """
    grouped = pool[pool["group"] != ""]
    last = grouped.groupby("group")["usage"].transform("max")
    kept = pool.drop(index=grouped.index[grouped["usage"] != last])
    for usage in sorted(set(pool["usage"]) - set(kept["usage"])):
        raise TaskError(
            f"groups: no {USAGES[usage]} image is left of {int((pool['usage'] == usage).sum()):,}, "
            "as the group of each occurs in a later split too; expected persons or sequences of "
            'its own. Use split="random", which deals groups to splits, or duplicates="keep", '
            "which counts what leaks."
        )
    return kept


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
        raise TaskError(
            f"images: {_listed(pool, names)}; expected some of each class. Name classes of "
            'emotions that the data have, or take them all with classes="all".'
        )
    if per_class == "all":
        sizes = counts
    else:
        sizes = [smallest if per_class == "min" else int(per_class)] * len(names)
    if smallest < min(sizes):
        raise TaskError(
            f"images: {_listed(pool, names)}; expected {min(sizes)} of each class. "
            f'Use per_class="min", or a number up to {smallest}.'
        )
    drawn = [
        pool[pool["label"] == label].sample(n=size, random_state=seed)
        for label, size in enumerate(sizes)
    ]
    return pd.concat(drawn).sample(frac=1, random_state=seed)


def split_at_random(drawn: pd.DataFrame, names: Sequence[str], seed: int) -> Rows:
    """Split 60 % training, 20 % validation, 20 % test, stratified by class, no group in two."""
    if (drawn["group"] != "").any():
        first, second, *others = _folds(drawn, names, seed, splits=3)
        train = drawn[np.isin(np.arange(len(drawn)), np.concatenate(others))]
        return _rows((train, drawn.iloc[second], drawn.iloc[first]), names, _BY_GROUP)
    train, rest = _stratified(drawn, 0.40, names, seed)
    validation, test = _stratified(rest, 0.50, names, seed)
    return _rows((train, validation, test), names, "Give more images.")


def split_by_usage(drawn: pd.DataFrame, names: Sequence[str], seed: int) -> Rows:
    """Split by FER2013's usage; without PublicTest, 20 % of Training is validation."""
    train, validation, test = (drawn[drawn["usage"] == usage] for usage in range(len(USAGES)))
    remedy = 'Use split="random", or name classes that each usage has.'
    if validation.empty:
        for part, rows in (("train", train), ("test", test)):
            _check_classes(part, rows, names, remedy)
        if (train["group"] != "").any():
            first, *_ = _folds(train, names, seed, splits=2)
            held = np.isin(np.arange(len(train)), first)
            train, validation = train[~held], train[held]
            remedy = _BY_GROUP
        else:
            train, validation = _stratified(train, 0.20, names, seed)
    return _rows((train, validation, test), names, remedy)


def nested_order(y: npt.NDArray[np.str_], seed: int) -> npt.NDArray[np.int64]:
    """Return an order of rows, int64 (n,), whose every beginning has the classes' shares."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(y))
    for name in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == name))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def check_usages(usage: "pd.Series[Any]") -> None:
    """Raise TaskError unless the task's rows can be split by their usage."""
    counts = {name: int((usage == i).sum()) for i, name in enumerate(USAGES)}
    counts["none"] = int((usage == NONE).sum())
    training, public, private, none = counts.values()
    if training and private and not none:
        return
    found = ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)
    remedy = 'Use split="random".'
    if none == len(usage):
        found = f"none in any of the task's {none:,} rows"
    elif training and public and not private and not none:
        remedy = (
            'Use split="random", or make PublicTest the test split: call its folder or its Usage '
            "test, and a fifth of Training is validation."
        )
    elif not training and (public or private) and not none:
        remedy = 'Use split="random", which draws training images from those too.'
    raise TaskError(
        f'usage: {found}, expected Training and PrivateTest for split="usage" (PublicTest, for '
        f"validation, may be missing). {remedy}"
    )


def check_all_emotions(emotion: npt.NDArray[np.int8]) -> list[int]:
    """Return the ids of the emotions that occur, ascending; TaskError with fewer than two."""
    found = [int(each) for each in np.unique(emotion) if each != NONE]
    if len(found) < 2:
        raise TaskError(
            f"emotions: {EMOTIONS[found[0]]} alone, expected two or more for a class each. "
            "Take other labels, or another source."
        )
    return found


_BY_GROUP = (
    "Groups stay together: another split_seed may do; or give more images, or make the groups "
    "smaller with group_by."
)


def _folds(
    drawn: pd.DataFrame, names: Sequence[str], seed: int, splits: int
) -> list[npt.NDArray[np.int64]]:
    """Return five folds of positions, no group in two, those nearest to a fifth of all first."""
    alone = pd.Series([f"row {row}" for row in drawn.index], index=drawn.index)
    # Texts of two kinds, which no group's own name can make equal.
    group = ("group " + drawn["group"]).where(drawn["group"] != "", alone)
    total = group.nunique()
    by_class = group.groupby(drawn["label"]).nunique()
    lacking = [f"{by_class[i]} of {name}" for i, name in enumerate(names) if by_class[i] < splits]
    if total < FOLDS or lacking:
        found, expected = f"{total:,}", f"{FOLDS} or more"
        if total >= FOLDS:
            found, expected = f"{total:,}, {', '.join(lacking)}", f"{splits} or more of each class"
        other = 'split="usage"' if splits == 3 else 'split="random"'
        raise TaskError(
            f"groups: {found}; expected {expected}, as a group never crosses a split. Make them "
            f"smaller with group_by, or use {other}."
        )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of classes with fewer rows than folds; whether each split has some is checked.
        warnings.simplefilter("ignore", UserWarning)
        try:
            dealt = [held for _, held in folds.split(drawn, drawn["label"], group)]
        except ValueError:
            raise TaskError(
                f"images to split: {_listed(drawn, names)}; expected {FOLDS} or more of a class. "
                "Give more images."
            ) from None
    counts = np.array([_counts(drawn.iloc[fold], names) for fold in dealt])
    # A fold that one large group fills does best in training, and each class has to be in each.
    far = np.abs(counts - counts.sum(axis=0) / FOLDS).sum(axis=1) + 1e9 * (counts == 0).any(axis=1)
    return [dealt[i] for i in np.argsort(far, kind="stable")]


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
            "class. Give more images, or name classes without the rarest emotion."
        ) from None
    return kept, taken


def _rows(parts: Iterable[pd.DataFrame], names: Sequence[str], remedy: str) -> Rows:
    numbers = []
    for part_name, part in zip(Rows._fields, parts, strict=True):
        _check_classes(part_name, part, names, remedy)
        numbers.append(part.index.to_numpy(dtype=np.int64))
    return Rows(*numbers)


def _check_classes(name: str, part: pd.DataFrame, names: Sequence[str], remedy: str) -> None:
    if 0 in _counts(part, names):
        raise TaskError(
            f"{name} split: {_listed(part, names)}; expected some of each class. {remedy}"
        )


def _counts(table: pd.DataFrame, names: Sequence[str]) -> list[int]:
    return [int((table["label"] == label).sum()) for label in range(len(names))]


def _listed(table: pd.DataFrame, names: Sequence[str]) -> str:
    return ", ".join(f"{n} {name}" for n, name in zip(_counts(table, names), names, strict=True))
