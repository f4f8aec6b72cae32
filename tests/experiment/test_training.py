"""The dense head's training is Keras's own, and nothing outside its arguments changes it."""

import hashlib
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_info, threadpool_limits

from fer_features.experiment import training
from fer_features.experiment.heads import DenseHead, LogisticHead
from fer_features.experiment.training import Examples, Network, Trainer, start
from fer_features.runtimes import import_keras, one_blas_thread


def draw(n, d=24, k=2, seed=0):
    """Return embeddings float32 (n, d) in which each class has a direction, and codes (n,)."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(k, size=n)
    X = rng.normal(size=(n, d))
    X[np.arange(n), codes] += 2.0
    return X.astype(np.float32), codes


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def keras_twin(network, fresh):
    """Return the network as anyone would write it in Keras, compiled, with the same start."""
    keras = import_keras()
    seeds = [each.seed for each in fresh.model.layers if isinstance(each, keras.layers.Dropout)]
    l2 = keras.regularizers.L2(network.l2)
    layers = [keras.Input((network.n_features,))]
    for position, units in enumerate(network.hidden):
        layers.append(keras.layers.Dense(units, "relu", kernel_regularizer=l2))
        if position == 0:
            layers.append(keras.layers.Dropout(network.dropout, seed=seeds[0]))
    two = network.n_outputs == 1
    last = "sigmoid" if two else "softmax"
    layers.append(keras.layers.Dense(network.n_outputs, last, kernel_regularizer=l2))
    twin = keras.Sequential(layers)
    twin.set_weights([variable.numpy() for variable in fresh.model.trainable_variables])
    loss = "binary_crossentropy" if two else "sparse_categorical_crossentropy"
    adam = keras.optimizers.Adam(network.learning_rate)
    twin.compile(adam, loss, metrics=["accuracy"], jit_compile=False)
    return twin


def test_the_defaults_are_the_originals_network():
    head = DenseHead()
    assert (head.hidden, head.l2, head.dropout, head.learning_rate) == ((128, 64), 1e-3, 0.5, 1e-3)
    assert (head.batch_size, head.epochs, head.patience) == (128, 50, 10)
    network = Network(1536, 1, head.hidden, head.l2, head.dropout, head.learning_rate, 128)
    fresh = start(import_keras(), network, 0)
    assert fresh.model.count_params() == keras_twin(network, fresh).count_params() == 205_057
    weights = fresh.model.get_weights()
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        limit = np.sqrt(6 / sum(kernel.shape))
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        assert not bias.any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("hidden", "dropout"), [((), 0.0), ((16,), 0.0), ((16, 8), 0.3)])
def test_an_epoch_ends_at_the_weights_of_plain_keras_fit(hidden, dropout, k, weighted):
    keras = import_keras()
    rows, codes = draw(300, k=k)
    rng = np.random.default_rng(1)
    places = rng.permutation(300)[:150]
    X, codes = rows[places], codes[places]
    weight = (rng.uniform(0, 3, 150) if weighted else np.ones(150)).astype(np.float32)
    held, held_codes = draw(2500, k=k, seed=5)
    held_weight = (rng.uniform(0, 3, 2500) if weighted else np.ones(2500)).astype(np.float32)
    network = Network(24, 1 if k == 2 else k, hidden, 0.01, dropout, 0.002, 32)
    fresh = start(keras, network, 7)
    plain = keras_twin(network, fresh)
    ours = Trainer(network)
    ours.start(
        network,
        Examples(rows, places, codes, weight),
        Examples(held, np.arange(2500), held_codes, held_weight),
        7,
    )
    for _ in range(3):
        (loss, accuracy, *evaluated), weights = ours.epoch()
        order = keras.ops.convert_to_numpy(keras.random.shuffle(np.arange(150), seed=fresh.order))
        told = plain.fit(
            X[order], codes[order].astype(np.float32), sample_weight=weight[order],
            batch_size=32, shuffle=False, verbose=0,
        ).history  # fmt: skip
        assert loss == pytest.approx(told["loss"][0], rel=1e-5)
        assert accuracy == pytest.approx(told["accuracy"][0])
        keras_own = plain.evaluate(
            held, held_codes.astype(np.float32), sample_weight=held_weight, batch_size=2500,
            verbose=0,
        )  # fmt: skip
        assert evaluated == pytest.approx(keras_own, rel=1e-5)
        for mine, keras_weights in zip(weights, plain.get_weights(), strict=True):
            np.testing.assert_allclose(mine, keras_weights, rtol=1e-5, atol=1e-6)


def test_training_stops_after_patience_and_keeps_the_best_epochs_weights():
    # Pure noise: the validation loss soon turns.
    (X, codes), (X_val, y_val) = draw(400), draw(200, seed=1)
    y = np.random.default_rng(1).permutation(codes)
    head = DenseHead(l2=1e-4, dropout=0.2, patience=3, learning_rate=0.005)
    head.fit(X, y, X_val=X_val, y_val=y_val)
    losses = [epoch["val_loss"] for epoch in head.history_]
    assert head.best_epoch_ == 1 + int(np.argmin(losses))
    assert head.n_epochs_ == len(losses) == head.best_epoch_ + 3 < 50
    keras = import_keras()
    stop = keras.callbacks.EarlyStopping(patience=3, mode="min", restore_best_weights=True)
    stop.set_model(keras.Sequential())
    stop.on_train_begin()
    for epoch, loss in enumerate(losses):
        stop.on_epoch_end(epoch, {"val_loss": loss})
    assert (stop.best_epoch + 1, stop.stopped_epoch + 1) == (head.best_epoch_, head.n_epochs_)
    penalty = 1e-4 * sum((kernel**2).sum() for kernel, _ in head.layers_)
    assert log_loss(y_val, head.predict_proba(X_val)) + penalty == pytest.approx(min(losses))


def test_the_validation_loss_is_a_default_keras_fits_within_the_spread_of_seeds():
    keras = import_keras()
    (X, y), (X_val, y_val) = draw(400), draw(200, seed=1)
    best: dict[str, list[float]] = {"keras": [], "ours": []}
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        l2 = keras.regularizers.L2(1e-3)
        layers = [keras.layers.Dense(16, activation="relu", kernel_regularizer=l2)]
        layers += [keras.layers.Dropout(0.5), keras.layers.Dense(8, "relu", kernel_regularizer=l2)]
        layers += [keras.layers.Dense(1, "sigmoid", kernel_regularizer=l2)]
        plain = keras.Sequential(layers)
        plain.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        told = plain.fit(
            X, y.astype(np.float32), validation_data=(X_val, y_val.astype(np.float32)),
            batch_size=100, epochs=20, verbose=0,
        ).history  # fmt: skip
        best["keras"].append(min(told["val_loss"]))
        head = DenseHead(
            hidden=(16, 8), batch_size=100, epochs=20, patience=20, learning_rate=0.01,
            random_state=seed,
        )  # fmt: skip
        head.fit(X, y, X_val=X_val, y_val=y_val)
        best["ours"].append(min(entry["val_loss"] for entry in head.history_))
    spread = max(np.ptp(losses) for losses in best.values())
    assert abs(np.mean(best["keras"]) - np.mean(best["ours"])) <= spread
    assert max(map(max, best.values())) < 0.69  # both have learnt: chance is 0.69 and the penalty


FIT = """
import hashlib
import numpy as np
from fer_features.experiment.heads import DenseHead, LogisticHead
rng = np.random.default_rng(0)
X = rng.normal(size=(700, 1536)).astype(np.float32)
y = rng.integers(0, 3, 700)
X[:, :9] += y[:, None]
for head in (DenseHead(epochs=3), DenseHead(epochs=2, standardize=True), LogisticHead()):
    p = head.fit(X, y, X_val=X[:90], y_val=y[:90]).predict_proba(X)
    print(hashlib.sha256(p.tobytes()).hexdigest())
