"""fer-predict as a user calls it: on good input, on bad input, and stopped."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data
from sklearn.neighbors import KNeighborsClassifier
from support import TINY, called

from fer_features import Classifier, LogisticHead, Task, compare, evaluate, extract
from fer_features.sample.faces import draw_faces

MODULE = "fer_features.cli.predict"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of the tiny network, a comparison, and images in faces/."""
    home = tmp_path_factory.mktemp("home")
    faces = draw_faces(160)
    task = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]}, per_class="min")
    data = task.select(extract(faces, home / "cache/faces.h5", backbone=TINY))
    for name, head in (("run", LogisticHead(C=0.1)), ("nearest", KNeighborsClassifier())):
        evaluate(head.fit(data.train.X, data.train.y), data).save(home / name)
    compare([data], {"logistic": LogisticHead(C=0.1)}, out=home / "comparison", seeds=[0])
    (home / "faces").mkdir()
    for number, pixels in enumerate(faces.pixels[:9]):
        Image.fromarray(pixels).save(home / "faces" / f"{number}.png")
    return home


def test_a_line_an_image_says_class_and_probability(home: Path) -> None:
    said = called("fer-predict", "run", "faces", cwd=home)
    assert said.returncode == 0
    rows = [line.split("\t") for line in said.stdout.splitlines()]
    expected = Classifier.load(home / "run").predict(home / "faces")
    assert [row[0] for row in rows] == [f"faces/{i}.png" for i in range(9)]
    assert [row[1] for row in rows] == list(expected["predicted"])
    assert [row[2] for row in rows] == [f"{p:.3f}" for p in expected["probability"]]
    temperature = Classifier.load(home / "run").temperature
    assert said.stderr == (
        f"probabilities are calibrated: temperature {temperature:.2f}, fitted on the run's "
        "validation images; its report's scores are of uncalibrated ones\n"
    )
    assert called("fer-predict", "run", "faces", "--quiet", cwd=home).stderr == ""


def test_a_head_that_learnt_nothing_is_said_to_have(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / "run", tmp_path / "run")
    document = json.loads((run / "metrics.json").read_text())
    document["calibration"]["temperature"] = 20.0
    (run / "metrics.json").write_text(json.dumps(document))
    said = called("fer-predict", str(run), "faces", cwd=home)
    assert said.returncode == 0
    assert "The head told nothing of the validation images" in said.stderr


def test_csv_and_json_have_every_probability(home: Path) -> None:
    expected = Classifier.load(home / "run").predict(home / "faces")
    expected["source"] = [f"faces/{i}.png" for i in range(9)]
    said = called("fer-predict", "run", "faces", "--csv", cwd=home).stdout
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(said)), expected)
    said = called("fer-predict", "run", "faces", "--json", cwd=home).stdout
    lines = [json.loads(line) for line in said.splitlines()]
    pd.testing.assert_frame_equal(pd.DataFrame(lines), expected)


def test_a_table_of_nothing_has_its_header(home: Path, tmp_path: Path) -> None:
    Image.new("L", (90, 90)).save(tmp_path / "black.png")
    call = ("fer-predict", "run", tmp_path / "black.png", "--detect", "--csv")
    said = called(*call, cwd=home)
    assert said.returncode == 0
    assert said.stdout == "source,left,top,width,height,predicted,probability,p_up,p_down\n"
    assert said.stderr == f"{tmp_path / 'black.png'}: no face found\n"


def test_without_calibration_probabilities_are_the_head_s(home: Path) -> None:
    said = called("fer-predict", "run", "faces/0.png", "--no-calibration", "--json", cwd=home)
    plain = Classifier.load(home / "run", calibrate=False).predict(home / "faces/0.png")
    assert json.loads(said.stdout)["p_up"] == plain["p_up"][0]
    assert said.stderr == ""


def test_what_is_not_probable_enough_is_unsure(home: Path) -> None:
    said = called("fer-predict", "run", "faces", "--min-probability", "1", cwd=home)
    assert [line.split("\t")[1] for line in said.stdout.splitlines()] == ["unsure"] * 9


def test_a_pattern_that_the_shell_left_alone_is_expanded(home: Path) -> None:
    call = ("fer-predict", "run", "faces/[0-3].png", "**/8.png")
    said = called(*call, cwd=home)
    names = [line.split("\t")[0] for line in said.stdout.splitlines()]
    assert names == ["faces/0.png", "faces/1.png", "faces/2.png", "faces/3.png", "faces/8.png"]
    said = called("fer-predict", "run", "none/*.png", cwd=home)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("Error: none/*.png: no such file")


