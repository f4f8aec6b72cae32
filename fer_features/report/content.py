"""What a report says of results: its sentences and its tables, as data.

HTML, Markdown and the model card are renderings of this; nothing is computed for one alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fer_features.experiment.comparison_folder import network_said, parameter_said
from fer_features.experiment.result import Result
from fer_features.experiment.scores import SMALLER_IS_BETTER
from fer_features.experiment.statistics import LEVEL, Difference, Estimate
from fer_features.report.sections import (
    DECIDED,
    Group,
    RatersSaid,
    Section,
    choice,
    distinct,
    stores,
)

SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "calibration error",
}
"""What a sentence calls each score, in the order of a report's columns."""

NOTHING = "\N{EN DASH}"
"""What a cell shows where there is no number, and what stands between two."""

SHOWN_GROUPS = 6
"""Groups that curves and wide tables show, those that validation ranks highest."""

FER2013_ROWS = 35_887
ORIGINAL_CLASSES = {"positive": ["happiness"], "negative": ["anger", "fear", "sadness"]}
"""What the original experiment's figures belong to."""


class Cell(NamedTuple):
    """One cell of a table: what it says, a second thought in small print, whether it is bold."""

    text: str
    detail: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table of texts and Cells; the first column names its rows.

    ``words`` are the columns that are read as words: they stand to the left.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, rows: list[dict[str, Any]], note: str = "", *words: str) -> "Table":
        """Make one of a dictionary a row, by column."""
        frame = pd.DataFrame(rows, dtype=object)
        return cls(title, frame.where(frame.notna(), NOTHING), note, words)


@dataclass(frozen=True)
class Form:
    """How the numbers of one kind are written: as percentages or not, with how many decimals."""

    percent: bool
    digits: int
    signed: bool = False

    @classmethod
    def of(cls, score: str, found: Iterable[Estimate | Difference], signed: bool = False) -> "Form":
        """Write a score with the decimals that its interval allows.

        The margin, half of the interval, is shown with one digit, or two where the first is a 1:
        82.9 ± 1.1, 0.39 ± 0.02. Of several intervals the median one decides.
        """
        percent = score in DECIDED
        margins = [(each.high - each.low) / 2 * (100 if percent else 1) for each in found]
        known = [each for each in margins if 0 < each < np.inf]
        if not known:
            return cls(percent, 1 if percent else 3, signed)
        exponent = int(np.floor(np.log10(margin := float(np.median(known)))))
        digits = -exponent + (margin / 10.0**exponent < 2)
        return cls(percent, int(np.clip(digits, 0, 2 if percent else 5)), signed)

    def __call__(self, value: float | None) -> str:
        """Write a number, without a percent sign."""
        if value is None or not np.isfinite(value):
            return NOTHING
        rounded = round(100 * value if self.percent else value, self.digits) + 0.0
        sign = "+" * (self.signed and rounded != 0)
        return f"{rounded:{sign},.{self.digits}f}".replace("-", "\N{MINUS SIGN}")

    def between(self, found: Estimate | Difference, word: str = " to ") -> str:
        """Write an interval."""
        known = np.isfinite([found.low, found.high]).all()
        return f"{self(found.low)}{word}{self(found.high)}" if known else "not known"

    def cell(self, found: Estimate | Difference, bold: bool = False) -> Cell:
        """Write a number, its interval small."""
        if not np.isfinite([found.low, found.high]).all():
            return Cell(self(found.value), "", bold)
        return Cell(
            self(found.value), self.between(found, " to " if self.signed else NOTHING), bold
        )

    @property
    def unit(self) -> str:
        """What follows the number in a sentence."""
        return "%" if self.percent else ""


def column_said(score: str) -> str:
    """Head a column of a score."""
    less = " \N{DOWNWARDS ARROW}" * (score in SMALLER_IS_BETTER)
    return f"{capital(SCORE_NAMES[score])}{', %' * (score in DECIDED)}{less}"


def capital(text: str) -> str:
    """Begin a text with a capital, and change nothing else."""
    return text[:1].upper() + text[1:]


def _form(section: Section, score: str) -> Form:
    return Form.of(score, [scores[score] for scores in section.scores.values()])


# --- the answer, and what must be known before it ---