"""


def hashes_of(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


# Without oneDNN, TensorFlow's own sums depend on threads.
@pytest.mark.parametrize("onednn", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_both_heads_give_the_same_bits_on_any_number_of_threads_and_in_any_process(onednn):
    many = str(max(2, os.cpu_count() or 2))
    several, one = (
        hashes_of(FIT, TF_ENABLE_ONEDNN_OPTS=onednn, **dict.fromkeys(THREADS, number))
        for number in (many, "1")
    )
    assert len(set(several)) == 3
    assert one == several


def test_two_fits_in_threads_are_the_two_fits_one_after_the_other():
    X, y = draw(300, d=1536)
    heads = [DenseHead(epochs=2, random_state=seed) for seed in range(4)] + [LogisticHead()]

    def fitted(head):
        return sha256(type(head)(**head.get_params()).fit(X, y).predict_proba(X))

    alone = [fitted(head) for head in heads]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fitted, heads)) == alone


def test_the_limit_of_one_thread_ends_with_the_last_who_asked():
    def threads():
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        several = threads()  # a library that was built without threads has 1
        assert max(several) == 2
        with one_blas_thread():
            with one_blas_thread():
                assert threads() == {1}
            assert threads() == {1}
        assert threads() == several


@pytest.mark.filterwarnings("ignore:.*run_functions_eagerly:UserWarning:tensorflow")
def test_no_setting_of_keras_changes_a_fit_or_is_changed():
    keras, tf = import_keras(), pytest.importorskip("tensorflow")
    X, y = draw(200)

    def fitted():
        return sha256(DenseHead(epochs=2).fit(X, y).predict_proba(X))

    expected = fitted()
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_epsilon(0.1)
        tf.config.run_functions_eagerly(True)
        strategies = tf.distribute.OneDeviceStrategy("/cpu:0"), tf.distribute.MirroredStrategy()
        for strategy in strategies:
            training._idle.clear()  # what is traced now is traced under these settings
            with strategy.scope(), np.errstate(all="raise"):
                assert fitted() == fitted() == expected
        with tf.Graph().as_default():
            assert fitted() == expected
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert (keras.config.floatx(), keras.config.epsilon()) == ("float16", 0.1)
    finally:
        tf.config.run_functions_eagerly(False)
        keras.config.set_epsilon(1e-7)
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def test_a_fit_does_not_depend_on_earlier_ones_and_few_networks_are_kept():
    X, y = draw(200)

    def fitted(**settings):
        return sha256(DenseHead(epochs=3, **settings).fit(X, y).predict_proba(X))

    training._idle.clear()
    first = fitted()
    with pytest.raises(ValueError, match="diverged"):
        fitted(learning_rate=1e30)
    for settings in ({"l2": 0.1}, {"batch_size": 7}, {"random_state": 1}, {"standardize": True}):
        assert fitted(**settings) != first
    assert fitted() == first
    assert len(training._idle) == 1  # all of them were one trace
    for units in range(training.MOST_KEPT + 1):
        fitted(hidden=(units + 1,))
    assert len(training._idle) == training.MOST_KEPT
    assert fitted() == first


def test_a_fit_within_a_fits_progress_changes_neither():
    X, y = draw(200)
    head = DenseHead(epochs=2)
    alone = sha256(head.fit(X, y).predict_proba(X))
    inner = []
    head.fit(X, y, progress=lambda *_: inner.append(DenseHead(epochs=2).fit(X, y)))
    assert sha256(head.predict_proba(X)) == alone
    assert {sha256(each.predict_proba(X)) for each in inner} == {alone}


def test_fitting_with_a_whole_number_leaves_the_global_random_states_alone():
    X, y = draw(100)
    python, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    DenseHead(epochs=1).fit(X, y)
    LogisticHead().fit(X, y)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


PEAK = """
import tracemalloc
import numpy as np
from fer_features.experiment.heads import DenseHead
X = np.random.default_rng(0).normal(size=(20_000, 600)).astype(np.float32)
y = np.arange(20_000) % 2
for standardize in (False, True):
    head = DenseHead(hidden=(8,), epochs=1, standardize=standardize)
    head.fit(X[:200], y[:200])  # TensorFlow and the trace are no part of what is measured
    tracemalloc.start()
    head.fit(X, y).predict_proba(X)
    print(tracemalloc.get_traced_memory()[1] / X.nbytes)
    tracemalloc.stop()
"""


def test_a_fit_copies_no_embeddings_and_a_standardized_one_copies_them_once():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    plain, standardized = map(float, done.stdout.split())
    assert plain < 0.75
    assert 1 < standardized < 1.75
