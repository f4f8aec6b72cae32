"""What the documentation tabulates is what the code has."""

import re
from pathlib import Path

import fer_features
from fer_features.embedding.applications import APPLICATIONS

DOCS = Path(fer_features.__file__).parent.parent / "docs"


def rows(name: str) -> list[list[str]]:
    """Return the cells of all table rows of a page whose first cell names a network."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] in APPLICATIONS]


def test_the_page_of_backbones_lists_every_network_as_it_is() -> None:
    said = {
        row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows("backbones.md")
    }
    assert said == {
        name: [row.dimension, row.input_size, row.smallest, row.parameters]
        for name, row in APPLICATIONS.items()
    }


def test_the_page_of_weights_says_where_every_file_is_and_its_hash() -> None:
    text = (DOCS / "weights.md").read_text(encoding="utf-8")
    host = re.search(r"All files lie under `(\S+)`", text)
    assert host
    found = {row[0]: (host[1] + row[1], row[2]) for row in rows("weights.md")}
    assert found == {
        name: (row.url, row.hash or "none published") for name, row in APPLICATIONS.items()
    }
    assert APPLICATIONS["InceptionResNetV2"].url in text
    for row in APPLICATIONS.values():
        assert not row.kept_as or row.kept_as in text
