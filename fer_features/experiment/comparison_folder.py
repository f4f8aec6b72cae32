"""What a comparison comes to: its results as a list, and the folder that holds them.

The folder has ``results.json``, ``results.csv`` and a run folder for each fit.
"""

import html
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_features.errors import RunError
from fer_features.experiment.fitting import kept_file
from fer_features.experiment.result import Result
from fer_features.experiment.run_document import Kind, misfit, plain, read_json
from fer_features.experiment.run_folder import as_path
from fer_features.locking import HeldError, locked

FORMAT = "fer-features/comparison"
FORMAT_VERSION = 1

LOCK = ".lock"
"""Its file, which stays; while it is held, what lies beside it has a name that begins so."""

_SUMMARY: Kind = {
    "complete": "true or false",
    "experiment": {"select": "a score"},
    "selected?": [{"fingerprint": "text", "features": "text", "head": "text", "params": {}}],
    "failed?": [
        {
            "folder": "a path",
            "network": "text",
            "fingerprint": "text",
            "features": "text",
            "head": "text",
            "params": {},
            "seed": ("a whole number", None),
            "train_part": ("a count", None),
            "reason": "text",
        }
    ],
    "fits": [{"folder": "a path"}],
}
"""What is read of ``results.json``, and of which kind it is."""


@dataclass(frozen=True, eq=False)
class Failure:
    """A fit that did not come to an end.

    Parameters
    ----------
    label : str
        The head's name in the comparison.
    params : dict
        Its parameters, but for the seed.
    seed : int, optional
        The seed of the training.
    train_part : int, optional
        Training images it was to be fitted to, None for all of them.
    reason : str
        One line.
    folder : Path, optional
        Where its run would have been.
    fingerprint, features, network : str
        Which embeddings it was to be fitted to, and what a reader calls their network.
    """

    label: str
    params: dict[str, Any]
    seed: int | None
    train_part: int | None
    reason: str
    folder: Path | None = None
    fingerprint: str = ""
    features: str = ""
    network: str = ""


