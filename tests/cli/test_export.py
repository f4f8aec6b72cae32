"""fer-export as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.neighbors import KNeighborsClassifier
from support import TINY, called

from fer_features import LogisticHead, Task, evaluate, extract
from fer_features.sample.faces import draw_faces


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    task = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]}, per_class="min")
    data = task.select(extract(draw_faces(160), home / "cache/faces.h5", backbone=TINY))
    for name, head in (("run", LogisticHead(C=0.1)), ("nearest", KNeighborsClassifier())):
        evaluate(head.fit(data.train.X, data.train.y), data).save(home / name)
    return home


def test_each_format_is_one_line_and_no_converter_chatters(home: Path, tmp_path: Path) -> None:
    names = ("m.onnx", "m.keras", "m.tflite", "m.xml")
    code = (
        "import sys\nfrom fer_features.cli.export import main\n"
        "for name in sys.argv[1:]:\n"
        "    try: main(['run', '-o', name])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
    )
    call = [sys.executable, "-c", code, *(tmp_path / name for name in names)]
    said = subprocess.run(call, cwd=home, capture_output=True, text=True, check=False)
    assert said.returncode == 0
    lines = [f"writing {tmp_path / name}, then comparing it with the run" for name in names]
    assert said.stderr.splitlines() == lines
    for name, line in zip(names, said.stdout.splitlines(), strict=True):
        start = f"{tmp_path / name}: tiny in float32 and the logistic head, to up, down, calibrated"
        assert line.startswith(start)
        assert line.endswith("of the run's probabilities on drawn faces")
        assert (tmp_path / name).is_file()


def test_calibration_can_be_left_out(home: Path, tmp_path: Path) -> None:
    call = ("fer-export", "run", "-o", tmp_path / "m.xml", "--no-calibration")
    assert "calibrated" not in called(*call, cwd=home).stdout


BAD_CALLS = [
    (["run"], "Missing option '-o'"),
    (["missing", "-o", "m.xml"], "missing: no such folder"),
    (["run", "-o", "m.pb"], "m.pb: expected a name that ends in .keras, .onnx, .xml, .tflite"),
    (["run", "-o", "there.onnx"], "there.onnx: exists, expected a new name. Choose one, or --over"),
    (["run", "-o", "none/m.onnx"], "none/m.onnx: no folder none"),
    (["nearest", "-o", "m.onnx"], "Ask it with fer-predict, or fit one of those"),
    (["run", "-o", "m.xml", "--backbone", "other.keras"], "other.keras: no such file"),
]


@pytest.mark.parametrize(("words", "match"), BAD_CALLS)
def test_a_bad_call_is_one_line(words: list[str], match: str, home: Path) -> None:
    (home / "there.onnx").write_text("mine")
    said = called("fer-export", *words, cwd=home)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("Error: ")
    assert said.stderr.count("\n") == 1
    assert match in said.stderr
    assert (home / "there.onnx").read_text() == "mine"


def test_overwrite_replaces_what_is_there(home: Path, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("mine")
    call = ("fer-export", "run", "-o", tmp_path / "m.xml", "--overwrite")
    assert called(*call, cwd=home).returncode == 0
    assert (tmp_path / "m.xml").read_text() != "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that root cannot write")
def test_a_file_that_cannot_be_written_is_named(home: Path) -> None:
    said = called("fer-export", "run", "-o", "/proc/m.onnx", cwd=home)
    assert said.returncode == 2
    _, line = said.stderr.splitlines()
    assert line.startswith("Error: /proc/m.onnx: cannot be written (")
