"""The heads: what they learn, how scikit-learn takes them, and that files keep them."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, recall_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_features.errors import RunError
from fer_features.experiment.heads import HEADS, DenseHead, Head, LogisticHead, load_head
from fer_features.runtimes import import_keras

D = 24


def draw(n, names=("negative", "positive"), seed=0, noise=1.0):
    """Return embeddings float32 (n, D) in which each class has a direction, and class names."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(len(names), size=n)
    X = noise * rng.normal(size=(n, D))
    X[np.arange(n), codes] += 2.0
    return X.astype(np.float32), np.array(names)[codes]


@pytest.fixture(scope="module")
def data():
    X, y = draw(600)
    return (X[:400], y[:400]), (X[400:], y[400:])


def validation(part):
    return dict(zip(("X_val", "y_val"), part, strict=True))


def quick(**settings):
    return DenseHead(**{"epochs": 6, **settings})


BOTH = pytest.mark.parametrize("head", [quick(), LogisticHead(C=0.1)], ids=["dense", "logistic"])


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_a_dense_head_is_a_function_of_data_parameters_and_seed(data):
    def fitted(**settings):
        return quick(**settings).fit(*data[0], **validation(data[1])).predict_proba(data[1][0])

    assert sha256(fitted()) == sha256(fitted())
    changes = [{}, {"random_state": 1}, {"l2": 0.1}, {"dropout": 0.1}, {"learning_rate": 0.01}]
    changes += [{"batch_size": 50}, {"hidden": ()}, {"standardize": True}]
    results = [fitted(**change) for change in changes]
    assert len({sha256(p) for p in results}) == len(changes)


def test_a_random_state_is_used_up_and_none_is_the_global_one(data):
    shared = np.random.RandomState(3)
    first, second, again = (
        quick(epochs=1, random_state=state).fit(*data[0]).predict_proba(data[1][0])
        for state in (shared, shared, np.random.RandomState(3))
    )
    assert sha256(first) == sha256(again) != sha256(second)
    np.random.seed(5)  # noqa: NPY002
    by_global = quick(epochs=1, random_state=None).fit(*data[0]).predict_proba(data[1][0])
    as_well = quick(epochs=1, random_state=np.random.RandomState(5)).fit(*data[0])
    assert sha256(by_global) == sha256(as_well.predict_proba(data[1][0]))


def test_a_dense_head_without_hidden_layers_is_softmax_regression():
    X, y = draw(400, names=("a", "b", "c"), noise=2.0)
    head = DenseHead(
        hidden=(), l2=0.02, learning_rate=0.02, batch_size=400, epochs=400, patience=400
    ).fit(X, y, X_val=X, y_val=y)
    assert [kernel.shape for kernel, _ in head.layers_] == [(D, 3)]
    # scikit-learn minimises C * the losses' sum + half the squares' sum; its bias, too, is free.
    own = LogisticRegression(C=1 / (2 * 0.02 * 400), max_iter=1000, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), own.predict_proba(X), atol=2e-3)


@BOTH
def test_weights_are_repetitions_and_the_order_of_rows_does_not_matter(head, data):
    X, y = data[0]
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, len(y))
    shuffled = rng.permutation(np.repeat(np.arange(len(y)), weight))
    weighted = clone(head).fit(X, y, sample_weight=weight).predict_proba(X)
    repeated = clone(head).fit(X[shuffled], y[shuffled]).predict_proba(X)
    assert sha256(weighted) == sha256(repeated)
    assert sha256(weighted) != sha256(clone(head).fit(X, y).predict_proba(X))


@BOTH
def test_a_copy_is_never_held_out_of_its_own_training(head):
    # Noise, each row three times: a head that had seen a held-out row's copy would know its class.
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(200, 100)), 3, axis=0)
    y = np.repeat(rng.integers(0, 2, 200), 3)
    head = clone(head).set_params(**({"C": "auto"} if head.name == "logistic" else {"epochs": 40}))
    for tried in head.fit(X, y).history_:
        # Chance is 0.693.
        assert tried.get("val_log_loss", tried.get("val_loss")) > 0.66


