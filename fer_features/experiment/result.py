"""How well a fitted head does: its scores, its predictions, and the run that keeps them.

Every score is scikit-learn's, computed in float64 from the predictions that are kept, so that
recomputing it from ``predictions.csv`` gives the same number to the last digit.
"""

import html
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from fer_features.errors import FerFeaturesError, OptionError, RunError, TaskError
from fer_features.experiment.fitting import (
    answers,
    check_classifier,
    checked_seeds,
    fit,
    history,
    is_random,
    kept,
    kept_file,
    note_embeddings,
    noted_embeddings,
    setting,
)
from fer_features.experiment.heads import Head
from fer_features.experiment.raters import VOTE_COLUMNS
from fer_features.experiment.run_document import (
    FIELDS,
    SPLITS,
    history_misfit,
    plain,
    plain_text,
)
from fer_features.experiment.run_folder import (
    as_path,
    environment,
    read_run,
    update_run,
    write_next_run,
    write_run,
)
from fer_features.experiment.scores import SCORES, score, temperature
from fer_features.experiment.task import Data, Split, Task, part_of
from fer_features.faces.emotions import EMOTIONS


def fit_and_evaluate(
    head: Any,
    data: Data,
    *,
    test: bool = False,
    seed: int | None = None,
    progress: bool = False,
) -> "Result":
    """Fit a head to the training rows, the validation rows at its side, and score it.

    Parameters
    ----------
    head : DenseHead, LogisticHead or another scikit-learn classifier
        Unfitted; it is fitted in place.
    data : Data
        What :meth:`Task.select` returned.
    test : bool
        As :func:`evaluate` takes it.
    seed : int, optional
        What :func:`~fer_features.experiment.fitting.fit` seeds the global generators with, and
        the result's ``seed``: the head's own one, if it has one.
    progress : bool
        Show a progress bar on standard error.

    Raises
    ------
    OptionError
        Before anything is fitted, as :func:`~fer_features.experiment.fitting.check_classifier`
        does; or the head does not come to an end with these parameters.
    """
    check_data(data)
    check_classifier(head, _name(head))
    own = setting(head)[1]
    seed = own if seed is None else checked_seeds([seed])[0]
    if own not in (None, seed):
        raise OptionError(f"seed: {seed}, expected {own} as the head has it. Leave it out.")
    with tqdm(desc=f"Fitting {_name(head)}", disable=not progress, leave=False, delay=1) as bar:

        def show(done: int, total: int, logs: Mapping[str, float]) -> None:
            bar.total = total
            bar.set_postfix({name: f"{value:.4f}" for name, value in logs.items()}, refresh=False)
            bar.update(done - bar.n)

        try:
            fit(head, data, show, seed=seed)
        except (FerFeaturesError, OSError, MemoryError):
            raise
        except Exception as error:
            if isinstance(head, Head):
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            raise OptionError(f"{_name(head)}: cannot be fitted ({said}). Set it otherwise.") from (
                error
            )
    return replace(evaluate(head, data, test=test), seed=seed)


