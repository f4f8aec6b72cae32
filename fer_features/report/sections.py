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

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_features.experiment.comparison_folder import network_said, parameter_said
from fer_features.experiment.raters import Raters, raters_of
from fer_features.experiment.result import Result
from fer_features.experiment.scores import SCORES, SMALLER_IS_BETTER
from fer_features.experiment.statistics import (
    LEVEL,
    Difference,
    Estimate,
    difference,
    estimate,
    holm,
)
from fer_features.faces.emotions import EMOTIONS

DECIDED = ("accuracy", "balanced_accuracy", "f1", "precision", "recall")
"""Scores of the answers alone, which raters can be given, too."""

AGREEMENT = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))
"""Shares of an image's votes for its commonest class: above the first, up to the second."""

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
        order = ["digest", "target", "source"]
        tables = [
            rows_of(each, split).sort_values(order, kind="stable", ignore_index=True)
            for each in results
        ]
        first = tables[0]
        return cls(
            first,
            np.array(first["target"].map(place), dtype=np.int64),
            np.array([t["predicted"].map(place) for t in tables], dtype=np.int64),
            np.array([t[[f"p_{name}" for name in classes]].to_numpy(np.float64) for t in tables]),
            _draws(first),
        )

    def only(self, kept: npt.NDArray[Any]) -> "Answers":
        """Return those of some of the images: a mask (n,), or positions that may repeat."""
        rows = self.rows.iloc[kept if kept.dtype != bool else np.flatnonzero(kept)]
        said, p = self.predicted[:, kept], self.p[:, kept]
        return Answers(rows.reset_index(drop=True), self.target[kept], said, p, self.draw[kept])

    def against(self, label: int) -> "Answers":
        """Return those of one class, then the first of two, against all others."""
        said, p = self.predicted != label, self.p[..., label]
        target = (self.target != label).astype(np.int64)
        return replace(
            self, target=target, predicted=said.astype(np.int64), p=np.stack([p, 1 - p], axis=-1)
        )

    def estimate(self, score: str, random: bool) -> Estimate:
        """Return a score of these answers with its interval."""
        said = self.predicted
        return estimate(self.target, self.p, score, random=random, groups=self.draw, predicted=said)

    def minus(self, other: "Answers", score: str, random: tuple[bool, bool]) -> Difference:
        """Return how much higher a score of these is than of others on the same images."""
        said = (self.predicted, other.predicted)
        p = (self.p, other.p)
        return difference(self.target, *p, score, random=random, groups=self.draw, predicted=said)


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

    @property
    def better(self) -> str | None:
        """Which of the two there is evidence for, None where there is none."""
        apart = self.difference
        if self.holm is None or apart.low <= 0 <= apart.high or self.holm >= 1 - LEVEL:
            return None
        return self.first if apart.value > 0 else self.second

    @property
    def words(self) -> str:
        """Say in plain words what the interval and p come to."""
        if self.holm is None:
            why = f"one seed of {' and of '.join(self.lucky)}" if self.lucky else "too few images"
            return f"no verdict: {why}"
        if self.better is not None:
            return f"evidence that {self.better} is better"
        apart = self.difference
        clear = not apart.low <= 0 <= apart.high
        return f"no evidence of a difference{', as one of so many pairs' * clear}"


@dataclass(frozen=True, eq=False)
class RatersSaid:
    """One rater's ``score`` and the heads', on the same votes, and how much these are ahead.

    ``errors`` are the heads' shares of wrong answers by how much an image's raters agree.
    """

    raters: Raters
    score: str
    rater: Estimate
    heads: dict[str, tuple[Estimate, Difference]]
    errors: dict[tuple[float, float], dict[str, Estimate]]


def wrong(right: Estimate) -> Estimate:
    """Return the share of wrong answers, of an accuracy."""
    return replace(right, value=1 - right.value, low=1 - right.high, high=1 - right.low)


