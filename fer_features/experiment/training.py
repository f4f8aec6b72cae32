"""The dense head's network and its training: Keras's own parts, an epoch in one TensorFlow call.

Layers, initializers, loss and Adam are Keras's, by public names only: on one thread an epoch takes
about 0.24 of the time of Keras's own ``fit`` on all, which enters Python at every batch. Adam as
one raw operation on variables of ours would make it 0.20, NumPy 0.19 (``benchmarks/heads.py``):
too little to keep an optimizer or a backpropagation of our own.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.runtimes import import_tensorflow, plain_keras

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with its number, the most there can be, and its losses."""

Float32 = npt.NDArray[np.float32]
Layers = list[tuple[Float32, Float32]]
"""Each layer's kernel, float32 (inputs, outputs), and bias, float32 (outputs,)."""

LOSSES = ("loss", "accuracy", "val_loss", "val_accuracy")

MOST_KEPT = 4
"""Traced networks kept for later fits: tracing takes a second, and TensorFlow never frees all."""

_BLOCK = 1024
"""Rows at a time where nothing says how many."""


class Network(NamedTuple):
    """A network's shape and the settings of its training.

    One output means two classes and a sigmoid; more mean as many classes and softmax.
    """

    n_features: int
    n_outputs: int
    hidden: tuple[int, ...]
    l2: float
    dropout: float
    learning_rate: float
    batch_size: int


class Examples(NamedTuple):
    """Rows ``places``, int64 (m,), of ``X``, float32 (n, d); training copies them once.

    ``codes``, int64 (m,), and ``weight``, float32 (m,), belong to the rows in ``places``.
    """

    X: Float32
    places: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    weight: Float32


class Trained(NamedTuple):
    """The best epoch's layers, its number from 1, and every epoch's losses and accuracies.

    Training ends at the first epoch with a loss that is not finite, the last in ``history``.
    """

    layers: Layers
    best_epoch: int
    history: list[dict[str, float]]


