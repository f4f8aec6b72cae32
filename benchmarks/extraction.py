"""How fast a pass is, beside the other ways to get these embeddings; all in one run, interleaved.

    python benchmarks/extraction.py [FACES.csv] [--rounds 5] [--images 128]

Without FACES.csv it draws faces. Each way runs in a process of its own that stays warm, and the
ways take turns round by round, so that a machine whose speed drifts is fair to all. Figures are
medians over the rounds; ratios are medians of each round's ratio. Weights are random: they cost
what trained ones do.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from original import original_network, preprocessed
from results import drawn, machine, table, write_section

MATRIX = 2048
FLOP_AN_IMAGE = 4.53e9
"""Of InceptionResNetV2 at 139x139, in multiplications and additions counted apart."""


def keras_predict() -> Callable[[Any], Any]:
    """Return the original's way: resized images through Keras's ``predict``, 128 at a time."""
    network = original_network()
    return lambda pixels: network.predict(preprocessed(pixels), batch_size=128, verbose=0)


def tf_function() -> Callable[[Any], Any]:
    """Return the unchanged network under a plain ``tf.function``, in batches of 64."""
    from fer_features.runtimes import import_tensorflow

    tf, network = import_tensorflow(), original_network()
    run = tf.function(lambda pixels: network(preprocessed(pixels), training=False))
    return _in_batches(lambda pixels: run(tf.constant(pixels)).numpy())


def engine(
    name: str, precision: str = "float32", layers: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Return one of this project's engines, in blocks of 64."""
    from fer_features import BackboneSpec
    from fer_features.embedding.engines import load_engine
    from fer_features.embedding.openvino import quantised_spec

    spec = BackboneSpec(weights="random", precision=precision, layers=layers)
    if precision == "int8":
        spec = quantised_spec(spec, Path("cache")) or spec
    return _in_batches(load_engine(spec, spec.outputs, name, Path("cache")))


