"""The logistic head: scikit-learn's logistic regression on standardised embeddings."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from fer_features.experiment.layers import (
    COMMON_RULES,
    Head,
    Layer,
    Rule,
    checked_data,
    checked_validation,
    held_out,
    is_number,
    last_layer,
    probabilities,
)
from fer_features.experiment.training import Progress

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The values that ``C="auto"`` tries, in this order, until the validation log loss rises."""

MAX_ITER = 5000

_RULES: dict[str, Rule] = {
    "C": (
        lambda v: (isinstance(v, str) and v == "auto") or (is_number(v) and v > 0),
        "'auto' or a number above 0",
    ),
    **COMMON_RULES,
}


class LogisticHead(Head):
    """scikit-learn's ``LogisticRegression`` after its ``StandardScaler``, folded into one layer.

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the L2 penalty, as scikit-learn has it. "auto" goes up from 0.00001
        to 10 in powers of ten for as long as the validation log loss falls, and keeps the last
        that lowered it; each step takes about twice as long as the one before.
    class_weight : None, "balanced" or mapping of class to float
        Weights in the loss, and in the validation log loss that chooses C.
    validation_fraction : float
        Share held out of the training set, stratified, to choose C when ``fit`` is given no
        validation set; with C a number nothing is held out.
    seed : int
        Decides the held-out set; the fit itself is deterministic.

    Attributes
    ----------
    classes_, layers_, n_features_in_
        See :class:`fer_features.experiment.layers.Head`.
    C_ : float
        The C used.
    history_ : list of dict
        For each C tried ``C`` and ``val_log_loss`` (None without a validation set).
    fit_seconds_ : float
        Wall time of ``fit``.
    """

    name = "logistic"

    _rules = _RULES

    def __init__(
        self,
        C: float | str = "auto",
        class_weight: str | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.seed = seed

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        progress: Progress | None = None,
    ) -> "LogisticHead":
        """Fit on embeddings.

        Parameters
        ----------
        X : array (n, d)
            Embeddings, standardised here in float64.
        y : array (n,)
            Class names.
        validation : (X, y), optional
            What chooses C; the head is fitted on ``X`` alone.
        progress : callable, optional
            Called with (fit, fits, {"val_log_loss": value}) after each C tried.

        Raises
        ------
        ValueError
            If a parameter or the data is unfit.
        """
        start = time.perf_counter()
        self.check_parameters()
        rows, codes = checked_data(self, X, y, np.float64)
        held = None
        if validation is not None:
            held = checked_validation(self, validation, np.float64)
        elif self.C == "auto":
            kept, out = held_out(codes, self.validation_fraction, int(self.seed))
            held = rows[out], codes[out]
            rows, codes = rows[kept], codes[kept]
        weights = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes]
        )
        scaler = StandardScaler().fit(rows)
        scaled = scaler.transform(rows)
        tried = C_GRID if self.C == "auto" else (float(self.C),)
        self.history_: list[dict[str, float | None]] = []
        best = np.inf
        for position, C in enumerate(tried, 1):
            regression = LogisticRegression(
                C=C, class_weight=dict(enumerate(weights)), max_iter=MAX_ITER
            ).fit(scaled, codes)
            layer = _folded(scaler, regression)
            loss = None if held is None else _log_loss(layer, *held, weights)
            self.history_.append({"C": C, "val_log_loss": loss})
            if progress is not None:
                progress(position, len(tried), {} if loss is None else {"val_log_loss": loss})
            if loss is not None and loss >= best:
                break
            best = np.inf if loss is None else loss
            self.C_, self.layers_ = C, [layer]
        self.fit_seconds_ = time.perf_counter() - start
        return self


def _folded(scaler: StandardScaler, regression: LogisticRegression) -> Layer:
    """Return the layer that takes raw embeddings to what the regression makes of scaled ones."""
    kernel = (regression.coef_ / scaler.scale_).T
    bias = regression.intercept_ - scaler.mean_ @ kernel
    return last_layer(kernel, bias)


def _log_loss(
    layer: Layer, X: Any, codes: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> float:
    labels = np.arange(len(weights))
    p = probabilities([layer], X)
    return float(log_loss(codes, p, sample_weight=weights[codes], labels=labels))
