"""The commands as a user calls them: on good input, on bad input, and stopped."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import h5py
import pytest
from support import TINY, called, command, noise_faces, write_csv

from fer_features import Store, extract
from fer_features.cli.command import Command
from fer_features.errors import StoreError

COMMANDS = ("fer-extract", "fer-fit-head", "fer-compare")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source and one store in cache/, of the tiny network."""
    folder = tmp_path_factory.mktemp("home")
    faces = noise_faces(600)
    write_csv(folder / "faces.csv", faces)
    extract(folder / "faces.csv", folder / "cache" / "faces.h5", backbone=TINY)
    return folder


def only_error(said: subprocess.CompletedProcess) -> str:
    """Return the one line that a refused call printed."""
    assert said.returncode == 2, said.stderr
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1, said.stderr
    assert said.stderr.startswith("Error: ")
    return said.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_slow_import(name: str, tmp_path: Path) -> None:
    module = f"fer_features.cli.{name.removeprefix('fer-').replace('-', '_')}"
    code = (
        f"import sys; sys.argv = [{name!r}, '--help']\n"
        "import atexit; atexit.register(lambda: print('slow:', [m for m in "
        "('tensorflow', 'keras', 'sklearn', 'pandas', 'h5py') if m in sys.modules]))\n"
        f"from {module} import main; main()"
    )
    said = command(name, "--help", cwd=tmp_path)
    assert said.returncode == 0
    assert said.stdout.startswith("Usage:")
    assert "Examples:" in said.stdout
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("slow: []\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_version_is_the_packages(name: str, tmp_path: Path) -> None:
    from fer_features import __version__

    assert __version__ in called(name, "--version", cwd=tmp_path).stdout


def test_every_option_is_documented() -> None:
    from fer_features.cli import compare, extract, fit_head

    for module in (extract, fit_head, compare):
        for parameter in module.main.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{module.__name__} {parameter.name}"


TINY_CALL = [
    "fer-extract", "faces.csv", "--backbone", "tiny", "--weights", "random", "-o", "cache/faces.h5"
]  # fmt: skip

BAD_CALLS = [
    (["fer-extract", "missing.csv"], "missing.csv: no such file"),
    (["fer-extract", "faces.csv", "--weights", "imagnet"], "Did you mean imagenet"),
    (["fer-extract", "faces.csv", "--weights", "missing.h5"], "missing.h5: No such file"),
    (["fer-extract", "faces.csv", "--limit", "0"], "'--limit': 0 is not in the range"),
    (["fer-extract", "faces.csv", "--batch-size", "x"], "'x' is not a valid integer"),
    (["fer-extract", "faces.csv", "--engine", "tensrflow"], "Did you mean tensorflow?"),
    (["fer-extract", "faces.csv", "--wieghts", "random"], "--weights"),
    (["fer-extract", "faces.csv", "--weights", "random", "-o", "faces.csv"], "no HDF5 file"),
    (["fer-extract", "faces.csv", "--weights", "random", "-o", "cache"], "a folder, expected"),
    (
        ["fer-extract", "faces.csv", "--weights", "random", "-o", "cache/faces.h5"],
        "made with backbone tiny, expected InceptionResNetV2. Its own options are --backbone tiny",
    ),
    ([*TINY_CALL, "--weights", "random:1"], "made with weights random:0@"),
    ([*TINY_CALL, "--layers", "tow_relu"], "Did you mean two_relu?"),
    ([*TINY_CALL, "--layers", "one,final"], "final is always kept"),
    ([*TINY_CALL, "--layers", "one,,three"], "found none between two commas"),
    ([*TINY_CALL, "--input-size", "31"], "expected a whole number of pixels from 32"),
    ([*TINY_CALL, "--limit", "50"], "holds 598 images, of which this source (faces) lacks 548"),
    ([*TINY_CALL, "--image-size", "64"], "48"),
    ([*TINY_CALL, "--precision", "int8", "--engine", "tensorflow"], "needs the openvino engine"),
    ([*TINY_CALL, "--workers", "2", "--dask", "tcp://x:1"], "--workers and --dask"),
    (["fer-extract", "faces.csv", "--backbone", "EficientNetB0"], "Did you mean EfficientNetB0?"),
    (["fer-extract", "faces.csv", "--backbone", "faces.csv"], "no .keras file"),
    (["fer-extract", "faces.csv", "--backbone", "tiny", "-o", "x.h5"], "expected random:SEED"),
    (["fer-extract", "--backbones", "EficientNetB0"], "Did you mean EfficientNetB0?"),
    (
        ["fer-extract", *TINY_CALL[1:4], "--weights", "random", "-o", "none.h5", "--repair"],
        "none.h5: no such file, expected a store to repair",
    ),
    (["fer-extract", "cache", "--verify"], "cache: a folder, expected a store"),
    (["fer-extract", "none.h5", "--verify"], "none.h5: no such file, expected a store"),
    (
        ["fer-extract", "faces.csv", "--weights", "random", "-o", "faces.csv/x.h5"],
        "embeddings there",
    ),
    (["fer-extract", "faces.csv", "--verify"], "cannot be read as a store"),
    (["fer-extract"], "Missing argument 'SOURCE'"),
    (["fer-fit-head", "missing.h5"], "missing.h5: no such file, expected a store"),
    (["fer-fit-head", "faces.csv"], "cannot be read as a store"),
    (["fer-fit-head", "--head", "denes"], "Did you mean dense?"),
    (["fer-fit-head"], "--per-class min"),
    (["fer-fit-head", "--per-class", "few"], "per_class"),
    (["fer-fit-head", "--per-class", "min", "--dropout", "1.5"], "dropout"),
    (["fer-fit-head", "--per-class", "min", "--hidden", "128,64"], "joined by x, such as 128x64"),
    (
        ["fer-fit-head", "--per-class", "min", "--l2", "much"],
        "'much', expected numbers, such as 1e",
    ),
    (
        ["fer-fit-head", "--per-class", "min", "--head", "sklearn.svm.LinearSVC"],
        "LinearSVC as it is set has no predict_proba, expected probabilities. Set",
    ),
    (["fer-compare", "--heads", "sklearn.svm.LinearSVC", "--per-class", "min"], "CalibratedClass"),
    (["fer-fit-head", "--head", "sklearn.svm.SVX"], "Did you mean SVC?"),
    (
        ["fer-fit-head", "--head", "sklearn.naive_bayes.GaussianNB", "--n-neighbors", "3"],
        "No such option",
    ),
    (
        [
            "fer-fit-head",
            "--per-class",
            "min",
            "--head=sklearn.neighbors.KNeighborsClassifier",
            "--n-neighbors",
            "0",
        ],
        "KNeighborsClassifier: cannot be fitted (InvalidParameterError: ",
    ),
    (["fer-compare", "--select", "acuracy"], "Did you mean accuracy?"),
    (["fer-fit-head", "--per-class", "min", "--seed", "-1"], "random_state=-1, expected a whole"),
    (["fer-fit-head", "--head", "logistic", "--l2", "0.1"], "--l2: the logistic head has none"),
    (["fer-fit-head", "--class-weight", "balancd"], "'balancd', expected none or balanced"),
    (["fer-fit-head", "--per-class", "min", "-o", "faces.csv/run"], "Not a directory"),
    (["fer-compare", "--per-class", "min", "-o", "faces.csv/run"], "Not a directory"),
    (
        ["fer-compare", "--per-class", "min", "--grid", "dense.dropout=0.5,1.5"],
        "dropout=1.5, expected a number from 0 to below 1",
    ),
    (["fer-fit-head", "--head", "logistic", "--C", "much"], "expected auto or numbers"),
    (["fer-fit-head", "--split", "usege"], "Did you mean usage?"),
    (["fer-fit-head", "--labels", "none.csv"], "none.csv: no such file, expected FER+'s votes"),
    (["fer-fit-head", "--labels", "faces.csv"], "no column says which image a label is of"),
    (["fer-fit-head", "--min-agreement", "0.5"], "Add --labels FILE, or leave it out"),
    (["fer-fit-head", "--labels", "x", "--labels-as", "raf"], "labels_as: 'raf', expected one of"),
    (["fer-fit-head", "--labels", "x", "--map", "Angst"], "--map 'Angst': expected WORD=EMOTION"),
    (["fer-fit-head", "--labels", "x", "--map", "a=b"], "map: a=b, expected an emotion"),
    (["fer-fit-head", "--group-by", "x"], "such as --group-by '^([^/_]+)[/_]' for S01/happy"),
    (["fer-compare", "--group-by", "(x)", "--per-class", "min"], "does not match 3"),
    (["fer-fit-head", "--class", "a=hapiness", "--class", "b=fear"], "happiness"),
    (["fer-fit-head", "--class", "a=happiness"], "class"),
    (["fer-fit-head", "--class", "happiness"], "expected NAME=EMOTION"),
    (["fer-fit-head", "--per-class", "min", "-o", "faces.csv"], "faces.csv"),
    (["fer-fit-head", "--per-class", "min", "-o", "cache"], "cache: already holds files"),
    (["fer-compare", "--heads", "dense,logistc"], "Did you mean logistic?"),
    (["fer-compare", "--seeds", "0"], "0 is not in the range"),
    (["fer-compare", "cache", "cache"], "cache: no metrics.json"),
    (["fer-compare", "missing-run", "other-run"], "missing-run"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_line_and_nothing_changes(
    home: Path, call: list[str], message: str
) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    said = called(call[0], *call[1:], cwd=home)
    assert message in only_error(said)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert re.search(r"[.?]( See \S+ --help\.)?$", said.stderr.strip())


def test_bad_input_is_refused_without_importing_tensorflow(home: Path) -> None:
    for call in (
        ["fer-extract", "faces.csv", "--weights", "missing.h5"],
        ["fer-fit-head"],
        ["fer-compare", "cache", "cache"],
    ):
        module = f"fer_features.cli.{call[0].removeprefix('fer-').replace('-', '_')}"
        code = (
            f"import sys; sys.argv = {call!r}\n"
            "import atexit; atexit.register(lambda: print('tensorflow' in sys.modules))\n"
            f"from {module} import main; main()"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (2, "False\n"), run.stderr


def test_debug_shows_the_traceback(home: Path) -> None:
    said = called("fer-extract", "missing.csv", "--debug", cwd=home)
    assert "Traceback" in said.stderr
    assert said.returncode == 2


def test_an_unlabelled_source_is_extracted_and_refused_by_a_fit(tmp_path: Path) -> None:
    faces = noise_faces(30)
    write_csv(tmp_path / "faces.csv", faces)
    rows = (tmp_path / "faces.csv").read_text().splitlines()
    pixels = "\n".join(["pixels", *(row.split(",")[1] for row in rows[1:])])
    (tmp_path / "test.csv").write_text(pixels + "\n")
    store = extract(tmp_path / "test.csv", tmp_path / "test.h5", backbone=TINY)
    assert (store.emotion == -1).all()
    error = only_error(called("fer-fit-head", "test.h5", cwd=tmp_path))
    assert "emotion" in error


def test_verify_tells_an_intact_store_from_a_damaged_one(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    path.write_bytes((home / "cache" / "faces.h5").read_bytes())
    options = Store(path).options()
    assert options == "--backbone tiny --weights random:0 --input-size 64"
    said = called("fer-extract", path, "--verify", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (
        0,
        f"{path}: 600 rows and 598 images intact ({options})\n",
    )
    with h5py.File(path, "r+") as file:
        file["images/embeddings/final"][16, 0] += 1
    said = called("fer-extract", path, "--verify", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (1, "")
    expected = f"Error: {path}: row 17 is damaged (source: 18). Mend it with fer-extract SOURCE"
    assert said.stderr == f"{expected} -o {path} {options} --repair.\n"
    with h5py.File(path, "r+") as file:
        file["rows/source"][20] = b"\xff"  # no text any more
    said = called("fer-extract", path, "--verify", cwd=tmp_path)
    assert said.returncode == 1
    assert "rows 17, 20 are damaged (source: 18, \N{REPLACEMENT CHARACTER})" in said.stderr
    remedy = [*TINY_CALL[1:-1], path, "--repair"]  # as the message says
    assert called("fer-extract", *remedy, cwd=home).returncode == 0
    assert called("fer-extract", path, "--verify", cwd=tmp_path).returncode == 0
    assert len(Store(path)) == 600


def test_layers_are_added_and_a_limit_goes_to_a_store_of_its_own(tmp_path: Path) -> None:
    write_csv(tmp_path / "faces.csv", noise_faces(40))
    call = ["faces.csv", "--backbone", "tiny", "--weights", "random"]
    end = f"tiny-{TINY.fingerprint[:8]}.h5"

    def last_line(*more: object) -> str:
        said = called("fer-extract", *call, *more, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        return said.stdout

    assert last_line() == f"cache/faces-{end}: 40 rows, 38 distinct images, final 16\n"
    whole = Store(tmp_path / "cache" / f"faces-{end}").embeddings()
    added = last_line("--layers", "one,three")
    assert added == f"cache/faces-{end}: 40 rows, 38 distinct images, final 16, one 8, three 16\n"
    assert (Store(tmp_path / "cache" / f"faces-{end}").embeddings() == whole).all()
    limited = last_line("--limit", "10", "--quiet")
    assert limited.startswith(f"cache/faces-limit10-{end}: 10 rows, ")
    again = called("fer-extract", *call, "--layers", "one,three", cwd=tmp_path)
    assert again.stdout == added
    assert "nothing to compute" in again.stderr


def test_the_commands_that_errors_print_do_what_they_say(tmp_path: Path) -> None:
    """An error's remedy, followed word for word, leads somewhere good."""
    write_csv(tmp_path / "faces.csv", noise_faces(60))
    call = ["faces.csv", "--backbone", "tiny", "--weights", "random:0", "--input-size", "48"]
    called("fer-extract", *call, "--limit", "40", "-o", "a.h5", cwd=tmp_path)

    def follow(error: str, pattern: str, **words: str) -> subprocess.CompletedProcess:
        command = re.search(pattern, error)
        assert command, error
        said = shlex.split(command[1])
        assert said[0] == "fer-extract"
        return called(said[0], *(words.get(word, word) for word in said[1:]), cwd=tmp_path)

    error = only_error(called("fer-fit-head", "a.h5", "--features", "one", cwd=tmp_path))
    said = follow(error, r"is added with (.*)\.$", SOURCE="faces.csv", NAME="one")
    assert said.returncode == 0, said.stderr
    assert "lack layers alone" in said.stderr
    assert Store(tmp_path / "a.h5").dimensions == {"final": 16, "one": 8}
    assert len(Store(tmp_path / "a.h5")) == 40
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["images/embeddings/one"][7] = 0
    error = called("fer-extract", "a.h5", "--verify", cwd=tmp_path).stderr
    said = follow(error, r"Mend it with (.*)\.$", SOURCE="faces.csv")
    assert said.returncode == 0, said.stderr
    assert called("fer-extract", "a.h5", "--verify", cwd=tmp_path).returncode == 0
    error = only_error(called("fer-fit-head", "a.h5", "--features", "one,final", cwd=tmp_path))
    assert "Outputs are joined by +" in error


def test_networks_and_their_layers_are_listed(tmp_path: Path) -> None:
    said = called("fer-extract", "--backbones", cwd=tmp_path)
    assert said.returncode == 0
    assert re.search(r"^InceptionResNetV2 +1,536 +139 +75 +54,336,736$", said.stdout, re.MULTILINE)
    assert "tiny" not in said.stdout
    said = called("fer-extract", "--backbones", "tiny", cwd=tmp_path)
    assert said.returncode == 0
    lines = {line.split()[0]: line.split()[1:] for line in said.stdout.splitlines() if line}
    assert lines["one"][:2] == ["8", "15x15"]
    assert lines["two_relu"][:2] == ["16", "7x7"]
    assert "three" not in lines  # its mean is the final output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # `make demo` goes it, too
def test_the_whole_way_from_faces_to_a_report(tmp_path: Path) -> None:
    """The real network, as a newcomer would: extract, again, fit both heads, compare."""
    draw = [sys.executable, "-m", "fer_features.sample", "faces.csv", "--faces", "120"]
    subprocess.run(draw, cwd=tmp_path, check=True, capture_output=True)
    first = command("fer-extract", "faces.csv", "--weights", "random", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    [path] = (tmp_path / "cache").glob("*.h5")
    store = Store(path)
    assert store.dimensions == {"final": 1536}
    assert path.name == f"faces-InceptionResNetV2-{store.fingerprint[:8]}.h5"
    assert store.verify() == []
    again = command("fer-extract", "faces.csv", "--weights", "random", cwd=tmp_path)
    assert again.stdout == first.stdout
    assert "nothing to compute" in again.stderr

    fit = command("fer-fit-head", "--per-class", "min", "--epochs", "3", cwd=tmp_path)
    assert fit.returncode == 0, fit.stderr
    logistic = ["--head", "logistic", "--per-class", "min"]
    assert command("fer-fit-head", *logistic, "--quiet", cwd=tmp_path).stderr == ""
    runs = tmp_path / "runs"
    assert sorted(run.name for run in runs.iterdir()) == ["0001-dense", "0002-logistic"]
    for run in runs.iterdir():
        names = {file.name for file in run.iterdir()}
        assert {"metrics.json", "predictions.csv", "head.keras", "report.html"} <= names
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["format"] == "fer-features/result"
        assert metrics["fingerprint"] == store.fingerprint

    both = command("fer-compare", "runs/0001-dense", "runs/0002-logistic", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    seeds = command("fer-compare", "--seeds", "2", "--per-class", "min", cwd=tmp_path)
    assert seeds.returncode == 0, seeds.stderr
    folder = runs / "0004-compare"
    summary = json.loads((folder / "results.json").read_text())
    assert summary["complete"]
    assert [fit["head"] for fit in summary["fits"]] == ["dense", "dense", "logistic"]
    assert "Random weights" in (folder / "report.html").read_text()
    again = command("fer-compare", "--seeds", "2", "--per-class", "min", "-o", folder, cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_reports_on_runs_and_their_test_scores_need_no_tensorflow(
    home: Path, tmp_path: Path
) -> None:
    from fer_features import LogisticHead, Task
    from fer_features.experiment.result import fit_and_evaluate

    data = Task(per_class="min").select(Store(home / "cache" / "faces.h5"))
    for C in (0.1, 0.01):
        fit_and_evaluate(LogisticHead(C=C), data).save(tmp_path / f"run{C}")
    code = (
        "import sys; sys.argv = ['fer-compare', 'run0.1', 'run0.01', '-o', 'both']\n"
        "import atexit; atexit.register(lambda: print('tensorflow' in sys.modules))\n"
        "from fer_features.cli.compare import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("False\n")
    assert (tmp_path / "both" / "report.html").is_file()


def test_a_run_that_is_scored_later_has_a_report_about_test(home: Path, tmp_path: Path) -> None:
    call = ["faces.h5", "--head", "logistic", "--C", "0.1", "--per-class", "min"]
    fitted = called("fer-fit-head", *call, "-o", tmp_path / "run", cwd=home / "cache")
    assert fitted.returncode == 0, fitted.stderr
    names = ("report.md", "card.md", "report.html")
    assert all("not scored" in (tmp_path / "run" / name).read_text() for name in names)
    assert called("fer-compare", tmp_path / "run", "-o", "all", cwd=tmp_path).returncode == 0
    texts = [(tmp_path / "run" / name).read_text() for name in names]
    assert not any("not scored" in text for text in texts)
    # As it was made, with the store where it was.
    made = json.loads((tmp_path / "run" / "report.json").read_text())["command"]
    assert made in texts[0]
    assert "test images correctly" in texts[0]


@pytest.mark.parametrize(("level", "quiet"), [(None, True), ("2", True), ("0", False)])
def test_the_log_that_tensorflow_starts_with_shows_only_when_asked_for(
    tmp_path: Path, level: str | None, quiet: bool
) -> None:
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    env |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    code = "from fer_features.runtimes import import_keras; import_keras().ops.ones(3)"
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0
    assert (run.stderr == "") is quiet, run.stderr


def test_what_made_rows_and_labels_be_written_anew_is_said(tmp_path: Path) -> None:
    faces = noise_faces(40)
    write_csv(tmp_path / "faces.csv", faces)
    call = ["faces.csv", "--backbone", "tiny", "--weights", "random", "-o", "a.h5"]
    extract(faces, tmp_path / "a.h5", backbone=TINY, map=None)
    said = called("fer-extract", *call, "--map", "joy=happiness", cwd=tmp_path)
    anew = "a.h5: rows and labels written anew, nothing computed"
    assert f"{anew} (changed: the source's content, map)\n" in said.stderr
    said = called("fer-extract", *call, "--labels-as", "fer2013", cwd=tmp_path)
    assert f"{anew} (changed: map, labels_as)\n" in said.stderr


def test_a_system_that_refuses_is_no_fault_of_ours(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "labels.csv")

    monkeypatch.setattr("fer_features.experiment.task.Task.select", refused)
    error = only_error(called("fer-fit-head", "--per-class", "min", cwd=home))
    assert "labels.csv: Permission denied" in error
    assert "fault of fer-features" not in error


@pytest.mark.parametrize(
    ("stop", "error", "said"),
    [
        (signal.SIGINT, ImportError("initialization failed"), "130 Error: stopped by Ctrl-C."),
        (signal.SIGTERM, RuntimeError("in __set_name__"), "143 Error: stopped by SIGTERM."),
        (signal.SIGINT, StoreError("faces.h5: no space."), "2 Error: faces.h5: no space."),
    ],
)
def test_a_stop_is_said_as_one_whatever_an_import_makes_of_it(
    stop: signal.Signals, error: Exception, said: str, capsys: pytest.CaptureFixture
) -> None:
    """C code that is imported, as NumPy's, raises errors of its own when Python is stopped."""

    @click.command(cls=Command)
    def main() -> None:
        try:
            signal.raise_signal(stop)
        except BaseException:
            raise error from None

    before = [(each, signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            main.main(args=[], prog_name="main")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # nothing is left to stop
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert f"{ended.value.code} {capsys.readouterr().err.lstrip()}".startswith(said)
