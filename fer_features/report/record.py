"""What a report shows, for machines: ``report.json`` and ``report.csv``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from fer_features.experiment.run_document import plain
from fer_features.experiment.statistics import Estimate
from fer_features.report import words
from fer_features.report.summary import Group, Pair, Section
from fer_features.report.tables import COLUMNS

FORMAT = "fer-features/report"
FORMAT_VERSION = 1


def as_json(title: str, notices: Sequence[str], parts: Sequence[Section], files: list[str]) -> str:
    """Return the report's answers, scores, intervals and comparisons as JSON.

    `files` are the figures that lie beside it.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": title,
        "notices": list(notices),
        "figures": files,
        "sections": [_section(part) for part in parts],
    }
    return json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(parts: Sequence[Section]) -> str:
    """Return a line for each score of each head and split, as CSV.

    Columns: ``section`` (from 1), ``head``, ``split``, ``score``, ``fits``, ``mean`` over the
    fits, ``lowest`` and ``highest`` of them, and for what is judged by, test or validation alone,
    ``low`` and ``high``, the 95 % interval, and ``covers_seeds``, whether it is about other seeds
    as well as other images.
    """
    lines = [
        {"section": number, "head": group.label, "split": split, "score": name}
        | {"fits": len(group.results)}
        | score
        for number, part in enumerate(parts, 1)
        for group in part.groups
        for split in _splits(group)
        for name, score in _scores(group, split).items()
    ]
    return str(pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))


def _section(part: Section) -> dict[str, Any]:
    name, share = part.chance
    return {
        "answer": words.answer(part),
        "classes": part.first.task["classes"],
        "split": part.split,
        "images": len(part.rows),
        "score": part.score,
        "chance": {"class": name, "value": share},
        "select": part.select,
        "chosen": part.ranked[0].label,
        "headlines": [
            {"head": label, "value": found.value, **_interval(found)}
            | {"images": found.images, "seeds": found.seeds}
            for label, found in part.headlines.items()
        ],
        "heads": [_head(group) for group in part.groups],
        "pairs": [_pair(pair) for pair in part.pairs],
        "settings": [
            {
                "label": group.label,
                "params": group.results[0].params,
                "fits": len(group.results),
                "validation": group.mean("validation", part.select),
                "tested": tested,
            }
            for group, tested in part.settings
        ],
    }


def _head(group: Group) -> dict[str, Any]:
    first = group.results[0]
    return {
        "label": group.label,
        "head": first.label,
        "params": first.params,
        "seeds": [result.seed for result in group.results],
        "fingerprint": first.fingerprint,
        "features": first.features,
        "split": first.split,
        "scores": {split: _scores(group, split) for split in _splits(group)},
        "errors_by_emotion": {
            emotion: {
                "class": group.emotions[0][emotion]["class"],
                "images": group.emotions[0][emotion]["images"],
                "error": wrong.value,
                **_interval(wrong),
            }
            for emotion, wrong in group.errors.items()
        },
        "validation_log_loss_by_size": {
            str(size): losses for size, losses in words.size_curve(group).items()
        },
    }


def _pair(pair: Pair) -> dict[str, Any]:
    apart = asdict(pair.difference)
    return {
        "first": pair.first,
        "second": pair.second,
        "difference": apart.pop("value"),
        **apart,
        "holm": pair.holm,
        "words": pair.words,
    }


def _splits(group: Group) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("validation", group.split)))


def _scores(group: Group, split: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in COLUMNS:
        values = group.values(split, name)
        found[name] = {
            "mean": group.mean(split, name),
            "lowest": min(values, default=None),
            "highest": max(values, default=None),
            **_interval(group.estimates[name] if split == group.split else None),
        }
    return found


def _interval(found: Estimate | None) -> dict[str, Any]:
    """Return an interval and what it is about; NaN, which plain() makes None, where none is."""
    if found is None:
        return {"low": None, "high": None, "covers_seeds": None}
    return {"low": found.low, "high": found.high, "covers_seeds": found.covers_seeds}
