"""Public docstrings say what goes in and what comes back, and what they show is what happens."""

import doctest
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import fer_features
from fer_features.experiment import statistics
from fer_features.prediction.export import export

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROPERTIES = (property, cached_property)


def public() -> Iterator[tuple[str, Any]]:
    """Yield public names, and what they name; a class's methods are part of it."""
    for name in fer_features.__all__:
        yield name, getattr(fer_features, name)
    for name in ("estimate", "difference", "holm"):
        yield f"statistics.{name}", getattr(statistics, name)
    yield "export", export


def examples(name: str, value: Any) -> list[doctest.DocTest]:
    """Return the examples of a name's docstring, and of its methods'."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    home = inspect.getmodule(value)
    return [each for each in finder.find(value, name, module=home) if each.examples]


@pytest.mark.parametrize(("name", "value"), [pytest.param(*each, id=each[0]) for each in public()])
def test_the_examples_of_a_docstring_do_what_they_show(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples(name, value)
    assert found, f"{name}: no example"
    said: list[str] = []
    for example in found:
        example.globs = {}  # as a reader's own program: what it needs it imports
        doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(example, out=said.append)
    assert not said, "".join(said)


def test_an_example_is_skipped_for_a_reason_alone() -> None:
    for name, value in public():
        for found in examples(name, value):
            for example in found.examples:
                if "+SKIP" in example.source:
                    assert example.source.split("+SKIP", 1)[1].strip(), f"{name}: {example.source}"


def described() -> Iterator[tuple[str, Any]]:
    """Yield public names and their classes' public methods and properties, but scikit-learn's."""
    for name, value in public():
        yield name, value
        for each in dir(value) if inspect.isclass(value) else ():
            member = getattr(value, each)
            home = str(getattr(member, "__module__", ""))
            own = inspect.isroutine(member) and home.startswith("fer_features.")
            if (own or isinstance(member, PROPERTIES)) and not each.startswith("_"):
                yield f"{name}.{each}", member


def sections(value: Any) -> dict[str, str]:
    """Return the sections of a docstring by their headings; by "" what stands before them."""
    before, *parts = re.split(r"(?m)^(\w+)\n-+\n", inspect.cleandoc(value.__doc__ or ""))
    return {"": before, **dict(zip(parts[::2], parts[1::2], strict=True))}


def names(section: str) -> set[str]:
    """Return the names that a section describes: of ``a, b : float`` both."""
    heads = [line for line in section.splitlines() if line.strip() and not line[0].isspace()]
    return {name.strip(" *") for line in heads for name in line.partition(" : ")[0].split(",")}


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(*each, id=each[0]) for each in described()]
)
def test_a_docstring_says_what_goes_in_and_what_comes_back(name: str, value: Any) -> None:
    found = sections(value)
    assert found[""], f"{name}: no docstring of its own"
    if isinstance(value, PROPERTIES) or value is fer_features.FerFeaturesError:
        return  # the one takes nothing, the other what any exception does
    signature = inspect.signature(value)
    every = signature.parameters.values()
    needed = {each.name for each in every if each.kind != each.VAR_KEYWORD}
    said = names(found.get("Parameters", ""))
    assert said <= set(signature.parameters), f"{name}: parameters there are not"
    if inspect.isclass(value):
        said |= names(found.get("Attributes", ""))
    elif signature.return_annotation is not None:
        first = found[""].startswith(("Return ", "Yield "))
        assert first or {"Returns", "Yields"} & found.keys(), f"{name}: not what comes back"
    assert needed - {"self", "cls"} <= said, f"{name}: parameters that are not described"