def matrix_product() -> Callable[[Any], Any]:
    """Return float32 matrix products of as many operations as the images take."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), dtype=np.float32)

    def run(pixels: Any) -> None:
        for _ in range(round(len(pixels) * FLOP_AN_IMAGE / (2 * MATRIX**3))):
            a @ a

    return run


WAYS: dict[str, tuple[str, Callable[[], Callable[[Any], Any]]]] = {
    "predict": ("Keras `predict`, the original's way", keras_predict),
    "function": ("plain `tf.function`", tf_function),
    "tensorflow": ("engine tensorflow", lambda: engine("tensorflow")),
    "openvino": ("engine openvino, float32", lambda: engine("openvino")),
    "layers": (
        "the same, with mixed_6a and mixed_7a kept",
        lambda: engine("openvino", layers=("mixed_6a", "mixed_7a")),
    ),
    "int8": ("engine openvino, int8", lambda: engine("openvino", "int8")),
    "product": (f"float32 product of {MATRIX}x{MATRIX}, as images", matrix_product),
}


def _in_batches(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda pixels: [run(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]


def serve(way: str, faces: Path, images: int) -> None:
    """Load one way, warm it, then time it each time a line comes in."""
    from fer_features import read_faces

    pixels = read_faces(faces, limit=images).pixels
    with contextlib.redirect_stdout(sys.stderr):
        run = WAYS[way][1]()
        run(pixels)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(pixels)
        print(len(pixels) / (time.perf_counter() - started), flush=True)


def measure_ways(faces: Path, rounds: int, images: int, home: Path) -> dict[str, list[float]]:
    """Return images a second of each way, one figure a round."""
    servers = {}
    for way in WAYS:
        call = [sys.executable, __file__, str(faces), "--serve", way, "--images", str(images)]
        servers[way] = subprocess.Popen(
            call, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _line(servers[way])
        print(f"  {way} ready", file=sys.stderr)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way, server in servers.items():
            assert server.stdin is not None
            server.stdin.write("go\n")
            server.stdin.flush()
            found[way].append(float(_line(server)))
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    for server in servers.values():
        server.communicate()
    return found


def _line(server: subprocess.Popen) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise SystemExit("a way ended by itself; run it with --serve to see why")
    return line


def fer_extract(home: Path, *arguments: object) -> tuple[float, float]:
    """Run the command; return its wall time in seconds and peak memory in GB."""
    call = [sys.executable, "-m", "fer_features.cli.extract", *map(str, arguments), "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen(call, cwd=home, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(call)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1e6


def measure_command(faces: Path, images: int, home: Path) -> list[tuple[str, str]]:
    """Time the whole command: first pass, later passes, repeated and started passes."""
    common = ("--weights", "random", "--limit", images)
    first, first_memory = fer_extract(home, faces, *common, "-o", "cache/first.h5")
    later, later_memory = fer_extract(home, faces, *common, "-o", "cache/later.h5")
    start, _ = fer_extract(home, faces, "--weights", "random", "--limit", 1, "-o", "cache/one.h5")
    grown = [fer_extract(home, faces, *common, "-o", "cache/first.h5")[0] for _ in range(3)]
    [made] = _passes(home / "cache" / "later.h5")
    engine_alone = made["images"] / made["images_per_second"]
    return [
        (
            f"first pass over {images} images, with the conversion",
            f"{first:.1f} s, peak {first_memory:.2f} GB",
        ),
        ("the same later, network converted", f"{later:.1f} s, peak {later_memory:.2f} GB"),
        ("of which the engine computes", f"{engine_alone:.1f} s"),
        ("one image: start, reading the source included", f"{start:.1f} s"),
        ("repeated call, nothing missing", f"{statistics.median(grown):.2f} s"),
    ]


def _passes(store: Path) -> list[dict[str, Any]]:
    from fer_features import Store

    passes: list[dict[str, Any]] = Store(store).provenance["passes"]
    return passes


def measure_reading(faces: Path, rounds: int) -> list[tuple[str, str]]:
    """Time reading the CSV here against the original's row-by-row parse, in turn."""
    import numpy as np
    import pandas as pd

    from fer_features import read_faces

    def original() -> None:
        frame = pd.read_csv(faces)
        np.array([np.array(text.split(), dtype=np.float32) for text in frame["pixels"]])

    ours, theirs = [], []
    for _ in range(rounds):
        for run, times in ((original, theirs), (lambda: read_faces(faces), ours)):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return [
        ("CSV, the original's parse", f"{statistics.median(theirs):.1f} s"),
        ("CSV, read here: parsed, checked, hashed", f"{statistics.median(ours):.1f} s"),
        ("ratio", f"{ratio:.1f}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--pass-images", type=int, default=1000)
    parser.add_argument("--serve", choices=WAYS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.faces, options.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        faces = options.faces.resolve() if options.faces else drawn(home)
        said = f"{options.images} images a round, {options.rounds} rounds"
        print("the whole command", file=sys.stderr)
        rows = measure_command(faces, options.pass_images, home)
        fer_extract(home, faces, "--weights", "random", "--limit", 600, "--precision", "int8")
        print("engines", file=sys.stderr)
        found = measure_ways(faces, options.rounds, options.images, home)
        print("reading", file=sys.stderr)
        reading = measure_reading(faces, 3)
    engines = [
        (
            label,
            f"{statistics.median(found[way]):.1f}",
            f"{_ratio(found, way, 'predict'):.2f}",
            f"{_ratio(found, way, 'product'):.2f}",
        )
        for way, (label, _) in WAYS.items()
    ]
    source = options.faces.name if options.faces else "drawn faces"
    text = "\n\n".join(
        [
            f"{machine()}\n\nSource: {source}; {said}; medians, ratios within a round.",
            table(("way", "images/s", "/ Keras predict", "/ matrix product"), engines),
            table(("the whole command, engine openvino", "measured"), rows),
            f"Keeping two inner layers costs {1 - _ratio(found, 'layers', 'openvino'):.1%} of the "
            "engine's rate.",
            table((f"reading {source}", "median of 3"), reading),
        ]
    )
    print(text)
    write_section("Extraction", text)
    print(json.dumps({way: [round(v, 1) for v in values] for way, values in found.items()}))


def _ratio(found: dict[str, list[float]], way: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(found[way], found[base], strict=True))


if __name__ == "__main__":
    main()
