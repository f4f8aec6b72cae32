"""Results of real classifiers on drawn numbers, for reports that need no network."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from fer_features.experiment.comparison import compare
from fer_features.experiment.heads import LogisticHead as Logistic
from fer_features.experiment.result import Result, evaluate
from fer_features.experiment.task import Data, Split, Task
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS
from fer_features.sample.faces import draw_faces

Fits = Callable[..., list[Result]]


class Dense(ClassifierMixin, BaseEstimator):
    """A small network whose history has the form that the dense head's has."""

    name = "dense"

    def __init__(self, l2: float = 1e-3, random_state: int = 0) -> None:
        self.l2 = l2
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_val: Any, y_val: Any) -> "Dense":
        started = time.perf_counter()
        self._network = MLPClassifier((16,), alpha=self.l2, random_state=self.random_state)
        self.history_ = []
        for epoch in range(1, 9):
            self._network.partial_fit(X, y, classes=np.unique(y))
            losses = [
                log_loss(b, self._network.predict_proba(a)) for a, b in ((X, y), (X_val, y_val))
            ]
            self.history_.append({"epoch": epoch, "loss": losses[0], "val_loss": losses[1]})
        self.classes_ = self._network.classes_
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def predict_proba(self, X: Any) -> Any:
        return self._network.predict_proba(X)

    def predict(self, X: Any) -> Any:
        return self._network.predict(X)


def task_data(task: Task, weights: str, backbone: str, drawn: int) -> Data:
    """Return 600 rows of a task, classes as far apart as the task's chance of being hard."""
    emotions = [EMOTIONS.index(each) for names in task.emotions.values() for each in names]
    k = len(task.emotions)
    X, y = make_classification(
        600,
        20,
        n_informative=8,
        n_classes=k,
        n_clusters_per_class=1,
        flip_y=0.2,
        random_state=drawn,
    )
    rng = np.random.default_rng(drawn)
    of_class = [[EMOTIONS.index(each) for each in names] for names in task.emotions.values()]
    emotion = np.array([rng.choice(of_class[label]) for label in y], dtype=np.int8)
    assert set(emotion) <= set(emotions)
    digest = rng.integers(0, 256, (600, 32), dtype=np.uint8)
    rows = task.rows(emotion, np.full(600, -1, dtype=np.int8), digest)._asdict()
    names = np.array(list(task.emotions))
    splits = {
        part: Split(
            X=X[chosen].astype(np.float32),
            y=names[y[chosen]],
            emotion=emotion[chosen],
            digest=digest[chosen],
            source=np.array([str(row + 1) for row in chosen]),
        )
        for part, chosen in rows.items()
    }
    store = {
        "name": "drawn-5eed5eed.h5",
        "fingerprint": "5eed" * 16,
        "features": "final",
        "outputs": ["final"],
        "options": f"--backbone {backbone} --weights {weights.partition('@')[0]}",
        "backbone": {"backbone": backbone, "weights": weights},
        "dataset": {"name": "drawn", "kind": "arrays", "rows": 600, "sha256": "5eed"},
        "provenance": {"passes": [{"images": 590, "seconds": 12.5, "images_per_second": 47.2}]},
    }
    return Data(
        task, **splits, classes=tuple(task.emotions), split=task._describe(splits), store=store
    )


@pytest.fixture(scope="session")
def fits() -> Fits:
    """Return a function that fits heads to a task and evaluates them."""

    def fit(
        classes: dict[str, Sequence[str]] | None = None,
        heads: Sequence[Any] = (Dense(), Dense(random_state=1), Logistic()),
        weights: str = "imagenet",
        backbone: str = "InceptionResNetV2",
        drawn: int = 0,
    ) -> list[Result]:
        chosen = {} if classes is None else {"classes": classes}
        data = task_data(Task(**chosen, per_class="all"), weights, backbone, drawn)
        rows = data.train.X, data.train.y
        held_out = {"X_val": data.validation.X, "y_val": data.validation.y}
        return [evaluate(head.fit(*rows, **held_out), data, test=True) for head in heads]

    return fit


@pytest.fixture(scope="session")
def heads() -> dict[str, type]:
    return {"dense": Dense, "logistic": Logistic}


@pytest.fixture(scope="session")
def compared() -> Callable[..., list[Result]]:
    """Return a function that compares both heads: two settings, two seeds, parts of training."""

    def run(classes: dict[str, Sequence[str]] | None = None) -> list[Result]:
        chosen = {} if classes is None else {"classes": classes}
        data = task_data(Task(**chosen, per_class="all"), "random:0@keras-3.15.1", "tiny", 0)
        named = {"dense": Dense(), "logistic": Logistic()}
        grid = {"dense": {"l2": [1e-3, 1.0]}}
        return compare(data, named, grid=grid, seeds=range(2), sizes=[60, 120])

    return run


@pytest.fixture(scope="session")
def faces() -> Callable[[Result], FaceDataset]:
    """Return a function that draws a face for each test image of a result."""

    def draw(result: Result) -> FaceDataset:
        rows = result.predictions[result.predictions["split"] == "test"]
        drawn = draw_faces(len(rows))
        digest = np.array([list(bytes.fromhex(each)) for each in rows["digest"]], dtype=np.uint8)
        object.__setattr__(drawn, "digest", digest)
        return drawn

    return draw
