"""The sentences of a report: the answer on top, how far to trust it, and what else it shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_features.experiment.result import Result
from fer_features.experiment.statistics import LEVEL, Difference, Estimate
from fer_features.report.summary import SCORE_NAMES, Group, Section, settings_of

NAMED = 4
"""Heads beside the best two that the answer names; it counts the others."""


def answer(section: Section) -> str:
    """Say how the head that validation chose did, beside the others and against chance."""
    best = section.ranked[0]
    found = section.headlines[best.label]
    seeds = "" if len(best.results) == 1 else f"mean over {best.times}, "
    whole = len(section.rows)
    alone = found.images < whole
    images = f"{found.images:,} {section.split} images{' that do not leak' if alone else ''}"
    of_all = f"; {best.mean(section.split, section.score):.1%} of all {whole:,}" if alone else ""
    sure = f"{seeds}95% interval {interval_said(found)}{of_all}"
    if section.score == "accuracy":
        did = f"classified {found.value:.1%} of the {images} correctly ({sure})"
    else:
        why = "each class counts alike, as they are of unequal size; "
        why *= section.score != section.select  # nobody asked for it
        name = SCORE_NAMES[section.score]
        did = f"reached {found.value:.1%} {name} on the {images} ({why}{sure})"
    if len(section.groups) == 1:
        first = f"The {best.label} head {did}."
    else:
        pair = section.pairs[0]  # the two that validation ranks highest
        other = section.ranked[1]
        theirs = section.headlines[other.label].value
        first = (
            f"The {best.label} head, the best by validation {SCORE_NAMES[section.select]}, "
            f"{did}, {_ahead(found.value, theirs)} {other.label} ({theirs:.1%})"
            f"{';' if pair.holm is None else ':'} {pair.words}{_others(section)}."
        )
    later = "" if section.split == "test" else f" {UNSCORED}"
    return f"{first} {_chance_said(section)}{later}"


UNSCORED = "The test images were not scored when this was written."


def _others(section: Section) -> str:
    """Give the scores of the heads behind the two best, as validation ranks them."""
    others = [(group.label, section.headlines[group.label].value) for group in section.ranked[2:]]
    said = [f"{label} {value:.1%}" for label, value in others[:NAMED]]
    more = [value for _, value in others[NAMED:]]
    if more:
        said.append(f"{len(more)} more {min(more):.1%} to {max(more):.1%}")
    return f"; {', '.join(said)}" * bool(said)


def _chance_said(section: Section) -> str:
    name, chance = section.chance
    beaten = any(each.value > chance for each in section.headlines.values())
    better = "no head can do better" if chance == 1 else "no head here does better than that"
    verdict = "" if beaten else f": {better}"
    if section.score != "accuracy":
        which = "one class" if section.score in ("balanced_accuracy", "roc_auc") else f"“{name}”"
        return f"Always answering {which} would have {chance:.1%}{verdict}."
    counts = section.judged["target"].value_counts()
    common = (
        "as common among them as any other class"
        if (counts == counts.max()).sum() > 1
        else "their most common class"
    )
    return f"Always answering “{name}”, {common}, would be right {chance:.1%} of the time{verdict}."


def caution(section: Section) -> str:
    """Say what the intervals and the spread cover, and what they leave out."""
    lucky = [group.label for group in section.groups if group.lucky]
    together = section.several_seeds and len(lucky) < len(section.groups)
    text = f"The 95% intervals are about other {section.split} images"
    text += " and other seeds of the training together" if together else ""
    text += ", for this training set: what other training images would do, only other splits show."
    if section.split != "test":
        text += (
            " A head is chosen and stopped by its validation scores, which are a little too good "
            "for that."
        )
    first = section.groups[0].answers
    if len(np.unique(first.draw)) < len(first.draw):
        groups = ", and images of one person or sequence," if "group" in first.rows else ""
        text += f" Copies of one image{groups} count as one draw."
    if section.several_seeds:
        text += (
            " The spread over seeds is of training alone (first weights, dropout, order of the "
            "batches): rows and split are the same in every fit of a head."
        )
    once = [group for group in section.groups if len(group.results) == 1]
    certain = [group.label for group in once if not group.random]
    if certain and section.several_seeds:
        text += f" Fitted once, as a seed changes nothing there: {', '.join(certain)}."
    if lucky:
        text += (
            f" Fitted with one seed: {', '.join(lucky)}. How much the luck of training matters "
            "there is not known, and no interval there is about it; more seeds would show it."
        )
    return text


def selection(section: Section) -> str:
    """Say how many settings were tried and how one was selected, or nothing where none was."""
    if not section.unselected:
        heads = [group.results[0].label for group in section.groups]
        if len(set(heads)) < len(heads):
            return (
                f"{len(heads)} settings, all of them scored on {section.split}: the score of "
                "whichever does best there is a little too good."
            )
        return f"One setting {'of each head ' if len(heads) > 1 else ''}was tried."
    tested = [result for group in section.groups for result in group.results]
    counts = settings_of([*tested, *section.unselected])
    fits = len(tested) + len(section.unselected)
    each = ", ".join(f"{head} {n}" for head, n in counts.items())
    heads = [group.results[0].label for group in section.groups]
    if len(set(heads)) < len(heads):
        return (
            f"{sum(counts.values())} settings were tried ({each}; {fits} fits in all). "
            f"{len(heads)} of them were scored on test, more than one of a head: the test score "
            "of whichever does best there is a little too good."
        )
    left = sum(counts.values()) - len(section.groups)
    others = "one" if left == 1 else str(left)
    unselected = len(section.unselected)
    return (
        f"{sum(counts.values())} settings were tried ({each}; {fits} fits in all). Each head's was "
        f"selected by its mean validation {SCORE_NAMES[section.select]}; the other {others} "
        f"({unselected} fit{'s' * (unselected != 1)}) never met the test images. Chosen among "
        "several, the validation scores of the selected ones are a little too good; the test "
        "scores are not."
    )


def notices(results: Sequence[Result], parts: Sequence[Section]) -> list[str]:
    """Say what a reader must know before any number: untrained weights, unlike test sets."""
    found = []
    backbones = [result.store.get("backbone", {}) for result in results]
    random = sum(str(each.get("weights", "")).startswith("random") for each in backbones)
    tiny = sum(each.get("backbone") == "tiny" for each in backbones)
    if random:
        which = "" if random == len(results) else f" in {random} of {len(results)} fits"
        found.append(
            f"Random weights{which}: the backbone was never trained on anything. "
            "This is not an ImageNet result, and says nothing about how well one would do."
        )
    if tiny:
        which = "" if tiny == len(results) else f" in {tiny} of {len(results)} fits"
        found.append(
            f"Tiny backbone{which}: the three-layer network that tests run on, not one that "
            "anybody would use."
        )
    far = [low for result in results if (low := _far_from_float32(result.store)) is not None]
    if far:
        which = "" if len(far) == len(results) else f" in {len(far)} of {len(results)} fits"
        found.append(
            f"int8 embeddings{which} differ from float32 ones: centred cosine {min(far):.3f} in "
            "the median. Compare with heads on float32 before trusting a difference."
        )
    if (said := leaks_said(results)) is not None:
        found.append(said)
    if len(parts) > 1:
        found.append(
            f"Not comparable like for like: these runs have {len(parts)} different sets of test "
            "images or classes. Each has a section of its own, and no number should be held "
            "against one of another section."
        )
    return found


def leaks_said(results: Sequence[Result]) -> str | None:
    """Say how many test images a head may know from training or validation, None where none."""
    counts = {
        ("test_in_train", "test_in_validation"): "occur",
        ("test_groups_in_train", "test_groups_in_validation"): "are of a person or sequence that "
        "occurs",
    }
    leaked = [
        result
        for result in results
        if any(result.split.get("leaked", {}).get(name) for names in counts for name in names)
    ]
    if not leaked:
        return None
    which = "" if len(leaked) == len(results) else f" in {len(leaked)} of {len(results)} fits"
    # Fits of one split leak alike; of several the worst is told.
    worst = max(leaked, key=lambda each: sum(each.split["leaked"].values())).split
    test = sum(worst["sizes"]["test"].values())
    said = [
        f"{worst['leaked'].get(train, 0):,} {what} in training and "
        f"{worst['leaked'].get(validation, 0):,} in validation too"
        for (train, validation), what in counts.items()
        if worst["leaked"].get(train) or worst["leaked"].get(validation)
    ]
    without = all("unleaked" in result.scores.get("test", {}) for result in leaked)
    return (
        f"Test images leak{which}: of {test:,}, {', and '.join(said)}. A head may know these by "
        "heart, so its test scores are too good."
        f"{' The answer leaves them out.' if without else ''}"
    )


def _far_from_float32(store: Mapping[str, Any]) -> float | None:
    """Return the least centred cosine of a store's int8 features that warns, None if none does."""
    features = str(store.get("features", "final")).split("+")
    low = [
        cosine["centred"]["median"]
        for made in store.get("provenance", {}).get("passes", [])
        for output, cosine in made.get("cosine", {}).items()
        if output in features and cosine["warns"]
    ]
    return min(low, default=None)


