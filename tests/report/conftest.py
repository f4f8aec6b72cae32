"""Results of real classifiers on drawn numbers, for reports that need no network."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_features.experiment.comparison import compare
from fer_features.experiment.comparison_folder import Failure, Results
from fer_features.experiment.heads import LogisticHead as Logistic
from fer_features.experiment.result import Result, evaluate
from fer_features.experiment.task import Data, Split, Task
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS
from fer_features.report.page import write_report
from fer_features.sample.faces import draw_faces

SEVEN = {name: [name] for name in EMOTIONS[:7]}


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


def task_data(
    task: Task,
    weights: str = "imagenet",
    backbone: str = "InceptionResNetV2",
    drawn: int = 0,
    votes: bool = False,
) -> Data:
    """Return 600 rows of a task, classes as far apart as the task's chance of being hard."""
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
    digest = rng.integers(0, 256, (600, 32), dtype=np.uint8)
    rows = task.rows(emotion, np.full(600, -1, dtype=np.int8), digest)._asdict()
    names = np.array(list(task.emotions))
    said = np.zeros((600, 9), dtype=np.int64)
    for row, true in enumerate(emotion):  # ten raters, seven of them of the label's mind
        np.add.at(said[row], np.where(rng.random(10) < 0.7, true, rng.integers(0, 9, 10)), 1)
    splits = {
        part: Split(
            X=X[chosen].astype(np.float32),
            y=names[y[chosen]],
            emotion=emotion[chosen],
            digest=digest[chosen],
            source=np.array([str(row + 1) for row in chosen]),
            votes=said[chosen] if votes else None,
        )
        for part, chosen in rows.items()
    }
    made = {"images": 590, "seconds": 12.5, "images_per_second": 47.2, "parameters": 54_336_736}
    store = {
        "name": "drawn-5eed5eed.h5",
        "fingerprint": "5eed" * 16,
        "features": "final",
        "network": backbone,
        "dimension": 20,
        "outputs": ["final"],
        "options": f"--backbone {backbone} --weights {weights.partition('@')[0]}",
        "backbone": {"backbone": backbone, "weights": weights, "input_size": 139},
        "dataset": {"name": "drawn", "kind": "arrays", "rows": 600, "sha256": "5eed"},
        "provenance": {"passes": [made]},
    }
    split = task._describe(splits) | {"copies": {"rows": 620, "images": 600, "disagreeing": 3}}
    return Data(task, **splits, classes=tuple(task.emotions), split=split, store=store)


def on_other(data: Data, network: str, features: str, noise: float, speed: float) -> Data:
    """Return the same rows on another network's embeddings, by so much worse."""
    rng = np.random.default_rng(1)
    parts = {
        name: replace(part, X=part.X + noise * rng.standard_normal(part.X.shape).astype(np.float32))
        for name, part in data.parts().items()
    }
    made = {"images": 590, "seconds": 590 / speed, "images_per_second": speed}
    store = data.store | {
        "network": network,
        "features": features,
        "name": f"{network.lower()}.h5",
        "fingerprint": f"{abs(hash_of(network)):064x}"[:64],
        "backbone": {"backbone": network, "weights": "random:0@keras-3.15.1", "input_size": 224},
        "provenance": {"passes": [made]},
        "rows_of": {"name": data.store["name"], "path": "/nowhere/a.h5"},
    }
    return replace(data, **parts, store=store)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode(), "big") % 16**64


@pytest.fixture(scope="session")
def fits() -> Callable[..., list[Result]]:
    """Return a function that fits heads to a task and evaluates them."""

    def fit(
        classes: dict[str, Sequence[str]] | None = None,
        heads: Sequence[Any] = (Dense(), Dense(random_state=1), Logistic()),
        weights: str = "imagenet",
        backbone: str = "InceptionResNetV2",
        drawn: int = 0,
        votes: bool = False,
        test: bool = True,
    ) -> list[Result]:
        chosen = {} if classes is None else {"classes": classes}
        data = task_data(Task(**chosen, per_class="all"), weights, backbone, drawn, votes)
        rows = data.train.X, data.train.y
        held_out = {"X_val": data.validation.X, "y_val": data.validation.y}
        fitted = []
        for head in heads:
            own = held_out if isinstance(head, Dense | Logistic) else {}
            fitted.append(evaluate(head.fit(*rows, **own), data, test=test))
        return fitted

    return fit


