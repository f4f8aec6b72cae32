"""The heads: what they learn, that they repeat to the bit, and that files keep them."""

import hashlib
import pickle
import random
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_features.errors import RunError
from fer_features.experiment import training
from fer_features.experiment.heads import HEADS, DenseHead, LogisticHead, load_head
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


def quick(**settings):
    return DenseHead(**{"epochs": 6, **settings})


def prepared(head, n_features=1536, n_classes=2):
    head.classes_, head.n_features_in_ = np.arange(n_classes), n_features
    return training.prepared_model(head._network(), seed=3)


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_the_dense_head_is_the_seeds_network():
    model = prepared(DenseHead())
    assert model.count_params() == 205_057
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    assert kinds == ["Dense", "VariableDropout", "Dense", "Dense"]
    dense = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert [layer.units for layer in dense] == [128, 64, 1]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "sigmoid"]
    assert [round(float(layer.kernel_regularizer.l2), 9) for layer in dense] == [0.001] * 3
    assert all(layer.bias_regularizer is None for layer in dense)
    assert float(model.layers[2].rate) == 0.5
    assert isinstance(model.optimizer, import_keras().optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)
    settings = DenseHead().get_params()
    assert (settings["batch_size"], settings["epochs"], settings["patience"]) == (128, 50, 10)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_an_epoch_in_one_step_ends_at_the_weights_of_plain_keras_fit(n_classes):
    keras = import_keras()
    X, y = draw(150, names=range(n_classes))
    y = y.astype(np.float32)[:, None]
    settings = {"l2": 0.01, "dropout": 0.3, "learning_rate": 0.002, "batch_size": 32}
    ours = prepared(DenseHead(hidden=(16, 8), **settings), D, n_classes)
    l2 = keras.regularizers.L2(0.01)
    plain = keras.Sequential(
        [
            keras.layers.Dense(16, activation="relu", kernel_regularizer=l2),
            keras.layers.Dropout(0.3, seed=0),
            keras.layers.Dense(8, activation="relu", kernel_regularizer=l2),
            keras.layers.Dense(
                ours.output_shape[1], activation=ours.layers[-1].activation, kernel_regularizer=l2
            ),
        ]
    )
    plain.build((None, D))
    plain.compile(optimizer=keras.optimizers.Adam(0.002), loss=ours.loss, jit_compile=False)
    plain.set_weights(ours.get_weights())
    plain.layers[1].seed_generator.state.assign(ours.layers[2].seed_generator.state)
    order = keras.random.SeedGenerator(0)
    order.state.assign(ours.order.state)
    rows = training.endlessly(training.Examples(X, y))
    told = ours.fit(rows, steps_per_epoch=1, epochs=4, verbose=0, shuffle=False).history
    for epoch in range(4):
        shuffled = np.asarray(keras.random.shuffle(np.arange(150, dtype=np.int32), seed=order))
        batches = {"batch_size": 32, "shuffle": False, "verbose": 0}
        (loss,) = plain.fit(X[shuffled], y[shuffled], **batches).history["loss"]
        assert told["loss"][epoch] == pytest.approx(loss, rel=1e-5)
    for mine, keras_own in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-5, atol=1e-6)


def test_training_stops_after_patience_and_keeps_the_best_epochs_weights(data):
    # Pure noise: the validation loss soon turns.
    rng = np.random.default_rng(1)
    y = rng.permutation(data[0][1])
    head = DenseHead(l2=1e-4, dropout=0.2, patience=3, learning_rate=0.005)
    head.fit(data[0][0], y, validation=data[1])
    losses = [epoch["val_loss"] for epoch in head.history_]
    assert head.best_epoch_ == 1 + int(np.argmin(losses))
    assert head.n_epochs_ == len(losses) == head.best_epoch_ + 3 < 50
    penalty = 1e-4 * sum((kernel**2).sum() for kernel, _ in head.layers_)
    kept = log_loss(data[1][1], head.predict_proba(data[1][0])) + penalty
    assert kept == pytest.approx(min(losses), rel=1e-5)


