"""Heads x settings x seeds on one task: fitted, selected on validation, scored on test once."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed, parallel_config
from sklearn.utils.validation import has_fit_parameter
from tqdm import tqdm

from fer_features.experiment.comparison_folder import claimed, settle, write_summary
from fer_features.experiment.evaluation import Result, evaluate
from fer_features.experiment.fit_plan import Fit, Grid, at_size, checked_sizes, part_of, plan
from fer_features.experiment.heads import Head, load_head
from fer_features.experiment.task import Data


def compare(
    data: Data,
    heads: Mapping[str, Any],
    *,
    grid: Grid | None = None,
    seeds: Iterable[int] = range(3),
    sizes: Iterable[int] = (),
    out: str | Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> list[Result]:
    """Fit heads under several settings and seeds, select on validation, score on test.

    Parameters
    ----------
    data : Data
        One task's rows; every fit is validated and tested on the same ones.
    heads : mapping of str to classifier
        Unfitted heads, or other scikit-learn classifiers, by the names they have in the report.
        What takes ``validation`` in ``fit`` is given the validation rows; seeds go to ``seed``
        or ``random_state``.
    grid : mapping of str to mapping of str to sequence, optional
        For a head's name, its parameters and the values to try, all combinations of them.
    seeds : iterable of int
        Seeds of training. A head without randomness is fitted with the first alone.
    sizes : iterable of int
        Numbers of training images, for the curve of what more of them bring: each head's
        selected setting is fitted to nested parts of the training set and scored on validation.
    out : path-like, optional
        A folder for the results: ``fits/HEAD-HASH-SEED/``, ``results.json`` and
        ``results.csv``. Fits that it already holds of this comparison are not done again. While
        none is selected yet, settings, seeds and sizes may still be changed.
    workers : int
        Fits at a time. More than one run in processes of one thread each, with the same results
        to the bit.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    list of Result
        In the order of ``heads``, settings and seeds, then of sizes. Of each head the setting
        with the least mean validation log loss has scores on the test rows, nothing else has.

    Raises
    ------
    OptionError
        When there are no heads or seeds, a grid names an unknown head or parameter, a fit refuses
        its parameters, or a size is not to be had.
    RunError
        When ``out`` holds another comparison, is in use, or cannot be written.
    """
    folder = None if out is None else Path(out)
    fits = plan(heads, grid or {}, seeds, folder)
    ordered = checked_sizes(sizes, data)
    experiment = _experiment(data, fits, ordered)
    with nullcontext() if folder is None else claimed(folder, experiment):
        total = len(fits) + len(ordered) * sum(_of_first_setting(fits, each) for each in heads)
        with tqdm(total=total, desc="Fitting", unit="fit", disable=not progress) as bar:
            results = _fit_all(fits, data, workers, bar)
            selected = _select(fits, results)
            chosen = [fit for fit in fits if selected[fit.label] == fit.setting]
            smaller = [at_size(fit, size, folder) for fit in chosen for size in ordered]
            sized = _fit_all(smaller, data, workers, bar)
        if folder is not None:
            settle(folder, experiment, selected)
        for index, fit in enumerate(fits):
            if fit in chosen and "test" not in results[index].scores:
                results[index] = _score_on_test(fit, results[index], data)
        if folder is not None:
            done = zip([*fits, *smaller], [*results, *sized], strict=True)
            write_summary(folder, experiment, selected, list(done))
    return [*results, *sized]


def _fit_all(fits: Sequence[Fit], data: Data, workers: int, bar: Any) -> list[Result]:
    """Return the results of fits in their order; those that are there already are read."""
    results: dict[int, Result] = {}
    for index, fit in enumerate(fits):
        # A fit's folder appears whole or not at all.
        if fit.folder is not None and (fit.folder / "metrics.json").is_file():
            results[index] = Result.load(fit.folder)
    if not bar.disable and results:
        # They took no time: counted as there from the start, they leave the time left as it is.
        bar.initial += len(results)
        bar.n = bar.last_print_n = bar.n + len(results)
        bar.refresh()
    todo = [index for index in range(len(fits)) if index not in results]
    for index, result in _fitted([(i, fits[i]) for i in todo], data, workers):
        results[index] = result
        bar.set_postfix_str(result.head)
        bar.update()
    return [results[index] for index in range(len(fits))]


def _fitted(
    todo: Sequence[tuple[int, Fit]], data: Data, workers: int
) -> Iterator[tuple[int, Result]]:
    if workers == 1 or len(todo) < 2:
        for index, fit in todo:
            yield index, _fit(fit, data)
        return
    with parallel_config("loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=min(workers, len(todo)), return_as="generator_unordered")
        yield from parallel(delayed(_fit_on_one_thread)(index, fit, data) for index, fit in todo)


def _fit_on_one_thread(index: int, fit: Fit, data: Data) -> tuple[int, Result]:
    # TensorFlow reads these once, when it starts; joblib sees to the other libraries.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = "1"
    return index, _fit(fit, data)


def _fit(fit: Fit, data: Data) -> Result:
    """Fit one head and score it on validation alone; its folder, if it has one, is written."""
    data = part_of(data, fit.size)
    _train(fit, data)
    result = replace(evaluate(fit.head, data, test=False), head=fit.label)
    if fit.folder is not None:
        result.save(fit.folder)
    return result


def _train(fit: Fit, data: Data) -> None:
    held = {"validation": (data.validation.X, data.validation.y)}
    takes = isinstance(fit.head, Head) or has_fit_parameter(fit.head, "validation")
    fit.head.fit(data.train.X, data.train.y, **(held if takes else {}))


def _select(fits: Sequence[Fit], results: Sequence[Result]) -> dict[str, str]:
    """Return each head's setting of the least mean validation log loss, the best head first."""
    losses = pd.DataFrame(
        {
            "label": [fit.label for fit in fits],
            "setting": [fit.setting for fit in fits],
            "loss": [result.scores["validation"]["log_loss"] for result in results],
        }
    )
    means = losses.groupby(["label", "setting"], sort=False)["loss"].mean()
    best = means.groupby("label", sort=False).idxmin()
    return dict(sorted(best, key=lambda chosen: means[chosen]))


