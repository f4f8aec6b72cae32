"""Files of weights: what is refused before a value is read, and ImageNet's download."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from fer_features import BackboneSpec
from fer_features.embedding import applications, weights
from fer_features.embedding.applications import APPLICATIONS, Application
from fer_features.embedding.backbone import check_files
from fer_features.embedding.weights import (
    check_published,
    imagenet_file,
    imagenet_path,
    inspect_weights_file,
)
from fer_features.errors import BackboneError

SMALL = APPLICATIONS["MobileNetV3Small"]
PUBLISHED = b"what Keras publishes" * 50_000  # a megabyte
ROW = SMALL._replace(hash=hashlib.md5(PUBLISHED).hexdigest())


def write_numbers(path: Path, *more: tuple[str, tuple[int, ...]]) -> Path:
    """Write as many numbers as MobileNetV3Small has, and more under other names."""
    with h5py.File(path, "w") as file:
        file["layers/conv/vars/0"] = np.ones(SMALL.parameters - 7, np.float32)
        file["layers/normalization/vars/2"] = np.ones(7, np.int64)
        for name, shape in more:
            file[name] = np.ones(shape, np.float32)
    return path


# ---- files -----------------------------------------------------------------------------------


def test_a_file_of_all_numbers_of_a_network_is_taken(tmp_path: Path) -> None:
    inspect_weights_file(write_numbers(tmp_path / "own.weights.h5"), SMALL)


def test_the_state_of_an_optimizer_and_of_random_layers_is_no_weight(tmp_path: Path) -> None:
    more = ("optimizer/vars/1", (5, 5)), ("layers/dropout/seed_generator/vars/0", (2,))
    inspect_weights_file(write_numbers(tmp_path / "trained.weights.h5", *more), SMALL)


def test_a_network_with_its_top_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "top.weights.h5", ("layers/predictions/vars/0", (576, 1000)))
    with pytest.raises(
        BackboneError,
        match=r"3 arrays with 1,515,120 numbers, expected 939,120 \(MobileNetV3Small without its "
        r"top\)\. Pass a file that was saved with include_top=False",
    ):
        inspect_weights_file(path, SMALL)


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "small.weights.h5")
    spec = BackboneSpec("VGG16", weights=str(path))
    with pytest.raises(BackboneError, match=r"939,120 numbers, expected 14,714,688 \(VGG16"):
        check_files(spec)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "nan.weights.h5")
    with h5py.File(path, "r+") as file:
        file["layers/conv/vars/0"][12345] = np.nan
    with pytest.raises(BackboneError, match=r"/layers/conv/vars/0 holds numbers that are not fin"):
        inspect_weights_file(path, SMALL)


def test_text_of_the_right_count_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "text.weights.h5"
    with h5py.File(path, "w") as file:  # 939 GB, declared and not there
        file.create_dataset("a", (SMALL.parameters,), "S1000000", chunks=(1,))
    with pytest.raises(BackboneError, match=r"text\.weights\.h5: .*/a holds no numbers"):
        inspect_weights_file(path, SMALL)


def test_a_compressed_file_is_refused_unread(tmp_path: Path) -> None:
    """A chunk of a kilobyte unpacks to a megabyte, whatever it is said to hold."""
    path = write_numbers(tmp_path / "whole.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["layers/normalization/vars/2"]
        file.create_dataset("layers/more", (7,), np.float32, chunks=(7,), compression="gzip")
    with pytest.raises(BackboneError, match=r"/layers/more is compressed\)\. .*model\.save_weig"):
        inspect_weights_file(path, SMALL)


def test_a_chunk_larger_than_a_network_is_refused_unread(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "whole.weights.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("m", (0,), np.float32, maxshape=(None,), chunks=(2**28,))
    with pytest.raises(BackboneError, match="/m is in chunks of 268,435,456 numbers"):
        inspect_weights_file(path, SMALL)


@pytest.mark.parametrize("name", ["optimizer/vars/0", "layers/dropout/seed_generator/vars/0"])
def test_what_is_no_weight_may_not_state_gigabytes_either(tmp_path: Path, name: str) -> None:
    path = write_numbers(tmp_path / "own.weights.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset(name, (2**32,), np.float32, chunks=(2**16,))
    with pytest.raises(BackboneError, match=f"/{name} states 4,294,967,296 numbers"):
        inspect_weights_file(path, SMALL)


@pytest.mark.parametrize("kind", ["link", "raw", "virtual"])
def test_numbers_in_another_file_are_refused_unopened(tmp_path: Path, kind: str) -> None:
    """Who opened the pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe.h5")
    pipe = str(tmp_path / "pipe.h5")
    path = write_numbers(tmp_path / "own.weights.h5")
    with h5py.File(path, "r+") as file:
        if kind == "link":
            file["layers/other"] = h5py.ExternalLink(pipe, "it")
        elif kind == "raw":
            file.create_dataset("layers/other", (4,), np.float32, external=[(pipe, 0, 16)])
        else:
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(pipe, "it", (4,))
            file.create_virtual_dataset("layers/other", layout)
    with pytest.raises(BackboneError, match=r"/layers/other (is a link to|lies in) another file"):
        inspect_weights_file(path, SMALL)


