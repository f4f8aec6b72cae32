"""The heads: small classifiers of embeddings, fitted as scikit-learn's, kept as Keras files.

Either one, once fitted, is Dense layers in float64 that NumPy predicts with.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from fer_features.errors import OptionError, RunError
from fer_features.experiment.head_file import (
    BLOCK,
    Layer,
    log_probabilities,
    read_head_file,
    write_head_file,
)
from fer_features.experiment.training import Examples, Network, Progress, train
from fer_features.runtimes import one_blas_thread

Float: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]

Rule: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a parameter's value is good, and what is expected of it."""

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The values that ``C="auto"`` tries, in this order, until the validation log loss rises."""

MAX_ITER = 5000
"""Most iterations of a logistic fit."""


def is_whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number, no truth value, of at least so much."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


def _is_number(value: Any) -> bool:
    numeric = isinstance(value, int | float | np.integer | np.floating)
    return numeric and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_class_weight(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_number(weight) and weight >= 0 for weight in value.values())
    return value is None or (isinstance(value, str) and value == "balanced")


_COMMON_RULES: dict[str, Rule] = {
    "validation_fraction": (lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "class_weight": (
        _is_class_weight,
        "None, 'balanced' or a mapping of classes to numbers of at least 0",
    ),
    "random_state": (
        lambda v: (
            v is None or isinstance(v, np.random.RandomState) or (is_whole(v, 0) and v < 2**32)
        ),
        "a whole number from 0 to 4294967295, None or a RandomState",
    ),
}


class Head(ClassifierMixin, BaseEstimator):
    """A fitted head: Dense layers with relu between them and softmax at the end.

    Attributes
    ----------
    classes_ : ndarray (k,)
        Class names, in the order of the columns of :meth:`predict_proba`.
    layers_ : list of (kernel, bias)
        float64 (inputs, outputs) and (outputs,); the last layer has an output a class.
    n_features_in_ : int
        Length d of an embedding.
    fingerprint_, features_ : str or None
        Of a head that :func:`load_head` read: the backbone whose embeddings it was fitted to, and
        which of them, as they were given to :meth:`save`.
    """

    name = "saved"

    classes_: npt.NDArray[Any]
    layers_: list[Layer]
    n_features_in_: int
    fingerprint_: str | None
    features_: str | None

    _rules: ClassVar[Mapping[str, Rule]] = {}

    def check_parameters(self) -> None:
        """Check the parameters, as ``fit`` does first of all.

        Raises
        ------
        OptionError
            For the first one that is unfit.
        """
        for parameter, (is_good, expected) in self._rules.items():
            value = getattr(self, parameter)
            if not is_good(value):
                raise OptionError(
                    f"{type(self).__name__}: {parameter}={value!r}, expected {expected}."
                )

    def predict_proba(self, X: npt.ArrayLike) -> Float:
        """Return class probabilities, float64 (n, k) with columns as ``classes_``.

        Parameters
        ----------
        X : array (n, d)
            Embeddings.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If ``X`` is no (n, d) array of finite numbers, d being ``n_features_in_``.
        """
        probabilities: Float = np.exp(self.predict_log_proba(X))
        return probabilities

    def predict_log_proba(self, X: npt.ArrayLike) -> Float:
        """Return the logarithms of :meth:`predict_proba`, of small ones too: float64 (n, k).

        Parameters
        ----------
        X : array (n, d)
            Embeddings.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`predict_proba`.
        """
        if not hasattr(self, "layers_"):
            raise NotFittedError(f"{type(self).__name__}: not fitted yet, call fit first.")
        rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return log_probabilities(self.layers_, rows, np.arange(len(rows)))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the most probable class of each row of ``X``, an array (n,) of class names.

        Of equally probable ones it is the first in ``classes_``.

        Parameters
        ----------
        X : array (n, d)
            Embeddings.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`predict_proba`.
        """
        best = self.predict_log_proba(X).argmax(axis=1)
        names: npt.NDArray[Any] = self.classes_[best]
        return names

    def save(
        self, path: str | Path, *, fingerprint: str | None = None, features: str | None = None
    ) -> None:
        """Write the head as a Keras model from embedding to class probabilities, float64.

        Keras 3.5 and all newer ones read it, with ``safe_mode``. The file also holds the class
        names and what is passed here. Equal heads make equal files.

        Parameters
        ----------
        path : path
            A name that ends in ``.keras``; a file of that name is replaced.
        fingerprint : str, optional
            Of the backbone whose embeddings the head was fitted to.
        features : str, optional
            Which outputs of it: ``final``, a layer, or several joined by ``+``.

        Raises
        ------
        RunError
            If the name has another suffix, the file cannot be written, or a class is no text,
            number or truth value.
        NotFittedError
            Before ``fit``.
        """
        if Path(path).suffix != ".keras":
            raise RunError(f"{path}: a head's file name, expected it to end in .keras.")
        if not hasattr(self, "layers_"):
            raise NotFittedError(f"{type(self).__name__}: not fitted yet, call fit first.")
        classes = self.classes_.tolist()
        strange = [name for name in classes if not isinstance(name, str | int | float)]
        if strange:
            raise RunError(f"{path}: the class {strange[0]!r}, expected text or a number.")
        write_head_file(
            Path(path), self.layers_, classes=classes, fingerprint=fingerprint, features=features
        )


