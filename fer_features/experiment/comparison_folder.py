"""A comparison's folder: ``results.json``, ``results.csv`` and a run folder for each fit."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from fer_features.errors import RunError
from fer_features.experiment.evaluation import Result
from fer_features.experiment.fit_plan import Fit
from fer_features.experiment.run_folder import plain

FORMAT = "fer-features/comparison"
FORMAT_VERSION = 1

LOCK = ".lock"


@contextmanager
def claimed(folder: Path, experiment: Mapping[str, Any]) -> Iterator[None]:
    """Hold a folder for this experiment, a new one or one that it was begun in.

    Raises
    ------
    RunError
        When it holds another experiment or other files, is in use, or cannot be written.
    """
    try:
        begun = _is_begun(folder, plain(experiment))
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        with lock:
            for partial in folder.glob("fits/.*.partial"):  # a killed process left it
                shutil.rmtree(partial, ignore_errors=True)
            if not begun or _read_summary(folder)["experiment"] != plain(experiment):
                _write_json(folder, {"complete": False, "experiment": experiment, "fits": []})
            try:
                yield
            finally:
                (folder / LOCK).unlink(missing_ok=True)
    except Timeout as error:
        raise RunError(
            f"{folder}: in use by another fer-compare. Wait for it, or choose another with -o."
        ) from error
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}). Choose another folder with -o."
        ) from error


def settle(folder: Path, experiment: Mapping[str, Any], selected: Mapping[str, str]) -> None:
    """Write down what is selected, before any of it meets a test image: it cannot change then."""
    if "selected" not in _read_summary(folder):
        document = {"complete": False, "experiment": experiment, "fits": []}
        _write_json(folder, document | {"selected": _settings(selected)})


def write_summary(
    folder: Path,
    experiment: Mapping[str, Any],
    selected: Mapping[str, str],
    done: Sequence[tuple[Fit, Result]],
) -> None:
    """Write ``results.json`` and ``results.csv``: a line a fit, all scores, what was selected.

    Parameters
    ----------
    selected : mapping of str to str
        Each head's selected setting, the head of the least validation log loss first.
    done : sequence of (Fit, Result)
        All fits, in the order in which they are listed.
    """
    rows = []
    for fit, result in done:
        assert fit.folder is not None
        rows.append(
            {
                "folder": fit.folder.relative_to(folder).as_posix(),
                "head": result.head,
                "params": result.params,
                "seed": result.seed,
                "train_images": sum(result.split["sizes"]["train"].values()),
                "selected": fit.size is None and selected[fit.label] == fit.setting,
                "seconds": result.seconds,
                "scores": result.scores,
            }
        )
    document = {
        "complete": True,
        "experiment": experiment,
        "selected": _settings(selected),
        "fits": rows,
    }
    table = folder / "results.csv.new"
    # As objects: a column that is empty for one head would turn the other's 128 into 128.0.
    pd.DataFrame([_flat(row) for row in rows], dtype=object).to_csv(table, index=False)
    table.replace(folder / "results.csv")
    _write_json(folder, document)


def load_results(folder: str | Path) -> list[Result]:
    """Read the results of a run folder or of a comparison folder.

    Raises
    ------
    RunError
        When it is neither, or damaged, or unfinished.
    """
    folder = Path(folder)
    if (folder / "results.json").is_file():
        summary = _read_summary(folder)
        if not summary["complete"]:
            raise RunError(
                f"{folder}: an unfinished comparison, expected a finished one. "
                f"Finish it with the same fer-compare call and -o {folder}."
            )
        return [Result.load(folder / fit["folder"]) for fit in summary["fits"]]
    return [Result.load(folder)]


def _is_begun(folder: Path, experiment: Mapping[str, Any]) -> bool:
    """Whether the folder holds this experiment; RunError if it holds anything else.

    Until a selection is made, other settings, seeds and sizes make it no other experiment: what
    is fitted counts, and no test image was seen.
    """
    if (folder / "results.json").exists():
        summary = _read_summary(folder)
        there = summary["experiment"]
        free = () if "selected" in summary else ("settings", "seeds", "sizes")
        unlike = [n for n in experiment if there.get(n) != experiment[n] and n not in free]
        if unlike:
            raise RunError(
                f"{folder}: a comparison with other {', '.join(unlike)}, expected this one's. "
                "Choose another folder with -o."
            )
        return True
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: a file, expected a new or an empty folder.")
    if folder.is_dir() and any(each.name != LOCK for each in folder.iterdir()):
        raise RunError(f"{folder}: already holds files, expected a new or an empty folder.")
    return False


def _settings(selected: Mapping[str, str]) -> dict[str, Any]:
    return {label: json.loads(setting) for label, setting in selected.items()}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line of results.csv: a column each for parameters, scores and seconds."""
    line = {name: row[name] for name in ("folder", "head", "seed", "train_images", "selected")}
    line |= {name: _cell(value) for name, value in row["params"].items()}
    for split, scores in row["scores"].items():
        line |= {f"{split}_{name}": v for name, v in scores.items() if name != "confusion"}
    return line | {"fit_seconds": row["seconds"]["fit"]}


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _read_summary(folder: Path) -> dict[str, Any]:
    place = folder / "results.json"
    try:
        summary = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{place}: not JSON ({error}). Compare again into a new folder.") from error
    found = summary.get("format") if isinstance(summary, dict) else None
    if found != FORMAT:
        raise RunError(
            f"{place}: format {found!r}, expected {FORMAT!r}. Name the folder of a comparison."
        )
    version = summary.get("format_version")
    if version != FORMAT_VERSION:
        raise RunError(
            f"{place}: format_version {version!r}, expected {FORMAT_VERSION}. "
            "Upgrade fer-features to read it."
        )
    for name, kind in (("complete", bool), ("experiment", dict), ("fits", list)):
        if not isinstance(summary.get(name), kind):
            raise RunError(f"{place}: no {name!r}. Compare again into a new folder.")
    return summary


def _write_json(folder: Path, summary: Mapping[str, Any]) -> None:
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **summary}
    new = folder / "results.json.new"
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(folder / "results.json")