def test_a_pipe_is_no_file_of_weights_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(BackboneError, match=r"no regular file\."):
        BackboneSpec("VGG16", weights=str(tmp_path / "pipe.h5"))
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(BackboneError, match="no regular file"):
        BackboneSpec(str(tmp_path / "pipe.keras"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"weights", "cannot be read as an HDF5"), (b"", "cannot be read as an HDF5")],
)
def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "text.h5").write_bytes(content)
    with pytest.raises(BackboneError, match=rf"text\.h5: {said} .*copy or download it again"):
        check_files(BackboneSpec("VGG16", weights=str(tmp_path / "text.h5")))


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = write_numbers(tmp_path / "whole.weights.h5").read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackboneError, match=r"cut\.weights\.h5: cannot be read .*cut short"):
        inspect_weights_file(tmp_path / "cut.weights.h5", SMALL)


def test_a_name_that_keras_would_not_read_is_refused(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "weights.bin")
    with pytest.raises(BackboneError, match=r"weights\.bin: expected a name that ends in \.h5"):
        inspect_weights_file(path, SMALL)


DECLARED = """
import resource, sys
from pathlib import Path
from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.weights import inspect_weights_file
from fer_features.errors import BackboneError
import h5py, numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
try: inspect_weights_file(Path(sys.argv[1]), APPLICATIONS["MobileNetV3Small"])
except BackboneError as error: print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_small_file_that_declares_five_gigabytes_is_refused_in_little_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "large.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (5 * 2**28,), np.float32, chunks=(2**16,))
    assert path.stat().st_size < 10_000
    said = subprocess.run(
        [sys.executable, "-c", DECLARED, str(path)], capture_output=True, text=True, timeout=60
    )
    message, grown = said.stdout.splitlines()
    assert "1 arrays with 1,342,177,280 numbers, expected 939,120" in message
    assert int(grown) < 50_000  # kB


def test_a_weights_file_is_identified_by_its_content(tmp_path: Path) -> None:
    one = write_numbers(tmp_path / "one.weights.h5")
    other = tmp_path / "other.weights.h5"
    other.write_bytes(one.read_bytes())
    spec = BackboneSpec("MobileNetV3Small", weights=str(one))
    assert spec == BackboneSpec("MobileNetV3Small", weights=str(other))
    assert spec.weights == f"sha256:{hashlib.sha256(one.read_bytes()).hexdigest()}"
    with h5py.File(other, "r+") as file:
        file["layers/conv/vars/0"][0] = 2
    assert spec != BackboneSpec("MobileNetV3Small", weights=str(other))


def test_a_weights_file_that_was_replaced_since_is_refused(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "own.weights.h5")
    spec = BackboneSpec("MobileNetV3Small", weights=str(path))
    assert check_files(spec) == path
    with h5py.File(path, "r+") as file:
        file["layers/conv/vars/0"][0] = 2
    with pytest.raises(BackboneError, match=r"own\.weights\.h5: sha256:.*Pass the same file"):
        check_files(spec)


def test_the_published_file_under_any_name_is_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbers(tmp_path / "mine.h5")
    row = SMALL._replace(hash=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(APPLICATIONS, SMALL.name, row)
    spec = BackboneSpec(SMALL.name, weights=str(path))
    assert spec.weights == "imagenet"
    assert check_files(spec) == path
    with h5py.File(path, "r+") as file:
        file["layers/conv/vars/0"][0] = 2
    with pytest.raises(BackboneError, match=r"mine\.h5: not the published ImageNet weights"):
        check_files(spec)


def test_a_file_of_other_weights_is_never_taken_for_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Keras publishes no hash, no file but that of its own place can be ImageNet's."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    path = str(write_numbers(tmp_path / "mine.weights.h5"))
    assert BackboneSpec("MobileNet", "imagenet", weights_file=path).files == {}
    with pytest.raises(BackboneError, match="not the published ImageNet weights"):
        check_files(BackboneSpec("MobileNetV3Small", "imagenet", weights_file=path))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("imagnet", r"weights imagnet: No such file or directory\. Did you mean imagenet\?"),
        ("random:x", r"random:x: no seed, expected a whole number such as random:1"),
        ("random:-1", r"random:-1: no seed, expected a whole number"),
        ("missing.h5", r"missing\.h5: No such file"),
        ("a\0b", "null byte.*Pass imagenet, random, random:SEED or the path"),
        ("a" * 5000, "File name too long"),
        ("", r"weights : Is a directory\. Pass imagenet"),
    ],
)
def test_unknown_weights_are_refused_with_what_is_known(given: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        BackboneSpec(weights=given)


def test_random_weights_of_another_keras_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"drawn by another Keras .*pass --weights random:3 "):
        check_files(BackboneSpec(weights="random:3@keras-2.0.0"))


# ---- downloads -------------------------------------------------------------------------------

Handler = http.server.BaseHTTPRequestHandler


class Publisher(http.server.ThreadingHTTPServer):
    """A server of this machine that answers each GET and CONNECT by ``answer``."""

    daemon_threads = True
    answer: Callable[[Handler], None]

    def __init__(self) -> None:
        publisher = self

        class Answering(Handler):
            timeout = 20

            def do_GET(self) -> None:  # noqa: N802
                publisher.requests.append(self.path)
                publisher.asked.set()
                publisher.answer(self)

            do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answering)
        self.requests: list[str] = []
        self.asked = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Keras's server, played by this machine, and an empty cache."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with Publisher() as server:
        monkeypatch.setattr(applications, "_PUBLISHED", server.url)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def send(request: Handler, content: bytes, length: int | None = None, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    request.end_headers()
    request.wfile.write(content)
    request.wfile.flush()


def visible(row: Application) -> set[str]:
    """Return the names in Keras's cache, without the lock, which is never removed."""
    folder = imagenet_path(row).parent
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".owner")}


