"""Any scikit-learn classifier on embeddings: checked, seeded, fitted, asked, kept in a file.

The heads of this package are some among others here. What is theirs alone: they are given the
validation rows, and are kept as Keras files.
"""

import copy
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import parallel_config
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from fer_features.errors import OptionError, RunError
from fer_features.experiment.heads import Head, LogisticHead, is_whole, load_head
from fer_features.experiment.run_document import KERAS_FILE, SKOPS_FILE
from fer_features.experiment.task import Data
from fer_features.faces.array_file import readable
from fer_features.faces.bad_rows import shown
from fer_features.faces.packed import opened_zip

SEEDS = ("random_state", "seed")
"""What classifiers call the parameter that seeds them."""

KNOWN = ("fer_features", "sklearn", "numpy", "scipy", "joblib", "builtins")
"""Packages whose parts draw by a parameter of :data:`SEEDS` or not at all."""


def check_classifier(head: Any, label: str) -> None:
    """Check that an unfitted classifier can be fitted and scored here.

    Raises
    ------
    OptionError
        It is no scikit-learn classifier, will have no ``predict_proba``, or is a head of this
        package with a bad parameter, or one read from a file.
    """
    name = type(head).__name__
    if isinstance(head, type) or not hasattr(head, "get_params") or not is_classifier(head):
        found = f"the class {head.__name__}" if isinstance(head, type) else f"a {name}"
        raise OptionError(
            f"{label}: {found}, expected a scikit-learn classifier, such as LogisticHead()."
        )
    last = _last_step(head)
    if not hasattr(last, "fit"):
        raise OptionError(
            f"{label}: a head read from a file, expected an unfitted classifier. Take a DenseHead "
            "or a LogisticHead with its parameters."
        )
    if not _may_say_probabilities(head):
        raise _no_probabilities(head, label)
    if isinstance(last, Head):
        last.check_parameters()


def _may_say_probabilities(head: Any) -> bool:
    """Return whether a classifier has ``predict_proba``, or may have it once it is fitted.

    Before the fit scikit-learn asks the parts as they are set; but a stack's default last
    estimator, which has it, is made by the fit, and a search may settle on another part.
    """
    if hasattr(head, "predict_proba"):
        return True
    if not hasattr(type(head), "predict_proba"):
        return False
    if isinstance(head, Pipeline):
        return _may_say_probabilities(head.steps[-1][1])
    params = head.get_params(deep=False)
    if "final_estimator" in params:
        last = params["final_estimator"]
        return last is None or _may_say_probabilities(last)
    if "estimator" not in params or not params.get("refit", True):
        return False
    return any(map(_may_say_probabilities, _tried(params)))


