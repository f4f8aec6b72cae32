"""What an experiment costs, the original's way and here; all in one run.

    python benchmarks/heads.py [FACES.csv] [--rounds 5] [--fits 40] [--per-class 8500]

Without FACES.csv it draws faces. The images are the 17,000 of the default task. The original ran
the frozen backbone over 10,200 training and 3,400 validation images in each of 46 epochs: one of
its training steps is measured, and the rest is computed from it and marked so. Everything else is
measured whole; commands with their process's start. All but the passes and the comparison take
turns, and figures are medians over the rounds. Weights are random: they cost what trained ones do.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from original import original_network, preprocessed
from results import drawn, machine, table, write_section
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_features import DenseHead, LogisticHead, Store, Task, evaluate, read_faces
from fer_features.faces.emotions import EMOTIONS
from fer_features.report.sections import Group, Section
from fer_features.runtimes import import_keras, import_tensorflow
from fer_features.sample.faces import write_csv

ORIGINAL_EPOCHS = 46
STEP = 128
"""Images in one of the original's batches."""

KERAS, DENSE = "Keras `fit` as it comes", "`DenseHead`"
FIT_HEAD = "fer-fit-head"
LEARNS = "--standardize"
"""With random weights the dense head stops early, having learnt nothing, unless standardized."""


def original_step() -> Callable[[], None]:
    """Return one of the original's training steps: the frozen backbone and the head on a batch."""
    keras = import_keras()
    network = original_network()
    model = keras.Sequential([network, *dense_layers()])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    X = np.asarray(preprocessed(rng.integers(0, 256, (STEP, 48, 48), dtype=np.uint8)))
    y = rng.integers(0, 2, STEP)
    return lambda: model.fit(X, y, batch_size=STEP, epochs=1, verbose=0)


def dense_layers() -> list[Any]:
    """Return the original's head as Keras layers."""
    keras = import_keras()
    regularizer = keras.regularizers.L2(1e-3)
    dense = keras.layers.Dense
    return [
        dense(128, activation="relu", kernel_regularizer=regularizer),
        keras.layers.Dropout(0.5),
        dense(64, activation="relu", kernel_regularizer=regularizer),
        dense(1, activation="sigmoid", kernel_regularizer=regularizer),
    ]


def keras_fit(data: Any, epochs: int, ended: Callable[[], None], one_call: bool = False) -> None:
    """Fit the same head with Keras; `ended` is called after each epoch.

    As it comes, or an epoch in one call: ``steps_per_execution`` over a shuffled data set of
    indices, the fastest that Keras's documentation offers.
    """
    keras, tf = import_keras(), import_tensorflow()
    X, y, X_val, y_val = arrays(data)
    model = keras.Sequential(dense_layers())
    settings: dict[str, Any] = {"batch_size": STEP}
    steps = 1
    train: tuple[Any, ...] = (X, y)
    held: Any = (X_val, y_val)
    if one_call:
        settings, steps = {"shuffle": False}, -(-len(X) // STEP)

        def batches(X: Any, y: Any, shuffle: bool) -> Any:
            X, y = tf.constant(X), tf.constant(y)
            indices = tf.data.Dataset.range(len(X))
            indices = indices.shuffle(len(X)) if shuffle else indices
            taken = indices.batch(STEP).map(lambda i: (tf.gather(X, i), tf.gather(y, i)))
            return taken.prefetch(2)

        train, held = (batches(X, y, True),), batches(X_val, y_val, False)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], steps_per_execution=steps)
    ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ended())
    model.fit(*train, validation_data=held, epochs=epochs, callbacks=[ends], verbose=0, **settings)


def tensorflow_fit(data: Any, epochs: int, ended: Callable[[], None]) -> None:
    """Fit the same head with Keras's layers and optimizer, an epoch in one ``tf.function``."""
    keras, tf = import_keras(), import_tensorflow()
    X, y, X_val, y_val = map(tf.constant, arrays(data))
    model = keras.Sequential([keras.Input((X.shape[1],)), *dense_layers()])
    loss_of, adam = keras.losses.BinaryCrossentropy(), keras.optimizers.Adam()
    adam.build(model.trainable_variables)
    weights = [variable.value for variable in model.trainable_variables]

    def loss(X: Any, y: Any, training: bool) -> Any:
        return loss_of(y, model(X, training=training)) + tf.add_n(model.losses)

    @tf.function(autograph=False)
    def epoch(order: Any) -> Any:
        def step(start: Any) -> Any:
            batch = order[start : start + STEP]
            with tf.GradientTape() as tape:
                value = loss(tf.gather(X, batch), tf.gather(y, batch), True)
            adam.apply(tape.gradient(value, weights), model.trainable_variables)
            return start + STEP

        tf.while_loop(lambda start: start < len(X), step, [0], parallel_iterations=1)
        return loss(X_val, y_val, False)

    rng = np.random.default_rng(0)
    for _ in range(epochs):
        float(epoch(tf.constant(rng.permutation(len(X)))))
        ended()


