"""Results sorted into what may be compared, and the intervals and tests of each such section.

Fits that differ in nothing but the seed are a group and are averaged; groups that were tested on
the same images under the same classes stand side by side in a section; nothing else is compared.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fer_features.experiment.bootstrap import Interval, emotion_errors, interval, resampled_scores
from fer_features.experiment.evaluation import Result
from fer_features.experiment.scoring import by_emotion
from fer_features.experiment.significance import Pair, compare_pairs


@dataclass(frozen=True, eq=False)
class Group:
    """Fits of one head with one set of parameters on one split, in the order of their seeds.

    ``sized`` are the same fitted to parts of the training set, in ascending order of size.
    """

    label: str
    results: tuple[Result, ...]
    sized: tuple[Result, ...] = ()

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

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """The interval of each test score's mean over the seeds."""
        fits = [resampled_scores(result) for result in self.results]
        return {name: interval(np.mean([fit[name] for fit in fits], axis=0)) for name in fits[0]}

    @cached_property
    def errors(self) -> dict[str, tuple[float, Interval | None]]:
        """Each emotion's share of wrong answers, mean over the seeds, with its interval."""
        return emotion_errors(self.results)

    @cached_property
    def emotions(self) -> list[dict[str, dict[str, Any]]]:
        """Each fit's test scores by original emotion."""
        return [by_emotion(test_rows(result), result.classes) for result in self.results]


@dataclass(frozen=True, eq=False)
class Section:
    """Groups tested on the same images under the same classes: what may be compared.

    ``unselected`` are fits of the same comparison that were not scored on the test images.
    """

    classes: tuple[str, ...]
    groups: tuple[Group, ...]
    unselected: tuple[Result, ...] = ()

    @property
    def first(self) -> Result:
        """Return any one result: the classes, targets and test images are common to all."""
        return self.groups[0].results[0]

    @property
    def test(self) -> pd.DataFrame:
        """Return the test rows of the first result."""
        return test_rows(self.first)

    @property
    def chance(self) -> tuple[str, float]:
        """Return the test set's most common class and its share of the images."""
        counts = self.test["target"].value_counts()
        top = max(self.classes, key=lambda name: counts.get(name, 0))
        return top, float(counts.get(top, 0) / max(len(self.test), 1))

    @cached_property
    def ranked(self) -> list[Group]:
        """The groups by mean validation log loss, the best first."""

        def loss(group: Group) -> float:
            mean = group.mean("validation", "log_loss")
            return np.inf if mean is None else mean

        return sorted(self.groups, key=loss)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every two groups compared, those that rank higher first."""
        return compare_pairs({group.label: group.results for group in self.ranked})

    @cached_property
    def settings(self) -> list[tuple[Group, bool]]:
        """Every setting that was tried, as a group, and whether it was scored on test."""
        tried = [list(group.results) for group in self.groups]
        tried += _grouped(self.unselected).values()
        return [(group, "test" in group.results[0].scores) for group in _label(tried)]

    @property
    def several_seeds(self) -> bool:
        """Return whether any group has more than one fit."""
        return any(len(group.results) > 1 for group in self.groups)


def sections(results: Iterable[Result]) -> list[Section]:
    """Sort results into what may be compared; a fit given twice counts once."""
    given = {key([_group_key(result), result.seed, result.scores]): result for result in results}
    unlike: dict[str, list[Result]] = {}
    untested: list[Result] = []
    for result in given.values():
        if "test" not in result.scores:
            untested.append(result)
            continue
        rows = test_rows(result)[["digest", "emotion", "target"]].sort_values("digest")
        # Pairs, for the order of the classes is part of the task.
        comparable = key([list(result.task["classes"].items()), rows.to_numpy().tolist()])
        unlike.setdefault(comparable, []).append(result)
    found = []
    for by in map(_grouped, unlike.values()):
        origins = {_origin(fits[0]) for fits in by.values()}
        own = [result for result in untested if _origin(result) in origins]
        sized = [
            sorted(
                (r for r in own if "train_part" in r.split and _setting(r) == _setting(fits[0])),
                key=lambda r: (r.split["train_part"], r.seed or 0),
            )
            for fits in by.values()
        ]
        classes = tuple(next(iter(by.values()))[0].task["classes"])
        whole = tuple(result for result in own if "train_part" not in result.split)
        found.append(Section(classes, _label(list(by.values()), sized), whole))
    return found


def test_rows(result: Result) -> pd.DataFrame:
    """Return the predictions on test rows, in the split's order."""
    rows = result.predictions
    return rows[rows["split"] == "test"].reset_index(drop=True)


def settings_of(results: Iterable[Result]) -> dict[str, int]:
    """Count the settings of each head, sizes of the training set aside."""
    tried: dict[str, set[str]] = {}
    for result in results:
        if "train_part" not in result.split:
            tried.setdefault(result.head, set()).add(_group_key(result))
    return {head: len(settings) for head, settings in tried.items()}


def seed_said(result: Result) -> str:
    """Return ", seed N", or nothing of a fit without one."""
    return "" if result.seed is None else f", seed {result.seed}"


def value_said(value: Any) -> str:
    """Write a parameter or a fact for a reader, without quotes or braces."""
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


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_floats(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _group_key(result: Result) -> str:
    return key([result.head, result.params, result.split, result.fingerprint, result.features])


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
    return key([result.head, result.params, _origin(result)])


def _label(
    groups: list[list[Result]], sized: Sequence[list[Result]] | None = None
) -> tuple[Group, ...]:
    """Name each group by its head and by what sets it apart: no two have the same name."""
    every = [results[0] for results in groups]
    labelled: list[Group] = []
    for results, parts in zip(groups, sized or [[] for _ in groups], strict=True):
        result = results[0]
        rivals = [other for other in every if other.head == result.head]
        apart = [
            f"{name}={value_said(value)}"
            for name, value in result.params.items()
            if len({key(rival.params.get(name)) for rival in rivals}) > 1
        ]
        apart += [
            f"{name} {value}"
            for name, value in _origins(result).items()
            if len({_origins(other)[name] for other in every}) > 1
        ]
        label = result.head + (f" ({', '.join(apart)})" if apart else "")
        taken = sum(re.sub(r" #\d+$", "", group.label) == label for group in labelled)
        ordered = sorted(results, key=lambda each: (each.seed is not None, each.seed or 0))
        named = f"{label} #{taken + 1}" if taken else label
        labelled.append(Group(named, tuple(ordered), tuple(parts)))
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
