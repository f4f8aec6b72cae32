"""What a fit ran on."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Say what a fit ran on: packages, without importing them, and the machine."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("fer_features", "tensorflow", "keras", "numpy", "scikit-learn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["platform"] = platform.platform()
    found["machine"] = platform.machine()
    found["processor"] = _processor()
    found["cpus"] = os.cpu_count()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
