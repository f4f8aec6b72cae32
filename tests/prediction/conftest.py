"""Runs of the tiny network on drawn faces: grey and in colour, of two classes and of three."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from support import TINY

from fer_features import (
    BackboneSpec,
    DenseHead,
    FaceDataset,
    LogisticHead,
    Task,
    evaluate,
    extract,
    read_faces,
)
from fer_features.faces.emotions import EMOTIONS
from fer_features.runtimes import import_keras
from fer_features.sample.faces import draw_faces, write_csv

TWO = Task({"up": ["happiness", "surprise", "neutral"], "down": ["anger", "fear", "sadness"]})
THREE = Task({"up": ["happiness", "surprise"], "calm": ["neutral"], "down": ["anger", "fear"]})


@pytest.fixture(scope="session")
def faces() -> FaceDataset:
    return draw_faces(160)


@pytest.fixture(scope="session")
def colours(faces: FaceDataset) -> list[Image.Image]:
    """The first faces as 64x64 images, each in a colour of its own."""
    tints = np.random.default_rng(0).integers(60, 256, (120, 3))
    grey = [Image.fromarray(face).resize((64, 64)) for face in faces.pixels[:120]]
    tinted = [
        np.asarray(face)[..., None] * (tint / 255) for face, tint in zip(grey, tints, strict=True)
    ]
    return [Image.fromarray(face.astype(np.uint8)) for face in tinted]


@pytest.fixture(scope="session")
def home(
    tmp_path_factory: pytest.TempPathFactory, faces: FaceDataset, colours: list[Image.Image]
) -> Path:
    """A folder with sources, their stores, and runs: two, joined, neighbors, colour, int8."""
    home = tmp_path_factory.mktemp("home")
    write_csv(faces, home / "faces.csv")
    for number, (image, emotion) in enumerate(zip(colours, faces.emotion, strict=False)):
        folder = home / "colours" / EMOTIONS[emotion]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    spec = replace(TINY, layers=("two_relu",))
    store = extract(home / "faces.csv", home / "stores" / "faces.h5", backbone=spec)
    data = replace(TWO, per_class="min").select(store)
    evaluate(LogisticHead(C=0.1).fit(data.train.X, data.train.y), data).save(home / "runs/two")
    nearest = KNeighborsClassifier(5).fit(data.train.X, data.train.y)
    evaluate(nearest, data).save(home / "runs/neighbors")
    data = replace(THREE, per_class="all").select(store, features="final+two_relu")
    head = DenseHead(hidden=(16,), standardize=True, epochs=3, batch_size=16, random_state=0)
    head.fit(data.train.X, data.train.y, X_val=data.validation.X, y_val=data.validation.y)
    evaluate(head, data).save(home / "runs/joined")
    source = read_faces(home / "colours", color=True, image_size=64)
    data = replace(TWO, per_class="all").select(
        extract(source, home / "stores" / "colours.h5", backbone=TINY)
    )
    evaluate(LogisticHead(C=0.1).fit(data.train.X, data.train.y), data).save(home / "runs/colour")
    int8 = replace(spec, precision="int8")
    data = replace(TWO, per_class="all").select(
        extract(home / "faces.csv", home / "int8" / "faces.h5", backbone=int8), features="two_relu"
    )
    evaluate(LogisticHead(C=0.1).fit(data.train.X, data.train.y), data).save(home / "runs/int8")
    return home


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a run on a machine without its store: what was converted there is not here."""

    def move(name: str) -> Path:
        run = shutil.copytree(home / "runs" / name, tmp_path / name)
        document = run / "metrics.json"
        text = document.read_text()
        document.write_text(text.replace(str(home / "stores"), str(tmp_path / "gone")))
        return run

    return move


@pytest.fixture(scope="session")
def own_network(tmp_path_factory: pytest.TempPathFactory, faces: FaceDataset) -> Path:
    """A folder with a network's file, another's, and a run on the first."""
    keras = import_keras()
    home = tmp_path_factory.mktemp("own")
    for name, size in (("net", 40), ("other", 44)):
        layers = [keras.layers.Input((size, size, 3)), keras.layers.Conv2D(4, 3, activation="relu")]
        keras.Sequential(layers).save(home / f"{name}.keras")
    spec = BackboneSpec(str(home / "net.keras"))
    task = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]}, per_class="min")
    data = task.select(extract(faces, home / "store/faces.h5", backbone=spec))
    evaluate(LogisticHead(C=0.1).fit(data.train.X, data.train.y), data).save(home / "run")
    shutil.rmtree(home / "store")
    return home
