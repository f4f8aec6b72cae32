"""Heads on a command line: names to classifiers, and text to the values of their parameters."""

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import click

SYNTAX = "HEAD.PARAMETER=VALUE[,VALUE]"


def make_head(name: str) -> tuple[str, Any]:
    """Return a head's label and the unfitted head, by ``dense``, ``logistic`` or a dotted name.

    A dotted name is that of a scikit-learn classifier in an installed package; its label is the
    name of its class.

    Raises
    ------
    click.UsageError
        When there is no such head.
    """
    from fer_features.experiment.heads import HEADS

    if "." in name:
        found = _class(name)
        try:
            head = found()
        except TypeError as error:
            raise click.UsageError(
                f"{name}: cannot be made without arguments ({error}), expected a classifier with "
                "defaults. Use it in Python."
            ) from None
        return found.__name__, head
    if name in HEADS:
        return name, HEADS[name]()
    near = difflib.get_close_matches(name, HEADS, n=1)
    raise click.UsageError(
        f"{name!r}, expected {' or '.join(HEADS)}, or a classifier such as "
        "sklearn.neighbors.KNeighborsClassifier." + (f" Did you mean {near[0]}?" if near else "")
    )


def make_heads(names: str) -> dict[str, Any]:
    """Return the unfitted heads of ``NAME,NAME`` by their labels."""
    heads: dict[str, Any] = {}
    for name in names.split(","):
        try:
            label, head = make_head(name.strip())
        except click.UsageError as error:
            raise click.UsageError(f"--heads: {error.message}") from None
        if label in heads:
            raise click.UsageError(f"--heads: {label} is given twice, expected each head once.")
        heads[label] = head
    return heads


def parse_grid(texts: Sequence[str], heads: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Return for each head's label its parameters and their values.

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
    from fer_features.experiment.fitting import seed_parameters

    grid: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        place, equals, values = text.partition("=")
        label, dot, name = place.partition(".")
        if not (dot and equals and name):
            raise click.UsageError(f"--grid {text!r}: expected {SYNTAX}.")
        if label in heads and name in seed_parameters(heads[label]):
            raise click.UsageError(f"--grid {text!r}: expected a parameter. Use --seeds for that.")
        known = {
            f"{each}.{parameter}": each
            for each, head in heads.items()
            for parameter in head.get_params()
            if parameter not in seed_parameters(head)
        }
        if place not in known:
            near = difflib.get_close_matches(place, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(
                f"--grid {text!r}: no {place}, expected one of {', '.join(known)}.{hint}"
            )
        if name in grid.get(label, {}):
            raise click.UsageError(f"--grid {text!r}: {place} is given twice, expected once.")
        parse, expected = reader(heads[label], name)
        try:
            grid.setdefault(label, {})[name] = [parse(each.strip()) for each in values.split(",")]
        except ValueError:
            raise click.UsageError(f"--grid {text!r}: expected {expected}.") from None
    return grid


def parse_value(head: Any, parameter: str, text: Any) -> Any:
    """Return the value of an option that is named as a head's parameter.

    Raises
    ------
    click.BadParameter
        When the text is none; with the flag.
    """
    if not isinstance(text, str):
        return text
    parse, expected = reader(head, parameter)
    try:
        return parse(text)
    except ValueError:
        flag = "--" + parameter.replace("_", "-")
        raise click.BadParameter(f"{text!r}, expected {expected}.", param_hint=flag) from None


def reader(head: Any, parameter: str) -> tuple[Callable[[str], Any], str]:
    """Return what reads a parameter's value from text, and what is expected there.

    The type is that of the default; of other packages' classifiers, which take more than that,
    also a number, ``none``, ``true``, ``false`` or a word.
    """
    from fer_features.experiment.heads import Head

    default = head.get_params()[parameter]
    name = parameter.rpartition("__")[2]
    if isinstance(default, tuple) or name == "hidden":
        return _units, "units a layer joined by x, such as 128x64,256, or none"
    if name == "class_weight":
        return _choice({"none": None, "balanced": "balanced"}), "none or balanced"
    if isinstance(default, bool):
        return _choice({"true": True, "false": False}), "true or false"
    if not isinstance(head, Head):
        if isinstance(default, int | float):
            return _number_or_none, "numbers, such as 5,15, or none"
        return _literal, "numbers, none, true, false or words"
    if name == "C":
        return lambda text: text if text == "auto" else float(text), "auto or numbers such as 0.01"
    if isinstance(default, int):
        return int, "whole numbers, such as 64,128"
    return float, "numbers, such as 1e-4,1e-3"


def _class(name: str) -> type:
    """Return the classifier of a dotted name, from a package that is installed, and no other."""
    module_name, _, class_name = name.rpartition(".")
    top = module_name.partition(".")[0]
    if not re.fullmatch(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*", name, flags=re.ASCII):
        raise click.UsageError(f"{name!r}, expected a name such as sklearn.svm.SVC.")
    if not _builds_on_scikit_learn(top):
        # Nothing in the working folder and nothing of Python's own is imported by its name.
        raise click.UsageError(
            f"{name}: {top!r} is no installed package that builds on scikit-learn, expected one. "
            "Install it, or take another classifier."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # Whatever a module raises while it is imported.
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise click.UsageError(f"{name}: {module_name} cannot be imported ({said}).") from None
    known = [each for each in dir(module) if _is_classifier(getattr(module, each, None))]
    if class_name not in known:
        near = difflib.get_close_matches(class_name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        found = "nothing" if not hasattr(module, class_name) else "no scikit-learn classifier"
        raise click.UsageError(f"{name}: {found} in {module_name}, expected a classifier.{hint}")
    found_class: type = getattr(module, class_name)
    return found_class


def _builds_on_scikit_learn(top: str) -> bool:
    names = metadata.packages_distributions().get(top, [])
    needed = [each for name in names for each in metadata.requires(name) or []]
    return any(each.lower().startswith("scikit-learn") for each in [*names, *needed])


def _is_classifier(value: Any) -> bool:
    from sklearn.base import BaseEstimator, ClassifierMixin

    return (
        isinstance(value, type)
        and issubclass(value, BaseEstimator)
        and issubclass(value, ClassifierMixin)
        and value is not ClassifierMixin
    )


def _units(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(int(part) for part in text.split("x"))


def _number_or_none(text: str) -> Any:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return _number_or_none(text)
    except ValueError:
        if not text:
            raise
        return text


def _choice(words: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in words:
            raise ValueError(text)
        return words[text]

    return read
