"""What a report says, before it is laid out: groups of fits, sentences and tables.

Fits that differ in nothing but the seed are a group and are averaged; groups that were tested on
the same images under the same classes stand side by side in a section; nothing else is compared.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fer_features.experiment.evaluation import Result


@dataclass(frozen=True, eq=False)
class Group:
    """Fits of one head with one set of parameters on one split, in the order of their seeds."""

    label: str
    results: tuple[Result, ...]

    def values(self, split: str, score: str) -> list[float]:
        """Return one score of each fit, those that could not be computed left out."""
        found = [result.scores[split][score] for result in self.results]
        return [value for value in found if value is not None]

    def mean(self, split: str, score: str) -> float | None:
        """Return the mean of a score over the seeds, or None."""
        values = self.values(split, score)
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, eq=False)
class Section:
    """Groups tested on the same images under the same classes: what may be compared."""

    classes: tuple[str, ...]
    groups: tuple[Group, ...]

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


def test_rows(result: Result) -> pd.DataFrame:
    """Return the predictions on test rows, in the split's order."""
    rows = result.predictions
    return rows[rows["split"] == "test"].reset_index(drop=True)


def sections(results: Iterable[Result]) -> list[Section]:
    """Sort results into what may be compared; a fit given twice counts once."""
    unlike: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        rows = test_rows(result)
        tested = hashlib.sha256("".join(sorted(rows["digest"])).encode()).hexdigest()
        # Pairs, for the order of the classes is part of the task.
        comparable = key([list(result.task["classes"].items()), tested])
        alike = unlike.setdefault(comparable, {}).setdefault(_group_key(result), [])
        if not any(_same(result, other) for other in alike):
            alike.append(result)
    return [
        Section(tuple(next(iter(by.values()))[0].task["classes"]), _label(list(by.values())))
        for by in unlike.values()
    ]


def answer(section: Section) -> str:
    """Say in two sentences which head did best on the test images, by how much, against chance."""
    n = len(section.test)
    order = sorted(section.groups, key=_accuracy, reverse=True)
    best = order[0]
    # Of the figures as shown: a difference that a reader cannot recompute looks like a mistake.
    shown = [round(100 * _accuracy(group), 1) for group in order]
    average = "" if len(best.results) == 1 else f" (mean over {len(best.results)} seeds)"
    share = f"{shown[0]:.1f}% of the {n:,} test images"
    if len(order) == 1:
        first = f"The {best.label} head classified {share} correctly{average}."
    elif shown[0] == shown[1]:
        level = _listed([group.label for group in order[: shown.count(shown[0])]])
        first = f"The heads {level} are level: each classified {share} correctly{average}."
    else:
        first = (
            f"The {best.label} head did best: it classified {share} correctly{average}, "
            f"{shown[0] - shown[1]:.1f} percentage points more than {order[1].label} "
            f"({_accuracy(order[1]):.1%})."
        )
    name, chance = section.chance
    second = f"Always answering “{name}”, their most common class, would be right {chance:.1%}"
    beaten = sum(_accuracy(group) > chance for group in order)
    verdict = "" if beaten else ": no head here does better than that"
    return f"{first} {second} of the time{verdict}."


def caution(section: Section) -> str:
    """Say how far the answer may be trusted."""
    n = len(section.test)
    best = max(map(_accuracy, section.groups))
    margin = 1.96 * np.sqrt(best * (1 - best) / max(n, 1))
    text = (
        f"On {n:,} images the luck of the draw alone moves an accuracy by about "
        f"±{100 * margin:.1f} percentage points (95%, normal approximation)."
    )
    if any(len(group.results) > 1 for group in section.groups):
        text += " The range over seeds covers the training's randomness only."
    return text


def notices(results: Sequence[Result], parts: Sequence[Section]) -> list[str]:
    """Say what a reader must know before any number: untrained weights, unlike test sets."""
    found = []
    backbones = [result.store.get("backbone", {}) for result in results]
    random = sum(str(each.get("weights", "")).startswith("random") for each in backbones)
    tiny = sum(each.get("architecture") == "tiny" for each in backbones)
    if random:
        which = "" if random == len(results) else f" in {random} of {len(results)} fits"
        found.append(
            f"Random weights{which}: the backbone was never trained on anything. "
            "This is not an ImageNet result, and says nothing about how well one would do."
        )
    if tiny:
        which = "" if tiny == len(results) else f" in {tiny} of {len(results)} fits"
        found.append(
            f"Tiny backbone{which}: the three-layer network that tests run on, "
            "not InceptionResNetV2."
        )
    if len(parts) > 1:
        found.append(
            f"Not comparable like for like: these runs have {len(parts)} different sets of test "
            "images or classes. Each has a section of its own, and no number should be held "
            "against one of another section."
        )
    return found


def unselected(results: Sequence[Result]) -> str:
    """Say how many settings were tried and not selected, or nothing where all were."""
    tried = {_group_key(result) for result in results}
    left = [result for result in results if "test" not in result.scores]
    if not left:
        return ""
    return (
        f"Of {len(tried)} settings that were tried, {len({_group_key(r) for r in left})} "
        f"({len(left)} fits) were not selected on the validation images: they were never scored "
        "on the test images and are not shown."
    )


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


def _accuracy(group: Group) -> float:
    return group.mean("test", "accuracy") or 0.0


def key(value: Any) -> str:
    """Return a text that equal values share."""
    return json.dumps(value, sort_keys=True)


def _group_key(result: Result) -> str:
    return key([result.head, result.params, result.split, result.fingerprint])


def _same(one: Result, other: Result) -> bool:
    return one.seed == other.seed and one.scores == other.scores


def _label(groups: list[list[Result]]) -> tuple[Group, ...]:
    """Name each group by its head and by what sets it apart from the head's other groups."""
    labelled = []
    for results in groups:
        result = results[0]
        rivals = [other[0] for other in groups if other[0].head == result.head]
        apart = [
            f"{name}={value_said(value)}"
            for name, value in result.params.items()
            if len({key(rival.params.get(name)) for rival in rivals}) > 1
        ]
        differing: list[tuple[Callable[[Result], Any], str]] = [
            (lambda r: r.fingerprint, f"backbone {result.fingerprint[:8]}"),
            (lambda r: r.split, _split_label(result.split)),
        ]
        apart += [said for of, said in differing if len({key(of(r)) for r in rivals}) > 1]
        label = result.head + (f" ({', '.join(apart)})" if apart else "")
        ordered = sorted(results, key=lambda each: (each.seed is not None, each.seed or 0))
        labelled.append(Group(label, tuple(ordered)))
    return tuple(labelled)


def _split_label(split: dict[str, Any]) -> str:
    protocol = split.get("protocol")
    seed = "" if protocol == "usage" else f" {split.get('seed')}"
    return f"{protocol} split{seed}, duplicates {split.get('duplicates')}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
