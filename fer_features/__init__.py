"""Run a frozen network over faces once, keep its embeddings, and experiment on those.

The public names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_features.embedding.backbone import BackboneSpec
    from fer_features.embedding.extraction import extract
    from fer_features.embedding.store import Store
    from fer_features.errors import FerFeaturesError
    from fer_features.experiment.comparison import compare
    from fer_features.experiment.comparison_folder import load_results
    from fer_features.experiment.heads import DenseHead, LogisticHead, load_head
    from fer_features.experiment.result import Result, evaluate
    from fer_features.experiment.task import Task
    from fer_features.faces.dataset import FaceDataset
    from fer_features.faces.reading import read_faces
    from fer_features.prediction.classifier import Classifier
    from fer_features.report.page import write_report

__version__ = metadata.version("fer-features")

_HOMES = {
    "BackboneSpec": "embedding.backbone",
    "Classifier": "prediction.classifier",
    "DenseHead": "experiment.heads",
    "FaceDataset": "faces.dataset",
    "FerFeaturesError": "errors",
    "LogisticHead": "experiment.heads",
    "Result": "experiment.result",
    "Store": "embedding.store",
    "Task": "experiment.task",
    "compare": "experiment.comparison",
    "evaluate": "experiment.result",
    "extract": "embedding.extraction",
    "load_head": "experiment.heads",
    "load_results": "experiment.comparison_folder",
    "read_faces": "faces.reading",
    "write_report": "report.page",
}

__all__ = [
    "BackboneSpec",
    "Classifier",
    "DenseHead",
    "FaceDataset",
    "FerFeaturesError",
    "LogisticHead",
    "Result",
    "Store",
    "Task",
    "compare",
    "evaluate",
    "extract",
    "load_head",
    "load_results",
    "read_faces",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fer_features' has no attribute {name!r}")
    return getattr(import_module(f"fer_features.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
