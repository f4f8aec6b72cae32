"""Fixtures of all rooms."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_csv() -> Path:
    """FER2013 itself, where the environment variable FER2013_CSV names a copy."""
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("FER2013_CSV names no copy of FER2013")
    return Path(path)
