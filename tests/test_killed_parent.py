"""Processes that compute for another one: they end soon after it, and Ctrl-C is not theirs."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joblib import delayed
from support import TINY, noise_faces

from fer_features import extract
from fer_features.embedding.engines import load_engine
from fer_features.runtimes import in_processes

PASS = "extract(noise_faces(20000), 'killed.h5', backbone=TINY, workers=2, batch_size=1)"
COMPARISON = (
    "compare([Task(per_class='min').select(Store('faces.h5'))],"
    " {'slow': GradientBoostingClassifier(n_estimators=10**6)}, seeds=range(4), workers=2)"
)


def processes() -> dict[int, tuple[int, str]]:
    """Return parent and command of every process, by its number."""
    found = {}
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdecimal():
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(each.name)] = (parent, (each / "cmdline").read_text())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("work", "later"),
    [(PASS, 0.0), pytest.param(PASS, 2.0, marks=pytest.mark.slow), (COMPARISON, 2.0)],
    ids=["a pass, as they start", "a pass, at work", "a comparison"],
)
def test_workers_go_when_their_parent_is_killed(tmp_path: Path, work: str, later: float) -> None:
    (tmp_path / "run.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from sklearn.ensemble import GradientBoostingClassifier\n"
        "from support import TINY, noise_faces\n"
        "from fer_features import Store, Task, compare, extract\n"
        f"if __name__ == '__main__':\n    {work}\n"
    )
    if work == PASS:
        load_engine(TINY, TINY.outputs, "openvino", tmp_path)
    else:
        extract(noise_faces(500, copies=False), tmp_path / "faces.h5", backbone=TINY)
    parent = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path)
    workers: list[int] = []
    try:
        while len(workers) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
            workers = [
                number
                for number, (its, said) in processes().items()
                if its == parent.pid and "popen_loky" in said
            ]
        time.sleep(later)
        assert parent.poll() is None
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        left = set(workers)
        while left and time.monotonic() < killed + 10:
            time.sleep(0.1)
            left = {number for number in left if number in processes()}
        assert left == set()
    finally:
        parent.kill()
        for number in workers:
            with contextlib.suppress(ProcessLookupError):
                if "popen_loky" in processes().get(number, (0, ""))[1]:
                    os.kill(number, signal.SIGKILL)


def _blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


# Ended within the same millisecond, joblib's thread misses a task that it had not yet passed on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system cannot hold Ctrl-C")
def test_ctrl_c_is_the_parents_alone_and_waits_until_its_processes_are_started() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def tasks() -> Iterator[Any]:
        for _ in range(4):
            yield delayed(_blocked)()

    def stopping() -> Iterator[Any]:
        signal.raise_signal(signal.SIGINT)
        yield delayed(_blocked)()
        started.append(True)

    started: list[bool] = []
    try:
        assert list(in_processes(tasks(), 2)) == [True] * 4
        assert not _blocked()
        with pytest.raises(KeyboardInterrupt):
            list(in_processes(stopping(), 2))
        assert started == [True]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
