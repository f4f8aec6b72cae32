"""Locks go with their process, their files stay, and a refusal is named as what it is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import REFUSING, TINY, needs_refusals, noise_faces, refusing

from fer_features import LogisticHead, Store, Task, compare, extract
from fer_features.embedding import layout
from fer_features.errors import RunError, StoreError
from fer_features.locking import HeldError, locked

COMPARE = """
from fer_features import LogisticHead, Store, Task, compare
def comparison():
    data = [Task(per_class="min").select(Store("faces.h5"))]
    return compare(data, {"logistic": LogisticHead(C=1e-3)}, out="runs")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    extract(noise_faces(200, copies=False), tmp_path / "faces.h5", backbone=TINY)
    return tmp_path


@contextmanager
def held(code: str, folder: Path) -> Iterator[subprocess.Popen]:
    """Let another process hold a lock: it says so, and sleeps."""
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{REFUSING}{code}"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    if not holder.stdout.readline():
        pytest.skip("this system lets no process refuse itself system calls")
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()


HOLD = """
import time
from pathlib import Path
from fer_features.locking import locked
Path("runs").mkdir()
with locked(Path("runs/.lock")):
    print("held", flush=True)
    time.sleep(120)
"""


@needs_refusals
@pytest.mark.parametrize(
    ("before", "names"),
    [("", [".lock", ".lock.owner"]), ("refuse('flock', 'ENOLCK')", [".lock.owner", ".lock.soft"])],
    ids=["the system's", "a file"],
)
def test_a_comparison_says_who_holds_its_folder_and_takes_it_from_who_was_killed(
    folder: Path, before: str, names: list[str]
) -> None:
    with held(before + HOLD, folder) as holder:
        there = sorted(each.name for each in (folder / "runs").iterdir())
        assert there == names
        said = refusing(f"{before}\n{COMPARE}\ncomparison()", folder).stderr
        assert f"runs: in use by process {holder.pid} on " in said
        assert "expected no other fer-compare. Wait for it to end, or stop it" in said
        assert ("remove runs/.lock.soft if it has ended" in said) == bool(before)
    done = refusing(f"{before}\n{COMPARE}\nprint(len(comparison()))", folder)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_the_lock_of_a_comparison_stays_and_stands_in_no_ones_way(folder: Path) -> None:
    data = [Task(per_class="min").select(Store(folder / "faces.h5"))]
    for _ in range(2):
        compare(data, {"logistic": LogisticHead(C=1e-3)}, out=folder / "runs")
        assert sorted(each.name for each in (folder / "runs").iterdir()) == [
            ".lock", "fits", "results.csv", "results.json",
        ]  # fmt: skip
    (folder / "other").mkdir()
    (folder / "other" / ".lock").touch()
    assert len(compare(data, {"logistic": LogisticHead(C=1e-3)}, out=folder / "other")) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_may_not_be_written_is_named_with_the_file(folder: Path) -> None:
    data = [Task(per_class="min").select(Store(folder / "faces.h5"))]
    (folder / "runs").mkdir(mode=0o500)
    with pytest.raises(RunError, match=r"runs/\.lock\.owner: cannot be written \(Permission"):
        compare(data, {"logistic": LogisticHead(C=1e-3)}, out=folder / "runs")


def test_a_lock_is_waited_for_as_long_as_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5.lock"
    code = (
        "import sys, time; from pathlib import Path; from fer_features.locking import locked\n"
        f"with locked(Path({str(path)!r})): print('held', flush=True); time.sleep(2)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(HeldError) as said, locked(path):
        pass
    assert said.value.owner.startswith(f"process {holder.pid} on ")
    with locked(path, patience=-1):
        assert holder.wait() == 0
    assert path.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_does_not_keep_what_its_parent_gave_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has every file of its parent open, with the parent's locks, until it ends."""
    monkeypatch.setattr(layout, "PATIENCE", 0.0)
    path = folder / "faces.h5"
    children = []

    def fork() -> None:
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        children.append(child)

    try:
        with locked(folder / "a.lock"), layout.opened(path, "r+"):
            fork()
        with layout.opened(path, "r"):
            fork()
            in_use = pytest.raises(StoreError, match="another process holds it")
            with in_use, layout.opened(path, "r+"):
                pass
        with locked(folder / "a.lock"), layout.opened(path, "r+"):
            pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@needs_refusals
def test_a_download_needs_no_locks_of_the_file_system_and_names_a_disk_that_refuses(
    tmp_path: Path,
) -> None:
    code = """
import os, sys
from pathlib import Path
from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.weights import imagenet_file
from fer_features.errors import BackboneError
os.environ["KERAS_HOME"] = "keras"
os.environ["HTTPS_PROXY"] = os.environ["https_proxy"] = "http://127.0.0.1:9"
refuse("flock", sys.argv[1])
try:
    imagenet_file(APPLICATIONS["MobileNetV2"])
except BackboneError as error:
    print(error, sorted(each.name for each in Path("keras/models").iterdir()))
"""
    said = refusing(code, tmp_path, "ENOLCK").stdout
    assert "(the proxy does not let it through)" in said
    assert said.endswith("[]\n")
    said = refusing(code, tmp_path, "EIO").stdout
    assert "no_top.h5.lock: Input/output error)" in said