def arrays(data: Any) -> tuple[Any, ...]:
    """Return X, y, X_val, y_val as Keras takes them: y float32 (n, 1), 1 for the first class."""
    parts = (data.train, data.validation)
    codes = [(part.y == data.classes[0]).astype(np.float32)[:, None] for part in parts]
    return parts[0].X, codes[0], parts[1].X, codes[1]


def fits(data: Any, epochs: int) -> dict[str, Callable[[], Any]]:
    """Return the fits that take turns; those by epochs return an epoch's median seconds."""
    X, y = data.train.X, data.train.y
    held = {"X_val": data.validation.X, "y_val": data.validation.y}
    mlp = MLPClassifier((128, 64), batch_size=128, max_iter=epochs, n_iter_no_change=epochs)
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    dense = DenseHead(epochs=epochs, patience=epochs)

    def ours(ended: Callable[[], None]) -> None:
        dense.fit(X, y, **held, progress=lambda *_: ended())

    return {
        f"{KERAS}, {epochs} epochs": lambda: an_epoch(lambda ended: keras_fit(data, epochs, ended)),
        f"Keras `fit`, an epoch in one call (`steps_per_execution`), {epochs} epochs": lambda: (
            an_epoch(lambda ended: keras_fit(data, epochs, ended, one_call=True))
        ),
        f"Keras's parts, an epoch in one `tf.function`, {epochs} epochs": lambda: an_epoch(
            lambda ended: tensorflow_fit(data, epochs, ended)
        ),
        f"{DENSE}, {epochs} epochs": lambda: an_epoch(ours),
        f"scikit-learn's `MLPClassifier`, {epochs} epochs": lambda: mlp.fit(X, y),
        "`LogisticHead`, C chosen on validation": lambda: LogisticHead().fit(X, y, **held),
        "scikit-learn's `LogisticRegression`, standardised, C = 0.001": lambda: scaled.fit(X, y),
    }


def intervals(data: Any) -> dict[str, Callable[[], Any]]:
    """Return the intervals of one fit that take turns: this task's, and one of seven classes."""
    head = LogisticHead(C=1e-3).fit(data.train.X, data.train.y)
    two = evaluate(head, data, test=True)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(7), 7000)
    names = np.array(EMOTIONS[:7])
    columns = {f"p_{name}": p[:, i] for i, name in enumerate(names)}
    rows = pd.DataFrame({"split": "test", "digest": list(map(str, range(7000))), **columns})
    rows["source"] = rows["digest"]
    rows["target"] = rows["emotion"] = names[rng.integers(0, 7, 7000)]
    rows["predicted"] = names[p.argmax(axis=1)]
    task = {"classes": {name: [name] for name in names.tolist()}}
    seven = replace(two, task=task, predictions=rows)
    return {
        f"intervals of a fit: all scores on {len(data.test):,} images, 2 classes": lambda: (
            Section(two.classes, (Group("two", (two,)),)).scores
        ),
        "the same of 7,000 images, 7 classes": lambda: (
            Section(seven.classes, (Group("seven", (seven,)),)).scores
        ),
    }


def an_epoch(fit: Callable[[Callable[[], None]], Any]) -> float:
    """Return the median seconds of the epochs after the first, which has preparations in it."""
    ends: list[float] = []
    fit(lambda: ends.append(time.perf_counter()))
    return statistics.median(np.diff(ends))