@pytest.fixture(scope="session")
def heads() -> dict[str, type]:
    return {"dense": Dense, "logistic": Logistic}


@pytest.fixture(scope="session")
def results(fits) -> dict[str, Any]:
    """The results of each report that is looked at."""
    grid = {"dense": {"l2": [1e-3, 1.0]}, "knn": {"n_neighbors": [5, 15]}}
    named = {"dense": Dense(), "logistic": Logistic(), "knn": KNeighborsClassifier()}
    two = task_data(Task(per_class="all"), "random:0@keras-3.15.1", "tiny")
    compared = compare(two, named, grid=grid, seeds=range(2), sizes=[60, 120])

    seven = task_data(Task(SEVEN, per_class="all"), votes=True)
    rng = np.random.default_rng(0)
    leaked = {part: [""] * len(split) for part, split in seven.parts().items()}
    leaked["test"] = list(np.where(rng.random(len(seven.test)) < 0.1, "train", ""))
    groups = {
        name: replace(part, group=np.array([f"p{i // 3}-{name}" for i in range(len(part))]))
        for name, part in seven.parts().items()
    }
    seven = replace(seven, **groups)
    seven.split["leaked"]["test_in_train"] = sum(map(bool, leaked["test"]))
    seven.split["groups"] = {"count": 200, "by": "^(p[0-9]+)", "left_out": 4}
    seven.split["raters"] = {"name": "votes.csv", "path": "/nowhere/votes.csv", "sha256": "ab"}
    seven.__dict__["leaks"] = leaked
    scaled = make_pipeline(StandardScaler(), KNeighborsClassifier(25))
    many = {"dense": Dense(), "logistic": Logistic(), "scaled": scaled}
    raters = compare(seven, many, seeds=range(2))
    failure = Failure("svc", {"C": 1}, 0, None, "svc: cannot be fitted (no memory).", None)
    for name in ("fingerprint", "features", "network"):
        object.__setattr__(failure, name, getattr(raters[0], name, "InceptionResNetV2"))

    other = on_other(two, "EfficientNetB0", "final", 2.0, 310.0)
    layers = on_other(two, "EfficientNetB0", "a_long_layer_name+another", 0.5, 310.0)
    embeddings = compare([two, other, layers], dict(list(named.items())[:2]), seeds=range(2))
    elsewhere = {"dataset": "CK+", "sha256": "cd", "rows": 900, "outside": 40, "images": 130}
    elsewhere |= {"disagreeing": 4, "left_out": 6}
    crossed = replace(
        two,
        split=two.split | {"test_on": elsewhere},
        store=two.store | {"test_on": {"name": "ck.h5", "path": "/nowhere/ck.h5"}},
    )
    forty = [KNeighborsClassifier(n) for n in range(1, 39)]
    return {
        "compared": compared,
        "raters": Results([*raters, failure], select="log_loss"),
        "forty": fits(heads=[*forty, Dense(), Logistic()]),
        "one": fits(SEVEN, heads=[Dense()])[0],
        "validation": fits(heads=[Logistic()], test=False)[0],
        "embeddings": embeddings,
        "crossed": compare(crossed, {"logistic": Logistic(), "knn": KNeighborsClassifier(9)}),
    }


@pytest.fixture(scope="session")
def reports(results, faces, tmp_path_factory) -> dict[str, Path]:
    """The pages on them, and their runs in a folder ``fits`` beside each."""
    found = {}
    for name, given in results.items():
        out = tmp_path_factory.mktemp(name)
        several = [given] if isinstance(given, Result) else given
        folders = [out / "fits" / f"{i:02d}" for i in range(len(several))]
        kept = [replace(r, fitted=None).save(f) for r, f in zip(several, folders, strict=True)]
        read = Results([*map(Result.load, kept), *getattr(given, "failed", [])], select="log_loss")
        tested = next((each for each in several if "test" in each.scores), None)
        shown = faces(tested) if name == "compared" else None
        command = "fer-compare --seeds 2 " + "x" * 90
        found[name] = write_report(read, out, faces=shown, command=command)
    return found


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


class Page(HTMLParser):
    """What a page holds: its elements, and all the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data + " "


@pytest.fixture(scope="session")
def page() -> type[Page]:
    return Page
