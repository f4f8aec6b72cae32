"""Embeddings x heads x settings x seeds: fitted, selected on validation, scored on test once."""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from joblib import delayed
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from tqdm import tqdm

from fer_features.errors import OptionError, RunError
from fer_features.experiment import fitting
from fer_features.experiment.comparison_folder import (
    Failure,
    Results,
    claimed,
    network_said,
    settle,
    settled_failures,
    write_summary,
)
from fer_features.experiment.drawing import nested_order
from fer_features.experiment.heads import Head, is_whole
from fer_features.experiment.result import Result, check_data, evaluate, with_test
from fer_features.experiment.run_document import plain
from fer_features.experiment.run_folder import as_path, safe_name
from fer_features.experiment.scores import SCORES, SMALLER_IS_BETTER
from fer_features.experiment.task import Data, Task, part_of, rows_sha256
from fer_features.faces.emotions import did_you_mean
from fer_features.runtimes import in_processes

if TYPE_CHECKING:
    from fer_features.embedding.store import Store

log = logging.getLogger(__name__)

Grid = Mapping[str, Mapping[str, Sequence[Any]]]
"""For a head's name, its parameters and the values to try."""

Among: TypeAlias = tuple[str, str, str]
"""A network's fingerprint, its features, and a head's name: of each one setting is selected."""


@dataclass(frozen=True, eq=False)
class Fit:
    """One head with one setting and one seed on one embedding, and where its result is kept.

    Parameters
    ----------
    data : Data
        The rows by the embedding that it is fitted to.
    label : str
        The head's name in the comparison.
    head : classifier
        Unfitted, with the setting and the seed.
    params : dict
        The head's parameters but for the seed, in JSON's types: what is selected among.
    seed : int, optional
        The seed of the training, None of a head that has none.
    folder : Path, optional
        Its run folder.
    size : int, optional
        Training images it is fitted to, None for all of them.
    """

    data: Data
    label: str
    head: Any
    params: dict[str, Any]
    seed: int | None
    folder: Path | None = None
    size: int | None = None

    @property
    def setting(self) -> str:
        """The parameters as text that equal settings share."""
        return json.dumps(self.params, sort_keys=True)

    @property
    def among(self) -> Among:
        """Among which fits one setting is selected: of its embedding and its head."""
        return (*_embedding(self.data), self.label)

    def failed(self, reason: str) -> Failure:
        store = self.data.store
        what = self.label, self.params, self.seed, self.size, reason, self.folder
        return Failure(*what, store["fingerprint"], store["features"], network_said(store))


