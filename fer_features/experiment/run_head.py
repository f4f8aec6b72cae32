"""A run's fitted head, ready to be asked: without pandas, and mostly without scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from fer_features.errors import RunError
from fer_features.experiment.head_file import Layer, log_probabilities, read_head_file
from fer_features.experiment.run_document import (
    KERAS_FILE,
    SKOPS_FILE,
    read_document,
    read_json,
)
from fer_features.faces.bad_rows import shown

Float = npt.NDArray[np.float64]


class RunHead:
    """What a run's folder says of its head, and the head.

    Attributes
    ----------
    folder : Path
    label : str
        The head's name.
    classes : tuple of str
        Class names in the task's order.
    columns : tuple of str
        Class names in the order of the head's own outputs.
    layers : list of (kernel, bias), optional
        Of a head of this package; None of another classifier, which ``fitted`` is then.
    fingerprint, features : str
        Of which backbone's embeddings it is, and of which of its outputs.
    store : dict
        What the run says of its store.
    temperature : float
        Fitted to its validation images.
    """

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        self.folder = folder
        self.label: str = document["head"]
        self.classes = tuple(document["task"]["classes"])
        self.columns = tuple(document["outputs"])
        self.fingerprint: str = document["fingerprint"]
        self.features: str = document["features"]
        self.store: dict[str, Any] = document["store"]
        self.temperature = float(document["calibration"]["temperature"])
        self.layers: list[Layer] | None = None
        self.fitted: Any = None

    def answers(
        self, X: npt.NDArray[np.float32], temperature: float
    ) -> tuple[Float, npt.NDArray[np.str_]]:
        """Return probabilities of embeddings, (n, d), and the classes that the head answers.

        The probabilities are float64 (n, k) in the order of ``classes``; their logarithms are
        divided by the temperature, and normalised again.
        """
        width = len(self.layers[0][0]) if self.layers else getattr(self.fitted, "n_features_in_", 0)
        if width and width != X.shape[1]:
            raise RunError(
                f"{self.folder}: its head takes {width:,} numbers, the features {self.features} of "
                f"its network are {X.shape[1]:,}, expected as many. Fit the head again."
            )
        if self.layers is not None:
            log_p = log_probabilities(self.layers, X, np.arange(len(X)))
            predicted = np.array(self.columns)[log_p.argmax(axis=1)]
            log_p = log_p[:, [self.columns.index(name) for name in self.classes]]
        else:
            from fer_features.experiment.fitting import answers

            p, predicted = answers(self.fitted, X, self.classes)
            log_p = np.log(np.maximum(p, np.finfo(np.float64).tiny))
        return np.exp(log_softmax(log_p / temperature, axis=1)), predicted


def load_run_head(folder: Path) -> RunHead:
    """Read a run's head.

    Raises
    ------
    RunError
        The folder is no run, is damaged or of another format, or has no head; or its head is of
        other classes or another network.
    """
    _refuse_comparison(folder)
    head = RunHead(folder, read_document(folder))
    path = folder / KERAS_FILE
    if not path.is_file() or (folder / SKOPS_FILE).is_file():
        from fer_features.experiment.fitting import kept

        head.fitted = kept(folder, head.columns)
        return head
    layers, about = read_head_file(path)
    said = {
        "classes": (tuple(about["classes"]), head.columns),
        "fingerprint": (about["fingerprint"] or head.fingerprint, head.fingerprint),
        "features": (about["features"] or head.features, head.features),
    }
    for name, (found, expected) in said.items():
        if found != expected:
            raise RunError(
                f"{path}: {name} {shown(str(found), 200)}, expected {expected} as metrics.json "
                "has it. One of the two files is of another run: fit the head again."
            )
    head.layers = layers
    return head


def _refuse_comparison(folder: Path) -> None:
    """Raise RunError where a folder is a comparison's, and name the fit to take instead."""
    path = folder / "results.json"
    if not path.is_file() or (folder / "metrics.json").exists():
        return
    from fer_features.experiment.scores import SMALLER_IS_BETTER

    try:
        summary = read_json(path)
        select = summary["experiment"]["select"]
        sign = -1 if select in SMALLER_IS_BETTER else 1
        fits = [fit for fit in summary["fits"] if fit["selected"]]
        best = max(fits, key=lambda fit: sign * fit["scores"]["validation"][select])
        named = f"{folder}/{shown(best['folder'], 200)}, the best on validation by {select}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # unfinished, or edited
        named = "one of its fits"
    raise RunError(f"{folder}: a comparison, expected the folder of one run. Name {named}.")
