"""Heads x settings x seeds on one task: fitted, selected on validation, scored on test once."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from tqdm import tqdm

from fer_features.errors import OptionError, RunError
from fer_features.experiment.evaluation import Result, evaluate
from fer_features.experiment.heads import load_head
from fer_features.experiment.run_folder import plain
from fer_features.experiment.task import Data

log = logging.getLogger(__name__)

FORMAT = "fer-features/comparison"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class _Fit:
    """One head with one setting and one seed, and where its result is kept."""

    label: str
    head: Any
    folder: Path | None

    @property
    def setting(self) -> str:
        """What is selected among: the head's parameters but for the seed, as text."""
        return _text({k: v for k, v in self.head.get_params().items() if k != "seed"})


def compare(
    data: Data,
    heads: Mapping[str, Any],
    *,
    grid: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
    seeds: Iterable[int] = range(3),
    out: str | Path | None = None,
    progress: bool = False,
) -> list[Result]:
    """Fit heads under several settings and seeds, select on validation, score on test.

    Parameters
    ----------
    data : Data
        One task's rows; every fit sees the same ones.
    heads : mapping of str to classifier
        Unfitted heads by the names they have in the report.
    grid : mapping of str to mapping of str to sequence, optional
        For a head's name, its parameters and the values to try, all combinations of them.
    seeds : iterable of int
        Seeds of training. A head without randomness is fitted with the first alone.
    out : path-like, optional
        A folder for the results: ``fits/HEAD-HASH-SEED/``, ``results.json`` and
        ``results.csv``. Fits that it already holds of this experiment are not done again.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    list of Result
        In the order of ``heads``, settings and seeds. Of each head the setting with the least
        mean validation log loss has scores on the test rows, the others have none.

    Raises
    ------
    OptionError
        When a grid names an unknown head or parameter, or there are no seeds.
    RunError
        When ``out`` holds another experiment, or cannot be written.
    """
    folder = Path(out) if out is not None else None
    fits = _plan(data, heads, grid or {}, list(seeds), folder)
    if folder is not None:
        _claim(folder, data)
    alone = {label: len({fit.setting for fit in fits if fit.label == label}) == 1 for label in heads}
    results = []
    with tqdm(total=len(fits), desc="Fitting", unit=" fits", disable=not progress) as bar:
        for fit in fits:
            bar.set_postfix_str(fit.label)
            results.append(_done(fit) or _fit(fit, data, test=alone[fit.label]))
            bar.update()
    chosen = _select(fits, results)
    for index, fit in enumerate(fits):
        if chosen[fit.label] == fit.setting and "test" not in results[index].scores:
            results[index] = _score_on_test(fit, results[index], data)
    if folder is not None:
        _write_summary(folder, data, fits, results)
    return results


def load_results(folder: str | Path) -> list[Result]:
    """Read the results of a run folder or of a comparison folder.

    Raises
    ------
    RunError
        When it is neither, or damaged.
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


def _plan(
    data: Data,
    heads: Mapping[str, Any],
    grid: Mapping[str, Mapping[str, Sequence[Any]]],
    seeds: list[int],
    folder: Path | None,
) -> list[_Fit]:
    """List all fits, checked before the first one starts."""
    if not seeds:
        raise OptionError("seeds: none, expected at least one.")
    for label in grid:
        if label not in heads:
            raise OptionError(f"grid: unknown head {label!r}, expected {' or '.join(heads)}.")
    fits = []
    for label, head in heads.items():
        for setting in ParameterGrid(grid.get(label, {})):
            unknown = [name for name in setting if name not in head.get_params()]
            if unknown:
                known = ", ".join(head.get_params())
                raise OptionError(
                    f"grid: {label} has no parameter {unknown[0]!r}, expected one of {known}."
                )
            for seed in seeds if getattr(head, "seeded", True) else seeds[:1]:
                one = clone(head).set_params(**setting, seed=seed)
                digest = _hash([_experiment(data), one.get_params()])[:8]
                place = folder / "fits" / f"{label}-{digest}-{seed}" if folder else None
                fits.append(_Fit(label, one, place))
    return fits


def _fit(fit: _Fit, data: Data, test: bool) -> Result:
    validation = (data.validation.X, data.validation.y)
    fit.head.fit(data.train.X, data.train.y, validation=validation)
    result = replace(evaluate(fit.head, data, test=test), head=fit.label)
    if fit.folder is not None:
        result.save(fit.folder)
    return result


def _done(fit: _Fit) -> Result | None:
    """Return a fit's result if an earlier call left it; its folder appears whole or not at all."""
    if fit.folder is None or not (fit.folder / "metrics.json").is_file():
        return None
    return Result.load(fit.folder)


