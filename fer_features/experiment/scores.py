"""Scores of one set of predictions: scikit-learn's metrics, computed in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn import metrics

from fer_features.experiment.run_document import SCORES as SCORES
from fer_features.experiment.run_document import TEMPERATURES

SMALLER_IS_BETTER = ("log_loss", "brier", "ece")
"""The scores of which less is better; of all others more is."""

BINS = 10
"""Equal-width bins of the calibration curve and of its error."""


def decide(probabilities: npt.NDArray[np.float64], classes: Sequence[str]) -> npt.NDArray[np.str_]:
    """Name the most probable class of each row: float64 (n, k) to str (n,).

    At a tie the class that comes first in `classes`, the task's order, is taken; with two
    classes that is the positive one at exactly 0.5.
    """
    names: npt.NDArray[np.str_] = np.asarray(classes)[np.argmax(probabilities, axis=1)]
    return names


def temperature(
    target: Sequence[str], probabilities: npt.NDArray[np.float64], classes: Sequence[str]
) -> float:
    """Return by what to divide log probabilities, so that they are as sure as they are right.

    It minimises the log loss of these predictions, within :data:`TEMPERATURES`; above 1 the
    probabilities were too sure. Guo et al., "On calibration of modern neural networks", 2017.

    Parameters
    ----------
    target : str (n,)
        True class names, of images that were not trained on.
    probabilities : float64 (n, k)
        One column a class, in the order of `classes`.
    """
    codes = pd.Index(classes).get_indexer(pd.Index(target))
    log_p = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))

    def loss(log_temperature: float) -> float:
        divided = log_softmax(log_p / np.exp(log_temperature), axis=1)
        return -float(divided[np.arange(len(codes)), codes].mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return round(float(np.exp(found.x)), 4)


def score(
    target: Sequence[str],
    probabilities: npt.NDArray[np.float64],
    classes: Sequence[str],
    predicted: Sequence[str] | None = None,
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
    predicted : str (n,), optional
        What the classifier itself answers; :func:`decide`'s answers if it is not given.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` (the mean of the recalls of the classes that have
        images), ``precision``, ``recall``, ``f1``, ``roc_auc``, ``average_precision`` (0 to 1,
        more is better), ``log_loss`` (nats), ``brier`` and ``ece``, the expected calibration
        error of :func:`calibration` (0 to 1; of these less is better); ``confusion``, k lists of
        k counts: rows true, columns predicted, in the order of `classes`; and ``per_class``:
        each class against the rest, its ``images``, ``precision``, ``recall``, ``f1``,
        ``roc_auc`` and ``average_precision``.

        With two classes precision, recall, F1, ROC AUC and average precision are the positive
        class's, and the Brier score is the mean squared error of its probability (0 to 1). With
        more they are macro averages, ROC AUC one-vs-rest, and the Brier score is scikit-learn's
        multi-class one, summed over the classes (0 to 2). Precision, recall and F1 are 0 where
        nothing was predicted or to be found; ROC AUC and average precision are None where a
        class has no row. Without any row every score is None.
    """
    names = list(classes)
    position = {name: i for i, name in enumerate(names)}
    truth = np.array([position[name] for name in target], dtype=np.int64)
    said = np.argmax(probabilities, axis=1)
    if predicted is not None:
        said = np.array([position[name] for name in predicted], dtype=np.int64)
    labels = np.arange(len(names))
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (truth, said), 1)
    per_class = _per_class(truth, said, probabilities, names)
    counts = {"confusion": confusion.tolist(), "per_class": per_class}
    if not len(truth):
        return dict.fromkeys(SCORES) | counts
    values: dict[str, Any] = {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.recall_score(
            truth, said, labels=np.unique(truth), average="macro", zero_division=0.0
        ),
    }
    two = len(names) == 2
    averaging = {"pos_label": 0} if two else {"average": "macro", "labels": labels}
    for name in ("precision", "recall", "f1"):
        metric = getattr(metrics, f"{name}_score")
        values[name] = metric(truth, said, zero_division=0.0, **averaging)
    for name in ("roc_auc", "average_precision"):
        # The positive class's, else each class's against the rest: macro is one-vs-rest.
        each = [per_class[known][name] for known in (names[:1] if two else names)]
        values[name] = None if None in each else np.mean(each)
    values["log_loss"] = metrics.log_loss(truth, probabilities, labels=labels)
    if two:
        values["brier"] = metrics.brier_score_loss(truth == 0, probabilities[:, 0], pos_label=True)
    else:
        values["brier"] = metrics.brier_score_loss(truth, probabilities, labels=labels)
    values["ece"] = calibration(truth, probabilities)["ece"]
    values = {name: None if value is None else float(value) for name, value in values.items()}
    return values | counts


def _per_class(
    truth: npt.NDArray[np.int64],
    said: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Score each class against the rest."""
    found = {}
    for i, name in enumerate(names):
        own = truth == i
        hits = int((own & (said == i)).sum())
        told = _told_apart(own, said == i, probabilities[:, i])
        recall = hits / max(int(own.sum()), 1)
        found[name] = {"images": int(own.sum()), "recall": recall, **told}
    return found


def confidence(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the probability whose calibration is judged, and whether its event came true.

    With two classes that is the positive class's, with more the most probable class's.
    `truth` is int64 (n,), positions in the task's classes; `probabilities` float64 (n, k).
    """
    if probabilities.shape[1] == 2:
        return probabilities[:, 0], truth == 0
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == truth


def bin_of(said: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the equal-width bin, 0 to 9, of probabilities; 1.0 is in the last."""
    return np.minimum((said * BINS).astype(np.int64), BINS - 1)


def calibration(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Compute the calibration curve and its error over 10 equal-width bins.

    Parameters
    ----------
    truth : int64 (n,)
        Positions in the task's classes.
    probabilities : float64 (n, k)

    Returns
    -------
    dict
        For the bins that hold images ``said``, the mean probability, ``came``, the share of the
        images where its event came true, and ``images``; and ``ece``, the mean distance between
        the two, weighted by images (Guo et al., On Calibration of Modern Neural Networks, 2017).
    """
    said, came = confidence(truth, probabilities)
    bins = bin_of(said)
    images = np.bincount(bins, minlength=BINS)
    held = images > 0
    mean_said = np.bincount(bins, weights=said, minlength=BINS)[held] / images[held]
    mean_came = np.bincount(bins, weights=came, minlength=BINS)[held] / images[held]
    ece = (np.abs(mean_said - mean_came) * images[held]).sum() / max(len(said), 1)
    return {"said": mean_said, "came": mean_came, "images": images[held], "ece": float(ece)}


def _told_apart(
    truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]
) -> dict[str, float | None]:
    """Score one class against the rest."""
    hits = int((truth & said).sum())
    both = bool(truth.any() and not truth.all())
    return {
        "precision": hits / max(int(said.sum()), 1),
        "f1": 2 * hits / max(int(truth.sum() + said.sum()), 1),
        "roc_auc": float(metrics.roc_auc_score(truth, score)) if both else None,
        "average_precision": float(metrics.average_precision_score(truth, score)) if both else None,
    }
