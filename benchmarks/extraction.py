"""How fast a pass is, beside the other ways to get these embeddings; all in one run, interleaved.

    python benchmarks/extraction.py [FACES.csv] [--rounds 5] [--images 128] [--passes 3]

Without FACES.csv it draws faces. Each way runs in a process of its own that stays warm, and the
ways to one network take turns round by round, so that a machine whose speed drifts is fair to all.
Figures are medians over the rounds; ratios are medians of each round's ratio. Weights are random:
they cost what trained ones do. BACKBONE_KERAS=network.keras in the environment adds that network.
"""

import argparse
import contextlib
import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from original import INCEPTION, original_network, preprocessed
from results import cpu_flags, drawn, machine, table, write_section

from fer_features import BackboneSpec, Store

MATRIX = 2048
FLOP_AN_IMAGE = 4.53e9
"""Of InceptionResNetV2 at 139x139, in multiplications and additions counted apart."""

SMALL = BackboneSpec("EfficientNetV2B0", weights="random")
NETWORK = os.environ.get("BACKBONE_KERAS")

# On some machines they let OpenBLAS compute at a fraction of its rate, which would flatter all.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

Run = Callable[[Any], Any]


def keras_predict(spec: BackboneSpec) -> Run:
    """Return the original's way: resized images through Keras's ``predict``, 128 at a time."""
    network = original_network(spec)
    return lambda pixels: network.predict(preprocessed(pixels, spec), batch_size=128, verbose=0)


def tf_function(spec: BackboneSpec) -> Run:
    """Return the unchanged network under a plain ``tf.function``, in batches of 64."""
    from fer_features.runtimes import import_tensorflow

    tf, network = import_tensorflow(), original_network(spec)
    run = tf.function(lambda pixels: network(preprocessed(pixels, spec), training=False))
    return _in_batches(lambda pixels: run(tf.constant(pixels)).numpy())


def engine(spec: BackboneSpec, name: str = "openvino") -> Run:
    """Return one of this project's engines, in blocks of 64."""
    from fer_features.embedding.engines import load_engine
    from fer_features.embedding.openvino import quantised_spec

    if spec.precision == "int8":
        spec = quantised_spec(spec, Path("cache")) or spec
    return _in_batches(load_engine(spec, spec.outputs, name, Path("cache")))


def one_request(spec: BackboneSpec) -> Run:
    """Return OpenVINO's plain call: 64 images in one synchronous request of all threads."""
    from fer_features.embedding.openvino import converted_network
    from fer_features.runtimes import import_openvino

    network, _ = converted_network(spec, spec.outputs, Path("cache"))
    float32 = {"INFERENCE_PRECISION_HINT": "f32"}
    return _in_batches(import_openvino().Core().compile_model(network, "CPU", float32))


