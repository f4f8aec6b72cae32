"""A run folder, format version 1: ``metrics.json``, ``predictions.csv`` and the fitted head."""

import errno
import importlib.metadata
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_features.errors import RunError
from fer_features.experiment.fitting import keep
from fer_features.experiment.scores import SCORES

FORMAT = "fer-features/result"
FORMAT_VERSION = 1

SPLITS = ("validation", "test")
"""The splits that are scored and kept. Training rows are not: a head's answers on what it was
fitted to say how much it memorised, and would make the file two and a half times as long."""

TEXT_COLUMNS = (
    "source", "digest", "split", "emotion", "group", "leaked", "target", "predicted",
)  # fmt: skip
"""The columns of predictions.csv before the probabilities; :data:`AT_TIMES` need not be there."""

AT_TIMES = ("group", "leaked")
"""Columns of predictions.csv that are there where rows have groups, or some image leaks."""

FIELDS: dict[str, type | tuple[type, ...]] = {
    "head": str,
    "params": dict,
    "seed": (int, type(None)),
    "random": bool,
    "unseeded": list,
    "task": dict,
    "split": dict,
    "selection": (dict, type(None)),
    "scores": dict,
    "history": list,
    "seconds": dict,
    "store": dict,
    "fingerprint": str,
    "features": str,
    "outputs": list,
    "versions": dict,
}
"""What ``metrics.json`` holds beside ``format`` and ``format_version``, and in which type."""


def write_run(
    folder: Path, document: Mapping[str, Any], predictions: pd.DataFrame, head: Any
) -> None:
    """Write a run folder, whole or not at all; `head`, the fitted classifier, may be None.

    Raises
    ------
    RunError
        The folder exists and is not empty, or cannot be written.
    """
    check_free(folder)
    whole = folder.absolute()
    partial = whole.with_name(f".{whole.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        _write_files(partial, document, predictions, head)
        if whole.is_dir():
            whole.rmdir()
        partial.rename(whole)
    except OSError as error:
        check_free(folder)
        raise RunError(
            f"{folder}: cannot be written ({error.strerror or error}). Name another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_next_run(
    name: str, document: Mapping[str, Any], predictions: pd.DataFrame, head: Any
) -> Path:
    """Write a run into ``runs/NNNN-NAME``, the next number, and return that folder.

    Raises
    ------
    RunError
        It cannot be written.
    """
    while True:
        folder = next_folder(name)
        try:
            write_run(folder, document, predictions, head)
        except RunError:
            if folder.exists():  # another process took the number: no reason to lose a fit
                continue
            raise
        return folder


def update_run(folder: Path, document: Mapping[str, Any], predictions: pd.DataFrame) -> None:
    """Replace the document and the predictions of a run, and nothing else.

    The predictions come first: a stop between the two leaves scores that lack the test rows, as
    they did before, never scores without their predictions.

    Raises
    ------
    RunError
        The folder holds no run or another one, or cannot be written.
    """
    there = _read_metrics(folder)
    for name in ("head", "params", "seed", "task", "fingerprint", "features"):
        if there[name] != plain(document[name]):
            raise RunError(f"{folder}: a run with another {name}, expected the same fit's.")
    new = folder / f".{uuid.uuid4().hex[:8]}.partial"
    try:
        new.mkdir()
        _write_files(new, document, predictions, None)
        for name in ("predictions.csv", "metrics.json"):
            (new / name).replace(folder / name)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror or error}). Check the folder."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def next_folder(name: str) -> Path:
    """Return ``runs/NNNN-NAME`` with the number after the highest there is; nothing is made."""
    runs = Path("runs")
    taken = [re.match(r"\d+(?=-)", path.name) for path in runs.glob("*")]
    number = max((int(found[0]) for found in taken if found), default=0) + 1
    return runs / f"{number:04d}-{safe_name(name)}"


