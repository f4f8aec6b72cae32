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

from fer_features.errors import OptionError, RunError, TaskError
from fer_features.experiment.fitting import keep
from fer_features.experiment.raters import VOTE_COLUMNS
from fer_features.experiment.run_document import (
    FORMAT,
    FORMAT_VERSION,
    plain,
    read_document,
)
from fer_features.experiment.task import checked_classes
from fer_features.faces.bad_rows import shown

TEXT_COLUMNS = (
    "source", "digest", "split", "emotion", "group", "leaked", "target", "predicted",
)  # fmt: skip
"""The columns of predictions.csv before the probabilities; :data:`AT_TIMES` need not be there."""

AT_TIMES = ("group", "leaked")
"""Columns of predictions.csv that are there where rows have groups, or some image leaks."""


def write_run(
    folder: Path, document: Mapping[str, Any], predictions: pd.DataFrame, head: Any
) -> None:
    """Write a run folder, whole or not at all; `head`: the fitted classifier, its file or None.

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
    there = read_document(folder)
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


def as_path(folder: object) -> Path:
    """Return a folder that was given, or raise OptionError where it is no path."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise OptionError(f"folder: {folder!r}, expected a path, such as 'runs/mine'.")
    return Path(folder)


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
    document = read_document(folder)
    classes = document["task"]["classes"]
    place = f"{folder / 'metrics.json'}: 'task'"
    try:
        checked = checked_classes(classes)
    except TaskError as error:
        raise RunError(f"{place}: {error}") from error
    assert not isinstance(checked, str)
    for name, emotions in checked:
        if list(emotions) != list(classes[name]):
            raise RunError(
                f"{place}: class {name!r}: {classes[name]}, expected {list(emotions)}. "
                "Fit the head again."
            )
    return document, _read_predictions(folder, tuple(classes))


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


def _read_predictions(folder: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    place = folder / "predictions.csv"
    probabilities = [f"p_{name}" for name in classes]
    try:
        if place.exists() and not place.is_file():  # a pipe would be waited for
            raise ValueError("no regular file")
        # Text, all of it: a class or a file may well be named "NA" or "007", and Python's own
        # float() reads what repr() wrote exactly, which pandas does only in some versions.
        table = pd.read_csv(place, dtype="str", keep_default_na=False, encoding="utf-8")
        for name in set(probabilities) & set(table.columns):
            table[name] = np.array([float(text) for text in table[name]], dtype=np.float64)
        for name in set(VOTE_COLUMNS) & set(table.columns):
            table[name] = np.array([_count(text) for text in table[name]], dtype=np.int64)
    except FileNotFoundError as error:
        raise RunError(f"{folder}: no predictions.csv, expected the folder of a run.") from error
    except (OSError, ValueError) as error:
        reason = shown(str(error).partition("\n")[0], 120)
        raise RunError(f"{place}: not readable ({reason}). Fit the head again.") from error
    texts = [name for name in TEXT_COLUMNS if name not in AT_TIMES or name in table.columns]
    votes = VOTE_COLUMNS if set(VOTE_COLUMNS) & set(table.columns) else ()
    expected = [*texts, *probabilities, *votes]
    if list(table.columns) != expected:
        raise RunError(
            f"{place}: columns {shown(', '.join(table.columns), 200)}, expected "
            f"{shown(', '.join(expected), 400)}. "
            "Fit the head again."
        )
    return table


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{text[:20]!r} votes")
    return int(text)