def answer(section: Section) -> str:
    """Say how the head that validation chose did, beside the others and against chance."""
    best, others = section.ranked[0], section.ranked[1:]
    found = section.headline(best)
    form = Form.of(section.score, [found])
    images = f"{found.images:,} {section.split} images"
    if section.split == "test" and "test_on" in section.first.split:
        images += f" of {section.first.split['test_on']['dataset']}"
    images += " that do not leak" * (section.kept is not None)
    sure = f"95% interval {form.between(found)}{form.unit}"
    sure += f", mean of {best.times}" * (len(best.results) > 1)
    if section.score == "accuracy":
        did = f"classified {form(found.value)}% of the {images} correctly ({sure})"
    else:
        unasked = section.score == "balanced_accuracy" != section.select
        why = "classes are of unequal size, so each counts alike; " * unasked
        name = SCORE_NAMES[section.score]
        did = f"reached {form(found.value)}{form.unit} {name} on the {images} ({why}{sure})"
    named = f"The {best.head} head{f' on {best.embedding}' * bool(best.embedding)}"
    if not others:
        return f"{named} {did}. {_chance_said(section)}"
    rank = f"best of {len(section.groups)}" if section.chosen else f"level with {others[0].label}"
    by = f"{rank} by validation {SCORE_NAMES[section.select]}"
    return f"{named}, {by}, {did}. {_ahead_said(section)} {_chance_said(section)}"


def _ahead_said(section: Section) -> str:
    """Say how far the chosen head is ahead of the next, and what is known of all others."""
    best, second = section.ranked[:2]
    pairs = list(section.against.values())
    apart, n = pairs[0].difference, len(pairs)
    which = second.label + ", second on validation" * (n > 1)
    ahead = f"It is {_lead_said(section.score, apart, which)}"
    if n == 1:
        return f"{ahead}: {pairs[0].words}."
    beaten = sum(pair.better == best.label for pair in pairs)
    lost = sum(pair.better == pair.second for pair in pairs)
    if all(pair.holm is None for pair in pairs):
        said = f"of none of the {n} others can more be said, {pairs[0].words}"
    elif beaten:
        than = ("both" if n == 2 else f"all {n}") if beaten == n else f"{beaten} of the {n}"
        said = f"there is evidence that it is better than {than} others"
    else:
        said = f"there is no evidence that it is better than any of the {n} others"
    if lost:
        said += f", and evidence that {lost} {'is' if lost == 1 else 'are'} better than it"
    return f"{ahead}; {said}."


def _lead_said(score: str, apart: Difference, other: str) -> str:
    """Say how far ahead of another one is, or behind it, with the interval of that."""
    form = Form.of(score, [apart])
    lead = form(abs(apart.value))
    points = f" point{'s' * (float(lead) != 1)}" * form.percent
    where = f"{lead}{points} {'ahead of' if apart.value > 0 else 'behind'}"
    sure = form.between(apart if apart.value >= 0 else turned(apart))
    return f"{where if float(lead) else 'level with'} {other} (95% interval {sure})"


def _chance_said(section: Section) -> str:
    name, chance = section.chance
    beaten = any(section.headline(group).value > chance for group in section.groups)
    better = "no head can do better" if chance == 1 else "no head here does better than that"
    verdict = "" if beaten else f": {better}"
    form = Form(section.score in DECIDED, 1 if section.score in DECIDED else 2)
    if section.score == "accuracy":
        return f"Always answering “{name}” would be right {form(chance)}% of the time{verdict}."
    which = "one class" if section.score in ("balanced_accuracy", "roc_auc") else f"“{name}”"
    return f"Always answering {which} would reach {form(chance)}{form.unit}{verdict}."


class Notice(NamedTuple):
    """What a reader must know before any number; a warning where it makes numbers doubtful."""

    text: str
    warns: bool = True


def notices(results: Sequence[Result], parts: Sequence[Section]) -> list[Notice]:
    """Say what a reader must know before any number, each in a line or two."""

    def of(some: Sequence[Result]) -> str:
        if len({r.fingerprint for r in some}) == len({r.fingerprint for r in results}):
            return ""
        return f" ({', '.join(dict.fromkeys(network_said(each.store) for each in some))})"

    found = []
    backbones = [(each.store.get("backbone") or {}, each) for each in results]
    if some := [r for b, r in backbones if str(b.get("weights")).startswith("random")]:
        never = "never trained on anything. This is not an ImageNet result."
        found.append(Notice(f"Random weights{of(some)}: {never}"))
    if some := [r for b, r in backbones if b.get("backbone") == "tiny"]:
        found.append(Notice(f"Tiny backbone{of(some)}: the three layers that tests run on."))
    for part in parts:
        found += _notices_of(part)
    if len(parts) > 1:
        apart = "each has a section of its own, and no number compares with one of another."
        found.append(Notice(f"{len(parts)} different sets of test images or classes: {apart}"))
    quantised = [(*cosine, each) for each in results for cosine in _int8(each)]
    if quantised:
        low = min(median for median, _, _ in quantised)
        said = f"centred cosine to float32 {low:.2f} in the median. Judge them by the heads."
        which = of([each for _, _, each in quantised])
        found.append(Notice(f"int8 embeddings{which}: {said}", any(w for _, w, _ in quantised)))
    return list(dict.fromkeys(found))


