"""Every error message has its place in the documentation, and no entry outlives its message."""

import re
import sys
from pathlib import Path

import fer_features

ROOT = Path(__file__).parent.parent
PACKAGE = Path(fer_features.__file__).parent

sys.path.insert(0, str(ROOT / "docs"))
from messages import PLACE, home, messages, sections  # noqa: E402

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def entries() -> list[tuple[str, str]]:
    """Return the section and the message of each row of the page's tables."""
    found, heading = [], ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif match := re.match(r"\| `(.+?)` \| ", line):
            found.append((heading, match[1]))
    return found


def says(entry: str, text: str) -> bool:
    """Return whether an entry's words stand in a message, in their order."""
    words = [re.escape(part) for part in entry.split(PLACE)]
    return re.search(".*".join(words), text) is not None


def test_every_message_belongs_to_a_section() -> None:
    found = messages(PACKAGE)
    assert len(found) > 300
    patterns = sections(PAGE)
    assert not {each.module for each in found if home(each.module, patterns) is None}


def test_every_pattern_names_modules_that_there_are() -> None:
    for heading, patterns in sections(PAGE).items():
        for pattern in patterns:
            assert list(PACKAGE.glob(pattern)), f"{heading}: {pattern}"


def test_every_entry_is_of_a_message_of_its_section() -> None:
    patterns = sections(PAGE)
    texts: dict[str | None, list[str]] = {}
    for each in messages(PACKAGE):
        texts.setdefault(home(each.module, patterns), []).append(each.text)
    said = entries()
    assert len(said) > 50
    gone = [
        (heading, entry)
        for heading, entry in said
        if not any(says(entry, text) for text in texts[heading])
    ]
    assert not gone


def test_a_message_is_read_from_the_source_as_it_is_said() -> None:
    found = {(each.module, each.text) for each in messages(PACKAGE)}
    assert (
        "embedding/engines.py",
        "engine: openvino is not installed. "
        "Install fer-features[openvino], or pass --engine tensorflow.",
    ) in found
    assert any(text.startswith("… row …: ") for _, text in found)
