"""Files as nobody wrote them, and a process of its own in which they are read one after another.

``python -m mutations READER FOLDER COUNT SEED`` reads; :func:`outcomes` starts it.
"""

import faulthandler
import io
import json
import multiprocessing
import pickle
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SECONDS = 90
"""After which a reader counts as one that does not end."""

EXTREMES = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63)
TOKENS = ("-1", "0", "1e999", "2147483647", "4611686018427387904", "9" * 400, "1000000", "null",
          '""', "[]", "{}", "true", "[" * 999)  # fmt: skip


def mutated(content: bytes, rng: np.random.Generator, places: Any = None) -> bytes:
    """Return bytes with some changed, cut off, taken out, doubled, or put to extreme numbers."""
    new = bytearray(content)
    if not new:
        return b"\0"
    at = int(rng.choice(places)) if places is not None else int(rng.integers(len(new)))
    size = int(rng.integers(1, max(2, len(new) // 8)))
    match rng.integers(8):
        case 0:
            del new[at:]
        case 1:
            del new[at : at + size]
        case 2:
            new[at:at] = new[at : at + size]
        case 3:
            new[at : at + size] = rng.bytes(size)
        case 4 | 5:
            width = int(rng.choice([2, 4, 8]))
            number = int(rng.choice(np.array(EXTREMES, np.uint64))) % 2 ** (8 * width)
            new[at : at + width] = number.to_bytes(width, "little")
        case _:
            for _ in range(rng.integers(1, 5)):
                place = rng.choice(places) if places is not None else rng.integers(len(new))
                new[min(int(place), len(new) - 1)] = rng.choice([0, 1, 8, 34, 127, 255])
    return bytes(new)


def mutated_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a JSON or CSV text with a word, a number or any bytes of it changed."""
    tokens = list(re.finditer(rb'-?\d[\d.e+-]*|"[^"]*"|true|false|null|\w+', content))
    if not tokens or rng.random() < 0.3:
        return mutated(content, rng)
    found = tokens[rng.integers(len(tokens))]
    put = str(rng.choice(TOKENS)).encode() if rng.random() < 0.7 else mutated(found[0], rng)
    return content[: found.start()] + put + content[found.end() :]


def mutated_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a zip with its bytes changed, or a member's, or a member gone, twice or deflated."""
    if rng.random() < 0.2:
        return mutated(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = str(rng.choice(list(members)))
    match rng.integers(8):
        case 0:
            del members[name]
        case 1:
            members[name] = b"\0" * 10**6
        case _:
            text = name.endswith(".json")
            members[name] = (mutated_text if text else mutated)(members[name], rng)
    written = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(written, "w", packing) as archive:
        for each, held in members.items():
            archive.writestr(each, held)
    return written.getvalue()


def structure_of(path: Path) -> Any:
    """Return where in an HDF5 file are no numbers: changed data are other data, and no more."""
    import h5py

    inside = np.ones(path.stat().st_size, bool)

    def leave(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            start = item.id.get_offset()
            inside[start + 16 : start + item.id.get_storage_size()] = False

    with h5py.File(path) as file:
        file.visititems(leave)
    return np.flatnonzero(inside)


def read_store(path: Path) -> None:
    from fer_features import Store

    store = Store(path)
    store.verify(), store.to_frame(), store.options()


APPLICATION = "MobileNetV3Small"


def read_weights(path: Path) -> None:
    from fer_features.embedding.applications import APPLICATIONS
    from fer_features.embedding.weights import inspect_weights_file, load_weights

    network = networks.get("small")
    numbers = 0 if network is None else network.count_params()
    application = APPLICATIONS[APPLICATION]._replace(parameters=numbers or NUMBERS)
    inspect_weights_file(path, application)
    if network is not None:
        load_weights(network, path, "small")


def read_keras(path: Path) -> None:
    from fer_features.embedding.weights import (
        count_parameters,
        inspect_keras_file,
        load_keras_file,
    )

    inspect_keras_file(path)
    count_parameters(path)
    if networks:
        load_keras_file(path)


def read_run(folder: Path) -> None:
    from fer_features import load_results
    from fer_features.experiment.run_head import load_run_head

    results = load_results(folder)
    repr(results), results.to_frame(), results.settings(), results.notices()
    for result in results:
        result.head()
        assert result.folder is not None
        head = load_run_head(result.folder)
        width = len(head.layers[0][0]) if head.layers else head.fitted.n_features_in_
        head.answers(np.ones((2, width), np.float32), 1.0)


NUMBERS = 624
networks: dict[str, Any] = {}


def small(keras: Any) -> Any:
    """Return a network with layers of the usual kinds."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.SeparableConv2D(8, 3),
            layers.RandomFlip(),
            layers.Dropout(0.1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(16),
        ],
        name="small",
    )


FILES = {
    "store": ("store.h5",),
    "weights": ("small.weights.h5", "old.h5"),
    "keras": ("small.keras",),
    "run": ("metrics.json", "predictions.csv", "head.keras"),
    "kept by skops": ("head.skops",),
    "comparison": ("results.json",),
}
READERS: dict[str, Callable[[Path], None]] = {
    "store": read_store, "weights": read_weights, "keras": read_keras, "run": read_run,
    "kept by skops": read_run, "comparison": read_run,
}  # fmt: skip


def main(reader: str, folder: Path, count: int, seed: int, with_keras: bool) -> None:
    """Read mutated files of a folder; print how often what came of it, and the memory taken."""
    from fer_features import FerFeaturesError

    if with_keras:
        from fer_features.runtimes import plain_keras

        check_in_forks(folder)
        with plain_keras() as keras:
            networks["small"] = small(keras)
    whole = {name: (folder / name).read_bytes() for name in FILES[reader]}
    places = {name: structure_of(folder / name) for name in whole if name.endswith(".h5")}
    is_folder = reader in ("run", "kept by skops", "comparison")
    if is_folder:
        score_once()
    found: Counter[str] = Counter()
    for name in whole:  # once as they are: what that takes is no matter of the mutations
        READERS[reader](folder if is_folder else folder / name)
    before = peak()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = list(whole)[number % len(whole)]
        path = folder / name
        if name in places:
            content = mutated(whole[name], rng, places[name])
        elif name.endswith((".keras", ".skops")):
            content = mutated_zip(whole[name], rng)
        else:
            content = mutated_text(whole[name], rng)
        path.write_bytes(content)
        print(f"\r{number} {name}", end="", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            READERS[reader](folder if is_folder else path)
            outcome = "read"
        except FerFeaturesError as error:
            plain = str(error).isprintable() and len(str(error)) < 2000
            outcome = "refused" if plain else f"{number} {name}: in several lines: {error!r:.300}"
        except BaseException as error:
            outcome = f"{number} {name}: {error!r:.300}"
        found[outcome] += 1
        if outcome not in ("read", "refused"):
            print(f"\r{outcome}", file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
        path.write_bytes(whole[name])
    print(json.dumps({"found": found, "megabytes": (peak() - before) // 1024}))


def score_once() -> None:
    """Let the same predictions be scored once: that takes nine tenths of the time of a reading."""
    from fer_features.experiment import result

    known: dict[Any, bytes] = {}
    computed = result.score

    def score(target: Any, p: Any, classes: Any, predicted: Any) -> Any:
        key = (*target, None, *classes, None, *predicted, p.shape, p.tobytes())
        if key not in known:
            known[key] = pickle.dumps(computed(target, p, classes, predicted))
        return pickle.loads(known[key])

    result.score = score


def check_in_forks(folder: Path) -> None:
    """Let a file's structure be checked in copies of a process that has h5py already.

    They do, bear and are refused what a process started for it is: its start, a fifth of a second,
    is what thousands of them would spend their time on.
    """
    from fer_features import hdf5

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fer_features.hdf5"])
    printed = folder / "printed"

    def run(words: list[str], timeout: float, **_: Any) -> subprocess.CompletedProcess[bytes]:
        process = context.Process(target=in_fork, args=(printed, *words[-3:]))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, process.exitcode, printed.read_bytes())

    ours = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    hdf5.subprocess = ours  # type: ignore[attr-defined]


def in_fork(printed: Path, *words: str) -> None:
    """Do what :func:`fer_features.hdf5.check_survived` starts a process for."""
    from fer_features import hdf5

    with printed.open("w") as sys.stdout:
        hdf5._read_all(*words)


def peak() -> int:
    """Return the most memory that this program had, in kB: getrusage counts what started it."""
    try:
        said = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(said.partition("VmHWM:")[2].split()[0])


def outcomes(
    reader: str, folder: Path, count: int, seed: int = 0, with_keras: bool = False
) -> tuple[dict[str, int], int]:
    """Return how often mutated files were read, refused, or met otherwise; and megabytes taken."""
    words = [sys.executable, "-m", "mutations", reader, folder, count, seed, int(with_keras)]
    began = time.monotonic()
    # Beside the folder, for the eyes of whoever waits: the last line says which mutation is read.
    progress = folder.with_name(f"{folder.name}.{reader.replace(' ', '-')}.progress")
    with progress.open("w") as err:
        done = subprocess.run(
            list(map(str, words)),
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert done.returncode == 0, f"{done.returncode}: {progress.read_text()[-3000:]}"
    said = json.loads(done.stdout.splitlines()[-1])
    print(f"{reader}: {said['found']}, {said['megabytes']} MB, {time.monotonic() - began:.0f} s")
    return said["found"], said["megabytes"]


if __name__ == "__main__":
    name, where, number, start, keras_too = sys.argv[1:]
    main(name, Path(where), int(number), int(start), keras_too == "1")