class DenseHead(Head):
    """Dense relu layers with L2 and dropout, trained by Adam with early stopping.

    A scikit-learn classifier of embeddings, float (n, d).

    The defaults are the original's: Dense 128 relu, Dropout 0.5, Dense 64 relu, Dense 1 sigmoid, L2
    0.001 on each kernel, Adam 0.001, binary cross-entropy, batches of 128, at most 50 epochs,
    stopping when the validation loss has not improved for 10, best weights restored. Dropout
    follows the first hidden layer only. Three classes or more end in softmax instead. The network,
    its loss and Adam are Keras's, on one thread of the CPU: see
    :mod:`fer_features.experiment.training`. TensorFlow is imported by ``fit``, by nothing else.

    Sources: the pages "Dense layer", "Dropout layer", "Adam" and "Probabilistic losses"
    (BinaryCrossentropy, SparseCategoricalCrossentropy) of Keras's API; dropout is that of
    Srivastava et al., 2014, Adam that of Kingma & Ba, 2014, and first weights are Glorot & Bengio's
    uniform ones, 2010.

    Parameters
    ----------
    hidden : list or tuple of int
        Units of each hidden layer, at least 1; none make a plain softmax layer.
    l2 : float
        Weight of each kernel's sum of squares in the loss, at least 0.
    dropout : float
        Share of the first hidden layer's outputs set to 0 in training, 0 to below 1.
    learning_rate : float
        Adam's, above 0.
    batch_size : int
        Images a step, at least 1.
    epochs : int
        Most passes over the training set, at least 1.
    patience : int
        Epochs without a better validation loss before training stops, at least 0.
    standardize : bool
        Shift and scale each feature to mean 0 and deviation 1 on the training set; the saved head
        has it folded into its first layer. The original does not: its ImageNet embeddings need
        none; those of random weights, which share one large mean, teach it nothing without.
    validation_fraction : float
        Share held out of the training set, above 0 and below 1, stratified, when ``fit`` is given
        no validation set. A class of one distinct row stays in training.
    class_weight : None, "balanced" or mapping of class to float
        Weights in the loss, at least 0, of training and validation alike; "balanced" weights each
        class by n / (k * its images in training), as scikit-learn's ``compute_class_weight`` does.
        A class that a mapping leaves out weighs 1.
    random_state : int, None or RandomState
        Decides the first weights, dropout, the order of batches and the held-out set. With an int,
        0 to 2**32 - 1, the same data and parameters give the same head to the bit on one machine,
        in any process and on any number of threads.

    Attributes
    ----------
    classes_ : array (k,)
        Class names, in the order of the columns of ``predict_proba``.
    layers_ : list of (kernel, bias)
        float64 (inputs, outputs) and (outputs,); the last layer has an output a class.
    n_features_in_ : int
        Length d of an embedding.
    history_ : list of dict
        For each epoch ``epoch`` (from 1), ``loss``, ``accuracy``, ``val_loss``,
        ``val_accuracy``; the losses contain the L2 term.
    n_epochs_, best_epoch_ : int
        Epochs run, and the one whose weights were kept, from 1.
    fit_seconds_ : float
        Wall time of ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features import DenseHead
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["positive", "negative"], 60)
    >>> X = rng.normal(size=(120, 8)) + 3 * (y == "positive")[:, np.newaxis]
    >>> head = DenseHead(hidden=(16,), epochs=30, learning_rate=0.01).fit(X, y)
    >>> head.predict(X[[0, -1]])
    array(['positive', 'negative'], dtype='<U8')
    >>> head.predict_proba(X).shape  # columns as head.classes_
    (120, 2)
    """

    name = "dense"

    _rules: ClassVar[Mapping[str, Rule]] = {
        "hidden": (
            lambda v: isinstance(v, list | tuple) and all(is_whole(u, 1) for u in v),
            "whole numbers above 0, such as (128, 64), or none",
        ),
        "l2": (lambda v: _is_number(v) and v >= 0, "a number of at least 0"),
        "dropout": (lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
        "learning_rate": (lambda v: _is_number(v) and v > 0, "a number above 0"),
        "batch_size": (lambda v: is_whole(v, 1), "a whole number above 0"),
        "epochs": (lambda v: is_whole(v, 1), "a whole number above 0"),
        "patience": (lambda v: is_whole(v, 0), "a whole number of at least 0"),
        "standardize": (lambda v: isinstance(v, bool | np.bool_), "True or False"),
        **_COMMON_RULES,
    }

    def __init__(
        self,
        hidden: Sequence[int] = (128, 64),
        l2: float = 1e-3,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        epochs: int = 50,
        patience: int = 10,
        standardize: bool = False,
        validation_fraction: float = 0.2,
        class_weight: str | Mapping[Any, float] | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.hidden = hidden
        self.l2 = l2
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        X_val: npt.ArrayLike | None = None,
        y_val: npt.ArrayLike | None = None,
        sample_weight_val: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Train on embeddings.

        Parameters
        ----------
        X : array (n, d)
            Embeddings, used in float32; TensorFlow copies them once, ``standardize`` once more.
        y : array (n,)
            Class names, of two classes or more.
        sample_weight : array (n,), optional
            Weights in the loss, at least 0. Only their ratios count: they are scaled to a mean
            of 1 over the distinct rows. A row of weight 0 might as well be left out, and one of
            weight 2 be there twice: equal rows of one class are taken as one of their total weight.
        X_val, y_val : arrays (m, d) and (m,), optional
            What early stopping watches; without them ``validation_fraction`` of the rows is.
        sample_weight_val : array (m,), optional
            Their weights in the validation loss.
        progress : callable, optional
            Called with (epoch, epochs, losses) after each epoch: its number from 1, the most there
            can be, and what ``history_`` has of it.

        Returns
        -------
        DenseHead
            This head, fitted.

        Raises
        ------
        ValueError
            If the data is unfit.
        OptionError
            If a parameter is unfit, or training diverges; a ValueError, too.
        """
        self.check_parameters()
        start = time.perf_counter()
        rows = _training_rows(self, X, y, sample_weight, np.float32)
        held = _validation_rows(self, X_val, y_val, sample_weight_val, np.float32)
        random = check_random_state(self.random_state)
        if held is None:
            rows, held = _held_out(rows, self.validation_fraction, random)
        class_weights = _class_weights(self, rows)
        scaler = _fitted_scaler(rows) if self.standardize else None
        examples = [_examples(part, class_weights, scaler) for part in (rows, held)]
        k = len(self.classes_)
        network = Network(
            n_features=self.n_features_in_,
            n_outputs=1 if k == 2 else k,
            hidden=tuple(int(units) for units in self.hidden),
            l2=float(self.l2),
            dropout=float(self.dropout),
            learning_rate=float(self.learning_rate),
            batch_size=int(self.batch_size),
        )
        trained = train(
            network,
            *examples,
            epochs=int(self.epochs),
            patience=int(self.patience),
            seed=int(random.randint(2**31 - 1)),
            progress=progress,
        )
        last = trained.history[-1]
        if not np.isfinite([last["loss"], last["val_loss"]]).all():
            largest = max(float(np.abs(part.X).max()) for part in examples)
            raise OptionError(
                f"DenseHead: training diverged in epoch {last['epoch']} (loss {last['loss']:.3g}, "
                f"validation loss {last['val_loss']:.3g}) with learning_rate="
                f"{self.learning_rate!r}, l2={self.l2!r} and embeddings of up to {largest:.3g}. "
                "Pass a smaller learning_rate or l2, or standardize=True."
            )
        layers = [
            (kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in trained.layers
        ]
        if scaler is not None:
            layers[0] = _unscaled(layers[0], scaler)
        self.layers_ = [*layers[:-1], _last_layer(*layers[-1])]
        self.history_ = trained.history
        self.n_epochs_ = len(trained.history)
        self.best_epoch_ = trained.best_epoch
        self.fit_seconds_ = time.perf_counter() - start
        return self


class LogisticHead(Head):
    """scikit-learn's ``LogisticRegression`` after its ``StandardScaler``, folded into one layer.

    A scikit-learn classifier of embeddings, float (n, d). It has an L2 penalty, is multinomial for
    three classes or more, and is fitted by L-BFGS in at most 5000 iterations: the defaults of
    scikit-learn's page "LogisticRegression", but for their number.

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the L2 penalty, above 0, as scikit-learn has it. "auto" goes up from
        0.00001 to 10 in powers of ten for as long as the validation log loss falls, and keeps the
        last that lowered it; each step takes about twice as long as the one before.
    class_weight : None, "balanced" or mapping of class to float
        Weights in the loss, at least 0, and in the validation log loss that chooses C; "balanced"
        as :class:`DenseHead` has it. A class that a mapping leaves out weighs 1.
    validation_fraction : float
        Share held out of the training set, above 0 and below 1, stratified, to choose C when
        ``fit`` is given no validation set; with C a number nothing is held out.
    random_state : int, None or RandomState
        Decides the held-out set; an int is from 0 to 2**32 - 1. The fit itself is deterministic,
        to the bit on one machine, in any process and on any number of threads.

    Attributes
    ----------
    classes_ : array (k,)
        Class names, in the order of the columns of ``predict_proba``.
    layers_ : list of (kernel, bias)
        float64 (inputs, outputs) and (outputs,); the last layer has an output a class.
    n_features_in_ : int
        Length d of an embedding.
    C_ : float
        The C used.
    history_ : list of dict
        For each C tried ``C`` and ``val_log_loss`` (None without a validation set).
    fit_seconds_ : float
        Wall time of ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features import LogisticHead
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["positive", "negative"], 60)
    >>> X = rng.normal(size=(120, 8)) + 3 * (y == "positive")[:, np.newaxis]
    >>> head = LogisticHead(C=0.1).fit(X, y)
    >>> head.classes_
    array(['negative', 'positive'], dtype='<U8')
    >>> head.score(X, y)
    1.0
    """

    name = "logistic"

    _rules: ClassVar[Mapping[str, Rule]] = {
        "C": (
            lambda v: (isinstance(v, str) and v == "auto") or (_is_number(v) and v > 0),
            "'auto' or a number above 0",
        ),
        **_COMMON_RULES,
    }

    def __init__(
        self,
        C: float | str = "auto",
        class_weight: str | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        X_val: npt.ArrayLike | None = None,
        y_val: npt.ArrayLike | None = None,
        sample_weight_val: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit on embeddings.

        Parameters
        ----------
        X : array (n, d)
            Embeddings, standardised here in float64.
        y : array (n,)
            Class names, of two classes or more.
        sample_weight : array (n,), optional
            Weights in the loss, at least 0, as scikit-learn has them: a row of weight 2 is two.
        X_val, y_val : arrays (m, d) and (m,), optional
            What chooses C; the head is fitted on ``X`` alone.
        sample_weight_val : array (m,), optional
            Their weights in the log loss that chooses C.
        progress : callable, optional
            Called with (fit, fits, {"val_log_loss": value}) after each C tried: its number from 1
            and the most there can be; the mapping is empty without a validation set.

        Returns
        -------
        LogisticHead
            This head, fitted.

        Raises
        ------
        ValueError
            If the data is unfit.
        OptionError
            If a parameter is unfit; a ValueError, too.
        """
        self.check_parameters()
        start = time.perf_counter()
        either = [np.float64, np.float32]
        rows = _training_rows(self, X, y, sample_weight, either)
        held = _validation_rows(self, X_val, y_val, sample_weight_val, either)
        tried = C_GRID if self.C == "auto" else (float(self.C),)
        if held is None and self.C == "auto":
            random = check_random_state(self.random_state)
            rows, held = _held_out(rows, self.validation_fraction, random)
        class_weights = _class_weights(self, rows)
        scaler = _fitted_scaler(rows)
        scaled = _scaled(rows, scaler, np.float64)
        self.history_: list[dict[str, float | None]] = []
        best = np.inf
        for position, C in enumerate(tried, 1):
            with one_blas_thread():
                regression = LogisticRegression(C=C, max_iter=MAX_ITER).fit(
                    scaled, rows.codes, sample_weight=rows.weight * class_weights[rows.codes]
                )
            layer = _last_layer(*_unscaled((regression.coef_.T, regression.intercept_), scaler))
            loss = None if held is None else _log_loss(layer, held, class_weights)
            self.history_.append({"C": C, "val_log_loss": loss})
            if progress is not None:
                progress(position, len(tried), {} if loss is None else {"val_log_loss": loss})
            if loss is not None and loss >= best:
                break
            best = np.inf if loss is None else loss
            self.C_, self.layers_ = C, [layer]
        self.fit_seconds_ = time.perf_counter() - start
        return self


HEADS: dict[str, type[DenseHead] | type[LogisticHead]] = {
    "dense": DenseHead,
    "logistic": LogisticHead,
}
"""Each head by its name on the command line."""


def load_head(path: str | Path) -> Head:
    """Read a head that :meth:`Head.save` wrote. Nothing in the file is run, nor is Keras needed.

    Parameters
    ----------
    path : path
        The ``.keras`` file.

    Returns
    -------
    Head
        With ``classes_``, ``layers_``, ``n_features_in_``, ``fingerprint_`` and ``features_``.

    Raises
    ------
    RunError
        If there is no such file, or it is no head, a damaged one or one of another version.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features import LogisticHead, load_head
    >>> X, y = np.eye(4), np.array(["a", "a", "b", "b"])
    >>> head = LogisticHead(C=1.0).fit(X, y)
    >>> head.save("head.keras")
    >>> bool((load_head("head.keras").predict(X) == head.predict(X)).all())
    True
    """
    layers, about = read_head_file(Path(path))
    head = Head()
    head.classes_, head.layers_ = np.array(about["classes"]), layers
    head.n_features_in_ = len(layers[0][0])
    head.fingerprint_, head.features_ = about["fingerprint"], about["features"]
    return head


class _Rows(NamedTuple):
    """Rows ``places``, int64 (m,), of embeddings X (n, d), with codes and weights (m,).

    A code is a class's position in ``classes_``.
    """

    X: npt.NDArray[Any]
    places: Codes
    codes: Codes
    weight: Float

    def part(self, chosen: Codes) -> "_Rows":
        return _Rows(self.X, self.places[chosen], self.codes[chosen], self.weight[chosen])


def _training_rows(head: Head, X: Any, y: Any, sample_weight: Any, dtype: Any) -> _Rows:
    """Check a training set; set ``classes_`` and ``n_features_in_``.

    What a head that was read from a run knew of its embeddings, it knows of that fit alone.
    Equal rows of one class become one of their total weight, those of weight 0 are left out, and
    the order is that of a checksum: a fit depends neither on the order of the rows nor on whether
    a row is repeated or weighted, and a copy is not held out while another is trained on.
    """
    X, y = validate_data(head, X, y, dtype=dtype, order="C")
    for name in {"fingerprint_", "features_"} & vars(head).keys():
        delattr(head, name)
    check_classification_targets(y)
    weight = _checked_weights(head, sample_weight, len(y), "sample_weight")
    (weighted,) = np.nonzero(weight)
    head.classes_, codes = np.unique(y[weighted], return_inverse=True)
    if len(head.classes_) < 2:
        counted = "" if sample_weight is None else " of a weight above 0"
        raise ValueError(
            f"{type(head).__name__}: y has 1 class{counted}, expected two or more classes."
        )
    checksums = [
        hashlib.blake2b(X[row], digest_size=16, salt=code.to_bytes(8)).hexdigest()
        for row, code in zip(weighted.tolist(), codes.tolist(), strict=True)
    ]
    _, first, same = np.unique(checksums, return_index=True, return_inverse=True)
    total = np.bincount(same, weights=weight[weighted]).astype(np.float64)
    return _Rows(X, weighted[first], codes[first], total)


def _validation_rows(
    head: Head, X_val: Any, y_val: Any, sample_weight: Any, dtype: Any
) -> _Rows | None:
    """Check a validation set against the training set; None if there is none."""
    name = type(head).__name__
    if X_val is None or y_val is None:
        if not (X_val is y_val is sample_weight is None):
            raise ValueError(f"{name}: X_val and y_val go together. Pass both or none.")
        return None
    width = np.shape(X_val)[1:]
    if width != (head.n_features_in_,):
        raise ValueError(
            f"{name}: X_val has {width[0] if width else 'no'} features, "
            f"expected {head.n_features_in_} as in training."
        )
    X, y = validate_data(head, X_val, y_val, reset=False, dtype=dtype, order="C")
    unknown = np.setdiff1d(y, head.classes_)
    if len(unknown):
        raise ValueError(
            f"{name}: y_val has the class {unknown.tolist()[0]!r}, "
            "expected training's classes only."
        )
    weight = _checked_weights(head, sample_weight, len(y), "sample_weight_val")
    return _Rows(X, np.arange(len(y)), np.searchsorted(head.classes_, y), weight)


def _checked_weights(head: Head, weight: Any, n: int, name: str) -> Float:
    if weight is None:
        return np.ones(n)
    checked: Float = check_array(weight, ensure_2d=False, dtype=np.float64, input_name=name)
    prefix = f"{type(head).__name__}: {name}"
    if checked.shape != (n,):
        raise ValueError(f"{prefix} has the shape {checked.shape}, expected ({n},).")
    if (checked < 0).any():
        raise ValueError(f"{prefix} holds {checked.min():g}, expected weights of at least 0.")
    if not checked.any():
        raise ValueError(f"{prefix} is zero for every row, expected some weights above 0.")
    return checked


def _held_out(rows: _Rows, fraction: float, random: np.random.RandomState) -> tuple[_Rows, _Rows]:
    """Return the rows kept for training and those held out, stratified by class.

    Of each class one row at least is held out and one kept; a class of one row is kept.
    """
    held = np.zeros(len(rows.codes), dtype=bool)
    for code in range(rows.codes.max() + 1):
        (own,) = np.nonzero(rows.codes == code)
        n_held = min(max(round(fraction * len(own)), 1), len(own) - 1)
        held[random.permutation(own)[:n_held]] = True
    if not held.any():
        raise ValueError(
            f"validation_fraction={fraction!r}: no class has two distinct rows, too few to hold "
            "some out. Pass X_val and y_val."
        )
    return rows.part(np.flatnonzero(~held)), rows.part(np.flatnonzero(held))


def _class_weights(head: Any, rows: _Rows) -> Float:
    """Return each class's weight, float64 (k,)."""
    k = len(head.classes_)
    if head.class_weight is None:
        return np.ones(k)
    if isinstance(head.class_weight, str):  # balanced
        total = float(rows.weight.sum())
        return total / (k * np.bincount(rows.codes, weights=rows.weight, minlength=k))
    classes = head.classes_.tolist()
    for name in head.class_weight:
        if name not in classes:
            raise OptionError(
                f"{type(head).__name__}: class_weight has the class {name!r}, "
                f"expected only {', '.join(map(repr, classes))}."
            )
    weights = np.array([float(head.class_weight.get(name, 1.0)) for name in classes])
    if not weights.any():
        raise OptionError(f"{type(head).__name__}: class_weight is 0 for every class.")
    return weights


def _blocks(index: Codes) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, len(index), BLOCK))