def test_a_file_named_like_a_pattern_is_that_file(home: Path, tmp_path: Path) -> None:
    name = tmp_path / "face[0].png"
    name.write_bytes((home / "faces/0.png").read_bytes())
    said = called("fer-predict", "run", name, cwd=home)
    assert said.stdout.startswith(f"{name}\t")


def test_bytes_are_read_from_standard_input(home: Path) -> None:
    call = [sys.executable, "-m", MODULE, "run", "-"]
    for content, status in (((home / "faces/0.png").read_bytes(), 0), (b"", 1)):
        said = subprocess.run(call, cwd=home, input=content, capture_output=True, check=False)
        assert said.returncode == status
        if status:
            assert said.stdout == b""
            assert said.stderr == b"<stdin>: an empty file, expected an image\n"
        else:
            alone = called("fer-predict", "run", "faces/0.png", cwd=home).stdout
            assert said.stdout.decode().split("\t")[1:] == alone.split("\t")[1:]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_standard_input_is_read_once(home: Path) -> None:
    with (home / "faces/0.png").open("rb") as face:
        call = [sys.executable, "-m", MODULE, "run", "-", "-", "--quiet"]
        said = subprocess.run(
            call, cwd=home, stdin=face, capture_output=True, text=True, check=False
        )
    assert (said.returncode, said.stdout.count("\n")) == (1, 1)
    assert said.stderr == "<stdin>: was read already, expected once\n"


