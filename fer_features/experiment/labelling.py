"""What labels and groups from elsewhere make of a store's rows, and what is said of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fer_features.errors import TaskError
from fer_features.faces.emotions import NONE
from fer_features.faces.folder import compiled
from fer_features.faces.labels import read_labels

if TYPE_CHECKING:
    from fer_features.embedding.store import Store


def labelled(
    store: "Store", labels: str, **options: Any
) -> tuple[npt.NDArray[np.int8], dict[str, Any]]:
    """Return each row's emotion by a file of labels, int8 (n,), and what is to be kept of it.

    ``options`` are those of :func:`~fer_features.faces.labels.read_labels`.
    """
    file = read_labels(labels, **options)
    joined = file.join(store.source, store.digest, store.usage, store.dataset)
    now, before = joined.emotion != NONE, store.emotion != NONE
    return joined.emotion, {
        "name": file.name,
        "sha256": file.sha256,
        "kind": file.kind,
        "column": file.column,
        **options,
        "labelled": int(now.sum()),
        "none": int((~now).sum()),
        "lost": int((before & ~now).sum()),
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
        raise TaskError(
            f"group_by: {pattern!r} does not match {len(without):,} of the task's "
            f"{int((label != NONE).sum()):,} rows, such as {str(source[without[0]])!r}; "
            "expected a match in each source, whose first group is the person or sequence. "
            'Mend it, such as group_by="^(.*)/".'
        )
    return np.array([(each and each[1]) or "" for each in found], dtype=np.str_)


def labels_said(labels: Mapping[str, Any], rows: int) -> str:
    """Say in one line what a file of labels did to the rows."""
    votes = "FER+ votes, " if labels["kind"] == "ferplus" else ""
    column = labels["column"]
    which = f"column {column}, " if column and column.casefold() != "emotion" else ""
    least = f", at least {labels['min_agreement']:.0%} agreeing" if labels["min_agreement"] else ""
    own = labels["changed"] + labels["lost"]
    doubt = (
        ". That is most of them: are the labels of this source?"
        if own * 2 > labels["labelled"]
        else ""
    )
    unmatched = f"; {labels['unmatched']:,} labels match no row" * bool(labels["unmatched"])
    return (
        f"Labels: {labels['name']} ({votes}{which}sha256 {labels['sha256'][:8]}{least}): "
        f"{labels['labelled']:,} of {rows:,} rows have an emotion, {labels['changed']:,} another "
        f"one than in the store; {labels['none']:,} have none, {labels['lost']:,} of which have "
        f"one in the store; {labels['changed_class']:,} change their class{unmatched}{doubt}"
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
