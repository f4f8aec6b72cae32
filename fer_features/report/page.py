"""Results laid out as one self-contained HTML page and as Markdown, from Results alone.

The page loads nothing: its style and its figures are inside it, and its own policy forbids the
rest. Nothing here imports TensorFlow.
"""

import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_features.errors import RunError
from fer_features.experiment.comparison_folder import Results
from fer_features.experiment.result import Result
from fer_features.faces.dataset import FaceDataset
from fer_features.report import data_tables, provenance, record, summary, tables, words
from fer_features.report.pictures import SHOWN_GROUPS, Picture, pictures
from fer_features.report.summary import SCORE_NAMES, Section


def write_report(
    results: Result | Sequence[Result],
    out: str | Path,
    *,
    title: str | None = None,
    faces: FaceDataset | None = None,
    command: str | None = None,
) -> Path:
    """Write ``report.html``, ``report.md``, their data and each figure as PNG into a folder.

    The data are ``report.json``, all that is tabulated, and ``report.csv``, a line a score.

    Parameters
    ----------
    results : Result or sequence of Result
        The fits to report. Those that differ in the seed alone are averaged; those tested on
        other images or classes get sections of their own; those without test scores, which a
        comparison did not select, are only counted, or make the curve over training images. Where
        none has test scores the report is about validation, and says so.
    out : path
        The folder, made if it is missing. An earlier report in it is replaced, and those of its
        figures removed that this one has not; no other file is touched.
    title : str, optional
        The page's heading; by default it names the heads and the data.
    faces : FaceDataset, optional
        Faces to show, matched by digest: some of each class, and the most confident mistakes.
        Without it the report holds no image of a person, as a report may be passed on.
    command : str, optional
        The command line that made the results, shown among what is needed to repeat them.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        There is no result, none of the faces is among those that are judged by, or the folder
        cannot be written.
    """
    given = list(Results([results] if isinstance(results, Result) else results))
    if not given:
        raise RunError("report: no run, expected at least one. Name a run folder.")
    split = summary.judged_by(given)
    fits = [result for result in given if split in result.scores]
    parts = summary.sections(given)
    said = results.notices() if isinstance(results, Results) else []
    pictured = [
        pictures(part, f"set{i}-" if len(parts) > 1 else "", faces)
        for i, part in enumerate(parts, 1)
    ]
    content: dict[str, Any] = {
        "title": title or _title(fits, parts),
        "notices": [*words.notices(fits, parts), *said],
        "passes": provenance.pass_note(fits),
        "parts": [_content(*each, command) for each in zip(parts, pictured, strict=True)],
    }
    drawn = {picture.file: picture.drawing.png for each in pictured for picture in each}
    texts = {
        "report.md": _markdown(content),
        "report.csv": record.as_csv(parts),
        "report.json": record.as_json(content["title"], content["notices"], parts, list(drawn)),
        "report.html": _html(content),
    }
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stale = _earlier_figures(folder) - set(drawn)
        for name, text in texts.items():
            drawn[name] = text.encode("utf-8")
        for name, data in drawn.items():
            _write(folder / name, data)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}). Name another folder."
        ) from error
    return folder / "report.html"


def _earlier_figures(folder: Path) -> set[str]:
    """Return the figures that the report in a folder has, by its own account."""
    try:
        named = json.loads((folder / "report.json").read_text(encoding="utf-8"))["figures"]
        return {name for name in named if re.fullmatch(r"[a-z0-9-]+\.png", name)}
    except (OSError, ValueError, TypeError, LookupError):
        return set()


def _content(part: Section, drawn: list[Picture], command: str | None) -> dict[str, Any]:
    """Gather what the templates show of one section."""
    hidden = len(part.groups) - SHOWN_GROUPS
    shown = part.ranked[:SHOWN_GROUPS]
    return {
        "answer": words.answer(part),
        "selection": words.selection(part),
        "settings": tables.settings_table(part),
        "caution": words.caution(part),
        "scores": tables.score_table(part),
        "score_note": tables.score_note(part),
        "pairs": tables.pairs_table(part),
        "pairs_note": words.pairs_note(part),
        "spreads": [
            tables.spread_table(part, split)
            for split in dict.fromkeys(("validation", part.split))
            if split != part.split or part.several_seeds
        ],
        "spread_title": "Spread over seeds" if part.several_seeds else "On validation",
        "published": tables.published_table(part),
        "pictures": drawn,
        "hidden": ""
        if hidden <= 0
        else f"Figures show the {SHOWN_GROUPS} of {len(part.groups)} heads that are best by "
        f"validation {SCORE_NAMES[part.select]}.",
        "emotion_said": words.emotion_said(part),
        "emotions": data_tables.emotion_table([g for g in part.groups if g in shown]),
        "emotion_note": data_tables.emotion_note(),
        "cost": provenance.cost_table(part),
        "cost_note": provenance.cost_note(part),
        "fits": provenance.fits_table(part),
        "data": data_tables.data_tables(part),
        "data_note": data_tables.data_note(part),
        "leaks": data_tables.leak_table(part),
        "commands": provenance.commands(part, command),
        "provenance": provenance.provenance_tables(part),
    }


def _title(results: Sequence[Result], parts: Sequence[Section]) -> str:
    names = {str(r.store.get("dataset", {}).get("name", r.store.get("name"))) for r in results}
    where = f" on {', '.join(sorted(names))}"
    groups = [group for part in parts for group in part.groups]
    if len(groups) == 1:
        return f"The {groups[0].label} head{where}"
    return f"{len(groups)} heads compared{where}"


def _html(content: dict[str, Any]) -> str:
    environment = _environment(autoescape=True)
    return environment.get_template("report.html.j2").render(content)


def _markdown(content: dict[str, Any]) -> str:
    environment = _environment(autoescape=False, finalize=_md)
    environment.filters["code"] = _Code
    return environment.get_template("report.md.j2").render(content)


def _environment(**options: Any) -> Environment:
    return Environment(
        loader=PackageLoader("fer_features.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


class _Code(str):
    """Text for a Markdown code block, in which nothing is escaped."""


def _md(value: Any) -> str:
    """Escape what Markdown, or HTML inside it, would take for its own; keep it on one line."""
    flat = " ".join(str(value).split())
    if isinstance(value, _Code):
        return flat
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", flat)


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that no reader meets half of it."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