def pairs_note(section: Section) -> str:
    """Say what the table of pairs rests on."""
    judged = sum(pair.holm is not None for pair in section.pairs)
    said = (
        f"Difference, interval and p are of the mean {SCORE_NAMES[section.score]} over seeds, both "
        "heads on the same "
    )
    if judged:
        said += (
            "images, and about other images and other seeds together. p is also given after "
            f"Holm's correction over the {judged} {'pair' if judged == 1 else 'pairs'}. "
            "“Evidence” means that the interval leaves out 0 and the corrected p is below 0.05."
        )
    else:
        said += "images."
    if any(pair.lucky for pair in section.pairs):
        said += (
            " Where a head whose seed matters has one seed, the interval is about other images "
            "only, and there is no verdict."
        )
    return f"{said} All of it is for this training set."


def emotion_said(section: Section) -> str:
    """Say which emotion the chosen head gets wrong most, of each class that has several."""
    best = section.ranked[0]
    mean = {
        emotion: {
            name: float(np.mean([fit[emotion]["mistaken"][name] for fit in best.emotions]))
            for name in best.emotions[0][emotion]["mistaken"]
        }
        for emotion in best.emotions[0]
    }
    by_class = {emotion: best.emotions[0][emotion]["class"] for emotion in mean}
    named = [
        (f"the emotions of “{name}”", [e for e in mean if by_class[e] == name])
        for name in section.classes
    ]
    several = [(what, pool) for what, pool in named if len(pool) > 1] or [
        ("all emotions", list(mean))
    ]
    said = []
    for what, pool in several:
        images = {e: best.emotions[0][e]["images"] for e in pool}
        wrong = {e: sum(mean[e].values()) / images[e] for e in pool}
        worst = max(pool, key=wrong.__getitem__)
        if not wrong[worst]:
            said.append(f"Of {what}, none is ever classified wrong ({best.label}).")
            continue
        taken = max(mean[worst], key=mean[worst].__getitem__)
        often = "mostly " if 2 * mean[worst][taken] > sum(mean[worst].values()) else "most often "
        most = often if len(mean[worst]) > 1 else ""
        said.append(
            f"Of {what}, {worst} is classified wrong most: {wrong[worst]:.1%} of its "
            f"{images[worst]:,} {section.split} images, {most}taken for “{taken}” ({best.label})."
        )
    return " ".join(said)