def _score_on_test(fit: Fit, result: Result, data: Data) -> Result:
    """Add the test rows to a selected fit's result and to its folder."""
    head = result.fitted
    if head is None:
        assert fit.folder is not None
        kept = fit.folder / "head.keras"
        if kept.is_file():
            head = load_head(kept, result.outputs)
        else:  # another classifier, which cannot be kept
            _train(fit, data)
            head = fit.head
    scored = evaluate(head, data)
    result = replace(result, scores=scored.scores, predictions=scored.predictions)
    if fit.folder is not None:
        result.update(fit.folder)
    return result


def _of_first_setting(fits: Sequence[Fit], label: str) -> int:
    """Count a head's seeds."""
    own = [fit.setting for fit in fits if fit.label == label]
    return own.count(own[0])


def _experiment(data: Data, fits: Sequence[Fit], sizes: Sequence[int]) -> dict[str, Any]:
    """Say what makes this comparison the one it is; of another one no fit is taken over."""
    settings: dict[str, list[dict[str, Any]]] = {}
    seeds: dict[str, list[Any]] = {}
    for fit in fits:
        if fit.params not in settings.setdefault(fit.label, []):
            settings[fit.label].append(fit.params)
        if fit.seed not in seeds.setdefault(fit.label, []):
            seeds[fit.label].append(fit.seed)
    return {
        # Pairs, and the very rows: the order of the classes decides which are drawn.
        "classes": [[name, list(held)] for name, held in data.task.emotions.items()],
        "rows": _rows_digest(data),
        "split": data.split,
        "fingerprint": data.store["fingerprint"],
        "features": data.store["features"],
        "source": data.store["dataset"]["sha256"],
        "settings": settings,
        "seeds": seeds,
        "sizes": list(sizes),
    }


def _rows_digest(data: Data) -> str:
    """Return a hex sha256 of which images are in which split, in order, under which class."""
    digest = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.digest.tobytes())
        digest.update("\0".join(part.y).encode())
    return digest.hexdigest()