def _int8(result: Result) -> list[tuple[float, bool]]:
    """Return the median centred cosine of each int8 feature to float32, and whether it warns."""
    return [
        (cosine["centred"]["median"], cosine["warns"])
        for made in result.store.get("provenance", {}).get("passes", [])
        for output, cosine in made.get("cosine", {}).items()
        if output in result.features.split("+")
    ]


def _notices_of(part: Section) -> list[Notice]:
    found = []
    split = part.first.split
    if part.split != "test":
        good = "heads are stopped and chosen by them, so they are a little too good."
        found.append(Notice(f"Validation scores: {good} The test images are not scored."))
    elif on := split.get("test_on"):
        trained = part.first.store.get("dataset", {}).get("name")
        known = f"{on['left_out']:,} of its images are left out, as {trained} has them too"
        said = f"Cross-database: trained on {trained}, tested on {on['dataset']}; {known}."
        found.append(Notice(said, False))
    unlike = distinct(result.split for group in part.groups for result in group.results)
    leaks = next(filter(None, map(leaks_said, unlike)), "")
    if leaks and part.split == "test":
        out = "The scores leave them out." if part.kept is not None else "Scores are too good."
        found.append(Notice(f"Test images leak: {leaks}. {out}"))
    lucky = ", ".join(dict.fromkeys(g.first.label for g in part.groups if g.lucky))
    if lucky:
        verdict = ", so there is no verdict" * (len(part.groups) > 1)
        said = f"One seed of {lucky}: how much its luck matters is not known{verdict}."
        found.append(Notice(said, False))
    return found


def leaks_said(split: dict[str, Any]) -> str:
    """Say how many test images a head may know, nothing where it can know none."""
    leaked, said = split.get("leaked", {}), []
    total = sum(split.get("sizes", {}).get("test", {}).values())
    for name, what in (
        ("test_in_", "occur"),
        ("test_groups_in_", "are of a person or sequence that occurs"),
    ):
        train, validation = (leaked.get(f"{name}{part}", 0) for part in ("train", "validation"))
        if train or validation:
            said.append(f"{train:,} {what} in training and {validation:,} in validation")
    return f"of {total:,}, {', and '.join(said)}" if said else ""


# --- tables of the groups ---


def turned(apart: Difference) -> Difference:
    """Return the difference of the second to the first."""
    return replace(apart, value=-apart.value, low=-apart.high, high=-apart.low)


def embeddings_table(section: Section) -> Table | None:
    """Tabulate each network and features with what it costs, a column a head; None of a single."""
    embeddings = dict.fromkeys(group.embedding for group in section.ranked)
    if len(embeddings) < 2:
        return None
    form = _form(section, section.score)
    rows = []
    for embedding in embeddings:
        own = [group for group in section.groups if group.embedding == embedding]
        store = own[0].first.store
        made = store.get("provenance", {}).get("passes", [])
        parameters = [each["parameters"] for each in made if each.get("parameters")]
        speed = rate(store)
        rows.append(
            {"Network": network_said(store), "Features": own[0].first.features}
            | {"Dimension": f"{store['dimension']:,}" if "dimension" in store else NOTHING}
            | {"Parameters": f"{parameters[-1]:,}" if parameters else NOTHING}
            | {"Images/s": NOTHING if speed is None else f"{speed:,.3g}"}
            | {g.head: form.cell(section.headline(g), g is section.chosen) for g in own}
        )
    score = f"{section.split} {SCORE_NAMES[section.score]}{' in %' * form.percent}"
    title = f"{capital(score)} by network, features and head"
    note = (
        "Parameters: the whole network's, without its top. Images/s: what the pass that made the "
        f"store measured, on its own machine and engine. Small: 95% interval.{_bold(section)}"
    )
    return Table.of(title, rows, note, "Features")


