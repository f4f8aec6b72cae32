"""What a fitted head is: Dense layers in float64, predicted with NumPy, kept as a Keras file."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_X_y, validate_data

from fer_features.errors import OptionError, RunError
from fer_features.runtimes import import_keras

Float: TypeAlias = npt.NDArray[np.float64]
Layer: TypeAlias = tuple[Float, Float]
"""A Dense layer's kernel, float64 (inputs, outputs), and bias, float64 (outputs,)."""

Rule: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a parameter's value is good, and what is expected of it."""


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
    """

    name = "saved"

    classes_: npt.NDArray[Any]
    layers_: list[Layer]
    n_features_in_: int

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
        """
        if not hasattr(self, "layers_"):
            raise NotFittedError(f"{type(self).__name__}: not fitted yet, call fit first.")
        return probabilities(self.layers_, validate_data(self, X, reset=False, dtype=np.float64))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the most probable class of each row of ``X``, an array (n,) of class names."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def save(self, path: str | Path) -> None:
        """Write the head as a Keras model from embedding to class probabilities.

        Parameters
        ----------
        path : path
            A name that ends in ``.keras``; a file of that name is replaced. Its columns are in
            the order of ``classes_``, which the file itself does not hold.

        Raises
        ------
        RunError
            If the file cannot be written.
        """
        if Path(path).suffix != ".keras":
            raise RunError(f"{path}: a head's file name, expected it to end in .keras.")
        model = _keras_model(self.layers_)
        try:
            model.save(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error}).") from None


def load_head(path: str | Path, classes: Sequence[str]) -> Head:
    """Read a head that :meth:`Head.save` wrote.

    Parameters
    ----------
    path : path
        The ``.keras`` file. It is read without running any code it may carry (``safe_mode``).
    classes : sequence of str
        Class names in the order of the model's columns: the saved head's ``classes_``.

    Raises
    ------
    RunError
        If there is no such file, or it is no head, or one of another number of classes.
    """
    try:
        archived = set(zipfile.ZipFile(path).namelist())
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}), expected a head.") from None
    except zipfile.BadZipFile:
        archived = set()
    if Path(path).suffix != ".keras" or not {"config.json", "model.weights.h5"} <= archived:
        raise RunError(f"{path}: no Keras archive, expected a head saved as .keras. Fit it again.")
    keras = import_keras()
    try:
        model = keras.models.load_model(path, safe_mode=True, compile=False)
        layers = _dense_layers(keras, model)
    except Exception as error:  # Keras raises many kinds on a damaged or unsafe archive.
        reason = (str(error).splitlines() or [""])[0]
        raise RunError(f"{path}: damaged or no head ({reason}). Fit it again.") from None
    outputs = len(layers[-1][1])
    if outputs != len(classes):
        raise RunError(f"{path}: a head of {outputs} classes, expected {len(classes)}.")
    head = Head()
    head.classes_ = np.array(list(classes))
    head.layers_ = layers
    head.n_features_in_ = len(layers[0][0])
    return head


def probabilities(layers: Sequence[Layer], X: Float) -> Float:
    """Return the class probabilities of embeddings, float64 (n, d) to float64 (n, k)."""
    hidden = X
    for kernel, bias in layers[:-1]:
        hidden = np.maximum(hidden @ kernel + bias, 0.0)
    kernel, bias = layers[-1]
    outputs: Float = softmax(hidden @ kernel + bias, copy=False)
    return outputs


def last_layer(kernel: npt.ArrayLike, bias: npt.ArrayLike) -> Layer:
    """Return the last layer with an output a class.

    A layer of one output z, whose sigmoid is the second class's probability, becomes the layer of
    [0, z], whose softmax is that of both.
    """
    kernel, bias = np.asarray(kernel, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.append(0.0, bias)
    return kernel, bias


def is_whole(value: Any, least: int) -> bool:
    """Return whether ``value`` is a whole number of at least ``least``."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite number."""
    numeric = isinstance(value, int | float | np.integer | np.floating)
    return numeric and not isinstance(value, bool) and bool(np.isfinite(value))


COMMON_RULES: dict[str, Rule] = {
    "class_weight": (
        lambda v: v is None or isinstance(v, Mapping) or (isinstance(v, str) and v == "balanced"),
        "None, 'balanced' or a mapping of classes to weights",
    ),
    "validation_fraction": (lambda v: is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "seed": (lambda v: is_whole(v, 0) and v < 2**32, "a whole number from 0 to 4294967295"),
}
"""The rules of the parameters that every head has."""


def checked_data(head: Head, X: Any, y: Any, dtype: Any) -> tuple[Any, npt.NDArray[np.int64]]:
    """Check a training set and return it as (X, codes); sets ``classes_``, ``n_features_in_``.

    A code is a class's position in ``classes_``.
    """
    X, y = validate_data(head, X, y, dtype=dtype)
    check_classification_targets(y)
    head.classes_, codes = np.unique(y, return_inverse=True)
    if len(head.classes_) < 2:
        raise ValueError(f"{type(head).__name__}: y has 1 class, expected two or more.")
    return X, codes


def checked_validation(head: Head, validation: Any, dtype: Any) -> tuple[Any, Any]:
    """Check a validation set (X, y) against the training set's classes; return (X, codes)."""
    X, y = check_X_y(*validation, dtype=dtype)
    if X.shape[1] != head.n_features_in_:
        raise ValueError(
            f"{type(head).__name__}: validation has {X.shape[1]} features, "
            f"expected {head.n_features_in_} as in training."
        )
    unknown = np.setdiff1d(y, head.classes_)
    if len(unknown):
        raise ValueError(
            f"{type(head).__name__}: validation has the class {unknown.tolist()[0]!r}, "
            "expected training's classes only."
        )
    return X, np.searchsorted(head.classes_, y)


def held_out(codes: npt.NDArray[np.int64], fraction: float, seed: int) -> tuple[Any, Any]:
    """Return the rows kept for training and those held out, stratified by class."""
    try:
        kept, out = train_test_split(
            np.arange(len(codes)), test_size=fraction, stratify=codes, random_state=seed
        )
    except ValueError:
        counts = np.bincount(codes)
        raise ValueError(
            f"validation_fraction={fraction!r}: {len(codes)} rows with {counts.min()} of the "
            "smallest class, too few to hold some of each out. Pass validation=(X, y)."
        ) from None
    return kept, out


def _keras_model(layers: Sequence[Layer]) -> Any:
    keras = import_keras()
    outputs = inputs = keras.Input((len(layers[0][0]),), dtype="float64", name="embedding")
    for position, (_, bias) in enumerate(layers, 1):
        outputs = keras.layers.Dense(
            len(bias),
            activation="softmax" if position == len(layers) else "relu",
            dtype="float64",
            kernel_initializer="zeros",
            name=f"dense_{position}",
        )(outputs)
    model = keras.Model(inputs, outputs, name="head")
    model.set_weights([array for layer in layers for array in layer])
    return model


def _dense_layers(keras: Any, model: Any) -> list[Layer]:
    """Return a loaded model's weights; ValueError unless its layers are what save writes."""
    _, *dense = model.layers
    expected = ["relu"] * (len(dense) - 1) + ["softmax"]
    found = [
        layer.activation.__name__ if isinstance(layer, keras.layers.Dense) else layer.name
        for layer in dense
    ]
    if not dense or found != expected:
        raise ValueError(f"layers {', '.join(found)}; expected Dense layers, relu then softmax")
    return [
        (np.asarray(kernel, dtype=np.float64), np.asarray(bias, dtype=np.float64))
        for kernel, bias in (layer.get_weights() for layer in dense)
    ]