@BOTH
def test_sample_weights_count_in_fit_validation_and_score(head, data):
    X, y = data[0]
    heavy = np.where(y == "positive", 50.0, 1.0)
    assert (clone(head).fit(X, y, heavy).predict(X) == "positive").mean() > 0.55
    weights = np.random.default_rng(0).uniform(0, 2, len(data[1][1]))
    fitted = clone(head).fit(X, y, **validation(data[1]), sample_weight_val=weights)
    scored = fitted.score(*data[1], sample_weight=weights)
    expected = accuracy_score(data[1][1], fitted.predict(data[1][0]), sample_weight=weights)
    assert scored == expected
    last = fitted.history_[fitted.best_epoch_ - 1 if head.name == "dense" else -1]
    loss = log_loss(data[1][1], fitted.predict_proba(data[1][0]), sample_weight=weights)
    penalty = 1e-3 * sum((kernel**2).sum() for kernel, _ in fitted.layers_)
    told = last["val_loss"] - penalty if head.name == "dense" else last["val_log_loss"]
    assert told == pytest.approx(loss, rel=1e-5)


def test_class_weights_weigh_the_loss_of_their_classes(data):
    X, y = data[0]
    weights = {"positive": 3.0}  # the other one weighs 1
    own = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight=weights))
    own.fit(X.astype(np.float64), y)
    head = LogisticHead(C=0.1, class_weight=weights).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), own.predict_proba(X), atol=1e-5)

    # Within a dense head's loss they are sample weights, but for the scale, which counts against
    # the L2 alone: without it Adam takes the same steps.
    dense = quick(l2=0.0, class_weight=weights).fit(X, y, **validation(data[1]))
    heavy = [np.where(part[1] == "positive", 3.0, 1.0) for part in data]
    by_sample = quick(l2=0.0).fit(X, y, heavy[0], **validation(data[1]), sample_weight_val=heavy[1])
    np.testing.assert_allclose(dense.predict_proba(X), by_sample.predict_proba(X), atol=1e-3)
    plain = quick(l2=0.0).fit(X, y, **validation(data[1]))
    assert np.abs(dense.predict_proba(X) - plain.predict_proba(X)).max() > 0.1


@pytest.mark.parametrize("make", [quick, LogisticHead])
def test_balanced_weights_raise_the_rare_classs_recall(make):
    X, y = draw(900, noise=2.5)
    rows = np.r_[np.flatnonzero(y == "positive")[:60], np.flatnonzero(y == "negative")]
    recall = {
        weight: recall_score(
            y[rows],
            make(class_weight=weight).fit(X[rows], y[rows]).predict(X[rows]),
            pos_label="positive",
        )
        for weight in (None, "balanced")
    }
    assert recall["balanced"] > recall[None] + 0.2


def test_standardizing_is_the_scalers_work_folded_into_the_first_layer(data):
    X = data[0][0] * np.logspace(-3, 3, D) + 100.0
    head = quick(standardize=True).fit(X, data[0][1])
    assert head.score(X, data[0][1]) > 0.8
    outside = quick().fit(StandardScaler().fit_transform(X), data[0][1])
    assert outside.history_[-1]["loss"] == pytest.approx(head.history_[-1]["loss"], abs=0.1)


