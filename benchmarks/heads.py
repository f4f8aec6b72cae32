"""What an experiment costs, the original's way and here; all in one run.

    python benchmarks/heads.py STORE.h5 [--rounds 3] [--fits 40]

The original ran the frozen backbone over 10,200 training and 3,400 validation images in each of 46
epochs. Here a part of one such epoch is measured, and the rest is computed from it; such figures
are marked. Whole commands are timed with their process's start.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import machine, table, write_section

EPOCHS = 46
IMAGES_AN_EPOCH = 10_200 + 3_400
POOL = 17_000


def original_epoch(images: int = 256) -> float:
    """Return seconds of the original's epoch, computed from a training step over some images."""
    import numpy as np

    from fer_features import BackboneSpec
    from fer_features.embedding.backbone import build_network, preprocess
    from fer_features.slow import import_keras

    keras = import_keras()
    network = build_network(BackboneSpec(weights="random"))
    rng = np.random.default_rng(0)
    X = np.asarray(preprocess(rng.integers(0, 256, (images, 48, 48), dtype=np.uint8), 139))
    y = rng.integers(0, 2, images)
    network.trainable = False
    model = keras.Sequential([network, *_dense_layers(keras)])
    model.compile("adam", "binary_crossentropy")
    model.fit(X, y, batch_size=128, epochs=1, verbose=0)
    started = time.perf_counter()
    model.fit(X, y, batch_size=128, epochs=1, verbose=0)
    return (time.perf_counter() - started) / images * IMAGES_AN_EPOCH


def _dense_layers(keras: Any) -> list[Any]:
    regularizer = keras.regularizers.L2(1e-3)
    dense = keras.layers.Dense
    return [
        dense(128, activation="relu", kernel_regularizer=regularizer),
        keras.layers.Dropout(0.5),
        dense(64, activation="relu", kernel_regularizer=regularizer),
        dense(1, activation="sigmoid", kernel_regularizer=regularizer),
    ]


def keras_fit(data: Any, epochs: int) -> Callable[[], Any]:
    """Return a default Keras ``fit`` of the same head on embeddings."""
    from fer_features.slow import import_keras

    keras = import_keras()
    y, y_held = (data.train.y == data.classes[0]), (data.validation.y == data.classes[0])

    def run() -> None:
        model = keras.Sequential(_dense_layers(keras))
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        held = (data.validation.X, y_held)
        model.fit(data.train.X, y, validation_data=held, batch_size=128, epochs=epochs, verbose=0)

    return run


def fits(data: Any, epochs: int) -> dict[str, Callable[[], Any]]:
    """Return one fit each of the heads here and of what stands beside them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fer_features import DenseHead, LogisticHead

    X, y = data.train.X, data.train.y
    held = (data.validation.X, data.validation.y)
    mlp = MLPClassifier((128, 64), batch_size=128, max_iter=epochs, n_iter_no_change=epochs)
    return {
        f"Keras `fit` as it comes, {epochs} epochs": keras_fit(data, epochs),
        f"DenseHead, {epochs} epochs": lambda: DenseHead(
            epochs=epochs, patience=epochs, standardize=True
        ).fit(X, y, validation=held),
        f"scikit-learn MLPClassifier, {epochs} epochs": lambda: mlp.fit(X, y),
        "LogisticHead, C chosen on validation": lambda: LogisticHead().fit(X, y, validation=held),
        "scikit-learn LogisticRegression, C = 0.001, standardised": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000)
        ).fit(X, y),
    }


def command(name: str, *arguments: object, home: Path) -> float:
    """Run a command and return its wall time in seconds, process start included."""
    call = [sys.executable, "-m", f"fer_features.cli.{name}", *map(str, arguments), "--quiet"]
    started = time.perf_counter()
    subprocess.run(call, cwd=home, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fits", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    store = options.store.resolve()
    from fer_features import Store, Task

    data = Task().select(Store(store))
    rate = Store(store).provenance["images_per_second"]

    print("the original's epoch", file=sys.stderr)
    epoch = original_epoch()
    print("fits", file=sys.stderr)
    times: dict[str, list[float]] = {}
    runs = fits(data, options.epochs)
    for run in runs.values():
        run()
    for _ in range(options.rounds):
        for label, run in runs.items():
            started = time.perf_counter()
            run()
            times.setdefault(label, []).append(time.perf_counter() - started)
    print("whole commands", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        one = statistics.median(
            command("fit_head", store, "--standardize", home=home) for _ in range(options.rounds)
        )
        settings = options.fits // 10
        values = ",".join(f"{1e-4 * 2**step:g}" for step in range(settings))
        grid = ("--grid", f"dense.l2={values}", "--grid", "dense.standardize=true")
        many = command("compare", store, "--heads", "dense", "--seeds", 10, *grid, home=home)
    whole = epoch * EPOCHS
    first = POOL / rate + one
    ours, default = (statistics.median(times[label]) for label in list(runs)[1::-1])
    rows = [(label, f"{statistics.median(value):.2f} s") for label, value in times.items()]
    experiments = [
        ("the original's way: backbone in each of 46 epochs (computed)", f"{whole:.0f} s", "1"),
        ("of which one epoch (computed from 256 images)", f"{epoch:.0f} s", ""),
        (f"first experiment here: {POOL:,} images at {rate:.1f}/s (computed) and one fit",
         f"{first:.0f} s", f"{whole / first:.0f}"),
        ("every later one: fer-fit-head, whole command", f"{one:.1f} s", f"{whole / one:.0f}"),
        (f"fer-compare, {settings * 10} dense fits, whole command", f"{many:.0f} s",
         f"{whole * settings * 10 / many:.0f}"),
    ]  # fmt: skip
    text = "\n\n".join(
        [
            f"{machine()}\n\nStore: {store.name}; medians of {options.rounds}.",
            table(("experiment", "time", "times faster"), experiments),
            table(("one fit, 10,200 + 3,400 x 1,536", "median"), rows),
            f"An epoch of DenseHead takes {ours / default:.2f} of Keras's as it comes.",
        ]
    )
    print(text)
    write_section("Experiments", text)


if __name__ == "__main__":
    main()
