"""Every error message that the package can give, read from its source for troubleshooting.md."""

import ast
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

PLACE = "…"
"""Stands for what a message fills in."""

MARKER = re.compile(r"<!-- messages: (.+?) -->")
"""In troubleshooting.md: whose messages belong to this section, as patterns of module paths."""

ELSEWHERE = ("ValueError", "TypeError", "NotFittedError")
"""Errors of others, which the package raises for users where they say what was expected."""

FRAGMENTS = ("RowError",)
"""Reasons: a message that names rows or images shows them after a colon."""

FEWEST_LETTERS = 10
"""A text with fewer letters of its own is put together from parts, and says nothing here."""


class Message(NamedTuple):
    """A message's text, with `…` for what it fills in, and the module that gives it."""

    module: str
    text: str


def messages(package: Path) -> list[Message]:
    """Return the messages of all modules below a folder, each once, in order."""
    trees = {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }
    ours = _family(trees.values())
    found: dict[Message, None] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = " ".join(_text(node.args[0]).split())
                if node.func.id in ours or (node.func.id in ELSEWHERE and "expected" in text):
                    for each in text.split("\0"):
                        if len(re.findall("[a-z]", each)) >= FEWEST_LETTERS:
                            found[Message(module, each)] = None
    return list(found)


def sections(page: str) -> dict[str, list[str]]:
    """Return the module patterns of each section of a page, by the section's heading."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif match := MARKER.fullmatch(line):
            found.setdefault(heading, []).extend(match[1].split())
    return found


def home(module: str, patterns: dict[str, list[str]]) -> str | None:
    """Return the section that a module's messages belong to: the one that names it most closely."""
    fitting = [
        (len(pattern.rstrip("*")), heading)
        for heading, each in patterns.items()
        for pattern in each
        if fnmatch(module, pattern)
    ]
    return max(fitting)[1] if fitting else None


def _family(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of the package's own error classes."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    family = {"FerFeaturesError", *FRAGMENTS}
    while more := {name for name, above in bases.items() if above & family} - family:
        family |= more
    return family


def _text(node: ast.expr) -> str:
    """Return what an expression says; the answers of a condition with a zero byte between."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            each.value if isinstance(each, ast.Constant) else PLACE for each in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body)}\0{_text(node.orelse)}"
    return PLACE