def take_turns(
    runs: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median seconds of each run, and of an epoch of those that have epochs."""
    whole: dict[str, list[float]] = {label: [] for label in runs}
    epochs: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for label, run in runs.items():
            started = time.perf_counter()
            epoch = run()
            if number == 0:  # warms up: what is compiled once is no part of a later fit
                continue
            whole[label].append(time.perf_counter() - started)
            if isinstance(epoch, float):
                epochs.setdefault(label, []).append(epoch)
    return medians(whole), medians(epochs)


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {label: statistics.median(each) for label, each in values.items()}


def command(name: str, *arguments: object, home: Path) -> None:
    """Run a command in a process of its own."""
    call = [sys.executable, "-m", f"fer_features.cli.{name}", *map(str, arguments), "--quiet"]
    subprocess.run(call, cwd=home, check=True, stdout=subprocess.DEVNULL)


def timed_command(name: str, *arguments: object, home: Path) -> float:
    """Run a command and return its wall time in seconds, process start included."""
    started = time.perf_counter()
    command(name, *arguments, home=home)
    return time.perf_counter() - started


def pool_of(faces: Path, task: Task, home: Path) -> Path:
    """Write the task's own images, and no others, as a CSV file."""
    every = read_faces(faces)
    rows = np.sort(np.concatenate(task.rows(every.emotion, every.usage, every.digest)))
    parts = {
        name: getattr(every, name)[rows]
        for name in ("pixels", "emotion", "usage", "source", "group")
    }
    write_csv(replace(every, **parts), home / "pool.csv")
    return home / "pool.csv"


def grid(fits: int) -> Iterable[object]:
    """Return the options of a comparison of that many dense fits, ten seeds each setting."""
    l2 = ",".join(f"{1e-4 * 10**step:g}" for step in range(fits // 20))
    yield from ("--heads", "dense", "--seeds", 10, "--grid", "dense.standardize=true")
    yield from ("--grid", f"dense.l2={l2}", "--grid", "dense.dropout=0.3,0.5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fits", type=int, default=40, help="a multiple of 20")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-class", type=int, default=8500)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # ten epochs are not meant to converge
    task = Task(per_class=options.per_class)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        faces = options.faces.resolve() if options.faces else drawn(home, 5 * options.per_class)
        pool = pool_of(faces, task, home)
        weights = ("--weights", "random")
        passes = {}
        for precision in ("float32", "int8"):
            print(f"the pass, {precision}", file=sys.stderr)
            # A folder each: the float32 network is converted in both.
            store = home / precision / "store.h5"
            passes[precision] = timed_command(
                "extract", pool, *weights, "--precision", precision, "-o", store, home=home
            )
        drawing = ("--per-class", options.per_class)
        print("a comparison", file=sys.stderr)
        workers = ("--workers", os.cpu_count())
        many = timed_command("compare", store, *grid(options.fits), *drawing, *workers, home=home)
        print("the rest, in turn", file=sys.stderr)
        data = task.select(Store(store))
        step = "the original's training step, 128 images"
        runs = {
            step: original_step(),
            FIT_HEAD: lambda: command("fit_head", store, LEARNS, *drawing, home=home),
            **fits(data, options.epochs),
            **intervals(data),
        }
        seconds, epochs = take_turns(runs, options.rounds)
    images = len(data.train) + len(data.validation)
    epoch, one = seconds.pop(step) / STEP * images, seconds.pop(FIT_HEAD)
    report(options, faces.name, epoch, images, passes, one, many, seconds, epochs)


def report(
    options: argparse.Namespace,
    source: str,
    epoch: float,
    images: int,
    passes: dict[str, float],
    one: float,
    many: float,
    seconds: dict[str, float],
    epochs: dict[str, float],
) -> None:
    """Write the section of RESULTS.md."""
    whole = ORIGINAL_EPOCHS * epoch
    count = 2 * options.per_class
    experiments = [
        (
            f"the original's way: {ORIGINAL_EPOCHS} epochs over {images:,} images, "
            f"{epoch:.0f} s each (computed from a training step of {STEP})",
            f"{whole:,.0f} s",
            "1",
        )
    ]
    experiments += [
        (
            f"the first one here: `fer-extract` of its {count:,} images, {precision}, "
            f"{each:.0f} s, and `fer-fit-head`, {one:.1f} s",
            f"{each + one:,.0f} s",
            f"{whole / (each + one):,.0f}",
        )
        for precision, each in passes.items()
    ]
    experiments += [
        ("a later one: `fer-fit-head`", f"{one:.1f} s", f"{whole / one:,.0f}"),
        (
            f"`fer-compare`, {options.fits} dense fits, a worker a core: each fit",
            f"{many / options.fits:.1f} s (all {many:,.0f} s)",
            f"{whole * options.fits / many:,.0f}",
        ),
    ]
    theirs = next(value for label, value in epochs.items() if label.startswith(KERAS))
    rows = [
        (
            label,
            f"{value:.2f} s",
            f"{epochs[label]:.3f} s" if label in epochs else "",
            f"{epochs[label] / theirs:.2f}" if label in epochs else "",
        )
        for label, value in seconds.items()
    ]
    text = "\n\n".join(
        [
            f"{machine()}\n\nSource: {source}; random weights; medians of {options.rounds}.",
            table(("experiment, process start included", "time", "times faster"), experiments),
            table(
                (f"one fit, {images:,} x 1,536", "whole", "an epoch", "of Keras's own"),
                rows,
            ),
            "`DenseHead` and `LogisticHead` use one thread, the others as many as there are cores.",
        ]
    )
    print(text)
    write_section("Experiments", text)


if __name__ == "__main__":
    main()
