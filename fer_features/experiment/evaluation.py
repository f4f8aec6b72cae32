"""How well a fitted head does: its scores, its predictions, and the run folder that keeps them.

Every score is scikit-learn's, computed in float64 from the predictions that are kept, so that
recomputing it from ``predictions.csv`` gives the same number to the last digit.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from fer_features.errors import RunError, TaskError
from fer_features.experiment.environment import environment
from fer_features.experiment.run_folder import (
    FIELDS,
    SPLITS,
    plain,
    read_run,
    seed_parameter,
    update_run,
    write_next_run,
    write_run,
)
from fer_features.experiment.scoring import decide, score
from fer_features.faces.emotions import EMOTIONS

if TYPE_CHECKING:
    from fer_features.experiment.task import Data, Split


def fit_and_evaluate(
    head: Any, data: "Data", *, test: bool = True, progress: bool = False
) -> "Result":
    """Fit a head to the training rows, the validation rows at its side, and score it.

    Parameters
    ----------
    head : DenseHead or LogisticHead
        Unfitted; it is fitted in place.
    data : Data
        What :meth:`Task.select` returned.
    test : bool
        As :func:`evaluate` takes it.
    progress : bool
        Show a progress bar on standard error.
    """
    with tqdm(desc=f"Fitting {head.name}", disable=not progress, leave=False, delay=1) as bar:

        def show(done: int, total: int, logs: Mapping[str, float]) -> None:
            bar.total = total
            bar.set_postfix({name: f"{value:.4f}" for name, value in logs.items()}, refresh=False)
            bar.update(done - bar.n)

        held_out = (data.validation.X, data.validation.y)
        head.fit(data.train.X, data.train.y, validation=held_out, progress=show)
    return evaluate(head, data, test=test)


def evaluate(head: Any, data: "Data", *, test: bool = True) -> "Result":
    """Score a fitted head on the validation and the test rows of a task.

    Parameters
    ----------
    head : fitted classifier
        A :class:`~fer_features.experiment.heads.DenseHead` or ``LogisticHead``; any scikit-learn
        classifier with ``predict_proba`` and string ``classes_`` will do, though only a head
        with ``save`` can be kept as ``head.keras``.
    data : Data
        What :meth:`Task.select` returned.
    test : bool
        False leaves the test rows alone, as is right while heads are still being chosen among.

    Raises
    ------
    TaskError
        The head was fitted to other classes than the task's.
    """
    classes = tuple(data.classes)
    outputs = [str(name) for name in head.classes_]
    if sorted(outputs) != sorted(classes):
        raise TaskError(
            f"head: fitted to the classes {', '.join(outputs)}, expected {', '.join(classes)}. "
            "Fit it to this task."
        )
    started = time.perf_counter()
    splits = SPLITS if test else SPLITS[:1]
    parts = {name: _predict(head, getattr(data, name), name, classes) for name in splits}
    predict_seconds = time.perf_counter() - started
    scored = {
        name: score(list(part["target"]), _probabilities(part, classes), classes)
        for name, part in parts.items()
    }
    alone = _unleaked(parts["test"], data, classes) if "test" in parts else None
    if alone is not None:
        scored["unleaked"] = score(list(alone["target"]), _probabilities(alone, classes), classes)
    params = plain(head.get_params())
    name = seed_parameter(head)
    seed = params.pop(name) if isinstance(params.get(name), int) else None
    fit_seconds = getattr(head, "fit_seconds_", None)
    return Result(
        head=getattr(head, "name", type(head).__name__),
        params=params,
        seed=seed,
        task={"classes": {name: list(held) for name, held in data.task.emotions.items()}},
        split=plain(data.split),
        scores=scored,
        history=plain(getattr(head, "history_", [])),
        seconds=plain({"fit": fit_seconds, "predict": predict_seconds}),
        store=plain(data.store),
        fingerprint=str(data.store["fingerprint"]),
        features=str(data.store["features"]),
        outputs=outputs,
        versions=environment(),
        predictions=pd.concat(parts.values(), ignore_index=True),
        fitted=head,
    )


@dataclass(frozen=True, eq=False)
class Result:
    """One head, one seed, one split, scored: everything that a report shows of a fit.

    Parameters
    ----------
    head : str
        ``"dense"`` or ``"logistic"``.
    params : dict
        The head's parameters, without the seed.
    seed : int, optional
        The seed of the training.
    task : dict
        ``{"classes": {name: [emotion, ...]}}``, the positive class first.
    split : dict
        Protocol, seed, duplicates, per_class, sizes and leaked counts, the groups and the file
        of labels if there is one, as ``Data.split``.
    scores : dict
        ``validation`` and ``test``, each as
        :func:`~fer_features.experiment.scoring.score` returns it; a fit that was not selected in
        a comparison has no ``test``. Where test images also occur in training or validation, or
        others of their group do, ``unleaked`` holds the scores of the other test images.
    history : list of dict
        One entry an epoch, or one for each regularisation strength tried.
    seconds : dict
        Wall-clock seconds: ``fit``, and ``predict`` for the validation and test rows.
    store : dict
        Where the embeddings come from, as ``Data.store``: name, path, features, fingerprint,
        backbone, dataset and provenance.
    fingerprint : str
        The backbone's fingerprint.
    features : str
        Which of its outputs the head was given: ``"final"``, or layers joined by ``+``.
    outputs : list of str
        Classes in the order of the columns that ``head.keras`` puts out.
    versions : dict
        Python, packages and machine that the fit ran on.
    predictions : DataFrame
        Validation and test rows: source, digest (hex), split, emotion (name), target and
        predicted (class names), ``p_CLASS`` for each class in task order, float64.
    fitted : classifier, optional
        The head itself, in the process that fitted it; :meth:`load` leaves it None.
    """

    head: str
    params: dict[str, Any]
    seed: int | None
    task: dict[str, Any]
    split: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    history: list[dict[str, Any]] = field(repr=False)
    seconds: dict[str, Any]
    store: dict[str, Any] = field(repr=False)
    fingerprint: str
    features: str
    outputs: list[str]
    versions: dict[str, Any] = field(repr=False)
    predictions: pd.DataFrame = field(repr=False)
    fitted: Any = field(default=None, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the task's order."""
        return tuple(self.task["classes"])

    def save(self, folder: str | Path | None = None) -> Path:
        """Write ``metrics.json``, ``predictions.csv`` and, of a fitted head, ``head.keras``.

        Parameters
        ----------
        folder : path-like, optional
            A new or an empty folder, which appears whole or not at all. Without one,
            ``runs/NNNN-HEAD`` with the next number.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunError
            The folder exists and is not empty, or cannot be written.
        """
        if folder is None:
            return write_next_run(self.head, self._document(), self.predictions, self.fitted)
        write_run(Path(folder), self._document(), self.predictions, self.fitted)
        return Path(folder)

    def update(self, folder: str | Path) -> Path:
        """Replace the scores and predictions of this very fit's folder; its head stays.

        Raises
        ------
        RunError
            The folder holds no run, or another head, parameters or seed; or cannot be written.
        """
        update_run(Path(folder), self._document(), self.predictions)
        return Path(folder)

    def _document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def load(cls, folder: str | Path) -> "Result":
        """Read a run folder back, without TensorFlow; ``load_head`` reads its ``head.keras``.

        Raises
        ------
        RunError
            The folder is missing, damaged, of another format or of a newer version, or its
            scores are not those of its predictions.
        """
        document, predictions = read_run(Path(folder))
        result = cls(**{name: document[name] for name in FIELDS}, predictions=predictions)
        _check_agreement(result, Path(folder))
        return result


