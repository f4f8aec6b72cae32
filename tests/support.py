"""What many tests share: small faces, a tiny backbone, and the commands as a user calls them."""

import contextlib
import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_features import BackboneSpec, FaceDataset

TINY = BackboneSpec("tiny", weights="random:0")


def noise_faces(n: int = 40, seed: int = 0, copies: bool = True) -> FaceDataset:
    """Return n images of noise; with copies, rows 3, 7 and n - 1 hold one image."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 48, 48), dtype=np.uint8)
    if copies:
        pixels[[7, n - 1]] = pixels[3]
    return FaceDataset(
        name="noise",
        kind="arrays",
        pixels=pixels,
        emotion=rng.integers(0, 7, n).astype(np.int8),
        usage=rng.integers(0, 3, n).astype(np.int8),
        source=np.arange(1, n + 1).astype(np.str_),
    )


def write_csv(path: Path, faces: FaceDataset) -> Path:
    """Write faces in FER2013's form, plainly."""
    usages = ("Training", "PublicTest", "PrivateTest")
    lines = ["emotion,pixels,Usage"]
    for pixels, emotion, usage in zip(faces.pixels, faces.emotion, faces.usage, strict=True):
        lines.append(f"{emotion},{' '.join(map(str, pixels.ravel()))},{usages[usage]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def command(name: str, *arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Call one of the three commands in a process of its own."""
    module = f"fer_features.cli.{name.removeprefix('fer-').replace('-', '_')}"
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def called(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Call one of the three commands in this process, which spares the imports."""
    module = import_module(f"fer_features.cli.{name.removeprefix('fer-').replace('-', '_')}")
    words = list(map(str, arguments))
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            module.main.main(args=words, prog_name=name)
        except SystemExit as stop:
            status = stop.code
    return subprocess.CompletedProcess([name, *words], status, out.getvalue(), err.getvalue())


_SYSTEM_CALLS = {
    "x86_64": {"flock": 73, "fsync": 74, "pwrite": 18},
    "aarch64": {"flock": 32, "fsync": 82, "pwrite": 68},
}

_REFUSE = """
import ctypes, errno, platform, struct, sys
sys.path.insert(0, {tests!r})
def refuse(call, name):
    # seccomp: of this process the kernel answers one system call with an error.
    number = {calls!r}[platform.machine()][call]
    steps = [
        (0x20, 0, 0, 0), (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | getattr(errno, name)), (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0):
        sys.exit(77)
"""

REFUSING = _REFUSE.format(tests=str(Path(__file__).parent), calls=_SYSTEM_CALLS)
"""Python code of ``refuse(call, name)``: from then on the kernel answers a call with that error."""

needs_refusals = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in _SYSTEM_CALLS,
    reason="refuses system calls as Linux does",
)


def refusing(code: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python code that may refuse itself system calls."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSING + code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 77:
        pytest.skip("this system lets no process refuse itself system calls")
    return done