def safe_name(label: str) -> str:
    """Return a part of a file's name that any label makes."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", label).strip("_")[:40] or "head"


def check_free(folder: Path) -> None:
    """Check that a folder is new or empty and can be written, so that no fit is lost to it.

    Raises
    ------
    RunError
        It is not.
    """
    if folder.is_dir():
        if next(folder.iterdir(), None) is not None:
            raise RunError(f"{folder}: already holds files, expected a new or an empty folder.")
    elif folder.exists():
        raise RunError(f"{folder}: a file, expected a new or an empty folder.")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = os.strerror(errno.EACCES if above.is_dir() else errno.ENOTDIR)
        raise RunError(f"{folder}: cannot be written ({above}: {reason}). Name another folder.")


def read_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read the document and the predictions of a run folder.

    Raises
    ------
    RunError
        The folder is missing, damaged, of another format or of a newer version.
    """
    document = _read_metrics(folder)
    return document, _read_predictions(folder, tuple(document["task"]["classes"]))


def environment() -> dict[str, Any]:
    """Say what a fit ran on: packages, without importing them, and the machine."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("fer_features", "tensorflow", "keras", "numpy", "scikit-learn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["platform"] = platform.platform()
    found["machine"] = platform.machine()
    found["processor"] = _processor()
    found["cpus"] = os.cpu_count()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types; a number that JSON has no word for becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # On one line, and without the address that an object has in this process.
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(value).split()))


def _write_files(
    folder: Path, document: Mapping[str, Any], predictions: pd.DataFrame, head: Any
) -> None:
    stated = {"format": FORMAT, "format_version": FORMAT_VERSION, **document}
    text = json.dumps(plain(stated), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    # pandas writes a float as its repr, the shortest text that reads back as the same float.
    predictions.to_csv(
        folder / "predictions.csv", index=False, lineterminator="\n", encoding="utf-8"
    )
    if head is not None:
        keep(head, folder, str(document["fingerprint"]), str(document["features"]))


def _read_metrics(folder: Path) -> dict[str, Any]:
    place = folder / "metrics.json"
    if not folder.is_dir():
        there = "a file" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: {there}, expected the folder of a run. Check the path.")
    if not place.is_file():
        only = "a report alone, " if (folder / "report.json").is_file() else ""
        raise RunError(
            f"{folder}: {only}no metrics.json, expected the folder of a run. Name runs or "
            "comparisons, such as runs/0001-dense."
        )
    try:
        document = json.loads(place.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{place}: not JSON ({reason}). Fit the head again.") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise RunError(f"{place}: format {found!r}, expected {FORMAT!r}. Name a run's folder.")
    version = document.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise RunError(f"{place}: format_version {version!r}, expected {FORMAT_VERSION}.")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{place}: format_version {version}, this fer-features reads up to {FORMAT_VERSION}. "
            "Install a newer fer-features."
        )
    for name, kind in FIELDS.items():
        if name not in document:
            raise RunError(f"{place}: no {name!r}. Fit the head again.")
        if not isinstance(document[name], kind):
            raise RunError(f"{place}: {name!r} is not as the format says. Fit the head again.")
    _check_scores(place, document)
    return document


def _check_scores(place: Path, document: dict[str, Any]) -> None:
    classes = document["task"].get("classes")
    if not isinstance(classes, dict) or len(classes) < 2:
        raise RunError(f"{place}: 'task' names no classes. Fit the head again.")
    for split in SPLITS:
        scored = document["scores"].get(split, {})
        if split == "test" and "test" not in document["scores"]:
            continue
        missing = [name for name in (*SCORES, "confusion", "per_class") if name not in scored]
        if missing:
            raise RunError(f"{place}: no {split} {missing[0]!r} in 'scores'. Fit the head again.")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _read_predictions(folder: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    place = folder / "predictions.csv"
    probabilities = [f"p_{name}" for name in classes]
    try:
        # Text, all of it: a class or a file may well be named "NA" or "007", and Python's own
        # float() reads what repr() wrote exactly, which pandas does only in some versions.
        table = pd.read_csv(place, dtype="str", keep_default_na=False, encoding="utf-8")
        for name in set(probabilities) & set(table.columns):
            table[name] = np.array([float(text) for text in table[name]], dtype=np.float64)
    except FileNotFoundError as error:
        raise RunError(f"{folder}: no predictions.csv, expected the folder of a run.") from error
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{place}: not readable ({reason}). Fit the head again.") from error
    texts = [name for name in TEXT_COLUMNS if name not in AT_TIMES or name in table.columns]
    expected = [*texts, *probabilities]
    if list(table.columns) != expected:
        raise RunError(
            f"{place}: columns {', '.join(table.columns)}, expected {', '.join(expected)}. "
            "Fit the head again."
        )
    return table
