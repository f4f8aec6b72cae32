"""Results sorted into what may be compared, and the intervals and tests of each such section.

Fits that differ in nothing but the seed are a group and are averaged; groups that were tested on
the same images under the same classes stand side by side in a section; nothing else is compared.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_features.experiment.comparison_folder import parameter_said
from fer_features.experiment.result import Result
from fer_features.experiment.scores import SCORES, SMALLER_IS_BETTER, by_emotion
from fer_features.experiment.statistics import (
    LEVEL,
    Difference,
    Estimate,
    difference,
    estimate,
    holm,
)

SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
"""What a sentence calls each score."""

UNEQUAL = 1.5
"""How many images of the largest class to one of the smallest make classes unequal."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the fits of a group say of the images of one split, in an order that groups share.

    ``target`` int (n,) and ``predicted`` int (fits, n) are positions in the task's classes, ``p``
    is float64 (fits, n, classes), and images of equal ``draw`` (n,) are one: copies of one image,
    or of one person or sequence.
    """

    rows: pd.DataFrame
    target: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    p: npt.NDArray[np.float64]
    draw: npt.NDArray[np.int64]

    @classmethod
    def of(cls, results: Sequence[Result], split: str) -> "Answers":
        """Gather them from the predictions of fits that are of the same images."""
        classes = results[0].classes
        place = {name: i for i, name in enumerate(classes)}
        tables = [_in_common_order(result, split) for result in results]
        first = tables[0]
        return cls(
            first,
            np.array(first["target"].map(place), dtype=np.int64),
            np.array([t["predicted"].map(place) for t in tables], dtype=np.int64),
            np.array([t[[f"p_{name}" for name in classes]].to_numpy(np.float64) for t in tables]),
            _draws(first),
        )

    def only(self, kept: npt.NDArray[np.bool_]) -> "Answers":
        """Return those of some of the images, (n,)."""
        rows = self.rows[kept].reset_index(drop=True)
        said, p = self.predicted[:, kept], self.p[:, kept]
        return Answers(rows, self.target[kept], said, p, self.draw[kept])

    def fit(self, i: int) -> "Answers":
        """Return those of one of the fits."""
        return replace(self, predicted=self.predicted[[i]], p=self.p[[i]])

    def estimate(self, score: str, random: bool) -> Estimate:
        """Return a score of these answers with its interval."""
        return estimate(
            self.target,
            self.p,
            score,
            random=random,
            groups=self.draw,
            predicted=self.predicted,
        )

    def less(self, other: "Answers", score: str, random: tuple[bool, bool]) -> Difference:
        """Return how much higher a score of these is than of others on the same images."""
        return difference(
            self.target,
            self.p,
            other.p,
            score,
            random=random,
            groups=self.draw,
            predicted=(self.predicted, other.predicted),
        )


@dataclass(frozen=True)
class Pair:
    """Two groups on the same images: how much higher the first scores.

    ``holm`` is the difference's p after Holm's correction over all pairs, None as that is where
    there is no verdict; ``lucky`` names those of the two whose seed matters and that have one.
    """

    first: str
    second: str
    difference: Difference
    holm: float | None
    lucky: tuple[str, ...] = ()
    score: str = "accuracy"

    @property
    def words(self) -> str:
        """Say in plain words what the interval and p come to."""
        if self.holm is None:
            why = f"one seed of {' and of '.join(self.lucky)}" if self.lucky else "too few images"
            return f"{why}: no verdict"
        if self.difference.low <= 0 <= self.difference.high:
            return "no evidence that they differ"
        if self.holm >= 1 - LEVEL:
            return "no evidence that they differ, as one of so many pairs"
        ahead, behind = (self.first, self.second)[:: 1 if self.difference.value > 0 else -1]
        if self.score == "accuracy":
            return f"evidence that {ahead} is right more often than {behind}"
        return f"evidence that {ahead} is better by {SCORE_NAMES[self.score]} than {behind}"


@dataclass(frozen=True, eq=False)
class Group:
    """Fits of one head with one set of parameters on one split, in the order of their seeds.

    ``sized`` are the same fitted to parts of the training set, in ascending order of size.
    ``split`` is what they are judged by: ``"test"``, or ``"validation"`` until that is scored.
    """

    label: str
    results: tuple[Result, ...]
    sized: tuple[Result, ...] = ()
    split: str = "test"

    @property
    def times(self) -> str:
        """How many fits are averaged, as "3 seeds"."""
        n = len(self.results)
        return f"{n} {'seeds' if len({result.seed for result in self.results}) == n else 'fits'}"

    def values(self, split: str, score: str) -> list[float]:
        """Return one score of each fit, those that could not be computed left out."""
        found = [result.scores.get(split, {}).get(score) for result in self.results]
        return [value for value in found if value is not None]

    def mean(self, split: str, score: str) -> float | None:
        """Return the mean of a score over the seeds, or None."""
        values = self.values(split, score)
        return float(np.mean(values)) if values else None

    @property
    def random(self) -> bool:
        """Whether a seed may change a fit of it."""
        return any(result.random for result in self.results)

    @property
    def lucky(self) -> bool:
        """Whether its seed matters and it has one: how much it matters is not known."""
        return self.random and len(self.results) == 1

    @cached_property
    def answers(self) -> Answers:
        """What it says of the images that it is judged by."""
        return Answers.of(self.results, self.split)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Each score on those, mean over the seeds, with its interval."""
        return {name: self.answers.estimate(name, self.random) for name in SCORES}

    def unleaked(self, score: str) -> Estimate | None:
        """Return a score on the images that do not leak, None where none or only such are there.

        Where it was not kept which they are, how sure the score is is not known.
        """
        scores = [result.scores[self.split].get("unleaked", {}) for result in self.results]
        values = [each.get(score) for each in scores]
        if None in values:
            return None
        rows = self.answers.rows
        if "leaked" in rows:
            return self.answers.only((rows["leaked"] == "").to_numpy()).estimate(score, self.random)
        images = int(np.sum(scores[0]["confusion"]))
        value = float(np.mean(values))
        return replace(self.estimates[score], value=value, low=np.nan, high=np.nan, images=images)

    @cached_property
    def errors(self) -> dict[str, Estimate]:
        """Each emotion's share of wrong answers, mean over the seeds, with its interval."""
        emotion = self.answers.rows["emotion"].to_numpy()
        found = {}
        for name in self.emotions[0]:
            right = self.answers.only(emotion == name).estimate("accuracy", self.random)
            wrong, low, high = 1 - right.value, 1 - right.high, 1 - right.low
            found[name] = replace(right, value=wrong, low=low, high=high)
        return found

    @cached_property
    def by_size(self) -> dict[int, list[Result]]:
        """The fits by number of training images, ascending."""
        found: dict[int, list[Result]] = {}
        for result in [*self.sized, *self.results]:
            found.setdefault(sum(result.split["sizes"]["train"].values()), []).append(result)
        return dict(sorted(found.items()))

    @cached_property
    def gain(self) -> Difference:
        """What the last step to more training images adds to the validation log loss."""
        fewer, more = list(self.by_size.values())[-2:]
        after, before = Answers.of(more, "validation"), Answers.of(fewer, "validation")
        return after.less(before, "log_loss", (self.random, self.random))

    @cached_property
    def emotions(self) -> list[dict[str, dict[str, Any]]]:
        """Each fit's scores by original emotion."""
        return [by_emotion(rows_of(each, self.split), each.classes) for each in self.results]