def matrix_product(_: BackboneSpec) -> Run:
    """Return float32 matrix products of as many operations as the images take."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), dtype=np.float32)

    def run(pixels: Any) -> None:
        for _ in range(max(1, round(len(pixels) / _images_a_product()))):
            a @ a

    return run


def _images_a_product() -> float:
    return 2 * MATRIX**3 / FLOP_AN_IMAGE


class Way(NamedTuple):
    """One way to the embeddings of a network; ``load`` gets it ready, in its own process."""

    label: str
    load: Callable[[BackboneSpec], Run]
    spec: BackboneSpec = INCEPTION


LAYERS = BackboneSpec(weights="random", layers=("mixed_6a", "mixed_7a"))
INT8 = BackboneSpec(weights="random", precision="int8")

WAYS = {
    "predict": Way("Keras `predict`, the original's way", keras_predict),
    "function": Way("plain `tf.function`", tf_function),
    "tensorflow": Way("engine tensorflow", lambda spec: engine(spec, "tensorflow")),
    "request": Way("OpenVINO, float32, one synchronous request", one_request),
    "openvino": Way("engine openvino, float32", engine),
    "layers": Way("the same, with mixed_6a and mixed_7a kept", engine, LAYERS),
    "int8": Way("engine openvino, int8", engine, INT8),
    "product": Way(f"float32 product of {MATRIX}x{MATRIX}, as images", matrix_product),
}

OTHERS = {"small": SMALL, **({"file": BackboneSpec(NETWORK)} if NETWORK else {})}
"""Other networks, each by Keras's ``predict`` and by this project's engine."""

OTHER_WAYS = {
    f"{name}-{way}": WAYS[way]._replace(spec=spec)
    for name, spec in OTHERS.items()
    for way in ("predict", "request", "openvino")
}


def _in_batches(run: Run) -> Run:
    return lambda pixels: [run(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]


def serve(way: Way, faces: Path, images: int) -> None:
    """Load one way, warm it, then time it each time a line comes in."""
    from fer_features import read_faces

    pixels = read_faces(faces, limit=images).pixels
    with contextlib.redirect_stdout(sys.stderr):
        run = way.load(way.spec)
        run(pixels)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(pixels)
        print(len(pixels) / (time.perf_counter() - started), flush=True)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SLOWING}


Rates = dict[str, list[float]]
"""Images a second of each way, one figure a round."""


def measure_ways(ways: Sequence[str], faces: Path, rounds: int, images: int, home: Path) -> Rates:
    servers = {}
    for way in ways:
        call = [sys.executable, __file__, str(faces), "--serve", way, "--images", str(images)]
        with (home / f"{way}.log").open("w") as log:
            servers[way] = subprocess.Popen(
                call, cwd=home, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip
        _line(servers[way], home / f"{way}.log")
        print(f"  {way} ready", file=sys.stderr)
    found: Rates = {way: [] for way in ways}
    for number in range(rounds):
        for way, server in servers.items():
            assert server.stdin is not None
            server.stdin.write("go\n")
            server.stdin.flush()
            found[way].append(float(_line(server, home / f"{way}.log")))
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    for server in servers.values():
        server.communicate()
    return found


def _line(server: subprocess.Popen, log: Path) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise SystemExit(f"{log.stem} ended by itself:\n{log.read_text()[-2000:]}")
    return line


def fer_extract(home: Path, *arguments: object) -> tuple[float, float]:
    """Run the command; return its wall time in seconds and peak memory in GB."""
    call = [sys.executable, "-m", "fer_features.cli.extract", *map(str, arguments), "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen(call, cwd=home, env=_environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(call)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1e6


class Command(NamedTuple):
    """What the whole command took, a figure a round: seconds, and GB at the peak.

    ``engine`` are the seconds of a later pass in which the engine computes, ``start`` is a pass
    over one image, ``repeated`` a call that finds everything there.
    """

    first: list[float]
    first_memory: list[float]
    later: list[float]
    later_memory: list[float]
    engine: list[float]
    start: list[float]
    repeated: list[float]


def measure_command(faces: Path, images: int, rounds: int, home: Path) -> Command:
    """Time the whole command: first and later passes, started and repeated ones, in turn."""
    took = Command([], [], [], [], [], [], [])
    for number in range(rounds):
        folder = home / f"round{number}"
        folder.mkdir()
        common = (faces, "--weights", "random", "--limit")
        for name, times, memory in (
            ("first.h5", took.first, took.first_memory),
            ("later.h5", took.later, took.later_memory),
        ):
            seconds, gigabytes = fer_extract(folder, *common, images, "-o", f"cache/{name}")
            times.append(seconds)
            memory.append(gigabytes)
        [made] = Store(folder / "cache" / "later.h5").provenance["passes"]
        took.engine.append(made["images"] / made["images_per_second"])
        took.start.append(fer_extract(folder, *common, 1, "-o", "cache/one.h5")[0])
        took.repeated.append(fer_extract(folder, *common, images, "-o", "cache/first.h5")[0])
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    return took


def command_rows(took: Command, images: int) -> list[tuple[str, str]]:
    median = {name: statistics.median(values) for name, values in took._asdict().items()}
    return [
        (
            f"first pass over {images:,} images, with the conversion",
            f"{median['first']:.1f} s, peak {median['first_memory']:.2f} GB",
        ),
        (
            "the same later, network converted",
            f"{median['later']:.1f} s, peak {median['later_memory']:.2f} GB",
        ),
        ("of which the engine computes", f"{median['engine']:.1f} s"),
        ("one image: start, reading the source included", f"{median['start']:.1f} s"),
        ("repeated call, nothing missing", f"{median['repeated']:.2f} s"),
    ]


def measure_reading(faces: Path, rounds: int) -> dict[str, list[float]]:
    """Time reading the CSV here and the original's row-by-row parse, in turn, in seconds."""
    import numpy as np
    import pandas as pd

    from fer_features import read_faces

    def original() -> None:
        frame = pd.read_csv(faces)
        np.array([np.array(text.split(), dtype=np.float32) for text in frame["pixels"]])

    ways = {"original": original, "here": lambda: read_faces(faces)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - started)
    return took


class Aim(NamedTuple):
    """What is wanted of a figure: the ``bound`` it must keep, and the ``goal`` where there is one.

    ``small`` says that the figure is to be at most these, instead of at least.
    """

    what: str
    found: float
    bound: float
    goal: float | None
    unit: str = ""
    small: bool = False

    def row(self) -> tuple[str, ...]:
        def keeps(limit: float) -> bool:
            return self.found <= limit if self.small else self.found >= limit

        reached = "the aim" if self.goal is not None and keeps(self.goal) else "the bound"
        return (
            self.what,
            f"{self.found:.2f}{self.unit}",
            f"{'at most' if self.small else 'at least'} {self.bound:g}{self.unit}",
            "" if self.goal is None else f"{self.goal:g}{self.unit}",
            reached if keeps(self.bound) else "no",
        )