def scores_table(section: Section) -> Table:
    """Tabulate each group's scores, the best on validation first, and how far it is from that."""
    columns = _columns(section)[0]
    if len({group.embedding for group in section.groups}) > 1:
        columns = columns[1:]  # the table of embeddings has it
    select = Form.of(section.select, [each[section.select] for each in section.scores.values()])
    form = Form.of(section.score, [p.difference for p in section.against.values()], signed=True)
    minus = f"Minus the {'chosen' if section.chosen else 'first'}{', points' * form.percent}"
    rows = []
    for group in section.ranked:
        fits = group.times if len(group.results) > 1 else "one seed" if group.lucky else ""
        row = {"Head": Cell(group.label, fits, group is section.chosen)}
        row |= _score_cells(section, group, columns)
        if section.split == "test":
            mean = group.mean("validation", section.select)
            row[f"Validation {SCORE_NAMES[section.select]}"] = Cell(select(mean))
        if pair := section.against.get(group.label):
            row[minus] = form.cell(turned(pair.difference))
            row["p (Holm)"] = Cell(p_said(pair.holm))
            word = "better" if pair.better == pair.second else "worse"
            row["Verdict"] = Cell(word if pair.better else pair.words)
        elif section.against:
            row |= {minus: Cell(NOTHING), "p (Holm)": Cell(NOTHING), "Verdict": Cell("")}
        rows.append(row)
    alone = " that do not leak" * (section.kept is not None)
    title = f"Scores on {len(section.judged):,} {section.split} images{alone}"
    return Table.of(title, rows, _scores_note(section), "Verdict")


def more_table(section: Section) -> Table:
    """Tabulate the scores that the first table leaves out."""
    rows = [
        {"Head": group.label} | _score_cells(section, group, _columns(section)[1])
        for group in section.ranked
    ]
    two = "the mean squared error of the positive class's probability"
    brier = two if len(section.classes) == 2 else "squared errors summed over the classes, 0 to 2"
    note = (
        f"Brier score: {brier}. Calibration error: over 10 equal-width bins; on few images it "
        "comes out above what it would be on many."
    )
    return Table.of("More scores", rows, note)


def _score_cells(section: Section, group: Group, scores: Sequence[str]) -> dict[str, Cell]:
    own = section.scores[group.label]
    return {column_said(name): _form(section, name).cell(own[name]) for name in scores}