@dataclass(frozen=True, eq=False)
class Group:
    """Fits of one head with one set of parameters on one split, in the order of their seeds.

    ``head`` is the label without the ``embedding``, which is empty where there is only one.
    ``sized`` are the same fitted to parts of the training set, in ascending order of size.
    ``split`` is what they are judged by: ``"test"``, or ``"validation"`` until that is scored.
    """

    head: str
    results: tuple[Result, ...]
    embedding: str = ""
    sized: tuple[Result, ...] = ()
    split: str = "test"

    @property
    def label(self) -> str:
        """The name that no other group has."""
        return f"{self.head} on {self.embedding}" if self.embedding else self.head

    @property
    def first(self) -> Result:
        """The fit with the first seed."""
        return self.results[0]

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
        """What it says of all images of its split."""
        return Answers.of(self.results, self.split)

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
        return after.minus(before, "log_loss", (self.random, self.random))


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
        return self.groups[0].first

    @property
    def split(self) -> str:
        """What its groups are judged by: ``"test"``, or ``"validation"`` until that is scored."""
        return self.groups[0].split

    @cached_property
    def several_seeds(self) -> bool:
        """Whether any group has more than one fit."""
        return any(len(group.results) > 1 for group in self.groups)

    @cached_property
    def kept(self) -> npt.NDArray[np.bool_] | None:
        """Which images no head may know from another split, in their common order.

        None where there is no leak, or nothing else.
        """
        tables = [group.answers.rows for group in self.groups]
        leaking = [(rows["leaked"] != "").to_numpy() for rows in tables if "leaked" in rows]
        kept = ~np.logical_or.reduce(leaking) if leaking else np.ones(1, dtype=bool)
        return kept if kept.any() and not kept.all() else None

    def answers(self, group: Group) -> Answers:
        """Return what a group says of the images that are judged by: those that do not leak."""
        return group.answers if self.kept is None else group.answers.only(self.kept)

    @cached_property
    def judged(self) -> pd.DataFrame:
        """The rows that are judged by."""
        return self.answers(self.groups[0]).rows

    @cached_property
    def counts(self) -> dict[str, int]:
        """The images of each class that are judged by."""
        found = self.judged["target"].value_counts()
        return {name: int(found.get(name, 0)) for name in self.classes}

    @cached_property
    def select(self) -> str:
        """The score that chose on validation: the comparison's, log loss where none is named."""
        fits = [result for group in self.groups for result in group.results]
        named = {result.selection["score"] for result in fits if result.selection}
        return str(named.pop()) if len(named) == 1 else "log_loss"

    @cached_property
    def score(self) -> str:
        """The score that the answer is given in.

        The one that chose, if it is a share, of which more is better; else accuracy, or balanced
        accuracy where the classes are of unequal size.
        """
        sizes = [n for n in self.counts.values() if n]
        if self.select not in SMALLER_IS_BETTER and len(sizes) == len(self.classes):
            return self.select
        return "balanced_accuracy" if max(sizes) > UNEQUAL * min(sizes) else "accuracy"

    @cached_property
    def scores(self) -> dict[str, dict[str, Estimate]]:
        """Each group's scores, by label, on the images that are judged by."""
        found = {}
        for group in self.groups:
            answers = self.answers(group)
            found[group.label] = {name: answers.estimate(name, group.random) for name in SCORES}
        return found

    def headline(self, group: Group) -> Estimate:
        """Return the score that the answer is given in."""
        return self.scores[group.label][self.score]

    def fits(self, group: Group, score: str = "") -> list[float]:
        """Return a score of each fit, that one where none is named."""
        answers = self.answers(group)
        each = zip(answers.predicted[:, None], answers.p[:, None], strict=True)
        alone = (replace(answers, predicted=said, p=p) for said, p in each)
        return [fit.estimate(score or self.score, group.random).value for fit in alone]

    @cached_property
    def chance(self) -> tuple[str, float]:
        """The class that scores highest if it is always named, and that score."""
        target = self.answers(self.groups[0]).target
        found = {}
        for i, name in enumerate(self.classes):
            p = np.zeros((1, len(target), len(self.classes)))
            p[..., i] = 1.0
            found[name] = estimate(target, p, self.score, random=False).value
        top = max(found, key=found.__getitem__)
        return top, found[top]

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
    def pairs(self) -> list[Pair]:
        """Every two groups compared, those that rank higher first."""
        found = []
        for one, other in combinations(self.ranked, 2):
            random = (one.random, other.random)
            apart = self.answers(one).minus(self.answers(other), self.score, random)
            lucky = tuple(group.label for group in (one, other) if group.lucky)
            found.append(Pair(one.label, other.label, apart, apart.p, lucky))
        corrected = holm([pair.difference.p for pair in found])
        return [replace(pair, holm=p) for pair, p in zip(found, corrected, strict=True)]

    @cached_property
    def against(self) -> dict[str, Pair]:
        """The best on validation, which comes first, with each other group, by that's label."""
        return {each.second: each for each in self.pairs if each.first == self.ranked[0].label}

    @cached_property
    def by_class(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """By label precision, recall and F1 of each class against the rest."""
        found = {}
        for group in self.groups:
            of = {name: self.answers(group).against(i) for i, name in enumerate(self.classes)}
            found[group.label] = {
                name: {s: own.estimate(s, group.random) for s in ("precision", "recall", "f1")}
                for name, own in of.items()
            }
        return found

    @cached_property
    def by_emotion(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By label and original emotion its class, images, recall, and the share of its images
        that is taken for each class."""
        emotions = self.judged["emotion"].to_numpy()
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for group in self.groups:
            found[group.label] = {}
            for emotion in (each for each in EMOTIONS if each in set(emotions)):
                own = self.answers(group).only(emotions == emotion)
                shares = [float((own.predicted == i).mean()) for i in range(len(self.classes))]
                found[group.label][emotion] = {
                    "class": self.classes[int(own.target[0])],
                    "images": len(own.target),
                    "recall": own.estimate("accuracy", group.random),
                    "taken_for": dict(zip(self.classes, shares, strict=True)),
                }
        return found

    def confusion(self, group: Group) -> npt.NDArray[np.float64]:
        """Return the images of each true class (rows) by predicted class, mean over the fits."""
        answers, k = self.answers(group), len(self.classes)
        counts = np.bincount((answers.target * k + answers.predicted).ravel(), minlength=k * k)
        return counts.reshape(k, k) / len(answers.predicted)

    @cached_property
    def raters(self) -> "RatersSaid | None":
        """What raters say of the images that are judged by, None where they have no votes."""
        found = raters_of(self.judged, self.first.task["classes"])
        if found is None or not len(found.row):
            return None
        score = self.score if self.score in DECIDED else "accuracy"
        lines = {
            group.label: replace(self.answers(group).only(found.row), target=found.target)
            for group in self.groups
        }
        first = next(iter(lines.values()))
        rater = replace(first, predicted=found.said[None], p=found.p)
        heads, errors = {}, {}
        for group in self.ranked:
            own = lines[group.label]
            apart = own.minus(rater, score, (group.random, False))
            heads[group.label] = (own.estimate(score, group.random), apart)
        for low, high in AGREEMENT:
            with np.errstate(invalid="ignore"):
                held = (found.agreement > low) & (found.agreement <= high)
            if held.sum() > 1:
                of = {g.label: (self.answers(g).only(held), g.random) for g in self.ranked}
                errors[low, high] = {
                    label: wrong(own.estimate("accuracy", random))
                    for label, (own, random) in of.items()
                }
        return RatersSaid(found, score, rater.estimate(score, False), heads, errors)

    @cached_property
    def settings(self) -> list[tuple[Group, bool]]:
        """Every setting that was tried, as a group, and whether it is one that is judged."""
        tried = [list(group.results) for group in self.groups]
        tried += _grouped(self.unselected).values()
        return [(group, i < len(self.groups)) for i, group in enumerate(_label(tried))]


def sections(results: Iterable[Result]) -> list[Section]:
    """Sort results into what may be compared; a fit given twice counts once."""
    results = list(results)
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


def distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the values that differ, in the order in which they first occur."""
    return list({key(value): value for value in values}.values())


def stores(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return the stores that fits are of, each once, whichever of its features they were given."""
    own = ("features", "dimension")
    return distinct(
        {name: value for name, value in result.store.items() if name not in own}
        for result in results
    )


def key(value: Any) -> str:
    """Return a text that equal values share, 1 and 1.0 among them."""
    return json.dumps(_as_floats(value), sort_keys=True)


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
        head = result.label + (f" ({', '.join(apart)})" if apart else "")
        where = embedding_said(result, every)
        taken = sum(
            (re.sub(r" #\d+$", "", group.head), group.embedding) == (head, where)
            for group in labelled
        )
        ordered = sorted(results, key=lambda each: (each.seed is not None, each.seed or 0))
        named = f"{head} #{taken + 1}" if taken else head
        labelled.append(Group(named, tuple(ordered), where, tuple(parts), split))
    return tuple(labelled)


def embedding_said(result: Result, among: Sequence[Result]) -> str:
    """Name a fit's network and features, each where it is not the same among some fits."""
    networks = {each.fingerprint: network_said(each.store) for each in among}
    name = networks[result.fingerprint]
    if list(networks.values()).count(name) > 1:
        name = f"{name} {result.fingerprint[:8]}"
    said = [name] * (len(networks) > 1)
    return " ".join(said + [result.features] * (len({each.features for each in among}) > 1))


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
    """Return what may differ in where the fits of two groups come from, embeddings aside."""
    split = result.split
    return {
        "split": f"{split.get('protocol')}",
        "split seed": f"{split.get('seed')}",
        "duplicates": f"{split.get('duplicates')}",
        "per class": f"{split.get('per_class')}",
        "labels": _labels(split.get("labels")),
        "groups": str(split["groups"]["by"] or "the source's") if "groups" in split else "none",
        "training images": f"{sum(split.get('sizes', {}).get('train', {}).values()):,}",
    }