def train(
    network: Network,
    training: Examples,
    validation: Examples,
    *,
    epochs: int,
    patience: int,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Train ``network`` until its validation loss has not improved for ``patience`` epochs.

    The result depends on the arguments only, to the bit on one machine.
    """
    history: list[dict[str, float]] = []
    best, best_epoch, best_weights = np.inf, 1, None
    with _own_thread() as call, _lent(network, call) as trainer:
        call(trainer.start, network, training, validation, seed)
        for epoch in range(1, epochs + 1):
            losses, weights = call(trainer.epoch)
            logs = dict(zip(LOSSES, losses.tolist(), strict=True))
            history.append({"epoch": epoch, **logs})
            if progress is not None:
                progress(epoch, epochs, logs)
            if best_weights is None or logs["val_loss"] < best:
                best, best_epoch, best_weights = logs["val_loss"], epoch, weights
            elif epoch - best_epoch >= patience:
                break
            if not np.isfinite([logs["loss"], logs["val_loss"]]).all():
                break
    assert best_weights is not None
    layers = list(zip(best_weights[::2], best_weights[1::2], strict=True))
    return Trained(layers, best_epoch, history)


class Start(NamedTuple):
    """A Keras model that ends in logits, its Adam, and the seed of the order of batches."""

    model: Any
    adam: Any
    order: Any

    def variables(self) -> list[Any]:
        """Return all variables, those of the random generators too."""
        return [*self.model.variables, *self.adam.variables, self.order.state]


def start(keras: Any, network: Network, seed: int) -> Start:
    """Make a network and all else that a training changes, as it is before the first batch."""
    seeds = np.random.SeedSequence(seed).generate_state(len(network.hidden) + 3)
    numbers = iter((seeds >> 1).tolist())  # Keras draws with signed 32-bit seeds

    def dense(units: int, activation: str | None) -> Any:
        # The L2 term is multiplied by its weight in the loss: it can change without a new trace.
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(numbers)),
            kernel_regularizer=keras.regularizers.L2(1.0),
        )

    order = keras.random.SeedGenerator(next(numbers))
    dropout = keras.layers.Dropout(network.dropout, seed=next(numbers))
    outputs = inputs = keras.Input((network.n_features,))
    for position, units in enumerate(network.hidden):
        outputs = dense(units, "relu")(outputs)
        if position == 0:
            outputs = dropout(outputs)
    model = keras.Model(inputs, dense(network.n_outputs, None)(outputs))
    adam = keras.optimizers.Adam(network.learning_rate)
    adam.build(model.trainable_variables)
    return Start(model, adam, order)


class Trainer:
    """A network whose epoch is traced, for any data and any settings but those of its shape.

    All that an epoch reads and changes are variables, so nothing is made or traced a second time.
    """

    def __init__(self, network: Network) -> None:
        tf = import_tensorflow()
        self.shape = shape_of(network)
        # On the CPU, as all that a tf.data pipeline runs.
        with _plain_keras() as keras, tf.device("CPU:0"):
            self._keras, self._state = keras, start(keras, network, 0)
            self._loss = (
                keras.losses.BinaryCrossentropy(from_logits=True)
                if network.n_outputs == 1
                else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
            self._l2, self._batch_size = tf.Variable(0.0), tf.Variable(1)
            self._training, self._validation = (Rows(network.n_features) for _ in range(2))
            # Concrete: it stays a graph whatever tf.config.run_functions_eagerly says.
            traced = tf.function(self._one_epoch, autograph=False).get_concrete_function()
            self._epochs = _on_one_thread(traced)

    def start(self, network: Network, training: Examples, validation: Examples, seed: int) -> None:
        """Take the data and the settings, and be as if just made."""
        tf = import_tensorflow()
        with tf.device("CPU:0"):
            with _plain_keras() as keras:
                fresh = start(keras, network, seed)
            for variable, value in zip(self._state.variables(), fresh.variables(), strict=True):
                variable.assign(value)
            self._l2.assign(network.l2)
            # More than there are rows is all of them.
            self._batch_size.assign(min(network.batch_size, len(training.places)))
            self._training.take(training)
            self._validation.take(validation)

    def epoch(self) -> tuple[npt.NDArray[np.float64], list[Float32]]:
        """Train for an epoch; return its ``LOSSES``, and the weights after it."""
        losses, weights = next(self._epochs)
        return losses.numpy(), [weight.numpy() for weight in weights]

    def let_go(self) -> None:
        """Free the data."""
        self._training.let_go()
        self._validation.let_go()

    def _one_epoch(self) -> Any:
        tf = import_tensorflow()
        model, adam, seed = self._state
        variables = model.trainable_variables

        def step(rows: Any) -> Any:
            with tf.GradientTape() as tape:
                loss, right = self._loss_of(self._training, rows, training=True)
            adam.apply(tape.gradient(loss, variables), variables)
            return loss, right

        def look(rows: Any) -> Any:
            return self._loss_of(self._validation, rows, training=False)

        order = self._keras.random.shuffle(tf.range(tf.size(self._training.codes)), seed=seed)
        losses = _mean_over_batches(step, order, self._batch_size)
        losses += _mean_over_batches(look, tf.range(tf.size(self._validation.codes)), _BLOCK)
        return tf.stack(losses), tuple(tf.convert_to_tensor(variable) for variable in variables)

    def _loss_of(self, data: "Rows", rows: Any, training: bool) -> tuple[Any, Any]:
        """Return the loss of some rows, and the share of them that is classified right."""
        tf, metrics = import_tensorflow(), self._keras.metrics
        logits = self._state.model(tf.gather(data.X, rows), training=training)
        codes = tf.gather(data.codes, rows)
        if logits.shape[1] == 1:
            codes = tf.cast(codes, tf.float32)[:, None]
            right = metrics.binary_accuracy(codes, logits, threshold=0.0)
        else:
            right = metrics.sparse_categorical_accuracy(codes, logits)
        loss = self._loss(codes, logits, sample_weight=tf.gather(data.weight, rows))
        return loss + self._l2 * tf.add_n(self._state.model.losses), tf.reduce_mean(right)


class Rows:
    """Examples in TensorFlow's variables, which hold any number of them."""

    def __init__(self, n_features: int) -> None:
        tf = import_tensorflow()
        self.X = tf.Variable(tf.zeros([0, n_features]), shape=[None, n_features])
        self.codes = tf.Variable(tf.zeros([0], tf.int64), shape=[None])
        self.weight = tf.Variable(tf.zeros([0]), shape=[None])

    def take(self, examples: Examples) -> None:
        """Copy examples, a block at a time: what TensorFlow is given at once it copies twice."""
        tf = import_tensorflow()
        n = len(examples.places)
        self.X.assign(tf.zeros([n, self.X.shape[1]]))
        for first in range(0, n, _BLOCK):
            block = examples.places[first : first + _BLOCK]
            self.X[first : first + len(block)].assign(examples.X[block])
        self.codes.assign(examples.codes)
        self.weight.assign(examples.weight)

    def let_go(self) -> None:
        """Free the embeddings."""
        self.X.assign(import_tensorflow().zeros([0, self.X.shape[1]]))


def _on_one_thread(function: Any) -> Iterator[Any]:
    """Return an endless iterator that calls a traced function whenever it is asked for more.

    On more threads sums would be in another order. A ``tf.data`` pipeline is the one place where
    TensorFlow can be held to one thread after it has started.
    """
    tf = import_tensorflow()
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = 1
    # Nothing is to run ahead of being asked for.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    call = tf.autograph.experimental.do_not_convert(lambda _: function())
    results: Iterator[Any] = iter(
        tf.data.Dataset.from_tensors(0).repeat().map(call).with_options(options)
    )
    return results


def _mean_over_batches(step: Callable[[Any], Any], order: Any, batch_size: Any) -> Any:
    """Call ``step`` with batches of ``order`` in turn; return its two results' means over rows."""
    tf = import_tensorflow()
    n = tf.size(order)

    def one(first: Any, *totals: Any) -> Any:
        rows = order[first : first + batch_size]
        count = tf.cast(tf.size(rows), tf.float64)
        results = [tf.cast(result, tf.float64) * count for result in step(rows)]
        return first + batch_size, *map(tf.add, totals, results)

    zero = tf.constant(0.0, tf.float64)
    _, *totals = tf.while_loop(lambda first, *_: first < n, one, (0, zero, zero), None, 1)
    return [total / tf.cast(n, tf.float64) for total in totals]


_plain_lock = threading.Lock()
_idle: list[Trainer] = []  # the last one used last
_idle_lock = threading.Lock()


def shape_of(network: Network) -> tuple[Any, ...]:
    """Return what decides a network's graph. The rate is in it: Keras's Dropout takes no tensor."""
    return network.n_features, network.n_outputs, network.hidden, network.dropout


@contextmanager
def _lent(network: Network, call: Callable[..., Any]) -> Iterator[Trainer]:
    """Lend a trainer to one fit at a time: one that was kept, or else a new one."""
    with _idle_lock:
        kept = [trainer for trainer in _idle if trainer.shape == shape_of(network)]
        if kept:
            _idle.remove(kept[-1])
    trainer = kept[-1] if kept else call(Trainer, network)
    try:
        yield trainer
    finally:
        call(trainer.let_go)
        with _idle_lock:
            _idle.append(trainer)
            del _idle[:-MOST_KEPT]


@contextmanager
def _own_thread() -> Iterator[Callable[..., Any]]:
    """Give a function that calls another in a thread of its own.

    No scope of the caller's reaches it: no strategy, device, graph, or dtype policy of Keras.
    """
    with ThreadPoolExecutor(1) as thread:
        yield lambda function, *args: thread.submit(function, *args).result()


@contextmanager
def _plain_keras() -> Iterator[Any]:
    # One at a time: it changes settings of the whole process and then puts them back.
    with _plain_lock, plain_keras() as keras:
        yield keras
