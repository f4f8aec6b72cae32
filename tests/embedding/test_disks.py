"""Disks and systems that refuse: each refusal is named as what it is, and a visible file is whole.

Full disks are small file systems in memory, where these tests may mount any; system calls are
refused by the kernel itself, for one process, as another file system would refuse them.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import (
    REFUSING,
    TINY,
    command,
    needs_refusals,
    noise_faces,
    refusing,
    write_csv,
)

from fer_features import Store, extract
from fer_features.embedding import extraction, partial
from fer_features.embedding.engines import load_engine
from fer_features.errors import StoreError

PASS = """
import click
from support import TINY, noise_faces
from fer_features import Store, extract
from fer_features.cli.command import Command
@click.command(cls=Command)
def main():
    store = extract(noise_faces(40), "faces.h5", backbone=TINY, engine=ENGINE)
    print(len(store), store.verify())
ENGINE = "openvino"
"""


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "fault of fer-features" not in done.stderr
    return done.stderr


def names(folder: Path) -> list[str]:
    """Return what lies in a folder beside a converted network."""
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith("openvino-"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the converted network, which spares a process TensorFlow."""
    folder = tmp_path_factory.mktemp("converted")
    load_engine(TINY, TINY.outputs, "openvino", folder)
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    return tmp_path