def evaluate(head: Any, data: Data, *, test: bool = False) -> "Result":
    """Score a fitted head on the validation rows of a task, and on its test rows if asked to.

    The scores are scikit-learn's metrics and an expected calibration error, in the units and ranges
    that :func:`~fer_features.experiment.scores.score` says; a temperature is fitted to validation.
    The last two are those of Guo et al., "On calibration of modern neural networks", 2017.

    Parameters
    ----------
    head : fitted classifier
        A :class:`~fer_features.experiment.heads.DenseHead` or ``LogisticHead``; any scikit-learn
        classifier with ``predict_proba`` and string ``classes_`` will do.
    data : Data
        What :meth:`Task.select` returned.
    test : bool
        True scores the test rows, too: once, when nothing is left to be chosen by them.

    Returns
    -------
    Result
        With ``scores`` and ``predictions`` of these rows, and the head as ``fitted``.

    Raises
    ------
    TaskError
        The head is not fitted, was fitted to other classes than the task's, or, read from a run,
        to embeddings of another network or other features.
    OptionError
        It is no scikit-learn classifier, has no ``predict_proba``, or what it says are no
        probabilities; or ``data`` is something else.
    ValueError
        As scikit-learn's, when the head was fitted to embeddings of another length.

    Examples
    --------
    >>> from fer_features import BackboneSpec, LogisticHead, Task, evaluate, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> head = LogisticHead(C=1.0).fit(data.train.X, data.train.y)
    >>> result = evaluate(head, data)
    >>> list(result.scores)  # test only with test=True
    ['validation']
    >>> 0 <= result.scores["validation"]["accuracy"] <= 1
    True
    """
    check_data(data)
    classes = tuple(data.classes)
    if not hasattr(head, "get_params") or isinstance(head, type):
        raise OptionError(f"head: {head!r:.80}, expected a fitted scikit-learn classifier.")
    if not hasattr(head, "classes_"):
        raise TaskError(
            f"head: {type(head).__name__} is not fitted, expected a fitted one. Call its fit."
        )
    outputs = [str(name) for name in head.classes_]
    if sorted(outputs) != sorted(classes):
        raise TaskError(
            f"head: fitted to the classes {', '.join(outputs)}, expected {', '.join(classes)}. "
            f"Take the task that it was fitted to, or {_to_fit(head)} to this one."
        )
    _check_belongs(head, data)
    started = time.perf_counter()
    splits = SPLITS if test else SPLITS[:1]
    parts = {name: _predict(head, data, name) for name in splits}
    predict_seconds = time.perf_counter() - started
    params, seed = setting(head)
    return Result(
        label=_name(head),
        params=plain(params),
        seed=seed,
        random=is_random(head),
        task={"classes": {name: list(held) for name, held in data.task.emotions.items()}},
        split=plain(data.split),
        selection=None,
        scores={name: _scored(part, data.classes) for name, part in parts.items()},
        calibration={"temperature": _temperature(parts["validation"], classes)},
        history=_history(head),
        seconds=plain({"fit": getattr(head, "fit_seconds_", None), "predict": predict_seconds}),
        store=plain(data.store),
        fingerprint=str(data.store["fingerprint"]),
        features=str(data.store["features"]),
        outputs=outputs,
        versions=environment(),
        predictions=pd.concat(parts.values(), ignore_index=True),
        fitted=head,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One head, one seed, one split, scored: everything that a report shows of a fit.

    Parameters
    ----------
    label : str
        The head's name: ``"dense"``, ``"logistic"``, another classifier's class, or what it was
        called in a comparison. ``head`` in the run's document.
    params : dict
        The head's parameters, without the seed.
    seed : int, optional
        The seed of the training, 0 to 2**32 - 1: of every part of the head that has one, and of
        the global generators for what else may draw. None where there is none.
    random : bool
        Whether a seed may change this fit. It does not change a logistic head that was given
        validation rows, nor scikit-learn's classifiers without any seed; of all others it may.
    task : dict
        ``{"classes": {name: [emotion, ...]}}``, the positive class first.
    split : dict
        Protocol, seed, duplicates, per_class, sizes, rows and leaked counts, the groups and the
        file of labels if there is one, as ``Data.split``; and ``train_part``, the number, where
        not all training images were taken.
    selection : dict, optional
        Of a comparison's fit the ``score`` that chose on validation, and whether this setting was
        ``selected``; None of a fit by itself.
    scores : dict
        ``validation`` and, once it is scored, ``test``, each as
        :func:`~fer_features.experiment.scores.score` returns it. Where some of the images also
        occur in training (of test images, in validation too), or others of their group do,
        ``unleaked`` in them holds the scores of the other images.
    calibration : dict
        ``temperature``, 0.05 to 20, fitted to the validation images
        (:func:`~fer_features.experiment.scores.temperature`; Guo et al., 2017): a
        :class:`~fer_features.prediction.classifier.Classifier` applies it. The scores and
        ``predictions`` here are of the probabilities as the head says them.
    history : list of dict
        One entry an epoch, or one for each regularisation strength tried; empty of a classifier
        that notes nothing.
    seconds : dict
        Wall-clock seconds: ``fit`` (None where that is not known), and ``predict`` for the rows
        that were scored with it.
    store : dict
        Where the embeddings come from, as ``Data.store``: name, path, network, features,
        dimension, fingerprint, backbone, dataset, provenance and others.
    fingerprint : str
        The backbone's fingerprint.
    features : str
        Which of its outputs the head was given: ``"final"``, or layers joined by ``+``.
    outputs : list of str
        Classes in the order of the columns that the head puts out.
    versions : dict
        Python, packages and machine that the fit ran on.
    predictions : DataFrame
        The scored rows: source, digest (hex), split, emotion (name), group if rows have some,
        ``leaked`` if some image leaks (the other split that holds it or its group, or empty),
        target and predicted (class names), ``p_CLASS`` for each class in task order, float64; and
        where raters voted, how many for each emotion and for none, int64
        (:data:`~fer_features.experiment.raters.VOTE_COLUMNS`).
    folder : Path, optional
        The run's folder, of a result that was read or kept by a comparison.
    fitted : classifier, optional
        The head itself, in the process that fitted it; :meth:`head` finds it.

    Examples
    --------
    >>> from fer_features import BackboneSpec, LogisticHead, Result, Task, evaluate, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> head = LogisticHead(C=1.0).fit(data.train.X, data.train.y)
    >>> folder = evaluate(head, data).save("runs/mine")
    >>> result = Result.load(folder)
    >>> result.label, result.classes
    ('logistic', ('positive', 'negative'))
    >>> result.head().features_
    'final'
    """

    label: str
    params: dict[str, Any]
    seed: int | None
    random: bool
    task: dict[str, Any]
    split: dict[str, Any]
    selection: dict[str, Any] | None
    scores: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: dict[str, Any]
    store: dict[str, Any]
    fingerprint: str
    features: str
    outputs: list[str]
    versions: dict[str, Any]
    predictions: pd.DataFrame
    folder: Path | None = field(default=None)
    fitted: Any = field(default=None)

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        said = [
            f"{split} accuracy {scores['accuracy']:.4f}, log loss {scores['log_loss']:.4f}"
            for split, scores in self.scores.items()
        ]
        said += ["test not scored"] * ("test" not in self.scores)
        return f"Result({self.label}{seed}: {'; '.join(said)})"

    def _repr_html_(self) -> str:
        shown = self.to_frame().to_html(float_format="{:.4f}".format, na_rep="")
        return f"<p>{html.escape(repr(self))}</p>{shown}"

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame of scores: a line each split, named by it, a column each score.

        Returns
        -------
        DataFrame
            float64, the columns as in :data:`~fer_features.experiment.scores.SCORES`; NaN where a
            score needs a class that has no image. Where images leak ``validation unleaked`` and
            ``test unleaked`` are lines, too.
        """
        lines = {}
        for split, scores in self.scores.items():
            lines[split] = scores
            if "unleaked" in scores:
                lines[f"{split} unleaked"] = scores["unleaked"]
        rows = {name: [scores[each] for each in SCORES] for name, scores in lines.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(SCORES), dtype="float64")

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the task's order, tuple of str."""
        return tuple(self.task["classes"])

    def head(self) -> Any:
        """Return the fitted head, read from the run's folder if need be.

        Returns
        -------
        classifier
            A :class:`~fer_features.experiment.heads.Head`, or another of scikit-learn. It knows
            which embeddings it takes, ``fingerprint_`` and ``features_``; :func:`evaluate` refuses
            others.

        Raises
        ------
        RunError
            The run has none, or its file is damaged, of another fit or would have to be trusted.
        """
        head = self.fitted
        if head is None and self.folder is None:
            raise RunError(f"{self.label}: no fitted head here, expected one. Fit it again.")
        if head is None:
            assert self.folder is not None
            head = kept(self.folder, self.outputs)
            own = {
                "fingerprint": getattr(head, "fingerprint_", None) or self.fingerprint,
                "features": getattr(head, "features_", None) or self.features,
            }
            for name, value in own.items():
                if value != getattr(self, name):
                    raise RunError(
                        f"{self.folder}: a head of {name} {value}, expected "
                        f"{getattr(self, name)} as metrics.json has it. Fit it again."
                    )
        note_embeddings(head, self.fingerprint, self.features)
        return head

    def save(self, folder: str | Path | None = None) -> Path:
        """Write ``metrics.json``, ``predictions.csv`` and the fitted head.

        A head of this package is kept as ``head.keras``, another classifier as ``head.skops``, or
        not at all where reading that would mean to trust it. Of a result that was read, the file
        of its head is copied.

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
        OptionError
            It is no path.
        """
        head = self.fitted
        if head is None and self.folder is not None:
            head = kept_file(self.folder)
        if folder is None:
            return write_next_run(self.label, self._document(), self.predictions, head)
        path = as_path(folder)
        write_run(path, self._document(), self.predictions, head)
        return path

    def update(self, folder: str | Path) -> Path:
        """Replace the scores and predictions of this very fit's folder; its head stays.

        Parameters
        ----------
        folder : path-like
            A run's folder, such as :meth:`save` returned.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunError
            The folder holds no run, or one with another head, parameters, seed, task or
            embeddings; or cannot be written.
        OptionError
            It is no path.
        """
        path = as_path(folder)
        update_run(path, self._document(), self.predictions)
        return path

    def _document(self) -> dict[str, Any]:
        return {name: getattr(self, "label" if name == "head" else name) for name in FIELDS}

    @classmethod
    def load(cls, folder: str | Path) -> "Result":
        """Read a run folder back, without TensorFlow; :meth:`head` reads the head when asked.

        Parameters
        ----------
        folder : path-like
            What :meth:`save` or ``fer-fit-head`` wrote, or a comparison's ``fits/HEAD-HASH-SEED``.

        Returns
        -------
        Result
            Its ``folder`` is that path, ``fitted`` None.

        Raises
        ------
        RunError
            The folder is missing, damaged, of another format or of a newer version, or its
            scores are not those of its predictions.
        OptionError
            It is no path.
        """
        path = as_path(folder)
        document, predictions = read_run(path)
        fields = {"label" if name == "head" else name: document[name] for name in FIELDS}
        result = cls(**fields, predictions=predictions, folder=path)
        _check_agreement(result, path)
        return result


def score_test(result: Result) -> Result:
    """Score the test rows of a run that was scored on validation alone, and keep the scores.

    The rows are read from the store that the run names.

    Returns
    -------
    Result
        With test scores, which are also in the run's folder now; the same if it has them already.

    Raises
    ------
    RunError
        The store or its rows are not those of the run, its head is not kept, or its folder cannot
        be written.
    """
    if "test" in result.scores:
        return result
    data, head = again(result)
    scored = with_test(result, head, data)
    if result.folder is not None:
        scored.update(result.folder)
    return scored


def again(result: Result) -> tuple[Data, Any]:
    """Return the rows and the head that a run was made of, as :func:`score_test` takes them.

    Raises
    ------
    RunError
        The store or its rows are not those of the run, or its head is not kept.
    """
    head = result.head()
    data = _data_again(result)
    _check_same_head(result, head, data)
    return data, head


def _check_same_head(result: Result, head: Any, data: Data) -> None:
    """Check that a head says of validation what the run kept: that it is the one of this run."""
    kept_rows = result.predictions[result.predictions["split"] == "validation"]
    said = _predict(head, data, "validation")
    same = list(said["source"]) == list(kept_rows["source"]) and np.allclose(
        _probabilities(said, result.classes),
        _probabilities(kept_rows, result.classes),
        rtol=1e-6,
        atol=1e-9,
    )
    if not same:
        raise RunError(
            f"{result.folder or result.label}: its head does not say of the validation images what "
            "predictions.csv has, expected the head of this run. Fit it again."
        )


def with_test(result: Result, head: Any, data: Data) -> Result:
    """Return a result with the scores and predictions of the test rows added."""
    _check_belongs(head, data)
    rows = _predict(head, data, "test")
    return replace(
        result,
        scores=result.scores | {"test": _scored(rows, data.classes)},
        predictions=pd.concat([result.predictions, rows], ignore_index=True),
    )


def _name(head: Any) -> str:
    return str(getattr(head, "name", type(head).__name__))


def _history(head: Any) -> list[dict[str, Any]]:
    """Return what a fit noted on its way; another classifier's may have a form of its own."""
    noted: list[dict[str, Any]] = plain(history(head))
    return noted if history_misfit(noted) is None else []


def _to_fit(head: Any) -> str:
    """Say what to fit instead: a head that was read from a file cannot be."""
    return "fit it" if hasattr(head, "fit") else "fit a DenseHead or a LogisticHead"


def check_data(data: object) -> Data:
    """Return what :meth:`Task.select` returned, or raise OptionError for anything else."""
    if not isinstance(data, Data):
        raise OptionError(
            f"data: {type(data).__name__}, expected what Task().select(store) returns."
        )
    return data


def _check_belongs(head: Any, data: Data) -> None:
    """Check that a head that knows its embeddings is given those."""
    for name, own in noted_embeddings(head).items():
        given = str(data.store[name])
        if own is not None and own != given:
            what = "embeddings of the network" if name == "fingerprint" else "the features"
            short = (own[:8], given[:8]) if name == "fingerprint" else (own, given)
            raise TaskError(
                f"head: fitted to {what} {short[0]}, expected {short[1]} as the store has them. "
                f"Take the store and the features that it was fitted to, or {_to_fit(head)} to "
                "these."
            )


def _data_again(result: Result) -> Data:
    """Read and split the rows of a run anew, and check that they are the very same."""
    from fer_features.embedding.store import Store

    run, split = result.folder or result.label, result.split
    labels, raters = split.get("labels") or {}, split.get("raters") or {}
    try:
        store = Store(str(result.store.get("path")))
        if store.fingerprint != result.fingerprint:
            raise RunError(
                f"{store.path}: embeddings of the network {store.fingerprint[:8]}, expected "
                f"{result.fingerprint[:8]}"
            )
        task = Task(
            result.task["classes"],
            per_class=split["per_class"],
            split=split["protocol"],
            split_seed=split["seed"],
            duplicates=split["duplicates"],
            labels=labels.get("path"),
            group_by=(split.get("groups") or {}).get("by"),
            **{name: labels[name] for name in ("min_agreement", "labels_as", "map") if labels},
        )
        first = result.store.get("rows_of")
        places = [each.get("test_on") for each in (first or result.store, result.store)]
        tested = [each and Store(each["path"]) for each in places]
        data = task.select(*((Store(first["path"]),) if first else (store, result.features)))
        if tested[0]:
            data = data.tested_on(tested[0])
        if raters:
            data = data.with_raters(raters["path"])
        if first:
            data = data.on(store, result.features, test_store=tested[1])
    except (KeyError, FerFeaturesError) as error:
        raise RunError(
            f"{run}: its rows cannot be had again ({str(error).rstrip('.')}). Put the store that "
            "it was fitted to there, or fit again with --test."
        ) from error
    if raters and data.split["raters"]["sha256"] != raters["sha256"]:
        raise RunError(
            f"{run}: {raters['path']} holds other votes now, expected those that it was made with. "
            "Put that file there, or fit again with --test."
        )
    if data.split["rows"] != split.get("rows"):
        raise RunError(
            f"{run}: {store.path} or its labels hold other rows of this task now, expected those "
            "that it was fitted to. Fit it again."
        )
    return part_of(data, split.get("train_part"))


def _predict(head: Any, data: Data, name: str) -> pd.DataFrame:
    """Tabulate what a head says of the rows of one split."""
    split: Split = data.parts()[name]
    probabilities, predicted = answers(head, split.X, data.classes)
    grouped = any((part.group != "").any() for part in data.parts().values())
    voted = any(part.votes is not None for part in data.parts().values())
    votes = (
        np.zeros((len(split), len(VOTE_COLUMNS)), np.int64) if split.votes is None else split.votes
    )
    columns = {
        "source": [str(each) for each in split.source],
        "digest": [bytes(each).hex() for each in np.asarray(split.digest)],
        "split": name,
        "emotion": [EMOTIONS[each] for each in split.emotion],
        **({"group": [str(each) for each in split.group]} if grouped else {}),
        **({"leaked": data.leaks[name]} if any(map(any, data.leaks.values())) else {}),
        "target": [str(each) for each in split.y],
        "predicted": [str(each) for each in predicted],
        **{f"p_{each}": probabilities[:, i] for i, each in enumerate(data.classes)},
        **({name: votes[:, i] for i, name in enumerate(VOTE_COLUMNS)} if voted else {}),
    }
    return pd.DataFrame(columns)


def _scored(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Score one split; also without what leaks, where something does."""
    scored = _score(rows, classes)
    alone = rows[rows["leaked"] == ""] if "leaked" in rows else rows
    if len(alone) < len(rows):
        scored["unleaked"] = _score(alone, classes)
    return scored


def _temperature(rows: pd.DataFrame, classes: Sequence[str]) -> float:
    return temperature(list(rows["target"]), _probabilities(rows, classes), classes)


def _score(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    p = _probabilities(rows, classes)
    return score(list(rows["target"]), p, classes, list(rows["predicted"]))


def _probabilities(rows: pd.DataFrame, classes: Iterable[str]) -> npt.NDArray[np.float64]:
    return rows[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)


def _check_agreement(result: Result, folder: Path) -> None:
    """Check that a run's scores follow from its predictions: neither was changed by itself."""
    advice = "One of the two files was changed since: put it back, or fit the head again."
    for split in (name for name in SPLITS if name in result.scores):
        kept_scores = result.scores[split]
        rows = result.predictions[result.predictions["split"] == split]
        if not len(rows):
            raise RunError(
                f"{folder}/predictions.csv: no {split} images, expected those that metrics.json "
                f"scores. {advice}"
            )
        p = _probabilities(rows, result.classes)
        wrong = np.flatnonzero(
            (np.abs(p.sum(axis=1) - 1) > 1e-6)
            | (p < 0).any(axis=1)
            | ~rows["target"].isin(result.classes).to_numpy()
            | ~rows["predicted"].isin(result.classes).to_numpy()
            | ~rows["emotion"].isin(EMOTIONS).to_numpy()
        )
        if len(wrong):
            raise RunError(
                f"{folder}/predictions.csv row {rows.index[wrong[0]] + 1}: not an emotion, a "
                f"class, an answer and probabilities that sum to 1. {advice}"
            )
        found = _scored(rows, result.classes)
        for name in sorted({**found, **kept_scores}, key=lambda name: name != "confusion"):
            said, expected = kept_scores.get(name), found.get(name)
            if not _agree(said, expected):
                raise RunError(
                    f"{folder}/metrics.json: {split} {name} {plain_text(said)}, expected "
                    f"{plain_text(expected)} as predictions.csv has it. {advice}"
                )


def _agree(one: Any, other: Any) -> bool:
    """Return whether scores are the same but for what another order of sums makes of them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one is None and other is None