def aims(found: Rates, took: Command, reading: dict[str, list[float]], images: int) -> list[Aim]:
    wide = "avx512f" in cpu_flags()
    beside = statistics.median(took.later_memory) - images * 48 * 48 / 1e9
    return [
        Aim(
            f"float32 / matrix product, with {'AVX-512' if wide else 'AVX2'}",
            ratio(found["openvino"], found["product"]),
            0.93 if wide else 1.0,
            1.15,
        ),
        Aim("int8 / Keras `predict`", ratio(found["int8"], found["predict"]), 4, 7),
        Aim(
            "the original's parse of the CSV / reading here",
            ratio(reading["original"], reading["here"]),
            6,
            10,
        ),
        Aim(
            f"first pass over {images:,} images / a later one",
            ratio(took.first, took.later),
            1.6,
            1.3,
            small=True,
        ),
        Aim("repeated call", statistics.median(took.repeated), 1.3, 0.8, " s", small=True),
        Aim("peak memory of a later pass, beside the pixels", beside, 0.9, None, " GB", small=True),
    ]


def ratio(a: list[float], b: list[float]) -> float:
    """Return the median of each round's ratio."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def rate_rows(ways: dict[str, Way], found: Rates, bases: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            way.label,
            f"{statistics.median(found[name]):.1f}",
            f"{min(found[name]):.1f} to {max(found[name]):.1f}",
            *(f"{ratio(found[name], found[base]):.2f}" for base in bases),
        )
        for name, way in ways.items()
    ]


def other_rows(found: Rates) -> list[tuple[str, ...]]:
    rows = []
    for name, spec in OTHERS.items():
        ways = {way: OTHER_WAYS[way] for way in OTHER_WAYS if way.startswith(f"{name}-")}
        network = f"{spec.name}, {spec.input_size} pixels"
        rows += [(network, *row) for row in rate_rows(ways, found, [f"{name}-predict"])]
    return rows


def plain_csv(source: Path, home: Path) -> Path:
    """Return the CSV file, unpacked where it is packed, since unpacking is not what is timed."""
    if source.suffix != ".xz":
        return source.resolve()
    with lzma.open(source) as packed, (home / source.stem).open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return home / source.stem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--pass-images", type=int, default=1000)
    parser.add_argument("--serve", choices=(*WAYS, *OTHER_WAYS))
    options = parser.parse_args()
    if options.serve:
        serve((WAYS | OTHER_WAYS)[options.serve], options.faces, options.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        faces = plain_csv(options.faces, home) if options.faces else drawn(home)
        print("the whole command", file=sys.stderr)
        took = measure_command(faces, options.pass_images, options.passes, home)
        print("engines", file=sys.stderr)
        random = ("--weights", "random", "--limit", 600)
        fer_extract(home, faces, *random, "--precision", "int8")
        rounds = (faces, options.rounds, options.images, home)
        found = measure_ways(list(WAYS), *rounds)
        for name in OTHERS:
            found |= measure_ways(
                [way for way in OTHER_WAYS if way.startswith(f"{name}-")], *rounds
            )
        print("reading", file=sys.stderr)
        reading = measure_reading(faces, 3)
    source = faces.name if options.faces else "drawn faces"
    hidden = [name for name in SLOWING if name in os.environ]
    text = "\n\n".join(
        [
            machine(),
            f"Source: {source}; {options.images} images a round, {options.rounds} rounds; "
            f"passes {options.passes} times; medians, ratios within a round."
            + f" Set here, and kept from all of it: {' and '.join(hidden)}." * bool(hidden),
            table(
                ("aims", "measured", "bound", "aim", "reached"),
                [aim.row() for aim in aims(found, took, reading, options.pass_images)],
            ),
            table(
                (f"way, {INCEPTION.name}, {INCEPTION.input_size} pixels", "images/s", "rounds",
                 "/ Keras predict", "/ matrix product"),
                rate_rows(WAYS, found, ("predict", "product")),
            ),
            f"The engine's streams give {ratio(found['openvino'], found['request']):.2f} times the "
            "rate of one synchronous request. Keeping two inner layers costs "
            f"{1 - ratio(found['layers'], found['openvino']):.1%} of the engine's rate.",
            table(
                ("other networks", "way", "images/s", "rounds", "/ Keras predict"),
                other_rows(found),
            ),
            *([] if NETWORK else ["BACKBONE_KERAS names no network: that of a file is left out."]),
            table(
                ("the whole command, engine openvino", "measured"),
                command_rows(took, options.pass_images),
            ),
            table(
                (f"reading {source}", "median of 3"),
                [
                    ("the original's parse", f"{statistics.median(reading['original']):.1f} s"),
                    (
                        "here: parsed, checked, hashed",
                        f"{statistics.median(reading['here']):.1f} s",
                    ),
                ],
            ),
        ]
    )  # fmt: skip
    print(text)
    write_section("Extraction", text)
    print(json.dumps({way: [round(v, 1) for v in values] for way, values in found.items()}))


if __name__ == "__main__":
    main()
