"""The heads: classifiers on embeddings, as scikit-learn has them."""

from fer_features.experiment.dense import DenseHead
from fer_features.experiment.layers import Head, load_head
from fer_features.experiment.logistic import LogisticHead

HEADS: dict[str, type[DenseHead] | type[LogisticHead]] = {
    "dense": DenseHead,
    "logistic": LogisticHead,
}
"""Each head by its name on the command line."""

__all__ = ["HEADS", "DenseHead", "Head", "LogisticHead", "load_head"]
