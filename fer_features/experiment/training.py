"""The dense head's network and its training: Keras's own ``fit``, an epoch in one step."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.runtimes import import_keras, import_tensorflow

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with its number, the most there can be, and its losses."""


class Examples(NamedTuple):
    """float32 (n, d) embeddings, (n, 1) class codes and, optionally, (n,) weights."""

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32] | None = None


class Network(NamedTuple):
    """A network's shape and the settings of its training."""

    n_features: int
    n_outputs: int
    hidden: tuple[int, ...]
    l2: float
    dropout: float
    learning_rate: float
    batch_size: int


class Trained(NamedTuple):
    """The best epoch's weights (kernel, bias, kernel, ...), its number, and every epoch's logs."""

    weights: list[npt.NDArray[np.float32]]
    best_epoch: int
    history: list[dict[str, float]]


# A compiled model is shared by the fits of one process, so only one may train at a time.
_training = threading.Lock()


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

    The result depends on the arguments only: not on earlier fits, nor on any global random state,
    which is left as it was.
    """
    keras = import_keras()
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=patience, restore_best_weights=True
    )
    callbacks = [stop]
    if progress is not None:
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: progress(epoch + 1, epochs, dict(logs))
            )
        )
    with _training, _retracing_unremarked():
        model = prepared_model(network, seed)
        history = model.fit(
            endlessly(training),
            steps_per_epoch=1,
            validation_data=endlessly(validation),
            validation_steps=1,
            epochs=epochs,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        ).history
        weights = model.get_weights()
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return Trained(
        weights,
        stop.best_epoch + 1,
        [
            {"epoch": epoch, **{name: float(history[name][epoch - 1]) for name in names}}
            for epoch in range(1, len(history["loss"]) + 1)
        ],
    )


@contextmanager
def _retracing_unremarked() -> Iterator[None]:
    # TensorFlow takes the models of several shapes for one function that is traced again and
    # again, and would advise the user against it.
    logger = import_tensorflow().get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def prepared_model(network: Network, seed: int) -> Any:
    """Return the network as a compiled Keras model at the start of its training."""
    shape = network.n_features, network.n_outputs, network.hidden, network.dropout > 0
    model = compiled_model(*shape)
    model.start_anew(network, seed)
    return model


# Unbounded: TensorFlow keeps most of a model's 14 MB even when the model is let go.
@cache
def compiled_model(n_features: int, n_outputs: int, hidden: tuple[int, ...], dropout: bool) -> Any:
    """Return the model of a shape, made once: tracing takes a second. Settings are variables."""
    keras, tf = import_keras(), import_tensorflow()
    rate = tf.Variable(0.0, dtype=tf.float64)
    l2 = keras.regularizers.L2()
    l2.l2 = tf.Variable(0.0)
    dense = {"dtype": "float32", "kernel_initializer": "zeros", "kernel_regularizer": l2}
    outputs = inputs = keras.Input((n_features,), dtype="float32")
    for position, units in enumerate(hidden):
        outputs = keras.layers.Dense(units, activation="relu", **dense)(outputs)
        if position == 0 and dropout:
            outputs = variable_dropout_class()(rate, seed=0, dtype="float32")(outputs)
    two_classes = n_outputs == 1
    activation = "sigmoid" if two_classes else "softmax"
    outputs = keras.layers.Dense(n_outputs, activation=activation, **dense)(outputs)
    model = epoch_model_class()(inputs, outputs, l2=l2.l2, dropout=rate)
    model.compile(
        optimizer=one_pass_adam_class()(),
        loss="binary_crossentropy" if two_classes else "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    # Variables that the first epoch had to create would make TensorFlow trace it a second time.
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, np.zeros((1, 1)), np.zeros((1, n_outputs)))
    return model


@cache
def variable_dropout_class() -> Any:
    """Return Keras's Dropout with a float64 variable as its rate: to the bit, it does the same."""
    keras, tf = import_keras(), import_tensorflow()
    keras_dropout: Any = keras.layers.Dropout

    class VariableDropout(keras_dropout):
        def __init__(self, rate: Any, **kwargs: Any) -> None:
            super().__init__(0.5, **kwargs)
            self.rate = rate

        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training:
                return inputs
            drawn = keras.random.uniform(
                tf.shape(inputs), dtype="float32", seed=self.seed_generator
            )
            scale = tf.cast(1 / (1 - self.rate), tf.float32)
            return tf.where(drawn >= tf.cast(self.rate, tf.float32), inputs * scale, 0.0)

    return VariableDropout