def _columns(section: Section) -> tuple[list[str], list[str]]:
    """Return the scores of the first table and of the second; none that another one equals."""
    two, sizes = len(section.classes) == 2, list(section.counts.values())
    left = {"precision", "recall"} if two else {"recall"} if all(sizes) else set()  # by class
    if len(set(sizes)) == 1:
        left.add("accuracy" if section.score == "balanced_accuracy" else "balanced_accuracy")
    first = dict.fromkeys(
        [section.score, "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "f1"]
    )
    shown = [name for name in first if name == section.score or name not in left]
    return shown, [name for name in SCORE_NAMES if name not in {*shown, *left}]


def p_said(p: float | None) -> str:
    """Write a p."""
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _bold(section: Section) -> str:
    if section.chosen is None:
        return ""
    return f" Bold: what validation chose, by its {SCORE_NAMES[section.select]}."


def _scores_note(section: Section) -> str:
    several = len({group.embedding for group in section.groups}) > 1
    seeds = " and other seeds" * any(len(g.results) > 1 for g in section.groups if g.random)
    note = f"Small: 95% interval, for other {section.split} images{seeds}, with this training set."
    draws = section.groups[0].answers.draw
    if len(np.unique(draws)) < len(draws):
        note += " Copies of one image, and images of one person or sequence, are one draw."
    note += _bold(section) * (not several)
    if section.pairs:
        note += (
            f" p: of no difference to the first row, after Holm's correction over all "
            f"{len(section.pairs):,} pairs; a verdict needs p below {1 - LEVEL:.2f}."
        )
    if len(section.classes) == 2:
        note += f" F1 is that of “{section.classes[0]}”."
    else:
        note += " ROC AUC and F1 are means over the classes."
    if len(set(section.counts.values())) == 1:
        note += " Classes are of equal size: balanced accuracy is accuracy."
    return note


def pairs_table(section: Section) -> Table | None:
    """Tabulate every two groups that are not in the first table, None where there are none."""
    first = section.ranked[0].label
    pairs = [pair for pair in section.pairs if pair.first != first]
    if not pairs:
        return None
    form = Form.of(section.score, [pair.difference for pair in pairs], signed=True)
    rows = [
        {
            "A minus B": f"{pair.first} minus {pair.second}",
            "Points" if form.percent else "Difference": form.cell(pair.difference),
            "p": p_said(pair.difference.p),
            "p (Holm)": p_said(pair.holm),
            "Verdict": pair.words,
        }
        for pair in pairs
    ]
    note = f"The pairs with {first} stand in the table of scores; Holm's correction is over all."
    return Table.of("Every other pair: A minus B", rows, note, "Verdict")


def settings_table(section: Section) -> Table | None:
    """Tabulate the settings that validation did not choose, the best first; None without any."""
    left = [group for group, judged in section.settings if not judged]
    scores = list(dict.fromkeys([section.select, "log_loss", "accuracy"]))
    forms = {name: _form(section, name) for name in scores}
    lower = {name: f"{SCORE_NAMES[name]}{', %' * (name in DECIDED)}" for name in scores}
    rows = [
        {"Setting": group.label, "Fits": f"{len(group.results)}"}
        | {f"Validation {lower[s]}": forms[s](group.mean("validation", s)) for s in scores}
        for group in sorted(left, key=lambda g: (g.first.label, choice(g, section.select)))
    ]
    return Table.of("Settings that validation did not choose", rows) if rows else None


def published_said(section: Section) -> str:
    """Say what the original experiment published, where its images and classes are judged."""
    first = section.first
    theirs = (
        first.store.get("dataset", {}).get("rows") == FER2013_ROWS
        and first.task["classes"] == ORIGINAL_CLASSES
        and "labels" not in first.split
    )
    said = (
        "Published by the original experiment, on its validation set, with ImageNet weights, once, "
        "and not measured here: accuracy 0.794, precision 0.807, recall 0.775, F1 0.790."
    )
    return said * theirs


def selection_said(section: Section) -> str:
    """Say how many settings were tried and how one of each head was chosen."""
    labels = [group.first.label for group, _ in section.settings]
    each = ", ".join(f"{head} {labels.count(head)}" for head in dict.fromkeys(labels))
    if len(labels) > (judged := len(section.groups)):
        return (
            f"{len(labels)} settings were tried ({each}). Validation chose {judged} by mean "
            f"{SCORE_NAMES[section.select]}; the others never met the test images. Chosen among "
            "several, their validation scores are a little too good; their test scores are not."
        )
    if len({(g.first.label, g.embedding) for g in section.groups}) < judged:
        scored = f"{judged} settings ({each}), all of them scored on {section.split}"
        return f"{scored}: the score of whichever does best there is a little too good."
    return ""


# --- classes, emotions, raters ---


def classes_table(section: Section) -> Table:
    """Tabulate the scores of each class: of two for every group, of more for the chosen one."""
    every = [each for of in section.by_class.values() for each in of.values()]
    names = ("precision", "recall", "f1")
    forms = {score: Form.of(score, [each[score] for each in every]) for score in names}
    best = section.ranked[0].label
    if len(section.classes) > 2:
        rows = [
            {"Class": name, "Images": f"{section.counts[name]:,}"}
            | {column_said(score): forms[score].cell(own[score]) for score in names}
            for name, own in section.by_class[best].items()
        ]
        return Table.of(f"By class, {best}", rows)
    rows = [
        {"Head": group.label}
        | {
            f"{capital(SCORE_NAMES[score])} of {name}, %": forms[score].cell(own[score])
            for name, own in section.by_class[group.label].items()
            for score in names
            if (name, score) != (section.classes[0], "f1")  # the first table has it
        }
        for group in section.ranked
    ]
    images = ", ".join(f"{n:,} “{name}”" for name, n in section.counts.items())
    return Table.of("By class", rows, f"Images: {images}.")


def emotions_table(section: Section) -> Table | None:
    """Tabulate the share of each emotion that is right, of the classes that have several."""
    shown = [group.label for group in section.ranked[:SHOWN_GROUPS]]
    first = section.by_emotion[shown[0]]
    held = [each["class"] for each in first.values()]
    emotions = [name for name, each in first.items() if held.count(each["class"]) > 1]
    recall = {label: section.by_emotion[label] for label in shown}
    form = Form.of("recall", [recall[s][e]["recall"] for s in shown for e in emotions])
    rows = [
        {"Emotion": emotion, "Class": first[emotion]["class"]}
        | {"Images": f"{first[emotion]['images']:,}"}
        | {label: form.cell(recall[label][emotion]["recall"]) for label in shown}
        for emotion in emotions
    ]
    note = "Of the classes that have several emotions."
    return Table.of("Recall by original emotion, %", rows, note, "Class") if rows else None


def emotion_said(section: Section) -> str:
    """Say which emotion the chosen head knows least, and what it takes it for."""
    label = section.ranked[0].label
    scores = section.by_emotion[label]
    worst = min(scores, key=lambda each: scores[each]["recall"].value)
    found = scores[worst]
    if found["recall"].value == 1:
        return f"No emotion is ever classified wrong by {label}."
    others = {name: share for name, share in found["taken_for"].items() if name != found["class"]}
    most = max(others, key=others.__getitem__)
    form, images = Form.of("recall", [found["recall"]]), found["recall"].images
    said = (
        f"{capital(worst)} is recognised least often by {label}: "
        f"{form(found['recall'].value)}% (95% interval {form.between(found['recall'])}%, "
        f"{images:,} image{'s' * (images != 1)})"
    )
    taken = f"; most often it is taken for {most} ({others[most]:.0%} of its images)"
    return f"{said}{taken * (len(others) > 1)}."


def rater_said(said: RatersSaid) -> str:
    """Say how one rater does, and the chosen head beside them."""
    form = Form.of(said.score, [said.rater])
    label, (_, apart) = next(iter(said.heads.items()))
    verdict = "no verdict" if apart.p is None else "no evidence of a difference"
    if apart.p is not None and apart.p < 1 - LEVEL:
        verdict = f"evidence that it is {'better' if apart.value > 0 else 'worse'}"
    lead = _lead_said(said.score, apart, "one rater")
    return (
        f"One rater reaches {form(said.rater.value)}% {SCORE_NAMES[said.score]} (95% interval "
        f"{form.between(said.rater)}%) against what most of an image's other raters say. On the "
        f"same votes {label} is {lead}: {verdict}."
    )


def raters_text(section: Section) -> str:
    """Say how one rater does, how that is defined, and which votes it leaves out."""
    if (said := section.raters) is None:
        return ""
    return (
        f"{rater_said(said)} One rater is no ceiling: a head that learns "
        f"what most people say can do better than one of them. Of {said.raters.votes:,} votes "
        f"{said.raters.share_outside:.0%} are for nothing in the task and left out; of the rest "
        f"{said.raters.share_tied:.0%} are, as the other raters of the image are tied or none; "
        f"{len(said.raters.row):,} votes on {said.raters.images:,} images count. Why so: "
        "docs/statistics.md, “What one rater scores”."
    )


def raters_tables(section: Section) -> list[Table]:
    """Tabulate the heads beside one rater, and their errors by how much raters agree."""
    if (said := section.raters) is None:
        return []
    shown = list(said.heads)[:SHOWN_GROUPS]
    form = Form.of(said.score, [said.rater, *(said.heads[label][0] for label in shown)])
    signed = Form.of(said.score, [said.heads[label][1] for label in shown], signed=True)
    score, minus = column_said(said.score), "Minus one rater, points"
    rows = [{"Who": "One rater", score: form.cell(said.rater)}] + [
        {"Who": label, score: form.cell(own), minus: signed.cell(apart)}
        for label, (own, apart) in said.heads.items()
        if label in shown
    ]
    errors = Form.of("accuracy", [of[label] for of in said.errors.values() for label in shown])
    agreed = [
        {"Raters who agree": agreement_said(share)}
        | {"Images": f"{next(iter(of.values())).images:,}"}
        | {label: errors.cell(of[label]) for label in shown}
        for share, of in said.errors.items()
    ]
    note = "Agreement: the share of an image's votes within the task that its commonest class has."
    return [
        Table.of("Heads beside one rater, on the same votes", rows),
        Table.of(f"{capital(section.split)} images classified wrong, %", agreed, note),
    ]


def agreement_said(share: tuple[float, float]) -> str:
    """Name a range of agreement."""
    return f"{share[0]:.0%} to {share[1]:.0%}" if share[0] else f"up to {share[1]:.0%}"


def size_said(group: Group) -> str:
    """Say what the last step to more training images brought one head, on validation."""
    (fewer, few), (more, many) = list(group.by_size.items())[-2:]
    gain = group.gain
    form = Form.of("log_loss", [gain])
    if gain.p is None:
        once = group.random and 1 in (len(few), len(many))
        verdict = f"{'one seed of it' if once else 'too few images'}: no verdict"
    elif gain.p >= 1 - LEVEL:
        verdict = "no evidence that more data helps"
    else:
        verdict = "more data still helps" if gain.value < 0 else "more data does not help"
    return (
        f"From {fewer:,} to {more:,} training images the validation log loss of {group.label} "
        f"{'falls' if gain.value < 0 else 'rises'} by {form(abs(gain.value))} (95% interval of the "
        f"change {form.between(gain)}): {verdict}."
    )


# --- data ---


def data_tables(section: Section) -> list[Table]:
    """Tabulate how many images of each class are in each split, for each unlike one."""
    unlike = distinct(group.first.split["sizes"] for group in section.groups)
    found = []
    for sizes in unlike:
        own = [g.label for g in section.groups if g.first.split["sizes"] == sizes]
        counts = pd.DataFrame(sizes).reindex(list(section.classes)).fillna(0).astype(int)
        counts.loc["all"] = counts.sum()
        counts["all"] = counts.sum(axis=1)
        rows = [
            {"Class": name, "Emotions": ", ".join(section.first.task["classes"].get(name, []))}
            | {capital(str(part)): f"{n:,}" for part, n in line.items()}
            for name, line in counts.to_dict("index").items()
        ]
        whose = f": {', '.join(own)}" * (len(unlike) > 1)
        found.append(Table.of(f"Images by class and split{whose}", rows, "", "Emotions"))
    return found


def data_facts(section: Section) -> list[str]:
    """Say whose labels they are, how rows were split, and what of them leaks or is left out."""
    said: list[str] = []
    for store in stores(group.first for group in section.groups):
        data = store.get("dataset", {})
        limit = f", limited to {data['limit']:,} evenly spaced ones" if data.get("limit") else ""
        left = {reason: n for reason, n in (data.get("left_out") or {}).items() if n}
        out = "".join(f"; {n:,} left out: {reason}" for reason, n in left.items())
        if "rows" in data:
            said.append(f"Source: {data.get('name')}, {data['rows']:,} rows{limit}{out}.")
    for split in distinct(r.split for group in section.groups for r in group.results):
        by_usage, seed = split.get("protocol") == "usage", f"split seed {split.get('seed')}"
        said.append(f"Split: {'by the usages' if by_usage else f'drawn at random, {seed}'}.")
        if "copies" in split:
            rows, images, unlike = (split["copies"][k] for k in ("rows", "images", "disagreeing"))
            done = "those are left out, and each other image is used once"
            done = "all are kept" if split.get("duplicates") == "keep" else done
            said.append(
                f"Copies: {rows:,} rows of these emotions are {images:,} distinct images, "
                f"{unlike:,} of them with copies under more than one class; {done}."
            )
        said.append(f"Leaks: {leaks_said(split) or 'no test image is in training or validation'}.")
        if groups := split.get("groups"):
            by = f"by the pattern {groups['by']}" if groups["by"] else "the source's own"
            out = f"{groups['left_out']:,} images left out, as their group is in a later split"
            said.append(f"Groups (persons or sequences), {by}: {groups['count']:,}; {out}.")
        if labels := split.get("labels"):
            said.append(_labels_said(labels))
        if "raters" in split:
            said.append(f"Raters' votes: {split['raters']['name']}.")
        if on := split.get("test_on"):
            said.append(
                f"Test set: {on['dataset']}, {on['rows']:,} rows; {on['outside']:,} are outside "
                f"the task, the others are {on['images']:,} distinct images, of which "
                f"{on['disagreeing']:,} disagree with a copy and {on['left_out']:,} are known "
                "from training or validation's data set, and left out."
            )
    return list(dict.fromkeys(said))


def _labels_said(labels: dict[str, Any]) -> str:
    what = "votes of FER+'s raters" if labels["kind"] == "ferplus" else "a table"
    least = f", at least {labels['min_agreement']:.0%} agreeing" if labels["min_agreement"] else ""
    return (
        f"Labels: not the source's own but those of {labels['name']} ({what}{least}; sha256 "
        f"{labels['sha256'][:8]}): {labels['labelled']:,} rows have an emotion by them, "
        f"{labels['none']:,} none. Against the source {labels['changed']:,} have another one and "
        f"{labels['lost']:,} have lost theirs; {labels['changed_class']:,} rows change class, join "
        f"the task or leave it; {labels['unmatched']:,} labels match no row."
    )


def leaks_table(section: Section) -> Table | None:
    """Tabulate scores on all images, those that leak among them; None where none does."""
    if section.kept is None:
        return None
    names = dict.fromkeys([section.score, "log_loss"])
    rows = [
        {"Head": group.label}
        | {
            column_said(s): _form(section, s).cell(group.answers.estimate(s, group.random))
            for s in names
        }
        for group in section.ranked
    ]
    many = f"{len(section.kept):,} {section.split} images, {int((~section.kept).sum()):,} that leak"
    note = "What the same heads score where images that they may know count, too."
    return Table.of(f"With leaks: scores on all {many} among them", rows, note)


# --- cost and provenance ---


def rate(store: dict[str, Any]) -> float | None:
    """Return the images a second of the pass over most images; None if none is recorded."""
    passes = store.get("provenance", {}).get("passes", [])
    known = [made for made in passes if made.get("images_per_second")]
    longest = max(known, key=lambda made: made["images"], default=None)
    return None if longest is None else float(longest["images_per_second"])


def every_fit(section: Section) -> list[tuple[Group, Result]]:
    """Return all fits: those that are judged, those that were not chosen, those of fewer images."""
    found = [(group, each) for group, _ in section.settings for each in group.results]
    return found + [(group, each) for group in section.groups for each in group.sized]


def cost_said(section: Section) -> str:
    """Say what passes and fits cost."""

    def said(seconds: float) -> str:
        if seconds < 120:
            return f"{seconds:,.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
        return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"

    fits = [each for _, each in every_fit(section)]
    made = []
    for store in stores(fits):
        passes = store.get("provenance", {}).get("passes", [])
        timed = [each for each in passes if each.get("seconds") is not None]
        images = " and ".join(f"{each['images']:,}" for each in timed)
        took = f"{said(sum(each['seconds'] for each in timed))} over {images} images"
        made.append(f"{network_said(store)} {took if timed else 'not recorded'}")
    fitted = said(sum(each.seconds.get("fit") or 0.0 for each in fits))
    each = f"{len(fits):,} fits" if len(fits) > 1 else "fit"
    return f"Cost: the pass, once ({'; '.join(dict.fromkeys(made))}); the {each}, {fitted}."


def fits_table(section: Section) -> Table:
    """Tabulate every fit: what it cost and how it did."""
    rows = []
    for group, result in every_fit(section):
        seconds = result.seconds.get("fit")
        row = {
            "Head": group.label,
            "Seed": NOTHING if result.seed is None else str(result.seed),
            "Training images": f"{sum(result.split['sizes']['train'].values()):,}",
            "Epochs or C tried": f"{len(result.history):,}",
            "Seconds": NOTHING if seconds is None else f"{seconds:,.1f}",
        }
        for split, name in {("validation", section.select): 0, (section.split, section.score): 0}:
            form = Form(name in DECIDED, 2 if name in DECIDED else 4)
            value = result.scores.get(split, {}).get(name)
            row[f"{capital(split)} {SCORE_NAMES[name]}{', %' * form.percent}"] = form(value)
        rows.append(row)
    return Table.of("Every fit", rows, "On all images." if section.kept is not None else "")


def provenance_tables(section: Section) -> list[Table]:
    """Tabulate what heads, embeddings and machine were."""
    heads = [
        {"Head": group.label, "Features": group.first.features}
        | {
            "Parameters": ", ".join(
                f"{k}={parameter_said(v)}" for k, v in group.first.params.items()
            )
        }
        | {"Seeds": ", ".join(str(result.seed) for result in group.results)}
        for group in section.groups
    ]
    tables = [Table.of("Heads", heads, "", "Features", "Parameters", "Seeds")]
    results = [result for group in section.groups for result in group.results]
    for versions in distinct(result.versions for result in results):
        tables.append(_facts("Versions and machine", versions))
    for store in stores(results):
        stated = {"file": store.get("name"), "fingerprint": store.get("fingerprint")}
        parts = {part: store.get(part, {}) for part in ("backbone", "dataset")}
        passes = store.get("provenance", {}).get("passes", [])
        parts |= {f"pass {number}": made for number, made in enumerate(passes, start=1)}
        for part, values in parts.items():  # where files lay is no reader's business
            stated |= {
                f"{part}: {k.replace('_', ' ')}": v for k, v in values.items() if k != "files"
            }
        tables.append(_facts(f"Embeddings of {network_said(store)}", stated))
    return [table for table in tables if len(table.frame)]  # an edited run may say nothing


def _facts(title: str, values: dict[str, Any]) -> Table:
    known = {name: value for name, value in values.items() if value not in (None, {})}
    rows = [{"What": name, "Which": _value_said(value)} for name, value in known.items()]
    return Table.of(title, rows, "", "Which")


def _value_said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value_said(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value_said, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)