def compare(
    data: Data | Sequence[Data],
    heads: Mapping[str, Any],
    *,
    grid: Grid | None = None,
    seeds: Iterable[int] = range(3),
    sizes: Iterable[int] = (),
    select: str = "log_loss",
    out: str | Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Results:
    """Fit heads under several settings and seeds, select on validation, score that on test.

    Parameters
    ----------
    data : Data or sequence of Data
        One task's rows; every fit is validated and tested on the same ones. Several are several
        embeddings of these, by other networks or of other layers (:meth:`Data.on`), and every
        head is fitted to each.
    heads : mapping of str to classifier
        Unfitted heads, or other scikit-learn classifiers, by the names they have in the report.
        What takes ``X_val`` and ``y_val`` in ``fit`` is given the validation rows, also as a
        pipeline's last step. A seed goes to every ``random_state`` and ``seed`` in them.
    grid : mapping of str to mapping of str to sequence, optional
        For a head's name, its parameters and the values to try, all combinations of them.
    seeds : iterable of int
        Seeds of training, 0 to 2**32 - 1. A head that draws nothing is fitted with the first alone.
    sizes : iterable of int
        Numbers of training images, each at least 1, for the curve of what more of them bring: each
        head's selected setting is fitted to nested parts of the training set and scored on
        validation.
    select : str
        The score (:data:`~fer_features.experiment.scores.SCORES`) whose mean over the seeds, on
        validation, selects a setting of each head on each embedding: the greatest, but of
        ``log_loss``, ``brier`` and ``ece`` the least.
    out : path-like, optional
        A folder for the results: ``fits/HEAD-HASH-SEED/``, ``results.json`` and
        ``results.csv``. Fits that it already holds of this comparison are not done again. While
        nothing is selected yet, embeddings, settings, seeds, sizes and the score may still be
        changed.
    workers : int
        Fits at a time, at least 1. More than one run in processes of one thread each, with the
        same results to the bit.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Results
        A list of Result in the order of ``data``, ``heads``, settings and seeds, then of sizes.
        Of each head on each embedding the selected setting has scores on the test rows, nothing
        else has. A fit that did not come to an end is not among them but in ``failed``, and its
        setting is not selected.

    Raises
    ------
    OptionError
        When data are not what :meth:`Task.select` returns, or not of the same rows; when there are
        no heads or seeds, or they are of another kind, a grid names an unknown head or parameter,
        a head refuses its parameters or has no ``predict_proba``, a size is not to be had, the
        score is unknown; or when every setting failed.
    RunError
        When ``out`` holds another comparison, is in use, or cannot be written; or a worker died.

    Examples
    --------
    >>> from fer_features import BackboneSpec, LogisticHead, Task, compare, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> results = compare(
    ...     data,
    ...     {"logistic": LogisticHead(), "neighbours": KNeighborsClassifier()},
    ...     grid={"neighbours": {"n_neighbors": [5, 15]}},
    ... )
    >>> [result.label for result in results]  # neither draws anything: one seed each
    ['logistic', 'neighbours', 'neighbours']
    >>> sum("test" in result.scores for result in results)  # of each head what validation chose
    2
    """
    embeddings = _checked_embeddings(data)
    folder = None if out is None else as_path(out)
    if not is_whole(workers, 1):
        raise OptionError(f"workers: {workers!r}, expected a whole number above 0.")
    if not isinstance(select, str) or select not in SCORES:
        raise OptionError(
            f"select: {select!r}, expected one of {', '.join(SCORES)}"
            f"{did_you_mean(str(select), SCORES)}."
        )
    fits = plan(embeddings, heads, grid or {}, seeds, folder)
    ordered = checked_sizes(sizes, embeddings[0])
    experiment = _experiment(embeddings, fits, ordered, select)
    with nullcontext() if folder is None else claimed(folder, experiment):
        failed = {} if folder is None else settled_failures(folder)
        # One setting's seeds are fitted anew to each size.
        ones = {fit.among: fit.setting for fit in reversed(fits)}
        total = len(fits) + len(ordered) * sum(ones[fit.among] == fit.setting for fit in fits)
        with tqdm(total=total, desc="Fitting", unit="fit", disable=not progress) as bar:
            done = _fit_all(fits, select, workers, bar, failed)
            selected = _selected(fits, done, select)
            chosen = [fit for fit in fits if selected.get(fit.among) == fit.setting]
            smaller = [_at_size(fit, size, folder) for fit in chosen for size in ordered]
            sized = _fit_all(smaller, select, workers, bar, failed)
        settings = [
            {**dict(zip(_AMONG, among, strict=True)), "params": json.loads(setting)}
            for among, setting in selected.items()
        ]
        if folder is not None:
            failures = [each for each in [*done, *sized] if isinstance(each, Failure)]
            settle(folder, experiment, settings, failures)
        for index, fit in enumerate(fits):
            if fit in chosen:
                done[index] = _select_and_test(fit, done[index])
        found = Results([*done, *sized], select=select)
        if folder is not None:
            write_summary(folder, experiment, settings, found)
    return found


def embeddings_of(
    task: Task,
    stores: Sequence["Store"],
    features: Sequence[str] = ("final",),
    *,
    test_on: Sequence["Store"] = (),
    raters: str | os.PathLike[str] | None = None,
) -> list[Data]:
    """Return a task's rows by every store and every features that it has, for :func:`compare`.

    Parameters
    ----------
    task : Task
    stores : sequence of Store
        Of one source. The first one's rows are drawn and split.
    features : sequence of str
        As :meth:`Task.select` takes them. Layers are called otherwise in another network: features
        are those of the stores that have them all.
    test_on : sequence of Store
        Another data set to test on (:meth:`Data.tested_on`), a store of it for each network.
    raters : path-like, optional
        Votes on the test images (:meth:`Data.with_raters`).

    Raises
    ------
    OptionError
        Features that no store has, a store that has none of them, or one that is given twice.
    TaskError, SourceError, StoreError
        As the methods above do.
    """
    held = {each: _having(each, stores) for each in dict.fromkeys(features)}
    of_test: dict[str, Store] = {}
    for store in test_on:
        if store.fingerprint in of_test:
            raise OptionError(
                f"test_on: {of_test[store.fingerprint].path} and {store.path} are of one network, "
                "expected one store for each. Leave one out."
            )
        of_test[store.fingerprint] = store
    networks = {store.fingerprint: store for store in stores}
    for store in of_test.values():
        if store.fingerprint not in networks:
            raise OptionError(
                f"test_on: {store.path} is by {store.network}, expected the network of "
                f"{stores[0].path}, {stores[0].network}. Extract its images with "
                f"{stores[0].options()}."
            )
    for store in stores:
        if of_test and store.fingerprint not in of_test:
            raise OptionError(
                f"test_on: no test images by the network of {store.path}, {store.network}, "
                "expected a store of them for each network. Extract them with "
                f"{store.options()}."
            )
    first: Data | None = None
    found = []
    for store in stores:
        own = [each for each, having in held.items() if store in having]
        if not own:
            raise OptionError(
                f"features: {store.path} has none of {', '.join(held)}, expected some of each "
                f"store. It has {', '.join(store.outputs)}."
            )
        for each in own:
            if first is None:
                first = task.select(store, each)
                first = first.tested_on(of_test[store.fingerprint]) if of_test else first
                first = first if raters is None else first.with_raters(raters)
                found.append(first)
            else:
                found.append(first.on(store, each, test_store=of_test.get(store.fingerprint)))
    return found


def _having(features: str, stores: Sequence["Store"]) -> list["Store"]:
    """Return the stores that have some features; those that lack them are said."""
    names = [name.strip() for name in features.split("+")]
    having = [store for store in stores if set(names) <= set(store.outputs)]
    if len(stores) == 1:
        stores[0].features(names)  # it refuses what it lacks, and says what to do
    elif not having:
        outputs = "; ".join(f"{store.path} has {', '.join(store.outputs)}" for store in stores)
        raise OptionError(
            f"features: no store has {features!r}, expected what one has: {outputs}. "
            f"{stores[0].command('--layers NAME')} adds a layer."
        )
    elif len(having) < len(stores):
        log.info("%s: of %s alone", features, " and ".join(str(store.path) for store in having))
    return having


def plan(
    embeddings: Sequence[Data],
    heads: Mapping[str, Any],
    grid: Grid,
    seeds: Iterable[int],
    folder: Path | None,
) -> list[Fit]:
    """List the fits that are selected among: embeddings x heads x settings x seeds.

    Raises
    ------
    OptionError
        When there are no heads or seeds, or they are of another kind, a grid names an unknown
        head or parameter, or no values, or a head refuses a value or cannot be scored.
    """
    chosen = fitting.checked_seeds(seeds)
    _check_mapping("heads", heads, '{"mine": LogisticHead()}')
    _check_mapping("grid", grid, '{"dense": {"l2": [1e-4, 1e-3]}}')
    if not heads:
        raise OptionError("heads: none, expected at least one.")
    for label, head in heads.items():
        if isinstance(head, type) or not hasattr(head, "get_params"):
            fitting.check_classifier(head, label)
    for label, values in grid.items():
        if label not in heads:
            raise OptionError(f"grid: unknown head {_but(label, list(heads))}")
        _check_values(label, heads[label], values)
    fits: dict[tuple[str, str, Any], Fit] = {}
    for label, head in heads.items():
        for values in ParameterGrid({k: list(v) for k, v in grid.get(label, {}).items()}):
            configured = clone(head).set_params(**values)
            fitting.check_classifier(configured, label)
            draws = fitting.is_random(configured)
            for seed in chosen if draws else chosen[:1]:
                one = fitting.seeded(configured, seed)
                params, own = fitting.setting(one)
                fit = Fit(embeddings[0], label, one, plain(params), seed if draws else own)
                fits.setdefault((label, fit.setting, seed), fit)
    return [
        _placed(replace(fit, data=data), folder, seed)
        for data in embeddings
        for (_, _, seed), fit in fits.items()
    ]


def checked_sizes(sizes: Iterable[int], data: Data) -> list[int]:
    """Return the sizes of a size curve in ascending order, each once.

    All training images are no part: every comparison fits to those.

    Raises
    ------
    OptionError
        When one leaves a class without training images, or asks for more than there are.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise OptionError(f"sizes: {sizes!r}, expected numbers of images, such as [500, 1000].")
    given = list(sizes)
    for size in given:
        if not is_whole(size, 1):
            raise OptionError(f"sizes: {size!r}, expected whole numbers above 0.")
    ordered = sorted(set(map(int, given)))
    order = nested_order(data.train.y, data.task.split_seed)
    for size in ordered:
        if size > len(order):
            raise OptionError(f"sizes: {size}, expected 1 to {len(order):,} training images.")
        lacking = set(data.classes) - set(data.train.y[order[:size]])
        if lacking:
            raise OptionError(f"sizes: {size}, too few for an image of {min(lacking)}. Take more.")
    return [size for size in ordered if size < len(order)]


def _fit_all(
    fits: Sequence[Fit],
    select: str,
    workers: int,
    bar: Any,
    failed: Mapping[Path | None, str],
) -> list[Result | Failure]:
    """Return what became of fits, in their order; those that are there already are read."""
    done: dict[int, Result | Failure] = {}
    for index, fit in enumerate(fits):
        # A fit's folder appears whole or not at all.
        if fit.folder is not None and (fit.folder / "metrics.json").is_file():
            done[index] = _loaded(fit.folder, select)
        elif fit.folder in failed:
            done[index] = fit.failed(failed[fit.folder])
    if not bar.disable and done:
        # They took no time: counted as there from the start, they leave the time left as it is.
        bar.initial += len(done)
        bar.n = bar.last_print_n = bar.n + len(done)
        bar.refresh()
    todo = [(index, fits[index]) for index in range(len(fits)) if index not in done]
    for index, outcome in _fitted(todo, select, workers):
        done[index] = outcome
        bar.set_postfix_str(outcome.label)
        bar.update()
    return [done[index] for index in range(len(fits))]


def _fitted(
    todo: Sequence[tuple[int, Fit]], select: str, workers: int
) -> Iterator[tuple[int, Result | Failure]]:
    if workers == 1 or len(todo) < 2:
        for index, fit in todo:
            yield index, _fit(fit, select)
        return
    try:
        with warnings.catch_warnings():
            # TensorFlow's memory makes loky start a process anew now and then: no fit is lost.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs")
            tasks = (delayed(_numbered)(index, fit, select) for index, fit in todo)
            yield from in_processes(tasks, min(workers, len(todo)), inner_max_num_threads=1)
    except BrokenProcessPool as error:
        raise RunError(
            f"workers: a process of {min(workers, len(todo))} died in a fit, most likely for lack "
            "of memory. What is finished is kept; call again with workers=1."
        ) from error


def _numbered(index: int, fit: Fit, select: str) -> tuple[int, Result | Failure]:
    return index, _fit(fit, select)


def _fit(fit: Fit, select: str) -> Result | Failure:
    """Fit one head and score it on validation alone; its folder, if it has one, is written."""
    data = part_of(fit.data, fit.size)
    head = clone(fit.head)
    try:
        fitting.fit(head, data, seed=fit.seed)
        result = evaluate(head, data)
    except Exception as error:  # Whatever a classifier raises ends its own fit, no other.
        return fit.failed(_reason(error))
    selection = {"score": select, "selected": False}
    result = replace(result, label=fit.label, seed=fit.seed, selection=selection)
    if fit.folder is None:
        return result
    result.save(fit.folder)
    # A hundred forests or neighbours need not be in memory, too, when they are on disk.
    other = not isinstance(head, Head) and fitting.kept_file(fit.folder) is not None
    return replace(result, folder=fit.folder, fitted=None if other else result.fitted)


def _loaded(folder: Path, select: str) -> Result:
    """Read a fit that is there; before a selection was made it may have been for another one."""
    result = Result.load(folder)
    if (result.selection or {}).get("score") != select:
        result = replace(result, selection={"score": select, "selected": False})
        result.update(folder)
    return result


def _selected(
    fits: Sequence[Fit], done: Sequence[Result | Failure], select: str
) -> dict[Among, str]:
    """Return of each embedding and head the setting of the best mean on validation, best first.

    A setting of which a fit failed is none: the others' mean would be of other seeds.

    Raises
    ------
    OptionError
        When there is none of any head.
    """
    values: dict[tuple[Among, str], list[float]] = {}
    for fit, outcome in zip(fits, done, strict=True):
        found = None
        if isinstance(outcome, Result):
            found = outcome.scores["validation"][select]
        sign = -1 if select in SMALLER_IS_BETTER else 1
        value = -np.inf if found is None else sign * found
        values.setdefault((fit.among, fit.setting), []).append(value)
    means = {key: float(np.mean(each)) for key, each in values.items()}
    best: dict[Among, str] = {}
    for (among, setting), mean in means.items():
        if mean > means.get((among, best.get(among, "")), -np.inf):
            best[among] = setting
    if not best:
        reasons = [each.reason for each in done if isinstance(each, Failure)]
        first = reasons[0] if reasons else f"no {select} on validation"
        raise OptionError(
            f"compare: no setting could be fitted, {len(reasons)} of {len(fits)} fits failed; "
            f"the first: {first.rstrip('.')}."
        )
    return dict(sorted(best.items(), key=lambda chosen: -means[chosen]))


def _select_and_test(fit: Fit, result: Result | Failure) -> Result | Failure:
    """Add the test rows to a selected fit's result and to its folder."""
    assert isinstance(result, Result)
    selection = {**(result.selection or {}), "selected": True}
    if "test" in result.scores and result.selection == selection:
        return result
    result = replace(result, selection=selection)
    if "test" not in result.scores:
        head = result.fitted
        if head is None and fit.folder is not None and fitting.kept_file(fit.folder):
            head = result.head()
        try:
            if head is None:  # a classifier that could not be kept
                head = clone(fit.head)
                fitting.fit(head, fit.data, seed=fit.seed)
            result = with_test(result, head, fit.data)
        except Exception as error:
            return fit.failed(f"on the test images: {_reason(error)}")
    if fit.folder is not None:
        result.update(fit.folder)
    return result


def _at_size(fit: Fit, size: int, folder: Path | None) -> Fit:
    """Return the same fit to `size` training images."""
    return _placed(replace(fit, head=clone(fit.head), size=size), folder, fit.seed or 0)


def _placed(fit: Fit, folder: Path | None, seed: int) -> Fit:
    """Name a fit's folder: any label makes a safe name, and no two settings share one."""
    if folder is None:
        return fit
    stated = [*fit.among, type(fit.head).__name__, fit.setting, fit.size]
    digest = hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:8]
    return replace(fit, folder=folder / "fits" / f"{safe_name(fit.label)}-{digest}-{seed}")


