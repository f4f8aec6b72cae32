"""TensorFlow, Keras and OpenVINO: imported where first needed, quiet, and in plain float32.

Importing TensorFlow takes seconds, so nothing imports it at module level. And the linear algebra
below NumPy and SciPy, where a thread more would change the last bits; and joblib's processes, which
must not outlive the one that started them.
"""

import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from threadpoolctl import threadpool_limits

from fer_features.errors import OptionError

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_tensorflow() -> Any:
    """Return the ``tensorflow`` module; its start-up log shows only where level 0 asks for it."""
    if "tensorflow" in sys.modules:
        import tensorflow
    else:
        # Read once, at import; a child process that inherited ours would seem to have asked.
        level = os.environ.get(LEVEL, "3")
        quiet = nullcontext() if level == "0" else native_stderr_silenced()
        # TensorFlow imports parts of Keras.
        with environment(KERAS_BACKEND="tensorflow", **{LEVEL: level}), quiet, collection_paused():
            import tensorflow

            tensorflow.config.list_physical_devices()  # says of itself that there is no GPU
    return tensorflow


def import_keras() -> Any:
    """Return the ``keras`` module, running on TensorFlow whatever the user's settings name.

    Raises
    ------
    OptionError
        When this process has imported Keras on another backend, or its ``keras.json`` is refused.
    """
    if "keras" not in sys.modules:
        try:
            # It counts before keras.json.
            with environment(KERAS_BACKEND="tensorflow"):
                import_tensorflow()
                import keras
        except ValueError as error:
            if "Invalid `" not in str(error):
                raise
            said = " ".join(str(error).split())
            raise OptionError(f"keras.json: {said} Mend or remove that file.") from error
    import keras

    if keras.config.backend() != "tensorflow":
        raise OptionError(
            f"keras: running on {keras.config.backend()} in this process, expected tensorflow. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    return keras


@contextmanager
def plain_keras() -> Iterator[Any]:
    """Give ``keras`` with its own defaults, and the user's settings back at the end.

    Its dtype policy and float type are float32, its image format is channels last, its epsilon
    1e-7, whatever ``keras.json`` or a program's global settings say: a network built here is the
    same anywhere.
    """
    keras = import_keras()
    config = keras.config
    policy, floatx = config.dtype_policy(), config.floatx()
    image_format, epsilon = config.image_data_format(), config.epsilon()
    try:
        config.set_epsilon(1e-7)
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
        config.set_image_data_format("channels_last")
        yield keras
    finally:
        config.set_epsilon(epsilon)
        config.set_image_data_format(image_format)
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)


def import_openvino() -> Any:
    """Return the ``openvino`` module, without its usage statistics.

    Importing it would start a process that reports the import to a server; it does without where
    that package is absent.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def in_processes(
    tasks: Iterable[Any], processes: int, *, ordered: bool = False, **settings: Any
) -> Iterator[Any]:
    """Yield what joblib's tasks return, computed by processes that never outlive this one by much.

    Each has one task and another one waiting. They end soon after this process, however it ends,
    and do not know of Ctrl-C: it is this one's, which ends them.

    Parameters
    ----------
    tasks : iterable of joblib's ``delayed`` calls
        Taken one by one, as processes become free.
    processes : int
    ordered : bool
        Yield in the order of the tasks; else as they end.
    settings
        joblib's further ones for its backend ``loky``.
    """
    from joblib import Parallel, parallel_config

    watching = {"initializer": watch_parent, "initargs": (os.getpid(),)}
    kind = "generator" if ordered else "generator_unordered"
    with parallel_config("loky", **watching, **settings):
        parallel = Parallel(processes, return_as=kind, pre_dispatch="2*n_jobs", batch_size=1)
    found: Any = None
    try:
        with _interrupts_held():  # the processes inherit that, and those started in their place
            found = parallel(tasks)
        for each in found:  # noqa: UP028
            yield each
    finally:
        if found is not None:
            with warnings.catch_warnings():  # who ends it early has no use for the rest
                warnings.filterwarnings("ignore", module="joblib", category=UserWarning)
                found.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the end, and for ever in processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    for tracker in (resource_tracker, loky_tracker):
        tracker.ensure_running()  # its start would let it through
    came: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    # Another thread may be told of it: Python raises it in the main one.
    ours = handler is not None and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if ours:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def watch_parent(parent: int, every: float = 1.0) -> None:
    """End this process soon after its parent, which may be killed before it can say so.

    Where the system tells who the parent is now, as Linux and macOS do and Windows does not.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


_blas_lock = threading.Lock()
_blas_limits: list[Any] = []


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run NumPy's and SciPy's linear algebra on one thread.

    Products are summed in another order on two, and differ in their last bits. The limit holds
    for the process, until the last of those who asked for it, in any thread, is done.
    """
    with _blas_lock:
        held = threadpool_limits(limits=1, user_api="blas") if not _blas_limits else None
        _blas_limits.append(held)
    try:
        yield
    finally:
        with _blas_lock:
            # The first entry knows the threads there were: it is the last to go.
            if len(_blas_limits) > 1:
                _blas_limits.pop()
            else:
                _blas_limits.pop().restore_original_limits()


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let Python look for no garbage meanwhile.

    Of what an import or a network's graph builds nearly all stays, and looking through it again
    and again is a fifth of the time. Where several threads ask, it holds until the first is done.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for a while, and the user's own again at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: C++ logs before their own level setting is read."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