def _tried(params: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what a search or a wrapper may fit: its estimator, set as is, or as a search tries."""
    yield params["estimator"]
    grids = params.get("param_grid", params.get("param_distributions", {}))
    for grid in [grids] if isinstance(grids, Mapping) else grids:
        # Numbers and distributions of them decide nothing here.
        kinds = {
            name: [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]
            for name, values in grid.items()
            if isinstance(values, Sequence | np.ndarray)
        }
        for values in ParameterGrid({name: values for name, values in kinds.items() if values}):
            with suppress(ValueError):
                yield clone(params["estimator"]).set_params(**values)


def _no_probabilities(head: Any, label: str) -> OptionError:
    name = type(head).__name__
    place = label if label == name else f"{label}: {name}"
    return OptionError(
        f"{place} as it is set has no predict_proba, expected probabilities. Set "
        "probability=True if it has that, wrap it in sklearn.calibration.CalibratedClassifierCV, "
        "or take another."
    )


def checked_seeds(seeds: object) -> list[int]:
    """Return seeds, each once; OptionError for what cannot seed NumPy's generators."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise OptionError(f"seeds: {seeds!r}, expected whole numbers, such as range(3).")
    found = list(seeds)
    for seed in found:
        if not (is_whole(seed, 0) and seed < 2**32):
            raise OptionError(f"seeds: {seed!r}, expected whole numbers from 0 to 4294967295.")
    if not found:
        raise OptionError("seeds: none, expected at least one, such as range(3).")
    return list(dict.fromkeys(map(int, found)))


def seed_parameters(head: Any) -> list[str]:
    """Return the names of all parameters that seed a classifier, those of its parts too."""
    return [name for name in head.get_params() if name.rpartition("__")[2] in SEEDS]


def seeded(head: Any, seed: int | None) -> Any:
    """Return an unfitted copy of a classifier, all of whose parts have this seed.

    Splitters, which ``set_params`` does not reach into, are copied and seeded, too.
    """
    copied = clone(head)
    values: dict[str, Any] = dict.fromkeys(seed_parameters(copied), seed)
    for name, splitter in _splitters(copied):
        values[name] = copy.copy(splitter)
        values[name].random_state = seed
    return copied.set_params(**values)


def setting(head: Any) -> tuple[dict[str, Any], int | None]:
    """Return a classifier's parameters without its seed, and that: a number all parts share."""
    names = seed_parameters(head)
    params = head.get_params()
    values = [params[name] for name in names]
    values += [splitter.random_state for _, splitter in _splitters(head)]
    whole = [isinstance(each, int | np.integer) and not isinstance(each, bool) for each in values]
    if not values or not all(whole) or len(set(values)) > 1:
        return params, None
    # Of a copy without seeds, as the text of a part holds its seed.
    params = seeded(head, None).get_params()
    return {name: each for name, each in params.items() if name not in names}, int(values[0])


def is_random(head: Any) -> bool:
    """Return whether a seed may change a fit of this classifier.

    It may where anything in it has a seed, but for the logistic head, which draws nothing when it
    is given validation rows; and where a part is of neither this package nor scikit-learn: what
    such a part draws from, nobody can see.
    """
    params = head.get_params()
    last = _last_step(head)
    for name in seed_parameters(head):
        owner = params.get(name.rpartition("__")[0]) if "__" in name else head
        if not (isinstance(owner, LogisticHead) and owner is last):
            return True
    return bool(_splitters(head)) or _draws_unseen(head)


def _draws_unseen(head: Any) -> bool:
    """Return whether something in a classifier may draw where no parameter seeds it.

    So may what is not of :data:`KNOWN`, and what lists and mappings hold, as those of a search.
    """
    params = head.get_params()
    reached = {id(value) for value in params.values()}
    return not _is_known(head) or any(
        not _is_known(each) or (id(each) not in reached and _has_seed(each))
        for value in params.values()
        for each in _held(value)
    )


def fit(head: Any, data: Data, progress: Any = None, *, seed: int | None = None) -> None:
    """Fit a classifier, in place, to the training rows of a task.

    What takes ``X_val`` and ``y_val`` is given the validation rows, also as the last step of a
    pipeline, whose earlier steps transform them. It runs on one thread of BLAS and OpenMP, so that
    the sums, and with them the fit, are the same to the bit however many run side by side.
    ``fit_seconds_`` is set where the classifier does not do so itself.

    Parameters
    ----------
    progress : callable, optional
        What a head of this package calls as it goes on.
    seed : int, optional
        Of the global generators of NumPy and of Python for the time of the fit: it decides what
        a part without a seed of its own draws. Such a classifier runs in one thread of this
        process, whatever its ``n_jobs``, so that it draws the same anywhere.
    """
    started = time.perf_counter()
    in_order = parallel_config("sequential") if _draws_unseen(head) else nullcontext()
    with threadpool_limits(1), _global_seed(seed), in_order:
        held_out = (data.validation.X, data.validation.y)
        _fit(head, (data.train.X, data.train.y), held_out, progress)
    if not isinstance(head, Head):
        head.fit_seconds_ = time.perf_counter() - started


@contextmanager
def _global_seed(seed: int | None) -> Iterator[None]:
    """Seed the global generators of NumPy and Python, and give them back as they were."""
    if seed is None:
        yield
        return
    before = np.random.get_state(), random.getstate()  # noqa: NPY002  # what others draw from
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])


def note_embeddings(head: Any, fingerprint: str, features: str) -> None:
    """Note on a fitted classifier which embeddings it takes: ``fingerprint_``, ``features_``."""
    head.fingerprint_, head.features_, head.noted_of_ = fingerprint, features, head.classes_


