"""Results laid out as one self-contained HTML page, as Markdown, as data and as a model card.

The page loads nothing: its style and its figures are inside it, and its own policy forbids the
rest. Nothing here imports TensorFlow.
"""

import base64
import html
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fer_features.errors import RunError
from fer_features.experiment.comparison_folder import Results, network_said
from fer_features.experiment.result import Result
from fer_features.experiment.run_document import plain
from fer_features.experiment.scores import SCORES
from fer_features.experiment.statistics import Difference, Estimate
from fer_features.faces.dataset import FaceDataset
from fer_features.report import content, figures, reproduction, sections
from fer_features.report.content import Cell, Notice, Table
from fer_features.report.figures import Picture
from fer_features.report.sections import Group, RatersSaid, Section

FORMAT = "fer-features/report"
FORMAT_VERSION = 1


def write_report(
    results: Result | Sequence[Result],
    out: str | Path,
    *,
    title: str | None = None,
    faces: FaceDataset | None = None,
    command: str | None = None,
) -> Path:
    """Write ``report.html``, ``report.md``, their data and each figure as PNG into a folder.

    The data are ``report.json``, all that is tabulated, and ``report.csv``, a line a score. Of a
    single fit there is also ``card.md``, a model card in Hugging Face's form.

    Parameters
    ----------
    results : Result or sequence of Result
        The fits to report. Those that differ in the seed alone are averaged; those tested on
        other images or classes get sections of their own; those without test scores, which a
        comparison did not select, are only counted, or make the curve over training images. Where
        none has test scores the report is about validation, and says so.
    out : path
        The folder, made if it is missing. An earlier report in it is replaced, and those of its
        files removed that this one has not; no other file is touched.
    title : str, optional
        The page's heading; by default it names the heads and the data.
    faces : FaceDataset, optional
        Faces to show, matched by digest: some of each class, and the most confident mistakes.
        Without it the report holds no image of a person, as a report may be passed on.
    command : str, optional
        The command line that made the results, shown among what is needed to reproduce them.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        There is no result, none of the faces is among those that are judged by, or the folder
        cannot be written.

    Examples
    --------
    >>> from fer_features import BackboneSpec, LogisticHead, Task, evaluate, extract, write_report
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> head = LogisticHead(C=1.0).fit(data.train.X, data.train.y)
    >>> write_report(evaluate(head, data), "report").name
    'report.html'
    """
    given = list(Results([results] if isinstance(results, Result) else results))
    if not given:
        raise RunError("report: no run, expected at least one. Name a run folder.")
    judged = sections.judged_by(given)
    parts = sections.sections(given)
    notices = content.notices([each for each in given if judged in each.scores], parts)
    if isinstance(results, Results):
        notices += [Notice(each, each.startswith("Failed")) for each in results.notices()]
    drawn = [
        figures.pictures(part, f"set{i}-" if len(parts) > 1 else "", faces)
        for i, part in enumerate(parts, 1)
    ]
    page: dict[str, Any] = {
        "title": title or _title(parts),
        "notices": notices,
        "command": command,
        "parts": [
            {"answer": content.answer(part), "forest": own[0]}
            | {"blocks": _blocks(part, own[1:], command)}
            for part, own in zip(parts, drawn, strict=True)
        ],
    }
    files = {each.file: each.wide.png for own in drawn for each in own}
    texts = {"report.html": _html(page), "report.md": _markdown("report.md.j2", page)}
    if len(given) == 1:
        texts["card.md"] = _markdown("card.md.j2", page | {"card": _card(parts[0])})
    texts["report.csv"] = _csv(parts)
    texts["report.json"] = _json(page, parts, [*files, *("card.md",) * (len(given) == 1)])
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stale = _earlier_files(folder) - {*files, *texts}
        for name, data in (files | {name: text.encode() for name, text in texts.items()}).items():
            _write(folder / name, data)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}). Name another folder."
        ) from error
    return folder / "report.html"


