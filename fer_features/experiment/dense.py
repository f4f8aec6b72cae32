"""The dense head: the original experiment's small network on embeddings."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from fer_features.errors import OptionError
from fer_features.experiment.layers import (
    COMMON_RULES,
    Head,
    Rule,
    checked_data,
    checked_validation,
    held_out,
    is_number,
    is_whole,
    last_layer,
)
from fer_features.experiment.training import Examples, Network, Progress, train
from fer_features.runtimes import import_keras

_RULES: dict[str, Rule] = {
    "hidden": (
        lambda v: isinstance(v, list | tuple) and bool(v) and all(is_whole(u, 1) for u in v),
        "one or more whole numbers above 0, such as (128, 64)",
    ),
    "l2": (lambda v: is_number(v) and v >= 0, "a number of at least 0"),
    "dropout": (lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "learning_rate": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "batch_size": (lambda v: is_whole(v, 1), "a whole number above 0"),
    "epochs": (lambda v: is_whole(v, 1), "a whole number above 0"),
    "patience": (lambda v: is_whole(v, 0), "a whole number of at least 0"),
    "standardize": (lambda v: isinstance(v, bool | np.bool_), "True or False"),
    **COMMON_RULES,
}


class DenseHead(Head):
    """Dense relu layers with L2 and dropout, trained by Keras with early stopping.

    The defaults are the original's: Dense 128 relu, Dropout 0.5, Dense 64 relu, Dense 1 sigmoid, L2
    0.001 on each kernel, Adam 0.001, binary cross-entropy, batches of 128, at most 50 epochs,
    stopping when the validation loss has not improved for 10, best weights restored. Dropout
    follows the first hidden layer only. Three classes or more end in softmax instead.

    Parameters
    ----------
    hidden : sequence of int
        Units of each hidden layer.
    l2 : float
        Weight of each kernel's sum of squares in the loss.
    dropout : float
        Share of the first hidden layer's outputs set to 0 in training, 0 to below 1.
    learning_rate : float
        Adam's.
    batch_size : int
        Images a step.
    epochs : int
        Most passes over the training set.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        Share held out of the training set, stratified, when ``fit`` is given no validation set.
    standardize : bool
        Shift and scale each feature to mean 0 and deviation 1 on the training set; the saved head
        has it folded into its first layer. The original does not: its ImageNet embeddings need
        none; those of random weights, which share one large mean, teach it nothing without.
    class_weight : None, "balanced" or mapping of class to float
        Weights in the loss, of training and validation alike; "balanced" weights each class by
        n / (k * its images in training).
    seed : int
        Decides the first weights, dropout, the order of batches and the held-out set. The same
        data, parameters and seed give the same head to the bit on one machine.

    Attributes
    ----------
    classes_, layers_, n_features_in_
        See :class:`fer_features.experiment.layers.Head`.
    history_ : list of dict
        For each epoch ``epoch`` (from 1), ``loss``, ``accuracy``, ``val_loss``,
        ``val_accuracy``; the losses contain the L2 term.
    n_epochs_, best_epoch_ : int
        Epochs run, and the one whose weights were kept, from 1.
    fit_seconds_ : float
        Wall time of ``fit``.
    """

    name = "dense"

    _rules = _RULES

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
        seed: int = 0,
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
        self.seed = seed

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        progress: Progress | None = None,
    ) -> "DenseHead":
        """Train on embeddings.

        Parameters
        ----------
        X : array (n, d)
            Embeddings, used in float32.
        y : array (n,)
            Class names.
        validation : (X, y), optional
            What early stopping watches; without it ``validation_fraction`` of the rows is.
        progress : callable, optional
            Called with (epoch, epochs, losses) after each epoch.

        Raises
        ------
        ValueError
            If a parameter or the data is unfit, or training diverges.
        """
        self.check_parameters()
        import_keras()  # seconds, once a process, and no part of a fit
        start = time.perf_counter()
        rows, codes = checked_data(self, X, y, np.float32)
        if validation is None:
            kept, out = held_out(codes, self.validation_fraction, int(self.seed))
            held = rows[out], codes[out]
            rows, codes = rows[kept], codes[kept]
        else:
            held = checked_validation(self, validation, np.float32)
        mean, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        if self.standardize:
            scaler = StandardScaler().fit(rows.astype(np.float64))
            mean, scale = scaler.mean_, scaler.scale_
        parts = [((part - mean) / scale).astype(np.float32) for part in (rows, held[0])]
        trained = train(
            self._network(),
            *self._examples((parts[0], codes), (parts[1], held[1])),
            epochs=int(self.epochs),
            patience=int(self.patience),
            seed=int(self.seed),
            progress=progress,
        )
        if not np.isfinite(trained.history[trained.best_epoch - 1]["val_loss"]):
            raise OptionError(
                f"DenseHead: training diverged with learning_rate={self.learning_rate!r}, "
                "expected a finite validation loss. Pass a smaller one."
            )
        weights = [array.astype(np.float64) for array in trained.weights]
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        kernel, bias = pairs[0][0] / scale[:, None], pairs[0][1]
        pairs[0] = kernel, bias - mean @ kernel
        self.layers_ = [*pairs[:-1], last_layer(*pairs[-1])]
        self.history_ = trained.history
        self.n_epochs_ = len(trained.history)
        self.best_epoch_ = trained.best_epoch
        self.fit_seconds_ = time.perf_counter() - start
        return self

    def _network(self) -> Network:
        k = len(self.classes_)
        return Network(
            n_features=self.n_features_in_,
            n_outputs=1 if k == 2 else k,
            hidden=tuple(int(units) for units in self.hidden),
            l2=float(self.l2),
            dropout=float(self.dropout),
            learning_rate=float(self.learning_rate),
            batch_size=int(self.batch_size),
        )

    def _examples(self, *parts: tuple[Any, npt.NDArray[np.int64]]) -> list[Examples]:
        weights = None
        if self.class_weight is not None:
            weights = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[parts[0][1]]
            ).astype(np.float32)
        return [
            Examples(
                X, codes.astype(np.float32)[:, None], None if weights is None else weights[codes]
            )
            for X, codes in parts
        ]
