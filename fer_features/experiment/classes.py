"""The classes of a task: names, and the emotions of each."""

import unicodedata
from collections.abc import Mapping
from typing import TypeAlias

from fer_features.errors import TaskError
from fer_features.faces.emotions import EMOTIONS, did_you_mean

Classes: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]

DEFAULT_CLASSES: Classes = (
    ("positive", ("happiness",)),
    ("negative", ("anger", "fear", "sadness")),
)
"""The original experiment's task: happiness against anger, fear and sadness."""

ALL = "all"
"""Instead of classes: one for each emotion that the data have."""


def checked_classes(classes: object) -> Classes | str:
    """Return ``classes`` as a tuple of (name, emotions) pairs or ``"all"``, or raise TaskError."""
    if isinstance(classes, str):
        if classes == ALL:
            return ALL
        raise TaskError(
            f'classes: {classes!r}, expected a mapping of class names to emotions, or "all".'
        )
    try:
        pairs = list(classes.items() if isinstance(classes, Mapping) else classes)  # type: ignore[call-overload]
        groups = [(name, (e,) if isinstance(e, str) else tuple(e)) for name, e in pairs]
    except (TypeError, ValueError):
        raise TaskError(
            f'classes: {classes!r}, expected a mapping of class names to emotions, or "all".'
        ) from None
    if len(groups) < 2:
        raise TaskError(f"classes: {len(groups)} given, expected two or more.")
    owner: dict[str, str] = {}
    for position, (name, emotions) in enumerate(groups):
        if not isinstance(name, str) or not name.strip():
            raise TaskError(f"classes: the name {name!r}, expected some text.")
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
            raise TaskError(f"classes: the name {name!r}, expected no control characters.")
        if name in [earlier for earlier, _ in groups[:position]]:
            raise TaskError(f"classes: {name!r} is given twice, expected different names.")
        if not emotions:
            raise TaskError(f"class {name!r}: no emotions, expected one or more.")
        for emotion in emotions:
            if emotion not in EMOTIONS:
                raise TaskError(
                    f"class {name!r}: unknown emotion {emotion!r}, expected "
                    f"{', '.join(EMOTIONS)}{did_you_mean(str(emotion), EMOTIONS)}. Name one."
                )
            if emotion in owner:
                raise TaskError(
                    f"class {name!r}: {emotion} is already in class {owner[emotion]!r}, expected "
                    "each emotion once."
                )
            owner[emotion] = name
    return tuple(groups)