@dataclass(frozen=True, eq=False)
class Section:
    """Groups judged by the same images under the same classes: what may be compared.

    ``unselected`` are fits of the same comparison that were not scored on the test images.
    """

    classes: tuple[str, ...]
    groups: tuple[Group, ...]
    unselected: tuple[Result, ...] = ()

    @property
    def first(self) -> Result:
        """Return any one result: the classes, targets and images are common to all."""
        return self.groups[0].results[0]

    @property
    def split(self) -> str:
        """What its groups are judged by: ``"test"``, or ``"validation"`` until that is scored."""
        return self.groups[0].split

    @property
    def rows(self) -> pd.DataFrame:
        """Return the rows of that split, of the first result."""
        return rows_of(self.first, self.split)

    @cached_property
    def score(self) -> str:
        """The score that the answer is given in.

        The one that chose, if it is a share, of which more is better; else accuracy, or balanced
        accuracy where the classes are of unequal size.
        """
        counts = self.judged["target"].value_counts()
        if self.select not in SMALLER_IS_BETTER and len(counts) == len(self.classes):
            return self.select
        unequal = counts.max() > UNEQUAL * counts.min()
        return "balanced_accuracy" if unequal else "accuracy"

    @cached_property
    def chance(self) -> tuple[str, float]:
        """The class that scores highest if it is always named, and that score."""
        answers = self.answers(self.groups[0])
        found = {}
        for i, name in enumerate(self.classes):
            p = np.zeros((1, *answers.p.shape[1:]))
            p[..., i] = 1.0
            found[name] = estimate(answers.target, p, self.score, random=False).value
        top = max(found, key=found.__getitem__)
        return top, found[top]

    @cached_property
    def select(self) -> str:
        """The score that chose on validation: the comparison's, log loss where none is named."""
        fits = [result for group in self.groups for result in group.results]
        named = {result.selection["score"] for result in fits if result.selection}
        return str(named.pop()) if len(named) == 1 else "log_loss"

    @cached_property
    def ranked(self) -> list[Group]:
        """The groups by the mean on validation of the score that chose, the best first."""
        return sorted(self.groups, key=lambda group: choice(group, self.select))

    @cached_property
    def chosen(self) -> Group | None:
        """The group that validation chose, None where there is one, or two are level."""
        if len(self.groups) < 2:
            return None
        best, second = (choice(group, self.select) for group in self.ranked[:2])
        return self.ranked[0] if best < second else None

    @cached_property
    def kept(self) -> npt.NDArray[np.bool_] | None:
        """Which images no head may know from another split, in their common order.

        All, where that is not known of each; None where there is no leak, or nothing else.
        """
        kept = np.ones(len(self.rows), dtype=bool)
        for group in self.groups:
            rows = group.answers.rows
            if "leaked" in rows:
                kept &= (rows["leaked"] == "").to_numpy()
            elif group.unleaked("accuracy") is not None:
                return None
        return kept if kept.any() and not kept.all() else None

    @property
    def judged(self) -> pd.DataFrame:
        """The rows that the answer rests on: those that do not leak, where they are known."""
        return self.answers(self.groups[0]).rows

    def answers(self, group: Group) -> Answers:
        """Return what a group says of the images that are judged by."""
        return group.answers if self.kept is None else group.answers.only(self.kept)

    @cached_property
    def headlines(self) -> dict[str, Estimate]:
        """Each group's score on the images that are judged by, by label."""
        return {group.label: self._headline(group) for group in self.groups}

    def _headline(self, group: Group) -> Estimate:
        if self.kept is not None:
            return self.answers(group).estimate(self.score, group.random)
        return group.unleaked(self.score) or group.estimates[self.score]

    def fits(self, group: Group) -> list[float]:
        """Return each fit's score on the images that are judged by."""
        if self.kept is not None:
            answers = self.answers(group)
            each = map(answers.fit, range(len(group.results)))
            return [fit.estimate(self.score, group.random).value for fit in each]
        whole = [result.scores[self.split] for result in group.results]
        alone = [each.get("unleaked", {}).get(self.score) for each in whole]
        return [
            every[self.score] if one is None else one
            for one, every in zip(alone, whole, strict=True)
        ]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every two groups compared, those that rank higher first."""
        found = []
        for one, other in combinations(self.ranked, 2):
            random = (one.random, other.random)
            apart = self.answers(one).less(self.answers(other), self.score, random)
            lucky = tuple(group.label for group in (one, other) if group.lucky)
            found.append(Pair(one.label, other.label, apart, apart.p, lucky, self.score))
        corrected = holm([pair.difference.p for pair in found])
        return [replace(pair, holm=p) for pair, p in zip(found, corrected, strict=True)]

    @cached_property
    def settings(self) -> list[tuple[Group, bool]]:
        """Every setting that was tried, as a group, and whether it is one that is judged."""
        tried = [list(group.results) for group in self.groups]
        tried += _grouped(self.unselected).values()
        return [(group, i < len(self.groups)) for i, group in enumerate(_label(tried))]

    @property
    def several_seeds(self) -> bool:
        """Return whether any group has more than one fit."""
        return any(len(group.results) > 1 for group in self.groups)


class Sections(list[Section]):
    """Sections, and the results that they are of: while one holds them, they are made once."""

    def __init__(self, found: Iterable[Section], results: Sequence[Result]) -> None:
        super().__init__(found)
        self.results = results


_MADE: WeakValueDictionary[tuple[int, ...], Sections] = WeakValueDictionary()


def sections(results: Iterable[Result]) -> Sections:
    """Sort results into what may be compared; a fit given twice counts once.

    What is computed of them, intervals and tests, is computed once: of the same results the same
    sections come back for as long as somebody holds them.
    """
    results = list(results)
    named = tuple(map(id, results))
    found = _MADE.get(named)
    if found is None:
        found = _MADE[named] = Sections(_sections(results), results)
    return found


def _sections(results: Sequence[Result]) -> list[Section]:
    given = {key([_group_key(result), result.seed, result.scores]): result for result in results}
    split = judged_by(results)
    unlike: dict[str, list[Result]] = {}
    unjudged: list[Result] = []
    for result in given.values():
        if split not in result.scores or (split != "test" and "train_part" in result.split):
            unjudged.append(result)
            continue
        columns = ["digest", "emotion", "target"]
        rows = rows_of(result, split)[columns].sort_values(columns)
        # Pairs, for the order of the classes is part of the task.
        comparable = key([list(result.task["classes"].items()), rows.to_numpy().tolist()])
        unlike.setdefault(comparable, []).append(result)
    found = []
    for by in map(_grouped, unlike.values()):
        origins = {_origin(fits[0]) for fits in by.values()}
        own = [result for result in unjudged if _origin(result) in origins]
        sized = [
            sorted(
                (r for r in own if "train_part" in r.split and _setting(r) == _setting(fits[0])),
                key=lambda r: (r.split["train_part"], r.seed or 0),
            )
            for fits in by.values()
        ]
        classes = tuple(next(iter(by.values()))[0].task["classes"])
        whole = tuple(result for result in own if "train_part" not in result.split)
        found.append(Section(classes, _label(list(by.values()), sized, split), whole))
    return found


def judged_by(results: Iterable[Result]) -> str:
    """Return the split that results are judged by: test, or validation where none has that."""
    return "test" if any("test" in result.scores for result in results) else "validation"


def rows_of(result: Result, split: str) -> pd.DataFrame:
    """Return the predictions on the rows of a split, in its order."""
    rows = result.predictions
    return rows[rows["split"] == split].reset_index(drop=True)


def choice(group: Group, score: str) -> float:
    """Return a group's mean of a score on validation, turned so that less is better."""
    mean = group.mean("validation", score)
    if mean is None:
        return np.inf
    return mean if score in SMALLER_IS_BETTER else -mean


