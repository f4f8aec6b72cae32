"""What public docstrings show is what happens; every public name shows something."""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fer_features
from fer_features.experiment import statistics
from fer_features.prediction.export import export

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


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
