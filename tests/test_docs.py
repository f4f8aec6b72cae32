"""The documentation says what the code has and does, and is a site that needs nothing else."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY

import fer_features
from fer_features import extract
from fer_features.embedding.applications import APPLICATIONS
from fer_features.experiment import statistics
from fer_features.sample.faces import draw_faces

ROOT = Path(fer_features.__file__).parent.parent
DOCS = ROOT / "docs"
FETCHED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=.?(?:https?:)?//", re.I
)


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


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.html")}
    assert {"index.html", "quickstart.html", "reference/embedding.html"} < set(pages)
    for name, path in pages.items():
        assert not FETCHED.search(path.read_text(encoding="utf-8")), name
    for path in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", path.read_text(encoding="utf-8")), path
    assert (tmp_path / "examples" / "quickstart.ipynb").is_file()
    trouble = pages["troubleshooting.html"].read_text(encoding="utf-8")
    assert "engine: openvino is not installed. Install fer-features[openvino]" in trouble
    scripts = re.sub(r"<[^>]+>", "", pages["examples.html"].read_text(encoding="utf-8"))
    for path in (ROOT / "examples").glob("*.py"):
        assert html.escape(path.read_text().splitlines()[0], quote=False) in scripts


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)", pages, re.MULTILINE))
    public = {f"fer_features.{name}" for name in fer_features.__all__}
    assert public - shown == {"fer_features.FerFeaturesError"}  # shown with its module
    assert "fer_features.errors" in shown
    ours = {
        f"{statistics.__name__}.{name}"
        for name, value in vars(statistics).items()
        if getattr(value, "__module__", None) == statistics.__name__ and name[0] != "_"
    }
    assert ours <= shown


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("from-*.md")))
def test_the_code_of_the_pages_for_newcomers_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract(draw_faces(300), "faces.h5", backbone=TINY)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {})
