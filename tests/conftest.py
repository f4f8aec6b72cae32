"""Fixtures of all rooms."""

import gc
import os
import sys
from pathlib import Path

import pytest

# As fer_features.runtimes has it, before any test imports OpenVINO by itself: each conversion would
# else fork this large process to report itself to a server.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Among the objects of TensorFlow and a thousand tests Python finds little garbage, and long looks.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def real_csv() -> Path:
    """FER2013 itself, where the environment variable FER2013_CSV names a copy."""
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("FER2013_CSV names no copy of FER2013")
    return Path(path)