def test_a_download_has_its_name_only_when_it_is_whole(publisher: Publisher) -> None:
    seen = []

    def halves(request: Handler) -> None:
        send(request, PUBLISHED[:500_000], len(PUBLISHED))
        seen.append(visible(ROW))
        request.wfile.write(PUBLISHED[500_000:])

    publisher.answer = halves
    path = imagenet_file(ROW)
    assert path.read_bytes() == PUBLISHED
    assert publisher.requests == [f"/tensorflow/keras-applications/{ROW.path}"]
    assert len(seen[0]) == 1  # a temporary name
    assert ROW.file not in seen[0]
    assert visible(ROW) == {ROW.file}
    assert imagenet_file(ROW) == path
    assert len(publisher.requests) == 1


CALL = """
import sys
from fer_features.embedding import applications
from fer_features.embedding.weights import imagenet_file
applications._PUBLISHED, hash = sys.argv[1:]
print("asking", flush=True)
print(imagenet_file(applications.APPLICATIONS["MobileNetV3Small"]._replace(hash=hash)))
"""


def ask(publisher: Publisher) -> subprocess.Popen:
    """Ask for the weights in a process of its own; returns when it is about to."""
    words = [sys.executable, "-c", CALL, publisher.url, ROW.hash]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    return process


def test_a_second_process_waits_for_the_first_ones_download(publisher: Publisher) -> None:
    go = threading.Event()

    def hold(request: Handler) -> None:
        go.wait(60)
        send(request, PUBLISHED)

    publisher.answer = hold
    with ask(publisher) as first:
        assert publisher.asked.wait(60)
        with ask(publisher) as second:
            time.sleep(1)
            assert second.poll() is None
            go.set()
            assert first.communicate(timeout=60)[0] == f"{imagenet_path(ROW)}\n"
            assert second.communicate(timeout=60)[0] == f"{imagenet_path(ROW)}\n"
    assert len(publisher.requests) == 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_is_simply_made_again(
    publisher: Publisher, stop: signal.Signals
) -> None:
    publisher.answer = lambda request: (send(request, PUBLISHED[:9], len(PUBLISHED)), time.sleep(3))
    with ask(publisher) as process:
        assert publisher.asked.wait(60)
        time.sleep(0.3)
        process.send_signal(stop)
        assert process.wait(60) != 0
        process.communicate()
    assert ROW.file not in visible(ROW)
    publisher.answer = lambda request: send(request, PUBLISHED)
    assert imagenet_file(ROW).read_bytes() == PUBLISHED