@cache
def one_pass_adam_class() -> Any:
    """Return Keras's Adam with its update as one TensorFlow operation.

    The formula is the same. Keras writes it as some ten operations, each of which goes over all
    weights: a quarter of the time of an epoch.
    """
    keras, tf = import_keras(), import_tensorflow()
    keras_adam: Any = keras.optimizers.Adam

    class OnePassAdam(keras_adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            position = self._get_variable_index(variable)
            step = tf.cast(self.iterations + 1, tf.float32)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[position].value.handle,
                v=self._velocities[position].value.handle,
                beta1_power=tf.pow(self.beta_1, step),
                beta2_power=tf.pow(self.beta_2, step),
                lr=tf.cast(learning_rate, tf.float32),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

    return OnePassAdam


@cache
def epoch_model_class() -> Any:
    """Return the Keras model class whose training step is an epoch."""
    keras, tf = import_keras(), import_tensorflow()
    keras_model: Any = keras.Model

    class EpochModel(keras_model):
        """A model that is given all rows at once and takes them in shuffled batches itself.

        The steps are Keras's own, but their loop runs inside TensorFlow: neither Python nor
        ``tf.data`` is entered between two batches.
        """

        def __init__(self, *args: Any, l2: Any, dropout: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # TensorFlow's variables: Keras would count its own among the weights.
            self.l2, self.dropout = l2, dropout
            self.batch_size = tf.Variable(1)
            self.order = keras.random.SeedGenerator(0)

        def start_anew(self, network: Network, seed: int) -> None:
            """Set settings, weights, optimizer and random state as if the model were new."""
            self.l2.assign(network.l2)
            self.dropout.assign(network.dropout)
            self.batch_size.assign(network.batch_size)
            kernels = [v for v in self.trainable_variables if len(v.shape) == 2]
            states = self.non_trainable_variables  # of the random generators: order, dropout
            seeds = np.random.SeedSequence(seed).generate_state(len(kernels) + len(states))
            # Keras draws with signed 32-bit seeds.
            numbers = iter((seeds >> 1).tolist())
            for state in states:
                state.assign([next(numbers), 0])
            for variable in (*self.trainable_variables, *self.optimizer.variables):
                variable.assign(keras.ops.zeros_like(variable))
            for kernel in kernels:
                uniform = keras.initializers.GlorotUniform(seed=next(numbers))
                kernel.assign(uniform(kernel.shape, dtype="float32"))
            self.optimizer.learning_rate = network.learning_rate

        def train_step(self, data: Any) -> Any:
            rows = keras.utils.unpack_x_y_sample_weight(data)
            n = tf.shape(rows[0])[0]
            order = keras.random.shuffle(tf.range(n), seed=self.order)
            one_batch = super().train_step

            def step(start: Any) -> Any:
                batch = order[start : start + self.batch_size]
                one_batch(tuple(None if r is None else tf.gather(r, batch) for r in rows))
                return start + self.batch_size

            tf.while_loop(lambda start: start < n, step, [tf.constant(0)], parallel_iterations=1)
            return self.get_metrics_result()

    return EpochModel


def endlessly(examples: Examples) -> Any:
    """Return a ``tf.data.Dataset`` whose every element is all rows, without copying them."""
    tf = import_tensorflow()
    arrays = tuple(array for array in examples if array is not None)

    def of_any_length(*tensors: Any) -> Any:
        # A number of rows in the type would make TensorFlow trace the epoch anew for each number.
        return tuple(
            tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]])
            for tensor in tensors
        )

    return tf.data.Dataset.from_tensors(arrays).map(of_any_length).repeat()
