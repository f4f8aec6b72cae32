"""What mkdocs needs to make a site of these pages, which read the same where the code lies.

Pages link to files beside `docs/`; the site has pages or downloads in their places. Docstrings are
numpydoc with Sphinx's roles, the site's reference is Markdown.
"""

import json
import re
from pathlib import Path
from typing import Any

import griffe
from messages import MARKER, home, messages, sections
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fer_features"

PAGES = {
    "cache/README.md": "store.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measured.md",
    "examples/quickstart.ipynb": "quickstart.md",
}
"""Which page of the site shows a file that lies beside `docs/`."""

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`(~?)([^`]+)`")


def on_files(files: Files, config: Any) -> Files:
    """Add what lies beside `docs/`."""
    for path, page in PAGES.items():
        if path.endswith(".ipynb"):
            text = notebook_page(ROOT / path)
        else:
            text = inward((ROOT / path).read_text(encoding="utf-8"), path)
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "examples").iterdir()):
        if path.is_file():
            files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that leave `docs/` to the pages that stand for them; fill in the messages."""
    if page.file.src_uri == "troubleshooting.md":
        markdown = with_messages(markdown)
    for path, target in PAGES.items():
        markdown = markdown.replace(f"](../{path}", f"]({target}")
    return markdown.replace("](../examples/", "](examples/")


def inward(text: str, path: str) -> str:
    """Return a file's text with its links as a page in `docs/` would have them."""
    up = "../" * (path.count("/"))
    text = text.replace(f"]({up}docs/", "](")
    return re.sub(rf"\]\({re.escape(up)}(?=(?:{'|'.join(map(re.escape, PAGES))})\b)", "](../", text)


def notebook_page(path: Path) -> str:
    """Return a notebook's cells as Markdown."""
    said = [f"[The notebook as a file](examples/{path.name})"]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        said.insert(
            len(said) - (number == 0),
            f"```python\n{source}\n```" if cell["cell_type"] == "code" else source,
        )
    return "\n\n".join(said) + "\n"


def with_messages(page: str) -> str:
    """Return the page of troubleshooting with every message in the section it belongs to."""
    patterns = sections(page)
    listed: dict[str, list[str]] = {heading: [] for heading in patterns}
    for module, text in messages(PACKAGE):
        heading = home(module, patterns)
        if heading is None:
            raise ValueError(f"troubleshooting.md: no section for the messages of {module}")
        if text not in listed[heading]:
            listed[heading].append(text)
    lines, heading = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        if MARKER.fullmatch(line):
            lines.append(f'??? note "All {len(listed[heading])} messages of this kind"\n')
            lines += [f"    - `` {text} ``" for text in listed[heading]]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


class Roles(griffe.Extension):
    """Docstrings as Markdown: Sphinx's roles become plain code, types in words stay words."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            text = ROLE.sub(plain, obj.docstring.value)
            # A hyphen that does not break is none that is read as minus, and a space that does
            # not break makes no call of a shape after its dtype.
            text = re.sub(r"(?m)^(.* : .*)path-like", "\\1path\N{NON-BREAKING HYPHEN}like", text)
            obj.docstring.value = re.sub(
                r"\b(u?int\d+|float\d+|bool|str) \((?=[a-z0-9]+,)", "\\1\N{NO-BREAK SPACE}(", text
            )


def plain(match: re.Match[str]) -> str:
    """Return a role's text: of ``~a.b.c`` the last part."""
    name = match[2]
    return f"`{name.rsplit('.', 1)[-1] if match[1] else name}`"