def refused(row: Application = ROW) -> str:
    """Ask for weights that cannot be had; return what is said, which leaves nothing behind."""
    with pytest.raises(BackboneError) as caught:
        imagenet_file(row)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"ImageNet weights: cannot be downloaded from {row.url} (")
    folder = imagenet_path(row).parent
    assert message.endswith(
        f"). Put {row.file} into {folder}, or pass its path as --weights FILE, or pass "
        "--weights random."
    )
    return message[message.index("(") + 1 : message.index("). Put")]


def cut(request: Handler) -> None:
    send(request, PUBLISHED[:70_000], len(PUBLISHED))
    request.connection.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda request: send(request, b"no", status=403), "HTTP 403 Forbidden"),
        (lambda request: send(request, b"no", status=404), "HTTP 404 Not Found"),
        (lambda request: send(request, b"no", status=503), "HTTP 503 Service Unavailable"),
        (cut, "the connection broke off"),
        (lambda request: request.connection.close(), "no connection"),
        (lambda request: send(request, PUBLISHED[::-1]), "what came is not the published file"),
        (lambda request: send(request, b""), "what came is not the published file"),
    ],
)
def test_a_failed_download_says_why_and_leaves_nothing(
    publisher: Publisher, answer: Callable[[Handler], None], said: str
) -> None:
    publisher.answer = answer
    assert refused() == said
    assert visible(ROW) == set()


def test_what_has_no_published_hash_is_inspected_before_it_has_its_name(
    publisher: Publisher, tmp_path: Path
) -> None:
    row = SMALL._replace(hash="")
    publisher.answer = lambda request: send(request, b"<html>Sign in to this network</html>")
    assert refused(row) == "what came is not the published file"
    assert visible(row) == set()
    content = write_numbers(tmp_path / "right.weights.h5").read_bytes()
    publisher.answer = lambda request: send(request, content)
    assert imagenet_file(row).read_bytes() == content
    assert visible(row) == {row.file}


