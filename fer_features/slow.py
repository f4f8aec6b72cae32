"""TensorFlow, Keras and OpenVINO, imported where they are first needed, and quiet.

Importing TensorFlow takes seconds, so nothing imports it at module level.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_tensorflow() -> Any:
    """Return the ``tensorflow`` module; its start-up log shows only if the user set a log level."""
    if "tensorflow" in sys.modules or LEVEL in os.environ:
        import tensorflow
    else:
        os.environ[LEVEL] = "3"
        try:
            with _native_stderr_silenced():
                import tensorflow
        finally:
            # Read once, at import; a child process that inherited it would seem to have asked.
            del os.environ[LEVEL]
    return tensorflow


def import_keras() -> Any:
    """Return the ``keras`` module, running on TensorFlow."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import_tensorflow()
    import keras

    return keras


def import_openvino() -> Any:
    """Return the ``openvino`` module, without its usage statistics.

    Importing it would start a process that reports the import to a server; it does without where
    that package is absent.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@contextmanager
def _native_stderr_silenced() -> Iterator[None]:
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