def test_a_closed_standard_output_is_refused(home: Path) -> None:
    call = ["sh", "-c", f'"{sys.executable}" -m {MODULE} run faces >&-']
    said = subprocess.run(call, cwd=home, stderr=subprocess.PIPE, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.startswith("Error: standard output is closed, expected somewhere to write")
    assert said.stderr.count("\n") == 1


def test_images_of_a_kind_that_cannot_be_read_are_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(b"heic")
    said = called("fer-predict", "run", tmp_path, "--quiet", cwd=home)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.endswith(": images of a kind that cannot be read (.heic)\n")


def test_a_name_that_is_not_utf8_is_shown_with_escapes(home: Path, tmp_path: Path) -> None:
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    name.write_bytes((home / "faces/0.png").read_bytes())
    for given in (name, tmp_path, tmp_path / "caf*"):
        said = called("fer-predict", "run", given, "--json", cwd=home)
        assert json.loads(said.stdout)["source"] == f"{tmp_path}/caf\\xe9.png"


def test_each_face_of_a_photograph_is_a_line_with_its_box(home: Path, tmp_path: Path) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    call = ("fer-predict", "run", tmp_path / "astronaut.png")
    found = json.loads(called(*call, "--detect", "--json", cwd=home).stdout)
    assert found["width"] == found["height"] > 80
    line = called(*call, "--detect", cwd=home).stdout.split("\t")
    assert line[1] == ",".join(str(found[name]) for name in ("left", "top", "width", "height"))
    assert line[2] == found["predicted"]
    plain = called(*call, cwd=home)
    assert "512x512 pixels, of which the middle is taken" in plain.stderr
    assert "pass --detect" in plain.stderr


def test_bad_images_are_named_and_the_rest_go_on(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes((home / "faces/0.png").read_bytes())
    for given in ([tmp_path], sorted(tmp_path.iterdir())):
        said = called("fer-predict", "run", *given, "--no-calibration", cwd=home)
        assert said.returncode == 1
        assert said.stdout.startswith(f"{tmp_path / 'c.png'}\t")
        assert said.stdout.count("\n") == 1
        assert said.stderr == (
            f"{tmp_path / 'a.png'}: no image that can be recognised, expected one such as PNG or "
            "JPEG\n"
            f"{tmp_path / 'b.png'}: an empty file, expected an image\n"
        )


BAD_CALLS = [
    (["missing", "faces"], "missing: no such folder"),
    (["faces", "faces"], "no metrics.json, expected the folder of a run"),
    (["comparison", "faces"], "Name comparison/fits/logistic-"),
    (["run", "missing.png"], "missing.png: no such file or folder"),
    (["run", "empty"], "empty: no images, expected some"),
    (["run", ""], "images: '', expected a path of an image"),
    (["run"], "Missing argument"),
    (["run", "faces", "--csv", "--json"], "expected one of the two"),
    (["run", "faces", "--min-probability", "2"], "2.0 is not in the range"),
    (["run", "faces", "--engine", "openvin"], "Did you mean openvino?"),
    (["run", "faces", "--backbone", "missing.keras"], "missing.keras: no such file"),
    (["run", "faces", "--weights", "missing.h5"], "expected random:SEED for 'tiny'"),
]


@pytest.mark.parametrize(("words", "match"), BAD_CALLS)
def test_a_bad_call_is_one_line(words: list[str], match: str, home: Path) -> None:
    (home / "empty").mkdir(exist_ok=True)
    said = called("fer-predict", *words, cwd=home)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("Error: ")
    assert said.stderr.count("\n") == 1
    assert match in said.stderr


def test_a_run_whose_store_is_gone_keeps_its_network(home: Path, tmp_path: Path) -> None:
    document = json.loads((home / "run/metrics.json").read_text())
    document["store"]["path"] = str(tmp_path / "gone.h5")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.json").write_text(json.dumps(document))
    (tmp_path / "run/head.keras").write_bytes((home / "run/head.keras").read_bytes())
    for said_once in (True, False):
        said = called("fer-predict", "run", home / "faces/0.png", cwd=tmp_path)
        assert said.returncode == 0
        kept = "the converted network is kept as run/openvino-" in said.stderr
        assert kept == said_once


def test_a_second_call_needs_no_tensorflow_and_answers_soon(home: Path) -> None:
    slow = ("tensorflow", "keras", "sklearn", "pandas", "matplotlib", "joblib")
    code = (
        f"import sys; sys.argv = ['fer-predict', 'run', 'faces/0.png']\n"
        "import atexit; atexit.register(lambda: print('slow:', "
        f"[name for name in {slow} if name in sys.modules]))\n"
        f"from {MODULE} import main; main()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = [sys.executable, "-c", code]
    run = subprocess.run(call, cwd=home, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    first, last = run.stdout.splitlines()
    assert first.startswith("faces/0.png\t")
    assert last == "slow: []"
    # The processor's time, which other work beside the test does not lengthen much.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.5


def test_a_foreign_classifier_is_asked_too(home: Path) -> None:
    said = called("fer-predict", "nearest", "faces", cwd=home)
    assert said.returncode == 0
    assert said.stdout.count("\n") == 9


def test_ctrl_c_leaves_what_is_finished_on_standard_output(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 256, (1400, 1400), dtype=np.uint8))
    large.save(tmp_path / "0000.png", compress_level=1)
    for number in range(1, 1500):
        os.link(tmp_path / "0000.png", tmp_path / f"{number:04d}.png")
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, "run", tmp_path],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in the background ignores it, and so does all that this starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        time.sleep(1.5)  # by now other processes read images, too
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest, told = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    lines = (first + rest).splitlines()
    assert 1 <= len(lines) < 1500
    assert all(len(line.split("\t")) == 3 for line in lines)
    assert [line.split("\t")[0] for line in lines] == [
        str(tmp_path / f"{i:04d}.png") for i in range(len(lines))
    ]
    *said, last = filter(None, told.splitlines())
    assert last == "Error: stopped by Ctrl-C. What is finished is on standard output."
    assert len(said) == 2, told  # what is not read as one would think, and the temperature


@pytest.mark.parametrize("answers_shown", [True, False])
def test_a_bar_is_shown_on_a_terminal_but_not_among_answers(
    answers_shown: bool, home: Path, tmp_path: Path
) -> None:
    Image.effect_noise((1400, 1400), 80).save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 200):
        os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
    ours, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    call = [sys.executable, "-m", MODULE, "run", tmp_path]
    out = terminal if answers_shown else subprocess.DEVNULL
    with subprocess.Popen(call, cwd=home, stdout=out, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # as Linux says that the other end is closed
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    assert (b"Predicting:" in shown) == (not answers_shown)


def test_a_reader_that_goes_away_is_no_fault(home: Path) -> None:
    call = f"{sys.executable} -m {MODULE} run faces faces faces --quiet | head -1"
    said = subprocess.run(call, shell=True, cwd=home, capture_output=True, text=True, check=False)
    assert said.stdout.count("\n") == 1
    assert said.stderr == ""