@needs_refusals
@pytest.mark.parametrize("answer", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_has_filelocks_own(folder: Path, answer: str) -> None:
    done = refusing(f"refuse('flock', {answer!r})\n{PASS}\nmain()", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "40 []\n", "")
    assert names(folder) == ["faces.h5"]


@needs_refusals
def test_a_lock_without_the_systems_is_held_and_ages(folder: Path) -> None:
    held = """
import os, sys, time
from pathlib import Path
from fer_features.embedding.partial import locked
refuse("flock", "ENOLCK")
with locked(Path("faces.h5")):
    print(os.getpid(), flush=True)
    time.sleep(float(sys.argv[1]))
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", REFUSING + held, "120"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    said = holder.stdout.readline().strip()
    if not said:
        pytest.skip("this system lets no process refuse itself system calls")
    refused = refusing(f"refuse('flock', 'ENOLCK')\n{PASS}\nmain()", folder)
    assert f"faces.h5: being written by process {said} on " in one_line(refused)
    assert "or remove faces.h5.lock.soft if it has ended" in refused.stderr.replace(
        f"{folder}/", ""
    )
    assert (folder / "faces.h5.lock.soft").read_text().startswith(said)  # as filelock wrote it
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    done = refusing(f"refuse('flock', 'ENOLCK')\n{PASS}\nmain()", folder)
    assert (done.returncode, done.stdout) == (0, "40 []\n"), done.stderr


@needs_refusals
@pytest.mark.parametrize("answer", ["EINVAL", "EOPNOTSUPP"])
def test_a_file_system_that_cannot_bring_files_to_the_disk_does_without(
    folder: Path, answer: str
) -> None:
    done = refusing(f"refuse('fsync', {answer!r})\n{PASS}\nmain()", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "40 []\n", "")


@needs_refusals
@pytest.mark.parametrize("call", ["fsync", "pwrite"])
def test_a_disk_that_fails_at_the_end_leaves_no_store_and_the_pass_goes_on(
    folder: Path, call: str
) -> None:
    late = f"""
from fer_features.embedding import extraction
embed = extraction.embed
def late(*arguments):
    said = embed(*arguments)
    refuse({call!r}, "EIO")
    return said
extraction.embed = late
{PASS}
main()
"""
    said = one_line(refusing(late, folder))
    assert said.startswith("Error: faces.h5.partial: Input/output error, expected to write")
    assert "The disk fails" in said
    assert names(folder) == ["faces.h5.lock", "faces.h5.partial"]
    store = extract(noise_faces(40), folder / "faces.h5", backbone=TINY, engine="openvino")
    assert store.verify() == []
    assert store.provenance["passes"][-1]["images"] == 0  # they were on the disk already


@pytest.mark.parametrize("answer", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_space_is_reserved_where_the_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    """By writing it: from then on a disk that fills up does not stop the pass."""

    def refusing(*_: int) -> None:
        assert answer is not None
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "posix_fallocate", refusing, raising=False)
    if answer is None:
        monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "a.h5.partial"
    dataset = {"name": "noise", "image": [48, 48, 1], "skipped": 0}
    content = partial.Content.of(noise_faces(3000))
    partial.create_partial(path, content, TINY, {"final": 400}, dataset, {"passes": []})
    assert path.stat().st_size > 4 * 400 * 2998
    if hasattr(path.stat(), "st_blocks"):
        assert path.stat().st_blocks * 512 >= path.stat().st_size
    assert not Store(path).known().any()


@pytest.mark.slow
def test_a_failing_reservation_is_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fallocate", failing, raising=False)
    with pytest.raises(StoreError, match=r"faces\.h5\.partial\.new: Input/output error, expected"):
        extract(noise_faces(10), tmp_path / "faces.h5", backbone=TINY, engine="tensorflow")
    assert names(tmp_path) == ["faces.h5.lock"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system with so many kB."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{kilobytes}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("these tests may not mount a file system here")
        mounted.append(folder)
        return folder

    if sys.platform != "linux":
        pytest.skip("mounts a file system as Linux does")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_nearly_full_disk_is_one_error_at_any_size(
    tmp_path: Path, disk: Callable[[int], Path]
) -> None:
    sizes = range(4, 45, 4)
    for size in sizes:
        disk(size)
    each = f"""
import os, sys
{PASS}
ENGINE = "tensorflow"
for size in {list(sizes)}:
    os.chdir({str(tmp_path)!r} + f"/disk{{size}}")
    try:
        main(args=[])
    except SystemExit as end:
        print(size, end.code, flush=True)
"""
    done = refusing(each, tmp_path)
    assert done.returncode == 0, done.stderr  # HDF5 would end the process at its end
    codes = {
        int(words[0]): int(words[1])
        for words in map(str.split, done.stdout.splitlines())
        if words[1] in "02"
    }
    assert list(codes) == list(sizes)
    assert set(codes.values()) == {0, 2}
    assert codes[8] == codes[20] == 2
    lines = done.stderr.splitlines()
    assert len(lines) == list(codes.values()).count(2), done.stderr
    for line in lines:
        assert line == (
            "Error: faces.h5.partial.new: No space left on device, expected to write embeddings "
            "there. Make room and call again: the finished part is kept."
        )
    for size, code in codes.items():
        made = tmp_path / f"disk{size}" / "faces.h5"
        assert made.exists() == (code == 0)
        assert code or Store(made).verify() == []


def test_a_disk_that_fills_up_meanwhile_does_not_stop_a_pass(
    disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disk(400)
    embed = extraction.embed

    def filling(*arguments: object) -> object:
        with (folder / "other").open("wb", buffering=0) as other:
            while True:
                try:
                    other.write(b"\1" * 4096)
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017
                    break
        return embed(*arguments)

    monkeypatch.setattr(extraction, "embed", filling)
    store = extract(noise_faces(60), folder / "faces.h5", backbone=TINY, engine="tensorflow")
    assert store.verify() == []


def test_an_engines_refusal_is_not_called_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/engine.cache")

    monkeypatch.setattr(extraction, "embed", failing)
    with pytest.raises(OSError, match=r"/elsewhere/engine\.cache"):
        extract(noise_faces(10), tmp_path / "faces.h5", backbone=TINY)


def test_a_store_behind_a_link_stays_behind_it(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    real, link = tmp_path / "there" / "real.h5", tmp_path / "here" / "link.h5"
    link.symlink_to("../there/real.h5")  # of a store that is not there yet
    store = extract(noise_faces(10), link, backbone=TINY)
    assert store.path == link
    before = real.stat().st_ino
    grown = extract(noise_faces(20), link, backbone=TINY, overwrite=True)
    assert len(grown) == len(Store(real)) == 20
    assert real.stat().st_ino != before
    assert os.readlink(link) == "../there/real.h5"  # noqa: PTH115
    assert [each for each in names(link.parent) if each.startswith("link")] == ["link.h5"]
    with (
        partial.locked(real),
        pytest.raises(StoreError, match=r"real\.h5: being written by process"),
    ):
        extract(noise_faces(30), link, backbone=TINY, overwrite=True)


@pytest.mark.parametrize("length", [300, 255, 250, 244])
def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("a" * (length - 3) + ".h5")
    with pytest.raises(StoreError, match="File name too long, expected to write") as said:
        extract(noise_faces(10), path, backbone=TINY)
    assert str(said.value).startswith(f"{path}: ")
    assert names(tmp_path) == []
    with pytest.raises(StoreError, match=r"File name too long|no such file"):
        Store(path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
@pytest.mark.parametrize("name", [b"caf\xe9.h5", "café.h5".encode()])
def test_a_name_is_a_name_whatever_the_terminal_can_show(folder: Path, name: bytes) -> None:
    faces = write_csv(folder / "faces.csv", noise_faces(10))
    for encoding in ("utf-8", "ascii"):
        done = command(
            "fer-extract", faces, "--backbone", "tiny", "--weights", "random", "-o",
            os.fsdecode(name), cwd=folder, PYTHONIOENCODING=f"{encoding}:strict",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("caf")
        assert ".h5: 10 rows" in done.stdout
    assert os.fsdecode(name) in names(folder)
    assert Store(folder / os.fsdecode(name)).verify() == []


@pytest.mark.skipif(sys.platform != "linux", reason="closes streams as a shell does")
@pytest.mark.parametrize(
    ("stream", "engine"),
    [("2>&-", "tensorflow"), ("2>/dev/full", "openvino"), ("2>&- >&- <&-", "openvino")],
)
def test_a_pass_does_not_need_its_messages_read(folder: Path, stream: str, engine: str) -> None:
    faces = write_csv(folder / "faces.csv", noise_faces(40))
    options = f"--backbone tiny --weights random --engine {engine} -o out.h5"
    done = subprocess.run(
        f"{sys.executable} -m fer_features.cli.extract {faces} {options} {stream}",
        shell=True,
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("out.h5: 40 rows") or ">&- <&-" in stream
    assert Store(folder / "out.h5").verify() == []


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="becomes a user without a home"
)
def test_a_user_without_a_home_is_told_what_is_missing() -> None:
    code = """
import os
from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.weights import imagenet_path
os.setuid(54321)
imagenet_path(APPLICATIONS["EfficientNetV2B0"])
"""
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "KERAS_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert "no home folder is known here" in done.stderr
    assert "Set KERAS_HOME to a folder" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe with a name")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(StoreError, match=r"pipe\.h5: no HDF5 file"):
        Store(tmp_path / "pipe.h5")
    with pytest.raises(StoreError, match=r"pipe\.h5: exists and is no HDF5 file"):
        extract(noise_faces(10), tmp_path / "pipe.h5", backbone=TINY, overwrite=True)


def test_a_system_with_less_than_posix_does_a_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fcntl, no reserving of space, no folder that can be opened: as on Windows."""
    opens = os.open

    def files_alone(path: object, *arguments: object, **options: object) -> int:
        if isinstance(path, str | os.PathLike) and Path(path).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opens(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(os, "open", files_alone)
    path = folder / "faces.h5"
    store = extract(noise_faces(40), path, backbone=TINY, engine="openvino")
    assert store.verify() == []
    assert (
        len(extract(noise_faces(60), path, backbone=TINY, engine="openvino", overwrite=True)) == 60
    )
    assert names(folder) == ["faces.h5", "faces.h5.lock"]


def test_a_clock_that_jumps_does_not_reach_the_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    store = extract(
        noise_faces(40), folder / "faces.h5", backbone=TINY, engine="openvino", batch_size=7
    )
    [entry] = store.provenance["passes"]
    assert 0 < entry["seconds"] < 600
    assert entry["images_per_second"] > 0


def test_embeddings_are_written_where_hdf5_reads_them(tmp_path: Path) -> None:
    """In runs or one by one, of any number, and nothing beside them."""
    path = tmp_path / "a.h5.partial"
    dataset = {"name": "noise", "image": [48, 48, 1], "skipped": 0}
    content = partial.Content.of(noise_faces(50, copies=False))
    lengths = {"final": 3, "one": 1}
    partial.create_partial(path, content, TINY, lengths, dataset, {"passes": []})
    rng = np.random.default_rng(0)
    expected = {name: np.zeros((50, d), np.float32) for name, d in lengths.items()}
    with partial.open_partial(path) as unfinished:
        for images in ([0], [1, 2, 3], [5, 7, 8, 49], [], [10, 12, 14]):
            where = np.array(images, np.int64)
            values = {name: rng.random((len(where), d), np.float32) for name, d in lengths.items()}
            unfinished.write(where, values)
            for name, each in values.items():
                expected[name][where] = each
        known = unfinished.known()
    assert np.flatnonzero(known == 2).tolist() == [0, 1, 2, 3, 5, 7, 8, 10, 12, 14, 49]
    with h5py.File(path) as file:
        for name, values in expected.items():
            assert np.array_equal(file[f"images/embeddings/{name}"][()], values)
