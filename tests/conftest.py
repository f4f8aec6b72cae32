"""Fixtures of all rooms."""

import os
import sys
from pathlib import Path

import pytest

# As fer_features.runtimes has it, before any test imports OpenVINO by itself: each conversion would
# else fork this large process to report itself to a server.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def real_csv() -> Path:
    """FER2013 itself, where the environment variable FER2013_CSV names a copy."""
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("FER2013_CSV names no copy of FER2013")
    return Path(path)
