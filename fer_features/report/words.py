"""The sentences of a report: the answer on top, how far to trust it, and what else it shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_features.experiment.bootstrap import Interval
from fer_features.experiment.evaluation import Result
from fer_features.report.summary import Group, Section, settings_of


def answer(section: Section) -> str:
    """Say in two sentences how the head that validation chose did on test, and against chance."""
    n = len(section.test)
    best = section.ranked[0]
    accuracy = _accuracy(best)
    seeds = "" if len(best.results) == 1 else f"mean over {best.times}, "
    share = (
        f"{accuracy:.1%} of the {n:,} test images correctly "
        f"({seeds}95% interval {interval_said(best.intervals['accuracy'])})"
    )
    if len(section.groups) == 1:
        first = f"The {best.label} head classified {share}."
    else:
        pair = section.pairs[0]  # the two of the lowest validation log loss
        other = section.ranked[1]
        first = (
            f"The {best.label} head, the best by validation log loss, classified {share}, "
            f"{_ahead(accuracy, _accuracy(other))} {other.label} ({_accuracy(other):.1%}): "
            f"{pair.words}."
        )
    name, chance = section.chance
    counts = section.test["target"].value_counts()
    common = (
        "as common among them as any other class"
        if (counts == counts.max()).sum() > 1
        else ("their most common class")
    )
    second = f"Always answering “{name}”, {common}, would be right {chance:.1%}"
    beaten = any(_accuracy(group) > chance for group in section.groups)
    better = "no head can do better" if chance == 1 else "no head here does better than that"
    verdict = "" if beaten else f": {better}"
    return f"{first} {second} of the time{verdict}."


def caution(section: Section) -> str:
    """Say what the intervals and the spread cover, and what they leave out."""
    text = (
        "The 95% intervals come from 1,000 bootstrap resamples of the test images: they cover the "
        "luck of which images were drawn for the test, not which were drawn for training."
    )
    if section.several_seeds:
        text += (
            " The spread over seeds covers training alone (first weights, dropout, order of the "
            "batches): rows and split are the same in every fit of a head."
        )
    once = [group for group in section.groups if len(group.results) == 1]
    certain = [group.label for group in once if not _draws(group.results[0])]
    if certain and section.several_seeds:
        text += f" Fitted once, as a seed changes nothing there: {', '.join(certain)}."
    lucky = [group.label for group in once if _draws(group.results[0])]
    if lucky:
        text += (
            f" Fitted with one seed: {', '.join(lucky)}. How much the luck of training matters "
            "there is not known, and no interval covers it; more seeds would show it."
        )
    return text


def _draws(result: Result) -> bool:
    """Whether a fit's seed can matter; a regression given validation rows draws nothing."""
    return result.seed is not None and "C" not in result.params


def selection(section: Section) -> str:
    """Say how many settings were tried and how one was selected, or nothing where none was."""
    if not section.unselected:
        heads = [group.results[0].head for group in section.groups]
        if len(set(heads)) < len(heads):
            return (
                f"{len(heads)} settings, all of them scored on test: the test score of whichever "
                "does best there is a little too good."
            )
        return f"One setting {'of each head ' if len(heads) > 1 else ''}was tried."
    tested = [result for group in section.groups for result in group.results]
    counts = settings_of([*tested, *section.unselected])
    fits = len(tested) + len(section.unselected)
    each = ", ".join(f"{head} {n}" for head, n in counts.items())
    heads = [group.results[0].head for group in section.groups]
    if len(set(heads)) < len(heads):
        return (
            f"{sum(counts.values())} settings were tried ({each}; {fits} fits in all). "
            f"{len(heads)} of them were scored on test, more than one of a head: the test score "
            "of whichever does best there is a little too good."
        )
    left = sum(counts.values()) - len(section.groups)
    others = "one" if left == 1 else str(left)
    return (
        f"{sum(counts.values())} settings were tried ({each}; {fits} fits in all). Each head's was "
        f"selected by its mean validation log loss; the other {others} "
        f"({len(section.unselected)} fits) never met the test images. Chosen among several, the "
        "validation scores of the selected ones are a little too good; the test scores are not."
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
    return (
        f"Test images leak{which}: of {test:,}, {', and '.join(said)}. A head may know these by "
        "heart, so its test scores are too good."
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
    return (
        "Difference and interval are of the mean accuracy over seeds, both heads on the same "
        "resamples. McNemar's exact test is on the first seed's fits alone: of the images that "
        "only one of the two got right, is each right as often? Its p is also given after Holm's "
        f"correction over the {len(section.pairs)} "
        f"{'pair' if len(section.pairs) == 1 else 'pairs'}. “Evidence” means that the interval "
        "leaves out 0 and the corrected p is below 0.05."
    )


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
            f"{images[worst]:,} test images, {most}taken for “{taken}” ({best.label})."
        )
    return " ".join(said)


def size_said(group: Group) -> str:
    """Say what the last step to more training images brought one head, on validation."""
    curve = size_curve(group)
    (fewer, before), (more, after) = list(curve.items())[-2:]
    change = float(np.mean(after) - np.mean(before))
    spread = max(max(losses) - min(losses) for losses in (before, after))
    if min(len(before), len(after)) < 2:
        verdict = "of one fit each, so whether that is more than luck is not known"
    elif abs(change) <= spread:
        verdict = "within the spread between seeds, so no sign that more data helps"
    else:
        verdict = "more data still helps" if change < 0 else "more data does not help"
    return (
        f"From {fewer:,} to {more:,} training images the validation log loss of {group.label} "
        f"{'falls' if change < 0 else 'rises'} by {abs(change):.4f}, to {np.mean(after):.4f}: "
        f"{verdict}."
    )


def size_curve(group: Group) -> dict[int, list[float]]:
    """Return the validation log loss of each seed by number of training images, ascending."""
    curve: dict[int, list[float]] = {}
    for result in [*group.sized, *group.results]:
        n = sum(result.split["sizes"]["train"].values())
        curve.setdefault(n, []).append(result.scores["validation"]["log_loss"])
    return dict(sorted(curve.items()))


def interval_said(interval: Interval | None, form: str = "{:.1%}") -> str:
    """Write an interval from low to high, or say that there is none."""
    if interval is None:
        return "none"
    return f"{form.format(interval.low)} to {form.format(interval.high)}"


def _ahead(accuracy: float, other: float) -> str:
    # Of the figures as shown: a difference that a reader cannot recompute looks like a mistake.
    lead = round(round(100 * accuracy, 1) - round(100 * other, 1), 1)
    if lead == 0:
        return "as many as"
    return f"{abs(lead):.1f} percentage points {'more' if lead > 0 else 'less'} than"


def _accuracy(group: Group) -> float:
    return group.mean("test", "accuracy") or 0.0
