"""Bootstrap over test images: 1,000 resamples at once, and the intervals that they give.

It is about the luck of which images were drawn for the test; of the luck of the training it says
nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from fer_features.experiment.evaluation import Result
from fer_features.experiment.scoring import BINS, bin_of, confidence

RESAMPLES = 1000
"""Bootstrap resamples of the test images."""

LEVEL = 0.95
"""Coverage of the intervals; 1 - LEVEL is the level of the tests."""

_AT_ONCE = 1_000_000
"""Counts drawn at a time: bounds the memory to some tens of megabytes for any test set."""

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile-bootstrap interval."""

    low: float
    high: float


def resample_counts(n: int, seed: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each of n images is in each of 1,000 resamples, int64 (some, n) a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // max(n, 1))
    for start in range(0, RESAMPLES, step):
        several = min(step, RESAMPLES - start)
        drawn = rng.integers(0, n, (several, n)) + n * np.arange(several)[:, None]
        yield np.bincount(drawn.ravel(), minlength=several * n).reshape(several, n)


def resampled_scores(result: Result, seed: int = 0) -> dict[str, Float]:
    """Compute the test scores of 1,000 resamples of the test images.

    Parameters
    ----------
    result : Result
        With predictions of test rows.
    seed : int
        Decides the resamples: results on the same test images meet the same ones.

    Returns
    -------
    dict of str to float64 (1000,)
        The scores of :func:`fer_features.experiment.scoring.score` but for the confusion matrix;
        NaN where a resample lacks a class and a score needs it.
    """
    classes = list(result.classes)
    rows = in_common_order(result)
    truth = np.array([classes.index(name) for name in rows["target"]])
    p = rows[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    sums = _Sums(truth, p)
    parts = [
        sums.scores(counts.T.astype(np.float64, order="C"))
        for counts in resample_counts(len(p), seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Float) -> Interval | None:
    """Return the interval of resampled values, None when they are nearly all undefined."""
    known = values[np.isfinite(values)]
    if len(known) < len(values) / 2:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high))


def resampled_means(values: Sequence[Float], seed: int = 0) -> Float:
    """Return the mean of each of some float64 (n,) over 1,000 resamples: float64 (k, 1000)."""
    if not values:
        return np.empty((0, RESAMPLES))
    columns = np.column_stack(values)
    n = len(columns)
    return np.concatenate([counts @ columns / n for counts in resample_counts(n, seed)]).T


def emotion_errors(
    results: Sequence[Result], seed: int = 0
) -> dict[str, tuple[float, Interval | None]]:
    """Return for each original emotion the share of its test images that is classified wrong.

    Parameters
    ----------
    results : sequence of Result
        One head's fits, tested on the same images; the share is their mean.

    Returns
    -------
    dict of str to (float, Interval)
        By emotion, in the order in which they first occur.
    """
    tables = [in_common_order(result) for result in results]
    wrong = np.mean([(table["target"] != table["predicted"]) for table in tables], axis=0)
    emotion = tables[0]["emotion"].to_numpy()
    names = list(dict.fromkeys(emotion))
    members = np.column_stack([emotion == name for name in names]).astype(np.float64)
    counted = np.column_stack([members * wrong[:, None], members])
    sums = np.concatenate([counts @ counted for counts in resample_counts(len(wrong), seed)])
    with np.errstate(invalid="ignore"):
        shares = sums[:, : len(names)] / sums[:, len(names) :]
    return {
        name: (float(wrong[emotion == name].mean()), interval(shares[:, i]))
        for i, name in enumerate(names)
    }


def in_common_order(result: Result) -> pd.DataFrame:
    """Return the test rows in an order that all results on the same images share."""
    rows = result.predictions
    rows = rows[rows["split"] == "test"]
    return rows.sort_values(["digest", "source", "target"], kind="stable").reset_index(drop=True)


class _Sums:
    """What the scores of any weighting of some images are sums of, prepared once."""

    def __init__(self, truth: npt.NDArray[np.int64], p: Float) -> None:
        n, k = p.shape
        self.k = k
        predicted = p.argmax(axis=1)
        cells = np.zeros((n, k * k))
        cells[np.arange(n), truth * k + predicted] = 1.0
        tiny = np.finfo(np.float64).eps
        losses = -np.log(np.clip(p[np.arange(n), truth], tiny, 1 - tiny))
        one_hot = np.eye(k)[truth]
        errors = (p[:, 0] - one_hot[:, 0]) ** 2 if k == 2 else ((p - one_hot) ** 2).sum(axis=1)
        said, came = confidence(truth, p)
        gaps = np.zeros((n, BINS))
        gaps[np.arange(n), bin_of(said)] = said - came
        self.columns = np.column_stack([cells, losses, errors, gaps])
        self.rankings = [_Ranking(one_hot[:, c] > 0, p[:, c]) for c in range(1 if k == 2 else k)]

    def scores(self, counts: Float) -> dict[str, Float]:
        """Return the scores of resamples, each float64 (b,), from their counts (n, b)."""
        k, n = self.k, counts.sum(axis=0)
        sums = counts.T @ self.columns
        confusion = sums[:, : k * k].reshape(-1, k, k)
        hit = np.einsum("bii->bi", confusion)
        true, said = confusion.sum(axis=2), confusion.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(said > 0, hit / said, 0.0)
            recall = np.where(true > 0, hit / true, 0.0)
            f1 = np.where(true + said > 0, 2 * hit / (true + said), 0.0)
        ranked = np.array([ranking.areas(counts) for ranking in self.rankings])
        own = (lambda v: v[:, 0]) if k == 2 else (lambda v: v.mean(axis=1))
        return {
            "accuracy": hit.sum(axis=1) / n,
            "precision": own(precision),
            "recall": own(recall),
            "f1": own(f1),
            "roc_auc": ranked[:, 0].mean(axis=0),
            "average_precision": ranked[:, 1].mean(axis=0),
            "log_loss": sums[:, k * k] / n,
            "brier": sums[:, k * k + 1] / n,
            "ece": np.abs(sums[:, k * k + 2 :]).sum(axis=1) / n,
        }


class _Ranking:
    """Images ordered by a score, ties together: what ROC AUC and average precision need.

    Both areas are sums over the true images, so only their scores are steps of the ranking, the
    highest first; of the other images it takes only how many are on each step and between two.
    """

    def __init__(self, hits: npt.NDArray[np.bool_], score: Float) -> None:
        n, true = len(score), np.flatnonzero(hits)
        steps = np.unique(-score[true])
        # 2 i + 1 on step i, 2 i between it and the step above, the last below all steps
        place = np.searchsorted(steps, -score, "left") + np.searchsorted(steps, -score, "right")
        self.places = csr_array((np.ones(n), (place, np.arange(n))), shape=(2 * len(steps) + 1, n))
        self.gains = csr_array(
            (np.ones(len(true)), (place[true] // 2, true)), shape=(len(steps), n)
        )

    def areas(self, counts: Float) -> tuple[Float, Float]:
        """Return ROC AUC and average precision of resamples, (b,) each; NaN without a class."""
        said = np.cumsum(self.places @ counts, axis=0)
        above, all_said = said[:-1:2], said[1::2]
        gained = self.gains @ counts
        true = gained.sum(axis=0)
        false = said[-1] - true
        with np.errstate(invalid="ignore", divide="ignore"):
            # Mann and Whitney's count, by the ranks of the true images; ties share a middle rank
            under = true * (said[-1] - true / 2) - (gained * (above + all_said)).sum(axis=0) / 2
            roc_auc = under / (true * false)
            precise = np.cumsum(gained, axis=0) / np.maximum(all_said, 1)
            average = (gained * precise).sum(axis=0) / true
        return roc_auc, np.where(false > 0, average, np.nan)
