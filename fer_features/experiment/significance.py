"""Paired tests of heads, and what they come to in plain words.

Heads are compared only on the same test images, so that an easy draw favours none of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from fer_features.errors import RunError
from fer_features.experiment.bootstrap import (
    LEVEL,
    Interval,
    in_common_order,
    interval,
    resampled_means,
)
from fer_features.experiment.evaluation import Result


@dataclass(frozen=True)
class Pair:
    """Two groups of fits, each of one head under several seeds, on the same test images.

    Parameters
    ----------
    first, second : str
        Their names.
    difference : float
        Seed-mean accuracy of the first less that of the second, -1 to 1.
    interval : Interval
        Of the difference, resampling test images for both at once.
    only_first, only_second : int
        Test images that the first seed's fit of only the one or the other classified right.
    p : float
        Exact McNemar test on those two counts, two-sided.
    holm : float
        The same after Holm's correction over all pairs.
    """

    first: str
    second: str
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p: float
    holm: float

    @property
    def words(self) -> str:
        """Say in plain words what the interval and the test come to."""
        apart = not self.interval.low <= 0 <= self.interval.high
        unequal = self.holm < 1 - LEVEL
        if apart and unequal and (self.difference > 0) == (self.only_first > self.only_second):
            ahead, behind = (self.first, self.second)[:: 1 if self.difference > 0 else -1]
            return f"evidence that {ahead} is right more often than {behind}"
        if apart or unequal:
            return "no firm evidence that they differ, as interval and test disagree"
        return "no evidence that they differ"


def compare_pairs(groups: Mapping[str, Sequence[Result]], seed: int = 0) -> list[Pair]:
    """Compare every two groups of fits, each given in the order of its seeds.

    Raises
    ------
    RunError
        When two results were not tested on the same images.
    """
    tested = {result_digests(result) for results in groups.values() for result in results}
    if len(tested) > 1:
        raise RunError("pairs: runs with other test images, expected the same. Compare only those.")
    right = {name: np.array([_right(r) for r in results]) for name, results in groups.items()}
    pairs = list(combinations(groups, 2))
    apart = [right[one].mean(axis=0) - right[other].mean(axis=0) for one, other in pairs]
    found = []
    for (one, other), differences, values in zip(
        pairs, apart, resampled_means(apart, seed), strict=True
    ):
        only_first = int((right[one][0] & ~right[other][0]).sum())
        only_second = int((right[other][0] & ~right[one][0]).sum())
        p = mcnemar(only_first, only_second)
        around = interval(values)
        assert around is not None
        mean = float(differences.mean())
        found.append(Pair(one, other, mean, around, only_first, only_second, p, p))
    corrected = holm([pair.p for pair in found])
    return [replace(pair, holm=value) for pair, value in zip(found, corrected, strict=True)]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p of McNemar's test: is each as often right alone?"""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Return p values after Holm's step-down correction, in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in corrected]


def result_digests(result: Result) -> tuple[str, ...]:
    """Return the test images of a result as sorted digests, a copy as often as it occurs."""
    rows = result.predictions
    return tuple(sorted(rows.loc[rows["split"] == "test", "digest"]))


def _right(result: Result) -> npt.NDArray[np.bool_]:
    rows = in_common_order(result)
    return (rows["target"] == rows["predicted"]).to_numpy(dtype=bool)