def command_of(folder: Path) -> str | None:
    """Return the command line that the report in a folder shows, if it has one."""
    try:
        said = json.loads((folder / "report.json").read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return said if isinstance(said, str) else None


def _earlier_files(folder: Path) -> set[str]:
    """Return the figures and the card that the report in a folder has, by its own account."""
    try:
        named = json.loads((folder / "report.json").read_text(encoding="utf-8"))["files"]
        return {name for name in named if re.fullmatch(r"[a-z0-9-]+\.png|card\.md", name)}
    except (OSError, ValueError, TypeError, LookupError):
        return set()


def _blocks(part: Section, drawn: list[Picture], command: str | None) -> dict[str, list[Any]]:
    """Lay out what follows the first screen: under each heading its kinds of things, in order."""

    def pictures(place: str) -> list[Any]:
        own = [each for each in drawn if each.place == place]
        open_, folded = ([e for e in own if e.folded is state] for state in (False, True))
        more = [("folded figures", folded, "The other heads' confusion")] if folded else []
        return [("figures", open_, "")] * bool(open_) + more

    def tables(*found: Table | None, kind: str = "table") -> list[Any]:
        return [(kind, each, each.title) for each in found if each is not None]

    def texts(*said: str, kind: str = "text") -> list[Any]:
        return [(kind, each, "") for each in said if each]

    hidden = len(part.groups) > (shown := content.SHOWN_GROUPS)
    which = f"Figures show the {shown} of {len(part.groups)} that are best on validation." * hidden
    blocks = {
        "Scores": [
            *tables(content.embeddings_table(part), content.scores_table(part)),
            *texts(content.published_said(part), content.selection_said(part), kind="quiet"),
            *tables(content.more_table(part), content.pairs_table(part), kind="folded table"),
            *tables(content.settings_table(part), kind="folded table"),
            *pictures("scores"),
        ],
        "Classes and emotions": [
            *texts(content.emotion_said(part)),
            *tables(content.classes_table(part), content.emotions_table(part)),
            *texts(which, kind="quiet"),
            *pictures("classes"),
        ],
        "What raters say": [
            *texts(content.raters_text(part)),
            *tables(*content.raters_tables(part)),
            *pictures("raters"),
        ],
        "Probabilities": pictures("curves"),
        "Training": pictures("training"),
        "Faces": pictures("faces"),
        "Data": [
            *tables(*content.data_tables(part)),
            ("list", content.data_facts(part), ""),
            *tables(content.leaks_table(part)),
        ],
        "Reproduce": [
            *texts(content.cost_said(part)),
            ("code", "\n".join(reproduction.commands(part, command)), "shell"),
            ("folded code", reproduction.python(part), "The same fits in Python"),
            *tables(content.fits_table(part), kind="folded table"),
            *tables(*content.provenance_tables(part), kind="folded table"),
        ],
    }
    return {title: items for title, items in blocks.items() if items}


def _title(parts: Sequence[Section]) -> str:
    groups = [group for part in parts for group in part.groups]
    stores = [group.first.store for group in groups]
    names = {str(each.get("dataset", {}).get("name", each.get("name"))) for each in stores}
    where = f" on {', '.join(sorted(names))}"
    if len(groups) == 1:
        return f"The {groups[0].label} head{where}"
    embeddings = len({(group.first.fingerprint, group.first.features) for group in groups})
    heads = len({group.head for group in groups})
    if embeddings > 1:
        return f"{embeddings} embeddings, {heads} head{'s' * (heads > 1)} compared{where}"
    return f"{len(groups)} heads compared{where}"


# --- HTML and Markdown ---


def _html(page: dict[str, Any]) -> str:
    environment = _environment(autoescape=True)
    environment.filters |= {"table": _html_table, "uri": _uri}
    return environment.get_template("report.html.j2").render(page)


def _markdown(template: str, page: dict[str, Any]) -> str:
    environment = _environment(autoescape=False, finalize=_md)
    environment.filters |= {"table": _md_table, "raw": Markup, "yaml": _yaml}
    return environment.get_template(template).render(page)


def _environment(**options: Any) -> Environment:
    options |= {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    loader = PackageLoader("fer_features.report")
    return Environment(loader=loader, undefined=StrictUndefined, **options)


def _uri(svg: bytes) -> str:
    """Return an SVG as an address that holds the image itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _html_table(table: Table) -> Markup:
    """Return a table's element: words to the left, numbers to the right."""

    def cell(value: Any) -> str:
        text, detail, bold = value if isinstance(value, Cell) else Cell(str(value))
        small = f"<small>{html.escape(detail)}</small>" if detail else ""
        return (f"<strong>{html.escape(text)}</strong>" if bold else html.escape(text)) + small

    columns = list(table.frame.columns)
    # Which columns are words, for the style sheet: a table knows no classes of columns.
    words = "".join(f" w{columns.index(name) + 1}" for name in table.words if name in columns)
    shown = table.frame.map(cell).rename(columns=html.escape)
    shown = shown.set_index(shown.columns[0]).rename_axis(index=None, columns=shown.columns[0])
    with pd.option_context("display.max_colwidth", None):
        return Markup(shown.to_html(escape=False, border=0, classes=words.split(), justify="unset"))


def _md_table(table: Table) -> Markup:
    """Return a table in Markdown's form, small print in brackets."""

    def cell(value: Any) -> str:
        text, detail, bold = value if isinstance(value, Cell) else Cell(str(value))
        return f"{'**' * bold}{_md(text)}{'**' * bold}" + f" ({_md(detail)})" * bool(detail)

    left = {table.frame.columns[0], *table.words}
    align = ["left" if name in left else "right" for name in table.frame.columns]
    shown = table.frame.map(cell).rename(columns=_md)
    form: dict[str, Any] = {"tablefmt": "pipe", "colalign": align, "disable_numparse": True}
    return Markup(shown.to_markdown(index=False, **form))


def _md(value: Any) -> str:
    """Escape what Markdown, or HTML inside it, would take for its own; keep it on one line."""
    if isinstance(value, Markup):
        return value
    flat = " ".join(str(value).split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", flat)


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that no reader meets half of it."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- the model card ---

LICENCES = {
    "DenseNet": "bsd-3-clause",
    "InceptionResNetV2": "apache-2.0",
    "InceptionV3": "apache-2.0",
    "MobileNet(V2)?$": "apache-2.0",
    "NASNet": "apache-2.0",
    "ResNet50$": "mit",
    "VGG": "cc-by-4.0",
    "Xception": "mit",
}
"""The licence of a network's ImageNet weights, where Keras's documentation states one: that of
Keras 2.1, "License" under each application. Of newer networks it states none."""


def _card(part: Section) -> dict[str, Any]:
    """Gather what a model card says: what the report does, its YAML head, and the licence."""
    result, group = part.first, part.groups[0]
    backbone = result.store.get("backbone") or {}
    network, weights = network_said(result.store), str(backbone.get("weights") or "a file's")
    stated = [v for k, v in LICENCES.items() if re.match(k, str(backbone.get("backbone")))]
    known = stated[0] if stated and weights == "imagenet" else "unknown"
    licence = f"{known}, as the documentation of Keras 2.1 says"
    if weights.startswith("random"):
        licence = "none, as they are random numbers"
    elif known == "unknown":
        licence = "not known here; see where they come from" + (
            ", https://keras.io/api/applications/" * (weights == "imagenet")
        )
    data = str(result.store.get("dataset", {}).get("name", "unknown"))
    tested = result.split.get("test_on", {}).get("dataset", data)
    evaluation = {
        "task": {"type": "image-classification", "name": "facial expression recognition"},
        "dataset": {"name": tested, "type": tested, "split": part.split},
        "metrics": [
            {"type": name, "name": content.SCORE_NAMES[name], "value": found.value}
            for name, found in part.scores[group.label].items()
            if np.isfinite(found.value)
        ],
    }
    return {
        "head": {
            "license": known,
            "library_name": "fer-features",
            "pipeline_tag": "image-classification",
            "tags": ["facial-expression-recognition", "emotion-recognition", "frozen-backbone"],
            "datasets": [data],
            "metrics": ["accuracy", "f1", "roc_auc"],
            "model-index": [{"name": f"{result.label} on {network}", "results": [evaluation]}],
        },
        "label": group.label,
        "network": network,
        "weights": weights,
        "licence": licence,
        "features": result.features,
        "input": backbone.get("input_size", "unknown"),
        "classes": result.task["classes"],
        "temperature": f"{result.calibration['temperature']:.2f}",
        "answer": content.answer(part),
        "data": content.data_tables(part),
        "facts": content.data_facts(part),
        "scores": [content.scores_table(part), content.more_table(part)],
        "emotion_said": content.emotion_said(part),
        "by_class": content.classes_table(part),
    }


def _yaml(values: dict[str, Any]) -> Markup:
    """Write a mapping as YAML, a line a key: what JSON says, YAML reads."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return Markup("\n".join(lines))


# --- for machines ---


def _json(page: dict[str, Any], parts: Sequence[Section], files: list[str]) -> str:
    """Return the report's answers, scores, intervals and comparisons as JSON, in full precision.

    `files` lie beside it.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": page["title"],
        "notices": [notice.text for notice in page["notices"]],
        "command": page["command"],
        "files": files,
        "sections": [
            {"answer": said["answer"], **_section(part)}
            for said, part in zip(page["parts"], parts, strict=True)
        ],
    }
    return json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(parts: Sequence[Section]) -> str:
    """Return a line for each score of each head and split, as CSV."""
    lines = [
        {"section": number, "network": network_said(group.first.store)}
        | {"features": group.first.features, "head": group.label, "split": split, "score": name}
        | {"fits": len(group.results), **score}
        for number, part in enumerate(parts, 1)
        for group in part.groups
        for split, scores in _scores(part, group).items()
        for name, score in scores.items()
    ]
    return str(pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))


def _section(part: Section) -> dict[str, Any]:
    name, share = part.chance
    return {
        "classes": part.first.task["classes"],
        "split": part.split,
        "images": len(part.judged),
        "leaking": 0 if part.kept is None else int((~part.kept).sum()),
        "score": part.score,
        "chance": {"class": name, "value": share},
        "select": part.select,
        "chosen": part.ranked[0].label,
        "heads": [_head(part, group) for group in part.groups],
        "pairs": [
            {"first": pair.first, "second": pair.second, **_found(pair.difference)}
            | {"holm": pair.holm, "words": pair.words}
            for pair in part.pairs
        ],
        "settings": [
            {
                "label": group.label,
                "params": group.first.params,
                "fits": len(group.results),
                "validation": group.mean("validation", part.select),
                "judged": judged,
            }
            for group, judged in part.settings
        ],
        "raters": None if part.raters is None else _raters(part.raters),
    }


def _raters(said: RatersSaid) -> dict[str, Any]:
    facts = {name: getattr(said.raters, name) for name in ("votes", "share_outside", "share_tied")}
    return {
        "score": said.score,
        "lines": len(said.raters.row),
        **facts,
        "rater": _found(said.rater),
        "heads": {
            label: {**_found(own), "minus_rater": _found(apart)}
            for label, (own, apart) in said.heads.items()
        },
        "words": content.rater_said(said),
        "errors": [
            {"above": low, "to": high, "heads": {label: _found(own) for label, own in of.items()}}
            for (low, high), of in said.errors.items()
        ],
    }


def _head(part: Section, group: Group) -> dict[str, Any]:
    first = group.first
    return {
        "label": group.label,
        "head": first.label,
        "params": first.params,
        "seeds": [result.seed for result in group.results],
        "network": network_said(first.store),
        "fingerprint": first.fingerprint,
        "features": first.features,
        "split": first.split,
        "scores": _scores(part, group),
        "by_class": {
            name: {"images": part.counts[name]} | {s: _found(own) for s, own in scores.items()}
            for name, scores in part.by_class[group.label].items()
        },
        "by_emotion": {
            emotion: own | {"recall": _found(own["recall"])}
            for emotion, own in part.by_emotion[group.label].items()
        },
        "confusion": part.confusion(group).tolist(),
        "validation_log_loss_by_size": {
            str(size): [fit.scores["validation"]["log_loss"] for fit in fits]
            for size, fits in group.by_size.items()
        },
    }


def _scores(part: Section, group: Group) -> dict[str, dict[str, dict[str, Any]]]:
    """Return each split's scores: ``mean`` over the fits with its interval, and their range.

    What is judged by is without the images that leak.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split in dict.fromkeys(("validation", part.split)):
        found[split] = {}
        for name in SCORES:
            own = part.scores[group.label][name] if split == part.split else None
            values = group.values(split, name)
            if own is not None and part.kept is not None:
                values = part.fits(group, name)
            found[split][name] = {
                "mean": group.mean(split, name) if own is None else own.value,
                "lowest": min(values, default=None),
                "highest": max(values, default=None),
                **dict.fromkeys(("low", "high", "covers_seeds")),
                **({} if own is None else _found(own, "low", "high", "covers_seeds")),
            }
    return found


def _found(found: Estimate | Difference, *only: str) -> dict[str, Any]:
    """Return an estimate as JSON has it; NaN, which plain() makes None, where none is."""
    return {name: value for name, value in asdict(found).items() if not only or name in only}