def _fitted_scaler(rows: _Rows) -> StandardScaler:
    """Fit scikit-learn's scaler in float64, a block of rows at a time."""
    scaler = StandardScaler()
    for block in _blocks(rows.places):
        part = rows.X[rows.places[block]].astype(np.float64)
        scaler.partial_fit(part, sample_weight=rows.weight[block])
    return scaler


def _scaled(rows: _Rows, scaler: StandardScaler, dtype: Any) -> npt.NDArray[Any]:
    """Return the scaled rows (m, d), computed in float64 and kept in ``dtype``."""
    scaled = np.empty((len(rows.places), rows.X.shape[1]), dtype)
    for block in _blocks(rows.places):
        part = rows.X[rows.places[block]].astype(np.float64)
        scaled[block] = (part - scaler.mean_) / scaler.scale_
    return scaled


def _unscaled(layer: Layer, scaler: StandardScaler) -> Layer:
    """Return the layer that makes of embeddings what ``layer`` makes of scaled ones."""
    kernel = layer[0] / scaler.scale_[:, None]
    with one_blas_thread():
        return kernel, layer[1] - scaler.mean_ @ kernel


def _examples(rows: _Rows, class_weights: Float, scaler: StandardScaler | None) -> Examples:
    """Return what the dense head's training takes: weights of mean 1, times those of the class."""
    weight = rows.weight * (len(rows.weight) / rows.weight.sum()) * class_weights[rows.codes]
    X, places = rows.X, rows.places
    if scaler is not None:
        X, places = _scaled(rows, scaler, np.float32), np.arange(len(rows.places))
    return Examples(X, places, rows.codes, weight.astype(np.float32))


def _log_loss(layer: Layer, rows: _Rows, class_weights: Float) -> float:
    p = np.exp(log_probabilities([layer], rows.X, rows.places))
    weight = rows.weight * class_weights[rows.codes]
    return float(log_loss(rows.codes, p, sample_weight=weight, labels=range(p.shape[1])))


def _last_layer(kernel: npt.ArrayLike, bias: npt.ArrayLike) -> Layer:
    """Return the last layer with an output a class.

    A layer of one output z, whose sigmoid is the second class's probability, becomes the layer of
    [0, z], whose softmax is that of both.
    """
    kernel, bias = np.asarray(kernel, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.append(0.0, bias)
    # In the order of a file: some OpenBLAS sum the products of a transposed kernel, as scikit-learn
    # gives it, otherwise, and the head read back would differ in the last bits.
    return np.ascontiguousarray(kernel), bias
