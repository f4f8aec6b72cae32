"""Scores of one set of predictions: scikit-learn's metrics, computed in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

SCORES = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
)
"""The single-number scores of one split, in the order reports show them."""


def decide(probabilities: npt.NDArray[np.float64], classes: Sequence[str]) -> npt.NDArray[np.str_]:
    """Name the most probable class of each row: float64 (n, k) to str (n,).

    At a tie the class that comes first in `classes`, the task's order, is taken; with two
    classes that is the positive one at exactly 0.5.
    """
    return np.asarray(classes)[np.argmax(probabilities, axis=1)]


def score(
    target: Sequence[str], probabilities: npt.NDArray[np.float64], classes: Sequence[str]
) -> dict[str, Any]:
    """Compute scikit-learn's metrics of one set of predictions.

    Parameters
    ----------
    target : str (n,)
        True class names.
    probabilities : float64 (n, k)
        One column a class, in the order of `classes`; rows sum to 1.
    classes : str (k,)
        The task's classes, the positive one first.

    Returns
    -------
    dict
        ``accuracy``, ``precision``, ``recall``, ``f1``, ``roc_auc``, ``average_precision``
        (0 to 1, more is better), ``log_loss`` (nats) and ``brier`` (less is better), and
        ``confusion``, k lists of k counts: rows true, columns predicted, in the order of
        `classes`. The decision is :func:`decide`'s.

        With two classes precision, recall, F1, ROC AUC and average precision are the positive
        class's, and the Brier score is the mean squared error of its probability (0 to 1). With
        more they are macro averages, ROC AUC one-vs-rest, and the Brier score is scikit-learn's
        multi-class one, summed over the classes (0 to 2). Precision, recall and F1 are 0 where
        nothing was predicted or to be found; ROC AUC and average precision are None where a
        class has no row.
    """
    names = list(classes)
    truth = np.asarray([names.index(name) for name in target], dtype=np.int64)
    predicted = np.argmax(probabilities, axis=1)
    labels = np.arange(len(names))
    present = np.bincount(truth, minlength=len(names))
    values: dict[str, Any] = {"accuracy": metrics.accuracy_score(truth, predicted)}
    two = len(names) == 2
    averaging = {"pos_label": 0} if two else {"average": "macro", "labels": labels}
    for name in ("precision", "recall", "f1"):
        metric = getattr(metrics, f"{name}_score")
        values[name] = metric(truth, predicted, zero_division=0.0, **averaging)
    # The positive class, else each class against the rest: macro over those is one-vs-rest.
    hits = truth == 0 if two else truth[:, None] == labels
    ranked = probabilities[:, 0] if two else probabilities
    whole = bool(present.all())
    values["roc_auc"] = metrics.roc_auc_score(hits, ranked) if whole else None
    values["average_precision"] = metrics.average_precision_score(hits, ranked) if whole else None
    values["log_loss"] = metrics.log_loss(truth, probabilities, labels=labels)
    if two:
        values["brier"] = metrics.brier_score_loss(hits, ranked, pos_label=True)
    else:
        values["brier"] = metrics.brier_score_loss(truth, probabilities, labels=labels)
    values = {name: None if value is None else float(value) for name, value in values.items()}
    values["confusion"] = metrics.confusion_matrix(truth, predicted, labels=labels).tolist()
    return values