def noted_embeddings(head: Any) -> dict[str, str | None]:
    """Return what :func:`note_embeddings` or :func:`load_head` noted; nothing of a later fit.

    A fit makes ``classes_`` anew: other ones than those that were there are another fit's.
    """
    names = ("fingerprint", "features")
    if getattr(head, "noted_of_", head.classes_) is not head.classes_:
        return dict.fromkeys(names)
    return {name: getattr(head, f"{name}_", None) for name in names}


def answers(
    head: Any, X: npt.NDArray[np.float32], classes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Return what a fitted classifier says of embeddings, (n, d); one that draws, draws the same.

    Returns
    -------
    tuple
        Probabilities, float64 (n, k) in the order of `classes`, and what its own ``predict``
        answers, str (n,): it decides ties, thresholds and votes.

    Raises
    ------
    OptionError
        When they are not probabilities and classes.
    """
    if not hasattr(head, "predict_proba"):
        raise _no_probabilities(head, type(head).__name__)
    with threadpool_limits(1), parallel_config("sequential"), _global_seed(0):
        said = np.asarray(head.predict_proba(X))
        predicted = np.asarray(head.predict(X)).astype(np.str_)
    if said.shape != (len(X), len(classes)):
        raise OptionError(
            f"{type(head).__name__}: says probabilities of shape {said.shape}, expected "
            f"{(len(X), len(classes))}, one for each class. Set it otherwise."
        )
    probabilities = said.astype(np.float64)
    total = probabilities.sum(axis=1, keepdims=True)
    if not (np.abs(total - 1) < 1e-3).all() or (probabilities < 0).any():
        raise OptionError(
            f"{type(head).__name__}: says {_first_bad(probabilities)} of an image, expected "
            "probabilities that sum to 1. Set it otherwise."
        )
    if not (np.abs(total - 1) < 1e-9).all():
        # Rounded to float32, a row's sum is off by more than scikit-learn's metrics let pass.
        probabilities /= total
    if predicted.shape != (len(X),):
        raise OptionError(
            f"{type(head).__name__}: answers of shape {predicted.shape}, expected {(len(X),)}, one "
            "class an image. Set it otherwise."
        )
    strange = set(predicted.tolist()) - set(classes)
    if strange:
        raise OptionError(
            f"{type(head).__name__}: answers {min(strange)!r}, expected {' or '.join(classes)}. "
            "Set it otherwise."
        )
    columns = [str(name) for name in head.classes_]
    return probabilities[:, [columns.index(name) for name in classes]], predicted


def history(head: Any) -> Any:
    """Return what a fit noted on its way, an entry an epoch or a strength; empty of most."""
    return getattr(_last_step(head), "history_", [])


def keep(head: Any, folder: Path, fingerprint: str, features: str) -> None:
    """Write a fitted classifier into a folder, if it can be read again without trust.

    A head of this package becomes ``head.keras``; another classifier ``head.skops``, or nothing,
    where reading it would mean to run what the file names. Of a path the file is copied.

    Raises
    ------
    OSError, RunError
        It cannot be written.
    """
    if isinstance(head, Path):
        shutil.copyfile(head, folder / head.name)
        return
    if isinstance(head, Head):
        head.save(folder / KERAS_FILE, fingerprint=fingerprint, features=features)
        return
    from skops.io import dumps, get_untrusted_types

    try:
        packed = dumps(head)
        trusted = not get_untrusted_types(data=packed)
    except Exception:  # skops raises many kinds at what it has no form for.
        return
    if trusted:
        (folder / SKOPS_FILE).write_bytes(packed)


def kept_file(folder: Path) -> Path | None:
    """Return the file of a run's fitted classifier, None if it was not kept."""
    found = [folder / name for name in (KERAS_FILE, SKOPS_FILE) if (folder / name).is_file()]
    return found[0] if found else None


def kept(folder: Path, classes: Sequence[str]) -> Any:
    """Read the fitted classifier of a run's folder; `classes` are its own, in their order.

    Raises
    ------
    RunError
        There is none, it is damaged or of other classes, or would have to be trusted.
    """
    path = kept_file(folder)
    if path is None:
        raise RunError(
            f"{folder}: no fitted head, expected {KERAS_FILE} or {SKOPS_FILE}: a classifier that "
            "skops would have to trust, such as a forest, is not kept. Fit another one, or this "
            "one again, with --test for its test scores."
        )
    head = load_head(path) if path.name == KERAS_FILE else _read_skops(path)
    found = [str(name) for name in head.classes_]
    if found != list(classes):
        raise RunError(
            f"{path}: a head of the classes {shown(', '.join(found), 200)}, expected "
            f"{', '.join(classes)} as {folder}/metrics.json says: the two are not of one fit. "
            "Put back the file that belongs there, or fit again."
        )
    return head


def _read_skops(path: Path) -> Any:
    from skops.io import get_untrusted_types, load

    try:
        _refuse_packed(path)
        strange = get_untrusted_types(file=path)
        head = None if strange else load(path, trusted=[])
        readable(np.asarray(getattr(head, "classes_", ())))
    except Exception as error:  # skops raises many kinds on a damaged archive.
        reason = shown((str(error).splitlines() or [type(error).__name__])[0], 120)
        raise RunError(f"{path}: damaged or no classifier ({reason}). Fit it again.") from None
    if strange:
        raise RunError(
            f"{path}: would run {', '.join(strange)}, expected what needs no trust. Do not read "
            "it, or fit the head again."
        )
    if not hasattr(head, "classes_") or not hasattr(head, "predict_proba"):
        raise RunError(f"{path}: no fitted classifier, expected one. Fit the head again.")
    return head


def _refuse_packed(path: Path) -> None:
    """Refuse members that unpack to more than lies there; :func:`keep` has skops pack none."""
    with path.open("rb") as file, opened_zip(file) as archive:
        for each in archive.infolist():
            if each.file_size > each.compress_size:
                raise ValueError(f"{each.filename} is compressed")


def _fit(head: Any, rows: Any, held_out: Any, progress: Any) -> None:
    X_val, y_val = held_out
    if isinstance(head, Pipeline) and _takes_validation(_last_step(head)):
        earlier = head[:-1]
        if len(earlier):
            rows = earlier.fit_transform(*rows), rows[1]
            X_val = earlier.transform(X_val)
            head.steps[:-1] = earlier.steps  # a pipeline with a memory fits copies
        _fit(head.steps[-1][1], rows, (X_val, y_val), progress)
        return
    held = {"X_val": X_val, "y_val": y_val} if _takes_validation(head) else {}
    shown = {} if progress is None or not isinstance(head, Head) else {"progress": progress}
    head.fit(*rows, **held, **shown)


def _takes_validation(head: Any) -> bool:
    if isinstance(head, Head):
        return True
    # scikit-learn's boosting refuses validation rows where they would do nothing.
    return has_fit_parameter(head, "X_val") and getattr(head, "early_stopping", None) is not False


def _last_step(head: Any) -> Any:
    """Return what decides in the end: a pipeline's last step, or the classifier itself."""
    while isinstance(head, Pipeline):
        head = head.steps[-1][1]
    return head


def _splitters(head: Any) -> list[tuple[str, Any]]:
    """Return the parameters that shuffle and are no estimators: ``StratifiedKFold`` and others."""
    return [
        (name, value)
        for name, value in head.get_params().items()
        if _has_seed(value)
        and not hasattr(value, "get_params")
        and name.rpartition("__")[2] not in SEEDS
    ]


def _has_seed(value: Any) -> bool:
    if isinstance(value, type):
        return False
    if hasattr(value, "get_params"):
        return bool(seed_parameters(value))
    # A splitter that does not shuffle draws nothing; of distributions the search draws.
    shuffles = getattr(value, "shuffle", True) and not hasattr(value, "rvs")
    return bool(shuffles) and hasattr(value, "random_state")


def _is_known(value: Any) -> bool:
    """Return whether a part, or a function, is of a package that draws by its own seeds alone."""
    is_named = isinstance(value, type) or hasattr(value, "__qualname__")
    module = getattr(value if is_named else type(value), "__module__", None)
    return str(module).partition(".")[0] in KNOWN


def _held(value: Any) -> Iterator[Any]:
    """Yield what containers within containers hold."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for each in value:
            yield from _held(each)
    else:
        yield value


def _first_bad(probabilities: npt.NDArray[np.float64]) -> str:
    bad = ~(np.abs(probabilities.sum(axis=1) - 1) < 1e-3) | (probabilities < 0).any(axis=1)
    return ", ".join(f"{each:g}" for each in probabilities[np.argmax(bad)])