def test_a_head_is_a_function_of_data_parameters_and_seed(data, tmp_path):
    first = quick().fit(*data[0], validation=data[1]).predict_proba(data[1][0])
    other_seed = quick(seed=1).fit(*data[0], validation=data[1]).predict_proba(data[1][0])
    fewer = quick(dropout=0.1).fit(data[0][0][:300], data[0][1][:300])
    again = quick().fit(*data[0], validation=data[1]).predict_proba(data[1][0])
    assert sha256(first) == sha256(again)
    assert np.abs(first - other_seed).max() > 1e-3
    assert fewer.n_epochs_ == 6

    (tmp_path / "data.pickle").write_bytes(pickle.dumps(data))
    script = (
        "import pickle, sys, hashlib; from fer_features.experiment.heads import DenseHead\n"
        "train, held = pickle.load(open(sys.argv[1], 'rb'))\n"
        "p = DenseHead(epochs=6).fit(*train, validation=held).predict_proba(held[0])\n"
        "print(hashlib.sha256(p.tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sha256(first)


def test_the_validation_loss_is_a_default_keras_fits_within_the_spread_of_seeds(data):
    keras = import_keras()
    (X, y), (X_held, y_held) = data
    best: dict[str, list[float]] = {"keras": [], "ours": []}
    for seed in range(4):
        keras.utils.set_random_seed(seed)
        l2 = keras.regularizers.L2(1e-3)
        layers = [keras.layers.Dense(16, activation="relu", kernel_regularizer=l2)]
        layers += [keras.layers.Dropout(0.5), keras.layers.Dense(8, "relu", kernel_regularizer=l2)]
        layers += [keras.layers.Dense(1, "sigmoid", kernel_regularizer=l2)]
        plain = keras.Sequential(layers)
        plain.compile("adam", "binary_crossentropy")
        held = (X_held, (y_held == "positive").astype(np.float32))
        told = plain.fit(
            X, (y == "positive").astype(np.float32), validation_data=held,
            batch_size=32, epochs=30, verbose=0,
        ).history  # fmt: skip
        best["keras"].append(min(told["val_loss"]))
        head = DenseHead(hidden=(16, 8), batch_size=32, epochs=30, patience=30, seed=seed)
        head.fit(X, y, validation=(X_held, y_held))
        best["ours"].append(min(entry["val_loss"] for entry in head.history_))
    spread = max(np.ptp(losses) for losses in best.values())
    assert abs(np.mean(best["keras"]) - np.mean(best["ours"])) <= spread
    assert max(map(max, best.values())) < 0.6  # both have learnt: chance is 0.69 and the penalty


def test_fitting_leaves_the_global_random_states_alone(data):
    tf = pytest.importorskip("tensorflow")
    python, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    tf.random.set_seed(5)
    expected = tf.random.uniform((3,)).numpy()
    tf.random.set_seed(5)
    quick(hidden=(12,), epochs=2).fit(*data[0])
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    np.testing.assert_array_equal(tf.random.uniform((3,)).numpy(), expected)


def test_one_shape_is_traced_once_and_no_fit_leaves_a_trace_in_the_next(data, monkeypatch):
    traced = []
    model_class = training.epoch_model_class()
    train_step = model_class.train_step
    monkeypatch.setattr(
        model_class, "train_step", lambda self, rows: traced.append(1) or train_step(self, rows)
    )

    def fit(n=400, **settings):
        head = quick(hidden=(9,), epochs=2, **settings).fit(data[0][0][:n], data[0][1][:n])
        return sha256(head.predict_proba(data[1][0])), head.history_

    changes = [
        {},
        {"n": 250, "seed": 1},
        {"l2": 0.1},
        {"dropout": 0.1},
        {"learning_rate": 0.01},
        {"batch_size": 50},
    ]
    with pytest.raises(ValueError, match="diverged"):
        fit(learning_rate=1e30)
    together = [fit(**change) for change in changes]
    assert len(traced) == 1
    assert len({probabilities for probabilities, _ in together}) == len(changes)
    for change, result in zip(changes, together, strict=True):
        training.compiled_model.cache_clear()
        assert fit(**change) == result
    assert len(traced) == 1 + len(changes)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.77])
def test_a_variable_rate_drops_and_scales_as_keras_does_to_the_bit(rate):
    keras = import_keras()
    X = draw(50)[0]
    ours = prepared(DenseHead(dropout=rate), D).layers[2]
    plain = keras.layers.Dropout(rate, seed=0)
    ours.seed_generator.state.assign(plain.seed_generator.state)
    dropped = np.asarray(ours(X, training=True))
    assert 0 < (dropped == 0).mean() < 1
    np.testing.assert_array_equal(dropped, np.asarray(plain(X, training=True)))
    np.testing.assert_array_equal(np.asarray(ours(X)), X)