def settings_of(results: Iterable[Result]) -> dict[str, int]:
    """Count the settings of each head, sizes of the training set aside."""
    tried: dict[str, set[str]] = {}
    for result in results:
        if "train_part" not in result.split:
            tried.setdefault(result.label, set()).add(_group_key(result))
    return {head: len(settings) for head, settings in tried.items()}


def seed_said(result: Result) -> str:
    """Return ", seed N", or nothing of a fit without one."""
    return "" if result.seed is None else f", seed {result.seed}"


def value_said(value: Any) -> str:
    """Write a fact for a reader, without quotes or braces."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_said(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ",".join(map(value_said, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the values that differ, in the order in which they first occur."""
    return list({key(value): value for value in values}.values())


def stores(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return the stores that fits are of, each once, whichever of its features they were given."""
    return distinct(
        {name: value for name, value in result.store.items() if name != "features"}
        for result in results
    )


def key(value: Any) -> str:
    """Return a text that equal values share, 1 and 1.0 among them."""
    return json.dumps(_as_floats(value), sort_keys=True)


def _in_common_order(result: Result, split: str) -> pd.DataFrame:
    """Return the rows of a split in an order that all results on the same images share."""
    rows = rows_of(result, split)
    return rows.sort_values(["digest", "target", "source"], kind="stable").reset_index(drop=True)


def _draws(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number the draws that rows are of: copies of an image, and images of a group, are one."""
    image = np.unique(rows["digest"], return_inverse=True)[1].ravel()
    if "group" not in rows:
        return image.astype(np.int64)
    named = rows["group"].where(rows["group"] != "", rows["digest"])
    group = len(rows) + np.unique(named, return_inverse=True)[1].ravel()
    links = coo_array((np.ones(len(rows)), (image, group)), shape=(2 * len(rows),) * 2)
    return np.asarray(connected_components(links)[1][image], dtype=np.int64)


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_floats(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _group_key(result: Result) -> str:
    return key([result.label, result.params, result.split, result.fingerprint, result.features])


def _grouped(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Sort fits into those that differ in nothing but the seed."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(_group_key(result), []).append(result)
    return found


def _origin(result: Result) -> str:
    """Return what fits of one comparison share: classes, split, network and features."""
    split = {name: v for name, v in result.split.items() if name not in ("train_part", "sizes")}
    origin = [split, result.fingerprint, result.features]
    return key([list(result.task["classes"].items()), *origin])


def _setting(result: Result) -> str:
    return key([result.label, result.params, _origin(result)])


def _label(
    groups: list[list[Result]],
    sized: Sequence[list[Result]] | None = None,
    split: str = "test",
) -> tuple[Group, ...]:
    """Name each group by its head and by what sets it apart: no two have the same name."""
    every = [results[0] for results in groups]
    labelled: list[Group] = []
    for results, parts in zip(groups, sized or [[] for _ in groups], strict=True):
        result = results[0]
        rivals = [other for other in every if other.label == result.label]
        apart = [
            f"{name}={parameter_said(value)}"
            for name, value in result.params.items()
            if len({key(rival.params.get(name)) for rival in rivals}) > 1
        ]
        apart += [
            f"{name} {value}"
            for name, value in _origins(result).items()
            if len({_origins(other)[name] for other in every}) > 1
        ]
        label = result.label + (f" ({', '.join(apart)})" if apart else "")
        taken = sum(re.sub(r" #\d+$", "", group.label) == label for group in labelled)
        ordered = sorted(results, key=lambda each: (each.seed is not None, each.seed or 0))
        named = f"{label} #{taken + 1}" if taken else label
        labelled.append(Group(named, tuple(ordered), tuple(parts), split))
    return tuple(labelled)


def _labels(labels: dict[str, Any] | None) -> str:
    """Name the labels that a fit has: of one file, read in two ways, two names."""
    if labels is None:
        return "the store's"
    least = labels.get("min_agreement")
    options = [f"agreement {least:g}"] * bool(least)
    options += [f"{word}={meant}" for word, meant in labels.get("map", {}).items()]
    options += [labels["labels_as"]] * bool(labels.get("labels_as"))
    return " ".join([labels["name"], labels["sha256"][:8], *options])


def _origins(result: Result) -> dict[str, str]:
    """Return what may differ in where the fits of two groups come from."""
    split = result.split
    return {
        "backbone": result.fingerprint[:8],
        "features": result.features,
        "split": f"{split.get('protocol')}",
        "split seed": f"{split.get('seed')}",
        "duplicates": f"{split.get('duplicates')}",
        "per class": f"{split.get('per_class')}",
        "labels": _labels(split.get("labels")),
        "groups": str(split["groups"]["by"] or "the source's") if "groups" in split else "none",
        "training images": f"{sum(split.get('sizes', {}).get('train', {}).values()):,}",
    }
