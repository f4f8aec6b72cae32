"""Compare classifiers of one's own with the heads of this package, fairly.

    python own_classifier.py [FOLDER]

Anything with scikit-learn's `fit`, `predict_proba` and `classes_` takes part: one of
scikit-learn's, a pipeline, or a class written here. All are given the same training images, each
setting is chosen on validation, and what was chosen is scored on test once.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_features import BackboneSpec, LogisticHead, Task, compare, extract
from fer_features.sample.faces import draw_faces


class NearestMean(ClassifierMixin, BaseEstimator):
    """Say how near an embedding is to each class's mean; `sharpness` turns that to probability."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self.sharpness = sharpness

    def fit(self, X: np.ndarray, y: np.ndarray) -> "NearestMean":
        """Learn the means of embeddings, float (n, d), of the classes in y, (n,)."""
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == name].mean(axis=0) for name in self.classes_])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return float64 (n, classes), each row sums to 1."""
        distance = np.linalg.norm(X[:, np.newaxis] - self.means_, axis=2).astype(np.float64)
        nearness = np.exp(-self.sharpness * (distance - distance.min(axis=1, keepdims=True)))
        return nearness / nearness.sum(axis=1, keepdims=True)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the more probable class of each row, (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own-classifier")
# Random weights show that everything runs; for a result take weights="imagenet" and real faces.
network = BackboneSpec("MobileNetV3Small", weights="random:0", input_size=64)
store = extract(draw_faces(600), folder / "faces.h5", backbone=network)
data = Task(per_class="min").select(store)

results = compare(
    data,
    {
        "logistic": LogisticHead(),
        "neighbours": make_pipeline(StandardScaler(), PCA(20), KNeighborsClassifier()),
        "nearest mean": make_pipeline(StandardScaler(), NearestMean()),
    },
    grid={
        "neighbours": {"kneighborsclassifier__n_neighbors": [5, 15, 45]},
        "nearest mean": {"nearestmean__sharpness": [0.01, 0.1, 1.0]},
    },
    seeds=range(2),
    select="log_loss",
    out=folder / "comparison",
)
# fer_features.write_report(results, folder / "comparison") makes a page of it.
for result in results:
    if "test" in result.scores:  # validation chose it
        score = result.scores["test"]["accuracy"]
        print(f"{result.label:13} seed {result.seed}: test accuracy {score:.2f}")