@pytest.mark.parametrize("begun", [False, True])
def test_a_transfer_that_stalls_is_given_up(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    def stall(request: Handler) -> None:
        if begun:
            send(request, PUBLISHED[:70_000], len(PUBLISHED))
        time.sleep(3)

    publisher.answer = stall
    monkeypatch.setattr(weights, "TIMEOUT", (2.0, 0.5))
    began = time.monotonic()
    assert refused() == "no more bytes within 0.5 s"
    assert time.monotonic() - began < 2.5
    assert visible(ROW) == set()


def test_a_refused_connection_is_no_connection(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applications, "_PUBLISHED", "http://127.0.0.1:9/")  # nobody listens there
    assert refused() == "no connection"
    assert visible(ROW) == set()


def test_a_server_without_a_trusted_certificate_is_not_trusted(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applications, "_PUBLISHED", publisher.url.replace("http", "https"))
    assert refused() == "no trusted connection"
    assert visible(ROW) == set()


def test_a_proxy_that_refuses_is_named(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.answer = lambda request: send(request, b"no", status=403)
    monkeypatch.setenv("https_proxy", publisher.url)
    monkeypatch.setattr(applications, "_PUBLISHED", "https://published.invalid/")
    assert refused() == "the proxy does not let it through"
    assert publisher.requests == ["published.invalid:443"]
    assert visible(ROW) == set()


def test_a_file_in_the_folders_place_is_said(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "models").write_text("not a folder")
    assert refused() == f"{tmp_path / 'keras' / 'models'}: File exists"
    assert (tmp_path / "keras" / "models").read_text() == "not a folder"
    assert publisher.requests == []


UNWRITABLE = """
import os, sys
import filelock, pooch, requests
from fer_features.embedding import applications
from fer_features.embedding.weights import imagenet_file
if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)  # root may write anywhere
applications._PUBLISHED = sys.argv[1]
try: imagenet_file(applications.APPLICATIONS["MobileNetV3Small"])
except Exception as error: print(type(error).__name__, error)
"""


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_is_said(publisher: Publisher, mode: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        models = Path(home) / "models"
        models.mkdir(mode=mode)
        models.chmod(mode)
        env = {**os.environ, "KERAS_HOME": home}
        words = [sys.executable, "-c", UNWRITABLE, publisher.url]
        said = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        start = f"BackboneError ImageNet weights: cannot be downloaded from {SMALL.url} ({models}/"
        assert said.stdout.startswith(start), said
        assert ": Permission denied). Put " in said.stdout
        models.chmod(0o755)
        assert list(models.iterdir()) == []
    assert publisher.requests == []


@pytest.mark.parametrize("damage", ["other bytes", "a folder"])
def test_a_damaged_file_in_the_cache_is_refused(publisher: Publisher, damage: str) -> None:
    path = imagenet_path(ROW)
    path.parent.mkdir(parents=True)
    path.mkdir() if damage == "a folder" else path.write_bytes(PUBLISHED[:-1])
    with pytest.raises(BackboneError) as caught:
        imagenet_file(ROW)
    assert str(caught.value) in (
        f"{path}: not the published ImageNet weights (its md5 differs). Remove it, and it is "
        "downloaded again.",
        f"{path}: cannot be read (Is a directory).",
    )
    assert publisher.requests == []


def test_without_a_network_imagenet_fails_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from fer_features import BackboneSpec\n"
        "from fer_features.embedding.backbone import check_files\n"
        "try: check_files(BackboneSpec())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    # Port 9 of this machine refuses connections, which is what no network looks like.
    env = {**os.environ, "KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    message, imported = said.stdout.splitlines()
    assert message.startswith("BackboneError ImageNet weights: cannot be downloaded from https://")
    assert f"{tmp_path}/models, or pass its path as --weights FILE" in message
    assert imported == "set()"


def test_a_published_hash_is_checked_in_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "published.h5"
    path.write_bytes(PUBLISHED)
    check_published(path, ROW)
    check_published(path, SMALL._replace(hash=hashlib.sha256(PUBLISHED).hexdigest()))
    for wrong in ("0" * 32, "0" * 64):
        with pytest.raises(BackboneError, match=r"its (md5|sha256) differs"):
            check_published(path, SMALL._replace(hash=wrong))


def test_weights_of_an_efficientnet_that_are_not_the_published_ones_are_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(BackboneError, match=r"mine\.weights\.h5: .* Save the network whole"):
        BackboneSpec("EfficientNetB0", str(tmp_path / "mine.weights.h5"))
