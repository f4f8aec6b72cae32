"""Which engine "auto" means: TensorFlow knows its GPUs, and is asked only where one may be."""

import _ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_features.embedding import engines

pytest.importorskip("openvino")

CHOICE = """
import sys
from fer_features.embedding.engines import choose_engine
print(choose_engine("auto"), "tensorflow" in sys.modules)
"""

needs_none = pytest.mark.skipif(
    sys.platform != "linux" or engines._may_have_gpu(), reason="for Linux without a GPU"
)


def choice(**environment: str) -> str:
    """Return which engine a new process takes, and whether it asked TensorFlow."""
    env = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHOICE], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@needs_none
def test_where_there_is_plainly_no_gpu_tensorflow_is_not_asked() -> None:
    assert choice() == "openvino False"


@pytest.mark.slow
@needs_none
def test_a_drivers_library_or_a_plugin_makes_tensorflow_be_asked(tmp_path: Path) -> None:
    """Which says that it sees none here: the library is a false one, and the plugin empty."""
    shutil.copy(_ctypes.__file__, tmp_path / "libcuda.so.1")
    assert choice(LD_LIBRARY_PATH=str(tmp_path)) == "openvino True"
    (tmp_path / "tensorflow-plugins").mkdir()
    assert choice(PYTHONPATH=str(tmp_path)) == "openvino True"


def test_a_gpu_that_tensorflow_sees_is_computed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_sees_gpu", lambda: True)
    assert engines.choose_engine("auto") == "tensorflow"
    assert engines.choose_engine("auto", "int8") == "openvino"
    assert engines.choose_engine("openvino") == "openvino"