def _select(fits: list[_Fit], results: list[Result]) -> dict[str, str]:
    """Return each head's setting with the least mean validation log loss."""
    losses = pd.DataFrame(
        {
            "label": [fit.label for fit in fits],
            "setting": [fit.setting for fit in fits],
            "loss": [result.scores["validation"]["log_loss"] for result in results],
        }
    )
    means = losses.groupby(["label", "setting"], sort=False)["loss"].mean()
    return {label: means[label].idxmin() for label in losses["label"].unique()}


def _score_on_test(fit: _Fit, result: Result, data: Data) -> Result:
    """Add the test rows to a selected fit's result and to its folder."""
    head = result.fitted
    if head is None:
        assert fit.folder is not None
        head = load_head(fit.folder / "head.keras", result.outputs)
    scored = evaluate(head, data)
    result = replace(result, scores=scored.scores, predictions=scored.predictions)
    if fit.folder is not None:
        result.update(fit.folder)
    return result


def _experiment(data: Data) -> dict[str, Any]:
    """What all fits of one comparison share: rows, classes, split and network."""
    return plain(
        {
            "classes": data.task.emotions,
            "split": data.split,
            "fingerprint": data.store["fingerprint"],
            "source": data.store["dataset"]["sha256"],
        }
    )


def _claim(folder: Path, data: Data) -> None:
    """Take a folder for this experiment, or go on with it; refuse one of anything else."""
    try:
        if (folder / "results.json").exists():
            summary = _read_summary(folder)
            if summary["experiment"] != _experiment(data):
                raise RunError(
                    f"{folder}: a comparison of another experiment, expected this one's. "
                    "Choose another folder with -o."
                )
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder}: already holds files, expected a new or an empty folder.")
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder, {"complete": False, "experiment": _experiment(data), "fits": []})
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}). Choose another folder with -o."
        ) from error


def _write_summary(folder: Path, data: Data, fits: list[_Fit], results: list[Result]) -> None:
    rows = []
    for fit, result in zip(fits, results, strict=True):
        assert fit.folder is not None
        rows.append(
            {
                "folder": fit.folder.relative_to(folder).as_posix(),
                "head": result.head,
                "params": result.params,
                "seed": result.seed,
                "selected": "test" in result.scores,
                "seconds": result.seconds,
                "scores": result.scores,
            }
        )
    _write_json(folder, {"complete": True, "experiment": _experiment(data), "fits": rows})
    pd.DataFrame([_flat(row) for row in rows]).to_csv(folder / "results.csv", index=False)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line of results.csv: a column each for parameters, scores and seconds."""
    line = {name: row[name] for name in ("folder", "head", "seed", "selected")}
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
        raise RunError(f"{place}: format {found!r}, expected {FORMAT!r}.")
    if summary.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{place}: format_version {summary.get('format_version')!r}, expected "
            f"{FORMAT_VERSION}. Upgrade fer-features to read it."
        )
    return summary


def _write_json(folder: Path, summary: Mapping[str, Any]) -> None:
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **summary}
    new = folder / "results.json.new"
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(folder / "results.json")


def _hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(plain(value), sort_keys=True)
