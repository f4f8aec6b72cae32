"""What scikit-learn's classifiers cost on embeddings, and what they give, beside the two heads.

    python benchmarks/classifiers.py STORE.h5 [--features final] [--per-class 8500]

Each is fitted by its dotted name, as ``fer-compare --heads`` does, to the training images of the
default task, and asked about the validation images. A fit takes one thread, so its seconds are
this process's processor time, which other work on the machine hardly changes. None is tuned.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from results import machine, table, write_section

from fer_features import Store, Task, evaluate
from fer_features.cli.heads import make_head
from fer_features.experiment.fitting import check_classifier, fit, keep, kept_file, seeded
from fer_features.experiment.task import Data

TRIED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dense", {"standardize": True}),
    ("logistic", {}),
    ("sklearn.linear_model.LogisticRegression", {"C": 0.001, "max_iter": 1000}),
    ("sklearn.discriminant_analysis.LinearDiscriminantAnalysis", {}),
    ("sklearn.naive_bayes.GaussianNB", {}),
    ("sklearn.neighbors.KNeighborsClassifier", {"n_neighbors": 15}),
    ("sklearn.calibration.CalibratedClassifierCV", {}),  # of a LinearSVC
    ("sklearn.svm.SVC", {"probability": True}),
    ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 300}),
    ("sklearn.ensemble.ExtraTreesClassifier", {"n_estimators": 300}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {}),
)
"""Names as ``--heads`` takes them, and what is set otherwise than by default."""


def measured(name: str, params: dict[str, Any], data: Data) -> tuple[str, ...]:
    """Return the line of one classifier."""
    label, default = make_head(name)
    head = seeded(default.set_params(**params), 0)
    check_classifier(head, label)
    started = time.process_time()
    fit(head, data, seed=0)
    fitted = time.process_time()
    result = evaluate(head, data)
    asked = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        keep(head, Path(folder), result.fingerprint, result.features)
        file = kept_file(Path(folder))
        kept = f"{file.name}, {file.stat().st_size / 1e6:.1f} MB" if file else "no"
    scores = result.scores["validation"]
    said = " ".join(f"{key}={value}" for key, value in params.items())
    return (
        f"`{name}`",
        said,
        f"{fitted - started:,.1f} s",
        f"{asked - fitted:,.1f} s",
        f"{scores['accuracy']:.3f}",
        f"{scores['log_loss']:.3f}",
        kept,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--features", default="final")
    parser.add_argument("--per-class", type=int, default=8500)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = Task(per_class=options.per_class).select(Store(options.store), options.features)
    rows = []
    for name, params in TRIED:
        rows.append(measured(name, params, data))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    columns = ("classifier", "set", "fit", "validation said", "accuracy", "log loss", "kept")
    shape = " x ".join(f"{n:,}" for n in np.shape(data.train.X))
    text = (
        f"{machine()}\n\n{data.store['network']}, {data.store['features']}: {shape}, one thread, "
        f"seconds of processor time; {len(data.validation):,} validation images.\n\n"
        + table(columns, rows)
    )
    print(text)
    write_section("Classical classifiers", text)


if __name__ == "__main__":
    main()
