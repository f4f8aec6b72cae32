"""What a run's ``metrics.json`` holds, format version 1: read and checked in a moment."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fer_features.errors import RunError
from fer_features.faces.bad_rows import shown

FORMAT = "fer-features/result"
FORMAT_VERSION = 1

SPLITS = ("validation", "test")
"""The splits that are scored and kept. Training rows are not: a head's answers on what it was
fitted to say how much it memorised, and would make the file two and a half times as long."""

KERAS_FILE, SKOPS_FILE = "head.keras", "head.skops"
"""The fitted head beside it: one of this package, or another classifier."""

SCORES = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
)
"""The single-number scores that every run has, in the order reports show them."""

MOST_BYTES = 2**26
"""Of a JSON file, at most: that of a comparison of ten thousand fits. Values take twenty times more
in memory."""

TEMPERATURES = (0.05, 20.0)
"""Between these lies a temperature: of images that are all told right it would be 0."""

Kind: TypeAlias = "str | dict[str, Kind] | list[Kind] | tuple[Kind, ...] | None"
"""What a JSON value is to be: a name of :data:`KINDS`, null, one of several, a list of one kind,
or an object, of which a name with ``?`` may be missing and ``*`` is any; others may be there."""

KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda v: isinstance(v, str),
    "a path": lambda v: isinstance(v, str) and v.isprintable(),
    "true or false": lambda v: isinstance(v, bool),
    "a number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "a count": lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    "a score": lambda v: v in SCORES,
    "a number from 0.05 to 20": lambda v: (
        KINDS["a number"](v) and TEMPERATURES[0] <= v <= TEMPERATURES[1]
    ),
}

_COUNTS: Kind = {"*": "a count"}

_SPLIT: Kind = {
    "protocol?": "text",
    "seed?": "a count",
    "duplicates?": "text",
    "per_class?": ("a count", "text"),
    "sizes": {"train": _COUNTS, "validation": _COUNTS, "test": _COUNTS},
    "rows?": "text",
    "leaked?": _COUNTS,
    "copies?": {"rows": "a count", "images": "a count", "disagreeing": "a count"},
    "train_part?": "a count",
    "labels?": {
        "name": "text",
        "sha256": "text",
        "path?": "text",
        "kind": "text",
        "column?": ("text", None),
        "min_agreement": "a number",
        "labels_as": ("text", None),
        "map": {"*": "text"},
        "labelled": "a count",
        "none": "a count",
        "lost": "a count",
        "changed": "a count",
        "changed_class": "a count",
        "unmatched": "a count",
        "both?": "a count",
    },
    "groups?": {"count": "a count", "by": ("text", None), "left_out": "a count"},
    "raters?": {"name": "text", "path": "text", "sha256": "text"},
    "test_on?": {
        "dataset": "text",
        "sha256": ("text", None),
        "rows": "a count",
        "outside": "a count",
        "images": "a count",
        "disagreeing": "a count",
        "left_out": "a count",
    },
}

_PLACE: Kind = {"name": "text", "path": "text"}

_STORE: Kind = {
    "name?": "text",
    "path?": "text",
    "rows_of?": {"name": "text", "path": "text", "test_on?": _PLACE},
    "test_on?": _PLACE,
    "network?": "text",
    "features?": "text",
    "dimension?": "a count",
    "fingerprint?": "text",
    "outputs?": ["text"],
    "options?": "text",
    "backbone?": {},
    "dataset?": {
        "name?": "text",
        "rows?": "a count",
        "limit?": ("a count", None),
        "left_out?": ({"*": "a count"}, None),
    },
    "provenance?": {
        "passes?": [
            {
                "images": "a count",
                "seconds?": ("a number", None),
                "images_per_second?": ("a number", None),
                "resumed?": "a count",
                "parameters?": "a count",
                "files?": {"backbone?": "text", "weights?": "text"},
                "cosine?": {"*": {"centred": {"median": "a number"}, "warns": "true or false"}},
            }
        ]
    },
}

FIELDS: dict[str, Kind] = {
    "head": "text",
    "params": {},
    "seed": ("a whole number", None),
    "random": "true or false",
    "task": {"classes": {"*": ["text"]}},
    "split": _SPLIT,
    "selection": ({"score": "a score", "selected": "true or false"}, None),
    "scores": {"validation": {}, "test?": {}},
    "calibration": {"temperature": "a number from 0.05 to 20"},
    "history": [{"*": ("a number", "text", None)}],
    "seconds": {"fit": ("a number", None)},
    "store": _STORE,
    "fingerprint": "text",
    "features": "text",
    "outputs": ["text"],
    "versions": {"*": ("text", "a count", None)},
}
"""What ``metrics.json`` holds beside ``format`` and ``format_version``, and of which kind."""


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types; a number that JSON has no word for becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # On one line, and without the address that an object has in this process.
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(value).split()))


def read_document(folder: Path) -> dict[str, Any]:
    """Read what a run's folder says of it.

    Raises
    ------
    RunError
        The folder is missing, damaged, of another format or of a newer version.
    """
    place = folder / "metrics.json"
    if not folder.is_dir():
        there = "a file" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: {there}, expected the folder of a run. Check the path.")
    if not place.is_file():
        only = "a report alone, " if (folder / "report.json").is_file() else ""
        raise RunError(
            f"{folder}: {only}no metrics.json, expected the folder of a run. Name one, "
            "such as runs/0001-dense."
        )
    try:
        document = read_json(place)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{place}: not JSON ({reason}). Fit the head again.") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise RunError(
            f"{place}: format {shown(repr(found))}, expected {FORMAT!r}. Name a run's folder."
        )
    version = document.get("format_version")
    if not KINDS["a count"](version) or version < 1:
        said = shown(repr(version))
        raise RunError(f"{place}: format_version {said}, expected {FORMAT_VERSION}.")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{place}: format_version {version}, this fer-features reads up to {FORMAT_VERSION}. "
            "Install a newer fer-features."
        )
    wrong = misfit(document, FIELDS) or _contradiction(document)
    if wrong:
        raise RunError(f"{place}: {wrong}. Fit the head again.")
    whole: dict[str, Any] = document
    return whole


def misfit(value: Any, kind: Kind, name: str = "") -> str | None:
    """Say what of a JSON value is not of a kind, None where all is."""
    if isinstance(kind, tuple):
        each_said = [misfit(value, each, name) for each in kind]
        return None if None in each_said else each_said[0]
    if isinstance(kind, dict) and isinstance(value, dict):
        for key, part in kind.items():
            own = key.removesuffix("?")
            if own not in ("*", *value) and own == key:
                return f"no {own!r}{f' in {name!r}' * bool(name)}"
            for each in value if own == "*" else value.keys() & {own}:
                if said := misfit(value[each], part, f"{name}.{each}".lstrip(".")):
                    return said
        return None
    if isinstance(kind, list) and isinstance(value, list):
        found = (misfit(each, kind[0], f"{name}[{i}]") for i, each in enumerate(value))
        return next(filter(None, found), None)
    if kind is None:
        fits, expected = value is None, "null"
    elif isinstance(kind, str):
        fits, expected = KINDS[kind](value), kind
    else:
        fits, expected = False, "a list" if isinstance(kind, list) else "an object"
    return None if fits else f"{name!r} is {plain_text(value)}, expected {expected}"


def _contradiction(document: Mapping[str, Any]) -> str | None:
    """Say what values of the right kinds do not mean together, None where all is well."""
    classes, outputs = document["task"]["classes"], document["outputs"]
    if sorted(outputs) != sorted(classes):
        expected = shown(", ".join(classes), 200)
        return f"'outputs' is {plain_text(outputs)}, expected {expected} in some order"
    if any(name not in SPLITS for name in document["scores"]):
        found = shown(", ".join(document["scores"]), 200)
        return f"'scores' is of {found}, expected validation and test"
    return history_misfit(document["history"])


def history_misfit(history: Any) -> str | None:
    """Say what a history has that no curve can be drawn of, None where it has not."""
    if said := misfit(history, FIELDS["history"], "history"):
        return said
    for names in (("epoch", "loss", "val_loss"), ("C", "val_log_loss")):
        for entry in history:
            numbers = all(KINDS["a number"](entry.get(name)) for name in names)
            # One strength is chosen among none: it may be without a loss.
            if names[-1] in entry and not (numbers or (len(history) == 1 and names[0] == "C")):
                return f"'history' has {plain_text(entry)}, expected numbers {', '.join(names)}"
    return None


def plain_text(value: Any) -> str:
    """Write a JSON value for a message, its beginning if it is long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) < 60 else f"{text[:60]}…"


def _number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return how a number in JSON is read: one that no float can be is none."""

    def read(text: str) -> Any:
        if not np.isfinite(float(text)):
            raise ValueError(f"{text[:20]} is too large a number")
        return kind(text)

    return read


def read_json(place: Path) -> Any:
    """Read a JSON file; OSError or ValueError where it is none, or holds what JSON has not."""
    with place.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return json.loads(
        content.decode(),
        parse_constant=_no_constant,
        parse_float=_number(float),
        parse_int=_number(int),
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