def test_nothing_but_the_fit_of_a_dense_head_needs_tensorflow(data, tmp_path):
    quick(epochs=1).fit(*data[0]).save(tmp_path / "dense.keras")
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(data))
    script = (
        "import pickle, sys; from fer_features import DenseHead, LogisticHead, load_head\n"
        "(X, y), (Xv, yv) = pickle.load(open('data.pickle', 'rb'))\n"
        "head = LogisticHead().fit(X, y, X_val=Xv, y_val=yv)\n"
        "head.save('head.keras')\n"
        "assert (load_head('head.keras').predict_proba(Xv) == head.predict_proba(Xv)).all()\n"
        "dense = load_head('dense.keras')\n"
        "dense.predict_proba(Xv), dense.save('again.keras'), DenseHead().check_parameters()\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_progress_is_told_of_every_epoch_and_of_every_c(data):
    told = []
    head = quick().fit(*data[0], progress=lambda *seen: told.append(seen))
    assert [seen[:2] for seen in told] == [(epoch, 6) for epoch in range(1, 7)]
    assert told[-1][2]["val_loss"] == head.history_[-1]["val_loss"]
    told.clear()
    head = LogisticHead().fit(*data[0], progress=lambda *seen: told.append(seen))
    assert [seen[:2] for seen in told] == [(c, 7) for c in range(1, len(head.history_) + 1)]


def test_the_logistic_head_is_scikit_learns_at_the_c_with_the_lowest_validation_loss():
    X, y = draw(320, noise=3.0)
    data = (X[:120], y[:120]), (X[120:], y[120:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = LogisticHead().fit(*data[0], **validation(data[1]))
    losses = {tried["C"]: tried["val_log_loss"] for tried in head.history_}
    # It went up in powers of ten, and no further than the first that was worse.
    assert list(losses) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert head.C_ == 1e-1
    assert min(losses, key=losses.get) == head.C_
    own = make_pipeline(StandardScaler(), LogisticRegression(C=head.C_, max_iter=5000))
    own.fit(data[0][0].astype(np.float64), data[0][1])
    expected = own.predict_proba(data[1][0].astype(np.float64))
    np.testing.assert_allclose(head.predict_proba(data[1][0]), expected, atol=1e-9)
    assert losses[head.C_] == pytest.approx(log_loss(data[1][1], expected), abs=1e-9)


@BOTH
def test_log_probabilities_are_finite_where_probabilities_are_not(head, data):
    fitted = clone(head).fit(*data[0])
    X = data[1][0].astype(np.float64)
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(fitted.predict_proba(X)))
    far = fitted.predict_log_proba(1e5 * X)
    assert np.isfinite(far).all()
    assert (fitted.predict_proba(1e5 * X) == 0).any()


@BOTH
def test_scikit_learns_tools_take_the_heads(head, data):
    X, y = data[0]
    assert clone(head).get_params() == head.get_params()
    assert cross_val_score(make_pipeline(StandardScaler(), head), X, y, cv=2).min() > 0.65
    search = GridSearchCV(head, {"random_state": [0, 1]}, cv=2).fit(X, y)
    assert type(search.best_estimator_) is type(head)
    for tool in (
        CalibratedClassifierCV(head, cv=2),
        AdaBoostClassifier(head, n_estimators=3),
        BaggingClassifier(head, n_estimators=3, random_state=0),
        StackingClassifier([("head", head)], cv=2),
        make_pipeline(PCA(8, random_state=0), head),
    ):
        assert tool.fit(X, y).score(*data[1]) > 0.75, tool


@BOTH
def test_named_columns_pass_through_a_pipeline_and_their_order_is_checked(head, data):
    frame = pd.DataFrame(data[0][0], columns=[f"e{i}" for i in range(D)])
    pipeline = make_pipeline(StandardScaler(), clone(head)).set_output(transform="pandas")
    pipeline.fit(frame, data[0][1])
    assert list(pipeline[-1].feature_names_in_) == list(frame)
    assert pipeline.score(frame, data[0][1]) > 0.7
    fitted = clone(head).fit(frame, data[0][1], X_val=frame, y_val=data[0][1])
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[list(frame)[::-1]])


@pytest.mark.parametrize("names", [("no", "yes"), ("anger", "fear", "sadness"), (3, 5, 9)])
@pytest.mark.parametrize("make", [quick, lambda: quick(hidden=()), lambda: LogisticHead(C=0.01)])
def test_a_saved_head_read_back_knows_itself_and_gives_the_same_probabilities(
    names, make, tmp_path
):
    X, y = draw(300, names=names)
    head = make().fit(X, y)
    head.save(tmp_path / "head.keras", fingerprint="f" * 64, features="final")
    back = load_head(tmp_path / "head.keras")
    assert type(back) is Head
    assert (back.fingerprint_, back.features_) == ("f" * 64, "final")
    assert back.classes_.tolist() == list(names)
    assert back.n_features_in_ == D
    assert sha256(back.predict_proba(X)) == sha256(head.predict_proba(X))
    np.testing.assert_array_equal(back.predict(X), head.predict(X))

    keras = import_keras()
    model = keras.models.load_model(tmp_path / "head.keras", compile=False, safe_mode=True)
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    said = model.predict(X.astype(np.float64), verbose=0)
    np.testing.assert_allclose(said, head.predict_proba(X), atol=1e-12)


def test_equal_heads_make_equal_files_and_leave_nothing_beside_them(data, tmp_path):
    for name in ("a.keras", "b.keras", "b.keras"):
        LogisticHead(C=1.0).fit(*data[0]).save(tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "b.keras"]


BESIDE_KERAS = ["numpy<2.1", "jax==0.4.35", "jaxlib==0.4.35", "scipy<1.15"]
"""What its NumPy backend wants beside an older Keras."""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.5.0", "3.10.0"])
def test_older_supported_kerases_read_a_head_and_say_the_same(data, tmp_path, version):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    python = tmp_path / "old" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, f"keras=={version}", *BESIDE_KERAS], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(
            f"pip cannot install Keras {version}: {installed.stderr.strip().splitlines()[-1]}"
        )
    X = data[1][0].astype(np.float64)
    np.save(tmp_path / "X.npy", X)
    heads = {"dense": quick(), "softmax": quick(hidden=()), "logistic": LogisticHead(C=0.1)}
    for name, head in heads.items():
        head.fit(*data[0]).save(tmp_path / f"{name}.keras", fingerprint="f", features="final")
    script = (
        "import sys, keras, numpy as np\n"
        f"assert keras.__version__ == '{version}'\n"
        "for name in sys.argv[1:]:\n"
        "    model = keras.models.load_model(f'{name}.keras', compile=False, safe_mode=True)\n"
        "    np.save(f'{name}.npy', model.predict(np.load('X.npy'), verbose=0))\n"
    )
    subprocess.run(
        [python, "-c", script, *heads],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    for name, head in heads.items():
        said = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(said, head.predict_proba(X), atol=1e-12)


def test_the_saved_logistic_head_is_scikit_learns_on_features_of_any_spread(tmp_path):
    X, y = draw(300)
    X = (X * np.logspace(-5, 3, D) + 5.0).astype(np.float32).astype(np.float64)
    X[:, 4] = 1.0
    head = LogisticHead(C=1.0).fit(X, y)
    own = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(X, y)
    head.save(tmp_path / "head.keras")
    back = load_head(tmp_path / "head.keras")
    np.testing.assert_allclose(back.predict_proba(X), own.predict_proba(X), atol=1e-6)


def test_a_file_that_is_no_head_is_one_line(tmp_path, data):
    LogisticHead(C=1.0).fit(*data[0]).save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(good["head.json"])

    def changed(name, **members):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in {**good, **members}.items():
                if content is not None:
                    archive.writestr(member, content)

    (tmp_path / "text.keras").write_text("no head")
    whole = (tmp_path / "good.keras").read_bytes()
    (tmp_path / "short.keras").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # within the weights
    (tmp_path / "flipped.keras").write_bytes(flipped)
    changed("other.keras", **{"config.json": None})
    changed("plain.keras", **{"head.json": None})
    changed("weights.keras", **{"model.weights.h5": b"no HDF5"})
    changed("later.keras", **{"head.json": json.dumps(about | {"format_version": 2})})
    changed("classes.keras", **{"head.json": json.dumps(about | {"classes": ["a", "b", "c"]})})
    weights = io.BytesIO(good["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file["layers/dense/vars/1"][0] = np.nan
    changed("nan.keras", **{"model.weights.h5": weights.getvalue()})
    changed("deep.keras", **{"head.json": "[" * 100_000})
    cases = {
        "nan.keras": "weights that are not finite",
        "deep.keras": "damaged or no head",
        "absent.keras": "No such file",
        "text.keras": "no Keras archive",
        "short.keras": "no Keras archive",
        "flipped.keras": "damaged",
        "other.keras": "no Keras archive",
        "plain.keras": r"without head\.json",
        "weights.keras": "damaged or no head",
        "later.keras": "version 2, expected fer-features/head, version 1",
        "classes.keras": "does not fit the weights",
    }
    for name, message in cases.items():
        with pytest.raises(RunError, match=message) as caught:
            load_head(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)


def test_a_head_that_cannot_be_written_is_one_line(tmp_path, data):
    head = LogisticHead(C=1.0).fit(*data[0])
    with pytest.raises(RunError, match=r"expected it to end in \.keras"):
        head.save(tmp_path / "head.h5")
    with pytest.raises(RunError, match="cannot be written"):
        head.save(tmp_path / "absent" / "head.keras")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (DenseHead(hidden=(8, 0)), r"DenseHead: hidden=\(8, 0\), expected whole numbers"),
        (DenseHead(hidden=8), "hidden=8"),
        (DenseHead(l2=-1), "l2=-1, expected a number of at least 0"),
        (DenseHead(dropout=1), "dropout=1, expected a number from 0 to below 1"),
        (DenseHead(learning_rate=float("nan")), "learning_rate=nan"),
        (DenseHead(batch_size=1.5), "batch_size=1.5"),
        (DenseHead(epochs=True), "epochs=True"),
        (DenseHead(patience=-1), "patience=-1"),
        (DenseHead(random_state=-1), "random_state=-1"),
        (DenseHead(class_weight={"positive": float("nan")}), "class_weight={'positive': nan}"),
        (LogisticHead(class_weight={"positive": -1}), "class_weight={'positive': -1}"),
        (LogisticHead(class_weight={"sad": 2}), "class_weight has the class 'sad', expected only"),
        (DenseHead(class_weight={"sad": 2}), "class_weight has the class 'sad', expected only"),
        (DenseHead(class_weight={"negative": 0, "positive": 0}), "0 for every class"),
        (LogisticHead(C=0), "LogisticHead: C=0, expected 'auto' or a number above 0"),
        (LogisticHead(C="best"), "C='best'"),
        (LogisticHead(validation_fraction=1), "validation_fraction=1"),
        (LogisticHead(class_weight="even"), "class_weight='even'"),
    ],
)
def test_a_bad_parameter_is_named_by_fit_not_before(head, message, data):
    with pytest.raises(ValueError, match=message) as caught:
        head.fit(*data[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", HEADS.values())
def test_unfit_data_is_named(head, data):
    (X, y), (Xv, yv) = data
    with pytest.raises(ValueError, match="X_val has 3 features, expected 24"):
        head().fit(X, y, X_val=Xv[:, :3], y_val=yv)
    with pytest.raises(ValueError, match="the class 'sad', expected training's"):
        head().fit(X, y, X_val=Xv, y_val=np.where(yv == "positive", "sad", yv))
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        head().fit(X, y, X_val=Xv)
    with pytest.raises(ValueError, match="1 class, expected two or more"):
        head().fit(X, np.full(len(X), "positive"))
    with pytest.raises(ValueError, match="no class has two distinct rows"):
        head().fit(X[[0, 0, 1, 1]], ["a", "a", "b", "b"])
    for bad, message in [(np.nan, "sample_weight contains NaN"), (-1.0, "sample_weight holds -1")]:
        weights = np.ones(len(y))
        weights[3] = bad
        with pytest.raises(ValueError, match=message):
            head().fit(X, y, weights)
        with pytest.raises(ValueError, match=message.replace("weight", "weight_val")):
            head().fit(X, y, X_val=X, y_val=y, sample_weight_val=weights)
    broken = X.copy()
    broken[5, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        head().fit(broken, y)


@pytest.mark.parametrize(
    ("settings", "factor", "message"),
    [
        ({"learning_rate": 1e30}, 1, r"diverged in epoch 1 .* learning_rate=1e\+30, l2=0.001"),
        ({"l2": 1e38}, 1, r"l2=1e\+38"),
        ({}, 1e37, r"embeddings of up to \d\.\d+e\+37"),
    ],
)
def test_training_that_diverges_says_so_with_what_may_have_caused_it(
    settings, factor, message, data
):
    X = np.float32(factor) * data[0][0]
    with pytest.raises(ValueError, match=message):
        quick(**settings).fit(X, data[0][1])
