"""What a report says of the data: classes, labels, leaks, and scores by original emotion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_features.report.summary import SCORE_NAMES, Group, Section, distinct
from fer_features.report.tables import NOTHING, Cell, Table, estimated

_SIZED = ("train", "validation", "test")


def data_tables(section: Section) -> list[Table]:
    """Tabulate how many images of each class are in each split, for each unlike one."""
    unlike = distinct(group.results[0].split.get("sizes", {}) for group in section.groups)
    if len(unlike) == 1:
        return [_data_table(section, unlike[0], "")]
    return [
        _data_table(section, sizes, ": " + ", ".join(
            group.label for group in section.groups if group.results[0].split["sizes"] == sizes
        ))
        for sizes in unlike
    ]  # fmt: skip


def _data_table(section: Section, sizes: dict[str, dict[str, int]], whose: str) -> Table:
    rows = []
    for name in section.classes:
        emotions = ", ".join(section.first.task["classes"][name])
        counts = [int(sizes.get(split, {}).get(name, 0)) for split in _SIZED]
        rows.append((Cell(name), Cell(emotions), *(Cell(f"{n:,}") for n in (*counts, sum(counts)))))
    totals = [sum(int(n) for n in sizes.get(split, {}).values()) for split in _SIZED]
    rows.append((Cell("all"), Cell(""), *(Cell(f"{n:,}") for n in (*totals, sum(totals)))))
    columns = ("Class", "Emotions", "Training", "Validation", "Test", "Together")
    return Table(f"Images of each class in each split{whose}", columns, tuple(rows), numbers=2)


def data_note(section: Section) -> str:
    """Say whose labels they are, how the rows were split, and what leaked."""
    texts = []
    for split in distinct(r.split for group in section.groups for r in group.results):
        if split.get("protocol") == "usage":
            said = "Split: FER2013's own usages."
        else:
            said = f"Split: drawn at random, split seed {split.get('seed')}."
        kept = {
            "drop": "Duplicates were dropped: no image is in two splits.",
            "keep": "Duplicates were kept, as the original experiment did.",
        }
        said += " " + kept.get(str(split.get("duplicates")), "")
        leaked = split.get("leaked", {})
        also = [f"{int(leaked.get(f'test_in_{name}', 0)):,}" for name in ("train", "validation")]
        said += f" Test images that also occur in training: {also[0]}; in validation: {also[1]}."
        if "groups" in split:
            said += " " + _groups_note(split["groups"], leaked)
        if "copies" in split:
            rows, images, unlike = (split["copies"][k] for k in ("rows", "images", "disagreeing"))
            said += (
                f" The source has {rows:,} rows of these emotions with {images:,} distinct images; "
                f"images whose copies are not all labelled as the same class: {unlike:,}."
            )
        if "labels" in split:
            said += " " + _labels_note(split["labels"])
        texts.append(said)
    return " ".join(texts)


def _groups_note(groups: dict[str, Any], leaked: dict[str, int]) -> str:
    by = "the source's own" if groups["by"] is None else f"by the pattern {groups['by']}"
    also = [f"{leaked.get(f'test_groups_in_{name}', 0):,}" for name in ("train", "validation")]
    left_out = groups["left_out"]
    out = f" Left out, as their group is in a later split: {left_out:,}." if left_out else ""
    return (
        f"Groups (persons or sequences), {by}: {groups['count']:,}. Test images of a group that "
        f"is also in training: {also[0]}; in validation: {also[1]}.{out}"
    )


def _labels_note(labels: dict[str, Any]) -> str:
    votes = labels["kind"] == "ferplus"
    what = "votes of FER+'s raters" if votes else "a table"
    least = f", at least {labels['min_agreement']:.0%} agreeing" if labels["min_agreement"] else ""
    return (
        f"The labels are not the source's own but those of {labels['name']} ({what}{least}; sha256 "
        f"{labels['sha256']}): {labels['labelled']:,} rows have an emotion, {labels['none']:,} "
        f"none ({labels['lost']:,} of these have one in the source); {labels['changed']:,} have "
        f"another one than in the source, and {labels['changed_class']:,} are in another class, or "
        f"in or out of the task, for it. Labels that match no row: {labels['unmatched']:,}."
    )


def leak_table(section: Section) -> Table | None:
    """Tabulate scores with and without images that leak, with intervals; None without any."""
    rows = []
    scores = (section.score, "log_loss")
    for group in section.groups:
        alone = [each for each in map(group.unleaked, scores) if each is not None]
        if alone:
            cells = [Cell(group.label), Cell(f"{alone[0].images:,}")]
            for score, each in zip(scores, alone, strict=True):
                cells += [estimated(group.estimates[score]), estimated(each)]
            rows.append(tuple(cells))
    if not rows:
        return None
    named = [SCORE_NAMES[score] for score in scores]
    columns = (
        "Head",
        "Images in no other split",
        *(f"{name[0].upper()}{name[1:]}, {of}" for name in named for of in ("all", "those")),
    )
    grouped = any("groups" in group.results[0].split for group in section.groups)
    caption = (
        f"{section.split.capitalize()} scores with and without the images that also occur in "
        f"{'training or validation' if section.split == 'test' else 'training'}"
        f"{', or whose person or sequence does' if grouped else ''}; small: 95% interval"
    )
    return Table(caption, columns, tuple(rows))


def emotion_table(groups: Sequence[Group]) -> Table:
    """Tabulate the scores of each original emotion, mean over the seeds, a row a head."""
    rows = []
    for emotion in groups[0].emotions[0]:
        for group in groups:
            fits = [fit[emotion] for fit in group.emotions]
            wrong = group.errors[emotion]
            low_to_high = f"{1 - wrong.high:.1%}{NOTHING}{1 - wrong.low:.1%}"
            rows.append(
                (
                    Cell(emotion, f"{fits[0]['class']}, {group.label}"),
                    Cell(f"{fits[0]['images']:,}"),
                    Cell(f"{1 - wrong.value:.1%}", low_to_high),
                    Cell(*_taken_for(fits)),
                    *(Cell(_score([fit[name] for fit in fits])) for name in _BY_EMOTION),
                )
            )
    columns = (
        "Emotion",
        "Images",
        "Right (recall)",
        "Taken most for",
        *_BY_EMOTION.values(),
    )
    split = groups[0].split.capitalize()
    return Table(f"{split} scores by original emotion, mean over the seeds", columns, tuple(rows))


def emotion_note() -> str:
    """Say what the columns of the table by emotion mean."""
    return (
        "Right, log loss, Brier score and ECE are of the emotion's own images; as those are all of "
        "one class, ECE is large wherever answers are not near certain. Precision, F1, ROC "
        "AUC and average precision are of its class, on those images beside all images of the "
        "other classes: how well the emotion is told from what is not its class."
    )


_BY_EMOTION = {
    "precision": "Precision",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Avg. precision",
    "log_loss": "Log loss ↓",
    "brier": "Brier ↓",
    "ece": "ECE ↓",
}


def _taken_for(fits: Sequence[dict[str, Any]]) -> tuple[str, str]:
    mean = {name: np.mean([fit["mistaken"][name] for fit in fits]) for name in fits[0]["mistaken"]}
    most = max(mean, key=mean.__getitem__)
    if not mean[most]:
        return NOTHING, ""
    return most, f"{mean[most] / fits[0]['images']:.1%}"


def _score(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.4f}" if known else NOTHING
