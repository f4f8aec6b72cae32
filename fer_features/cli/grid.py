"""The values of ``--grid``: text to what each parameter takes."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import click

SYNTAX = "HEAD.PARAMETER=VALUE[,VALUE]"


def parse_grid(texts: Sequence[str], heads: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Return for each head's name its parameters and their values, typed as their defaults are.

    Parameters
    ----------
    texts : sequence of str
        Each ``HEAD.PARAMETER=VALUE[,VALUE]``.
    heads : mapping of str to classifier
        The heads that are fitted.

    Raises
    ------
    click.UsageError
        When a text is of another form, names an unknown head or parameter, or has a bad value.
    """
    grid: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        place, equals, values = text.partition("=")
        label, dot, name = place.partition(".")
        if not (dot and equals and name):
            raise click.UsageError(f"--grid {text!r}: expected {SYNTAX}.")
        known = {
            f"{each}.{parameter}": default
            for each, head in heads.items()
            for parameter, default in head.get_params().items()
            if parameter != "seed"
        }
        if label in heads and name == "seed":
            raise click.UsageError(f"--grid {text!r}: expected a parameter. Use --seeds for that.")
        if place not in known:
            near = get_close_matches(place, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(
                f"--grid {text!r}: no {place}, expected one of {', '.join(known)}.{hint}"
            )
        if name in grid.get(label, {}):
            raise click.UsageError(f"--grid {text!r}: {place} is given twice, expected once.")
        parse, expected = _reader(name, known[place])
        try:
            grid.setdefault(label, {})[name] = [parse(each.strip()) for each in values.split(",")]
        except ValueError:
            raise click.UsageError(f"--grid {text!r}: expected {expected}.") from None
    return grid


def _reader(name: str, default: Any) -> tuple[Callable[[str], Any], str]:
    """Return what reads one value of a parameter, and what is expected of the values."""
    if name == "hidden":
        return _units, "units a layer joined by x, such as 128x64,256"
    if name == "C":
        return _number_or("auto", "auto"), "auto or numbers, such as auto,0.01"
    if name == "class_weight":
        return _choice({"none": None, "balanced": "balanced"}), "none or balanced"
    if isinstance(default, bool):
        return _choice({"true": True, "false": False}), "true or false"
    if isinstance(default, int):
        return int, "whole numbers, such as 64,128"
    return float, "numbers, such as 1e-4,1e-3"


def _units(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x"))


def _number_or(word: str, value: Any) -> Callable[[str], Any]:
    return lambda text: value if text == word else float(text)


def _choice(words: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in words:
            raise ValueError(text)
        return words[text]

    return read