class Results(list[Result]):
    """Results of a comparison or of several runs: a list, with what else is to be said of them.

    Parameters
    ----------
    outcomes : iterable of Result or Failure
        One fit that is among them several times is kept once: the same run, or the same fit of
        what no seed changes. Where one of these has test scores, it is that.
    select : str, optional
        The score that chose on validation, where one did.

    Attributes
    ----------
    failed : list of Failure
        Fits that did not come to an end; they are not in the list.
    """

    def __init__(
        self, outcomes: Iterable[Result | Failure] = (), *, select: str | None = None
    ) -> None:
        every = list(outcomes)
        fits: dict[str, list[Result]] = {}
        for each in every:
            if isinstance(each, Result):
                fits.setdefault(_identity(each), []).append(each)
        super().__init__(max(same, key=lambda each: len(each.scores)) for same in fits.values())
        failed = {_key(each, each.seed): each for each in every if isinstance(each, Failure)}
        self.failed = list(failed.values())
        self.select = select
        again = [each.label for same in fits.values() for each in same[1:]]
        self._again = {label: again.count(label) for label in dict.fromkeys(again)}

    def __repr__(self) -> str:
        fits = f"{len(self)} fit{'s' * (len(self) != 1)}"
        tested = sum("test" in each.scores for each in self)
        failed = f", {len(self.failed)} failed" * bool(self.failed)
        heads = ", ".join(dict.fromkeys(each.label for each in [*self, *self.failed]))
        return f"Results({heads}: {fits}, {tested} scored on test{failed})"

    def _repr_html_(self) -> str:
        shown = self.settings().to_html(index=False, float_format="{:.4f}".format, na_rep="")
        said = "".join(f"<p>{html.escape(notice)}</p>" for notice in self.notices())
        return f"<p>{html.escape(repr(self))}</p>{shown}{said}"

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame, a line a fit: parameters, scores as ``test_f1``, seconds, failures.

        Lines of fits that failed come last; ``failed`` says why.
        """
        rows = [_flat(_row(each)) | {"failed": None} for each in self]
        rows += [
            {"network": each.network, "features": each.features}
            | {"head": each.label, "seed": each.seed, "train_images": each.train_part}
            | {name: _cell(value) for name, value in each.params.items()}
            | {"failed": each.reason}
            for each in self.failed
        ]
        # As objects: a column that is empty for one head would turn another's 128 into 128.0.
        return pd.DataFrame(rows, dtype=object)

    def settings(self) -> pd.DataFrame:
        """Return a DataFrame, a line a setting: scores as the means over its fits.

        Columns: ``task``, its classes, where fits are of several classes or rows; ``network`` and
        ``features`` where there are several; ``head``, ``setting`` (what sets it apart from the
        head's others), ``fits``, ``failed`` (how many of them did), ``selected``; and on
        ``validation`` and ``test`` the score that selects (log loss where none did), accuracy and
        balanced accuracy.
        """
        select = self.select or "log_loss"
        tasks = _tasks(self)
        task_of = {_key(each): task for each, task in zip(self, tasks, strict=True)}
        by: dict[tuple[str, str], list[Result | Failure]] = {}
        for each, task in zip(self, tasks, strict=True):
            if each.split.get("train_part") is None:
                by.setdefault((_key(each), task), []).append(each)
        for failure in self.failed:
            if failure.train_part is None:
                own = task_of.get(key := _key(failure), "".join(tasks[:1]))
                by.setdefault((key, own), []).append(failure)
        firsts = [fits[0] for fits in by.values()]
        order = [
            (task, *_embedding(each), each.label)
            for (_, task), each in zip(by, firsts, strict=True)
        ]
        several = len({_embedding(each) for each in firsts}) > 1
        told = _told_apart(firsts)
        lines = []
        for (key, task), fits in sorted(
            by.items(),
            key=lambda item: order.index((item[0][1], *_embedding(item[1][0]), item[1][0].label)),
        ):
            done = [each for each in fits if isinstance(each, Result)]
            network, features = _embedding(fits[0])[1:]
            line: dict[str, Any] = {
                **({"task": task} if len({*tasks}) > 1 else {}),
                **({"network": network, "features": features} if several else {}),
                "head": fits[0].label,
                "setting": told[key],
                "fits": len(fits),
                "failed": len(fits) - len(done),
                "selected": any((each.selection or {}).get("selected") for each in done),
            }
            for split in ("validation", "test"):
                for score in dict.fromkeys((select, "accuracy", "balanced_accuracy")):
                    values = [e.scores[split][score] for e in done if split in e.scores]
                    known = [value for value in values if value is not None]
                    line[f"{split} {score}"] = float(np.mean(known)) if known else np.nan
            lines.append(line)
        return pd.DataFrame(lines)

    def notices(self) -> list[str]:
        """Return what must be said of the fits, a line each."""
        said = []
        weights: dict[str, set[str]] = {}
        for each in [*self, *self.failed]:
            for name, value in each.params.items():
                if name.rpartition("__")[2] == "class_weight":
                    weights.setdefault(each.label, set()).add(json.dumps(value))
        if self.select == "log_loss" and any(len(tried) > 1 for tried in weights.values()):
            said.append(
                "class_weight was chosen by validation log loss, which never chooses weights such "
                "as balanced where classes are of unequal size: they pull probabilities away from "
                "the classes' shares. select=balanced_accuracy or another score weighs them fairly."
            )
        told = _told_apart([*self, *self.failed])
        by_setting: dict[str, list[Failure]] = {}
        for failure in self.failed:
            by_setting.setdefault(_key(failure), []).append(failure)
        several = len({_embedding(each) for each in [*self, *self.failed]}) > 1
        for key, failures in by_setting.items():
            first, n = failures[0], len(failures)
            on = f" on {first.network} {first.features}" * several
            which = first.label + f" ({told[key]})" * bool(told[key])
            said.append(f"Failed: {n} fit{'s' * (n != 1)} of {which}{on}. {first.reason}")
        said += [
            f"Counted once: {n} fit{'s' * (n != 1)} of {label} that {'is' if n == 1 else 'are'} "
            "the same as another here."
            for label, n in self._again.items()
        ]
        lost = [each.label for each in self if each.folder and kept_file(each.folder) is None]
        said += [
            f"Not kept: the fitted {label}, as reading it again would mean to trust its file."
            for label in dict.fromkeys(lost)
        ]
        return said


@contextmanager
def claimed(folder: Path, experiment: Mapping[str, Any]) -> Iterator[None]:
    """Hold a folder for this experiment, a new one or one that it was begun in.

    Raises
    ------
    RunError
        When it holds another experiment or other files, is in use, or cannot be written.
    """
    with ExitStack() as held:  # what is done under it has errors of its own
        try:
            begun = _is_begun(folder, plain(experiment))
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / LOCK))
            for partial in folder.glob("fits/.*.partial"):  # a killed process left it
                shutil.rmtree(partial, ignore_errors=True)
            if not begun or _read_summary(folder)["experiment"] != plain(experiment):
                _write_json(folder, {"complete": False, "experiment": experiment, "fits": []})
        except HeldError as error:
            raise RunError(
                f"{folder}: in use by {error.owner}, expected no other fer-compare. "
                f"{error.remedy}, or choose another folder with -o."
            ) from None
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield


def settled_failures(folder: Path) -> dict[Path | None, str]:
    """Return the fits that had failed when a setting was selected: they are not tried again."""
    failed = _read_summary(folder).get("failed", [])
    return {folder / each["folder"]: each["reason"] for each in failed}


def settle(
    folder: Path,
    experiment: Mapping[str, Any],
    selected: Sequence[Mapping[str, Any]],
    failed: Sequence[Failure],
) -> None:
    """Write down what is selected, before any of it meets a test image: it cannot change then."""
    if "selected" not in _read_summary(folder):
        document = {"complete": False, "experiment": experiment, "fits": []}
        document |= {"selected": selected, "failed": _failures(folder, failed)}
        _written(folder, document)


def write_summary(
    folder: Path,
    experiment: Mapping[str, Any],
    selected: Sequence[Mapping[str, Any]],
    found: Results,
) -> None:
    """Write ``results.json`` and ``results.csv``: a line a fit, all scores, what was selected.

    Parameters
    ----------
    selected : sequence of mapping
        The selected setting of each head on each embedding, ``fingerprint``, ``features``,
        ``head`` and ``params``; the best on validation first.
    """
    rows = []
    for result in found:
        assert result.folder is not None
        rows.append({"folder": result.folder.relative_to(folder).as_posix(), **_row(result)})
    document = {
        "complete": True,
        "experiment": experiment,
        "selected": selected,
        "failed": _failures(folder, found.failed),
        "fits": rows,
    }
    table = folder / "results.csv.new"
    try:
        pd.DataFrame([_flat(row) for row in rows], dtype=object).to_csv(table, index=False)
        table.replace(folder / "results.csv")
    except OSError as error:
        raise _unwritable(folder, error) from error
    _written(folder, document)


def load_results(folder: str | Path) -> Results:
    """Read the results of a run folder or of a comparison folder.

    Parameters
    ----------
    folder : path-like
        What ``fer-fit-head``, ``fer-compare``, :meth:`Result.save` or :func:`compare` wrote.

    Returns
    -------
    Results
        A list of Result, of a comparison in its order, of a run one; ``failed`` has the fits that
        did not come to an end.

    Raises
    ------
    RunError
        When it is neither, or damaged, of a newer version, or an unfinished comparison.
    OptionError
        When it is no path.

    Examples
    --------
    >>> from fer_features import BackboneSpec, LogisticHead, Task, compare, extract, load_results
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> results = compare(data, {"logistic": LogisticHead()}, out="runs/c")
    >>> [result.label for result in load_results("runs/c")]
    ['logistic']
    """
    folder = as_path(folder)
    if not is_comparison(folder):
        return Results([Result.load(folder)])
    summary = _read_summary(folder)
    if not summary["complete"]:
        raise RunError(
            f"{folder}: an unfinished comparison, expected a finished one. "
            f"Finish it with the same fer-compare call and -o {folder}."
        )
    fits: list[Result | Failure] = [Result.load(folder / fit["folder"]) for fit in summary["fits"]]
    fits += [
        Failure(
            each["head"],
            each["params"],
            each["seed"],
            each["train_part"],
            each["reason"],
            folder / each["folder"],
            each["fingerprint"],
            each["features"],
            each["network"],
        )
        for each in summary.get("failed", [])
    ]
    return Results(fits, select=summary["experiment"]["select"])


def is_comparison(folder: Path) -> bool:
    """Return whether a folder is that of a comparison, finished or not."""
    return (folder / "results.json").is_file()


def _is_begun(folder: Path, experiment: Mapping[str, Any]) -> bool:
    """Whether the folder holds this experiment; RunError if it holds anything else.

    Until a selection is made, other embeddings, settings, seeds, sizes and another score make it
    no other experiment: what is fitted counts, and no test image was seen.
    """
    if (folder / "results.json").exists():
        summary = _read_summary(folder)
        there = summary["experiment"]
        free = {"embeddings", "select", "settings", "seeds", "sizes"}
        free = set() if "selected" in summary else free
        unlike = [n for n in experiment if there.get(n) != experiment[n] and n not in free]
        if unlike:
            raise RunError(
                f"{folder}: a comparison with other {', '.join(unlike)}, expected this one's. "
                "Choose another folder with -o."
            )
        return True
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: a file, expected a new or an empty folder.")
    if folder.is_dir() and not all(each.name.startswith(LOCK) for each in folder.iterdir()):
        raise RunError(
            f"{folder}: already holds files, expected a new or an empty folder. "
            "Choose another with -o."
        )
    return False


def _failures(folder: Path, failed: Sequence[Failure]) -> list[dict[str, Any]]:
    return [
        {
            "folder": each.folder.relative_to(folder).as_posix(),
            "network": each.network,
            "fingerprint": each.fingerprint,
            "features": each.features,
            "head": each.label,
            "params": each.params,
            "seed": each.seed,
            "train_part": each.train_part,
            "reason": each.reason,
        }
        for each in failed
        if each.folder is not None
    ]


def _row(result: Result) -> dict[str, Any]:
    return {
        "network": network_said(result.store),
        "fingerprint": result.fingerprint,
        "features": result.features,
        "head": result.label,
        "params": result.params,
        "seed": result.seed,
        "train_images": sum(result.split.get("sizes", {}).get("train", {}).values()),
        "selected": bool((result.selection or {}).get("selected")),
        "seconds": result.seconds,
        "scores": result.scores,
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line of results.csv: a column each for parameters, scores and seconds."""
    names = ("folder", "network", "features", "head", "seed", "train_images", "selected")
    line = {name: row[name] for name in names if name in row}
    line |= {name: _cell(value) for name, value in row["params"].items()}
    for split, scores in row["scores"].items():
        for part, values in ((split, scores), (f"{split}_unleaked", scores.get("unleaked", {}))):
            line |= {
                f"{part}_{name}": value
                for name, value in values.items()
                if not isinstance(value, dict | list)
            }
    return line | {"fit_seconds": row["seconds"]["fit"]}


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _identity(result: Result) -> str:
    """Return a text that results of one and the same fit share, tested or not."""
    what = [result.label, result.params, result.task["classes"], result.split]
    where = [result.fingerprint, result.features, result.seed if result.random else None]
    return json.dumps(plain([*what, *where, result.scores["validation"]]))


def _key(fit: Result | Failure, *more: Any) -> str:
    """Return a text that fits share which differ in nothing but the seed."""
    said: list[Any] = [fit.fingerprint, fit.features, fit.label, fit.params, *more]
    if isinstance(fit, Result) and fit.selection is None:
        said.append(fit.split)
    return json.dumps(plain(said), sort_keys=True)


def network_said(store: Mapping[str, Any]) -> str:
    """Return what a reader calls the network of a run's store."""
    named = store.get("network") or (store.get("backbone") or {}).get("backbone")
    return str(named or "unknown")


def _embedding(fit: Result | Failure) -> tuple[str, str, str]:
    """Return the fingerprint of a fit's network, what a reader calls it, and its features."""
    network = network_said(fit.store) if isinstance(fit, Result) else fit.network
    return fit.fingerprint, network, fit.features


def _tasks(results: Sequence[Result]) -> list[str]:
    """Return of each fit what a reader calls its classes and rows; no two of them have one name."""
    names: dict[str, str] = {}
    said = []
    for result in results:
        classes = list(result.task["classes"])
        key = json.dumps([list(result.task["classes"].items()), result.split.get("rows")])
        if key not in names:
            name = plainly = " ".join(classes) if len(classes) < 4 else f"{len(classes)} classes"
            number = 1
            while name in names.values():
                number += 1
                name = f"{plainly} #{number}"
            names[key] = name
        said.append(names[key])
    return said


def _told_apart(fits: Sequence[Result | Failure]) -> dict[str, str]:
    """Return of each setting the parameters that differ among those of its head."""
    told = {}
    for fit in fits:
        rivals = [other for other in fits if other.label == fit.label]
        differing = [
            f"{name}={parameter_said(value)}"
            for name, value in fit.params.items()
            if len({json.dumps(plain(rival.params.get(name))) for rival in rivals}) > 1
        ]
        told[_key(fit)] = " ".join(differing)
    return told


def parameter_said(value: Any) -> str:
    """Write a parameter as a command spells it: layers joined by x, false, none."""
    if isinstance(value, list | tuple):
        return "x".join(map(parameter_said, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _read_summary(folder: Path) -> dict[str, Any]:
    place = folder / "results.json"
    try:
        summary: dict[str, Any] = read_json(place)
    except (OSError, ValueError, RecursionError) as error:
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
    if said := misfit(summary, _SUMMARY):
        raise RunError(f"{place}: {said}. Compare again into a new folder.")
    return summary


def _written(folder: Path, document: Mapping[str, Any]) -> None:
    try:
        _write_json(folder, document)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write_json(folder: Path, summary: Mapping[str, Any]) -> None:
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **summary}
    new = folder / "results.json.new"
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(folder / "results.json")


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{error.filename or folder}: cannot be written ({error.strerror or error}). "
        "Choose another folder with -o."
    )