def test_many_shapes_in_one_process_draw_no_advice_from_tensorflow(data, tmp_path):
    # A process of its own: TensorFlow gives this advice twice in one, and is silent from then on.
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(data[0]))
    script = (
        "import pickle, sys; from fer_features.experiment.heads import DenseHead\n"
        "train = pickle.load(open(sys.argv[1], 'rb'))\n"
        "for units in range(3, 9): DenseHead(hidden=(units,), epochs=1).fit(*train)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "WARNING:tensorflow" not in done.stderr


def test_a_fitted_head_predicts_without_tensorflow(data, tmp_path):
    head = quick().fit(*data[0])
    (tmp_path / "head.pickle").write_bytes(pickle.dumps((head, data[1][0])))
    script = (
        "import pickle, sys, hashlib; head, X = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(hashlib.sha256(head.predict_proba(X).tobytes()).hexdigest())\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "head.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sha256(head.predict_proba(data[1][0]))
    assert head.predict_proba(data[1][0]).dtype == np.float64


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
        head = LogisticHead().fit(*data[0], validation=data[1])
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


@pytest.mark.parametrize("names", [("no", "yes"), ("anger", "fear", "sadness")])
@pytest.mark.parametrize("make", [quick, lambda: LogisticHead(C=0.01)])
def test_a_saved_head_read_back_gives_the_same_probabilities(names, make, tmp_path):
    X, y = draw(300, names=names)
    head = make().fit(X, y)
    head.save(tmp_path / "head.keras")
    back = load_head(tmp_path / "head.keras", head.classes_)
    np.testing.assert_allclose(back.predict_proba(X), head.predict_proba(X), atol=1e-12)
    np.testing.assert_array_equal(back.predict(X), head.predict(X))

    model = import_keras().models.load_model(tmp_path / "head.keras", compile=False)
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    for dtype in (np.float32, np.float64):
        said = model.predict(X.astype(dtype), verbose=0)
        np.testing.assert_allclose(said, head.predict_proba(X), atol=1e-9)


def test_the_saved_logistic_head_is_scikit_learns_on_features_of_any_spread(tmp_path):
    X, y = draw(300)
    X = (X * np.logspace(-5, 3, D) + 5.0).astype(np.float32).astype(np.float64)
    X[:, 4] = 1.0
    head = LogisticHead(C=1.0).fit(X, y)
    own = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(X, y)
    head.save(tmp_path / "head.keras")
    model = import_keras().models.load_model(tmp_path / "head.keras", compile=False)
    np.testing.assert_allclose(model.predict(X, verbose=0), own.predict_proba(X), atol=1e-6)


def test_a_file_that_is_no_head_is_one_line(tmp_path, data):
    (tmp_path / "text.keras").write_text("no head")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("notes.txt", "no head")
    with zipfile.ZipFile(tmp_path / "damaged.keras", "w") as archive:
        archive.writestr("config.json", "{")
        archive.writestr("model.weights.h5", "")
    keras = import_keras()
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "linear.keras")
    LogisticHead(C=1.0).fit(*data[0]).save(tmp_path / "two.keras")
    cases = {
        "absent.keras": "No such file",
        "text.keras": "no Keras archive",
        "other.keras": "no Keras archive",
        "damaged.keras": "damaged or no head",
        "linear.keras": "expected Dense layers, relu then softmax",
        "two.keras": "a head of 2 classes, expected 3",
    }
    for name, message in cases.items():
        with pytest.raises(RunError, match=message) as caught:
            load_head(tmp_path / name, ["a", "b", "c"])
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)


def test_a_head_that_cannot_be_written_is_one_line(tmp_path, data):
    head = LogisticHead(C=1.0).fit(*data[0])
    with pytest.raises(RunError, match=r"expected it to end in \.keras"):
        head.save(tmp_path / "head.h5")
    with pytest.raises(RunError, match="cannot be written"):
        head.save(tmp_path / "absent" / "head.keras")


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


@pytest.mark.parametrize("head", [quick(epochs=3), LogisticHead(C=0.1)])
def test_scikit_learns_tools_take_the_heads(head, data):
    X, y = data[0]
    assert clone(head).get_params() == head.get_params()
    assert cross_val_score(make_pipeline(StandardScaler(), head), X, y, cv=2).min() > 0.7
    search = GridSearchCV(head, {"seed": [0, 1]}, cv=2).fit(X, y)
    assert type(search.best_estimator_) is type(head)
    calibrated = CalibratedClassifierCV(head, cv=2).fit(X, y)
    assert calibrated.score(*data[1]) > 0.7


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (DenseHead(hidden=()), r"DenseHead: hidden=\(\), expected one or more whole numbers"),
        (DenseHead(hidden=(8, 0)), r"hidden=\(8, 0\)"),
        (DenseHead(l2=-1), "l2=-1, expected a number of at least 0"),
        (DenseHead(dropout=1), "dropout=1, expected a number from 0 to below 1"),
        (DenseHead(learning_rate=float("nan")), "learning_rate=nan"),
        (DenseHead(batch_size=1.5), "batch_size=1.5"),
        (DenseHead(epochs=True), "epochs=True"),
        (DenseHead(patience=-1), "patience=-1"),
        (DenseHead(seed=None), "seed=None"),
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
    with pytest.raises(ValueError, match="validation has 3 features, expected 24"):
        head().fit(X, y, validation=(Xv[:, :3], yv))
    with pytest.raises(ValueError, match="the class 'sad', expected training's"):
        head().fit(X, y, validation=(Xv, np.where(yv == "positive", "sad", yv)))
    with pytest.raises(ValueError, match="1 class, expected two or more"):
        head().fit(X, np.full(len(X), "positive"))
    with pytest.raises(ValueError, match="1 of the smallest class, too few"):
        head().fit(X[:9], ["a"] * 8 + ["b"])


def test_training_that_diverges_is_an_error(data):
    with pytest.raises(ValueError, match="diverged with learning_rate=1e\\+30"):
        quick(learning_rate=1e30, epochs=3).fit(*data[0])