def _check_agreement(result: Result, folder: Path) -> None:
    """Check that a run's scores follow from its predictions: neither was changed by itself."""
    advice = "One of the two was changed: fit the head again."
    for split in (name for name in SPLITS if name in result.scores):
        kept = result.scores[split]
        rows = result.predictions[result.predictions["split"] == split]
        p = _probabilities(rows, result.classes)
        wrong = np.flatnonzero(
            (np.abs(p.sum(axis=1) - 1) > 1e-6)
            | (p < 0).any(axis=1)
            | ~rows["target"].isin(result.classes).to_numpy()
            | (decide(p, result.classes) != rows["predicted"].to_numpy(dtype=str))
        )
        if len(wrong):
            raise RunError(
                f"{folder}/predictions.csv row {rows.index[wrong[0]] + 1}: not a class and its "
                f"probabilities, the predicted one the largest. {advice}"
            )
        found = score(list(rows["target"]), p, result.classes)
        for name in ("confusion", "accuracy", "log_loss"):
            if not np.allclose(found[name], kept[name], rtol=1e-9):
                raise RunError(
                    f"{folder}/metrics.json: {split} {name} {kept[name]}, expected {found[name]} "
                    f"as predictions.csv has it. {advice}"
                )


def _predict(head: Any, split: "Split", name: str, classes: tuple[str, ...]) -> pd.DataFrame:
    """Tabulate what a head says of the rows of one split."""
    said = np.asarray(head.predict_proba(split.X))
    probabilities = said.astype(np.float64)
    if said.dtype != np.float64:
        # Rounded to float32, a row's sum is off by more than scikit-learn's metrics let pass.
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities = probabilities[:, [list(head.classes_).index(each) for each in classes]]
    columns = {
        "source": [str(each) for each in split.source],
        "digest": [bytes(each).hex() for each in np.asarray(split.digest)],
        "split": name,
        "emotion": [EMOTIONS[each] for each in split.emotion],
        "target": [str(each) for each in split.y],
        "predicted": [str(each) for each in decide(probabilities, classes)],
        **{f"p_{each}": probabilities[:, i] for i, each in enumerate(classes)},
    }
    return pd.DataFrame(columns)


def _unleaked(test: pd.DataFrame, data: "Data", classes: tuple[str, ...]) -> pd.DataFrame | None:
    """Return the test rows whose image and group are in no other split, None if those are all."""
    elsewhere = {
        bytes(each).hex() for part in (data.train, data.validation) for each in part.digest
    }
    groups = {each for part in (data.train, data.validation) for each in part.group} - {""}
    of_known_group = np.isin(data.test.group, list(groups))
    alone = test[~test["digest"].isin(elsewhere) & ~of_known_group]
    return alone if len(alone) < len(test) and set(alone["target"]) == set(classes) else None


def _probabilities(rows: pd.DataFrame, classes: Sequence[str]) -> npt.NDArray[np.float64]:
    return rows[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