def size_said(group: Group) -> str:
    """Say what the last step to more training images brought one head, on validation."""
    (fewer, _), (more, after) = list(size_curve(group).items())[-2:]
    gain = group.gain
    once = min(len(fits) for fits in list(group.by_size.values())[-2:]) == 1
    if gain.p is None:
        why = "one seed of it" if group.random and once else "too few images"
        verdict = f"{why}: no verdict"
    elif gain.low <= 0 <= gain.high or gain.p >= 1 - LEVEL:
        verdict = "no evidence that more data helps"
    else:
        verdict = "more data still helps" if gain.value < 0 else "more data does not help"
    return (
        f"From {fewer:,} to {more:,} training images the validation log loss of {group.label} "
        f"{'falls' if gain.value < 0 else 'rises'} by {abs(gain.value):.4f}, to "
        f"{np.mean(after):.4f} (95% interval of the change {interval_said(gain, '{:+.4f}')}): "
        f"{verdict}."
    )


def size_curve(group: Group) -> dict[int, list[float]]:
    """Return the validation log loss of each seed by number of training images, ascending."""
    return {
        n: [result.scores["validation"]["log_loss"] for result in fits]
        for n, fits in group.by_size.items()
    }


def interval_said(found: Estimate | Difference, form: str = "{:.1%}", times: float = 1) -> str:
    """Write an interval from low to high, or say that it is not known."""
    if not np.isfinite([found.low, found.high]).all():
        return "not known"
    return f"{form.format(times * found.low)} to {form.format(times * found.high)}"


def _ahead(value: float, other: float) -> str:
    # Of the figures as shown: a difference that a reader cannot recompute looks like a mistake.
    lead = round(round(100 * value, 1) - round(100 * other, 1), 1)
    if lead == 0:
        return "level with"
    return f"{abs(lead):.1f} percentage points {'more' if lead > 0 else 'less'} than"