def _reason(error: Exception) -> str:
    """Say in one line why a fit failed: our own words, or another's with their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, OptionError) else f"{type(error).__name__}: {text}"


def _experiment(
    embeddings: Sequence[Data], fits: Sequence[Fit], sizes: Sequence[int], select: str
) -> dict[str, Any]:
    """Say what makes this comparison the one it is; of another one no fit is taken over."""
    data = embeddings[0]
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
        "rows": rows_sha256(data.parts()),
        "split": data.split,
        "embeddings": [
            dict(zip(_AMONG, _embedding(each), strict=False))
            | {"source": each.store["dataset"]["sha256"]}
            for each in embeddings
        ],
        "select": select,
        "settings": settings,
        "seeds": seeds,
        "sizes": list(sizes),
    }


_AMONG = ("fingerprint", "features", "head")


def _embedding(data: Data) -> tuple[str, str]:
    return str(data.store["fingerprint"]), str(data.store["features"])


def _checked_embeddings(data: Data | Sequence[Data]) -> list[Data]:
    """Return the data, of which each is the same rows by another embedding."""
    given: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    if not given:
        raise OptionError("data: none, expected what Task().select(store) returns.")
    every = [check_data(each) for each in given]
    said: set[tuple[str, str]] = set()
    for position, each in enumerate(every):
        store = each.store
        named = f"data: number {position + 1}, {store.get('name')} {store['features']},"
        rows = [rows_sha256(one.parts()) for one in (every[0], each)]
        if rows[0] != rows[1] or each.split != every[0].split:
            raise OptionError(
                f"{named} has other rows than the first, expected the very same. Make it with "
                "first.on(store, features)."
            )
        if _embedding(each) in said:
            raise OptionError(f"{named} is given twice, expected once. Leave one out.")
        said.add(_embedding(each))
    return every


def _check_mapping(name: str, given: object, example: str) -> None:
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for each in given):
        raise OptionError(f"{name}: {given!r:.80}, expected a mapping by name, such as {example}.")


def _check_values(label: str, head: Any, values: Mapping[str, Sequence[Any]]) -> None:
    _check_mapping(f"grid: {label}", values, '{"C": [0.01, 0.1]}')
    seeds = fitting.seed_parameters(head)
    known = [name for name in head.get_params() if name not in seeds]
    for name, tried in values.items():
        if name in seeds:
            raise OptionError(f"grid: {label}.{name}, expected a parameter. Use seeds for that.")
        if name not in known:
            raise OptionError(f"grid: {label} has no parameter {_but(name, known)}")
        if not isinstance(tried, list | tuple | range | np.ndarray) or not len(tried):
            raise OptionError(
                f"grid: {label}.{name}: {tried!r:.80}, expected a list of values, such as "
                f"{list(tried) if isinstance(tried, set | dict) else [tried]!r:.80}."
            )


def _but(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name!r}, expected {' or '.join(known)}.{hint}"
