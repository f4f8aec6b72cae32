"""``fer-compare`` on a grid, and what ``--grid`` takes."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from support import TINY, called, command, noise_faces, write_csv

from fer_features import BackboneSpec, DenseHead, LogisticHead, extract
from fer_features.cli.heads import make_head, make_heads, parse_grid

HEADS = {
    "dense": DenseHead(),
    "logistic": LogisticHead(),
    "KNeighborsClassifier": KNeighborsClassifier(),
    "RandomForestClassifier": RandomForestClassifier(),
    "MLPClassifier": MLPClassifier(),
}


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        ([], {}),
        (["dense.l2=1e-4,0.001"], {"dense": {"l2": [1e-4, 1e-3]}}),
        (["dense.hidden=128x64,256,none"], {"dense": {"hidden": [(128, 64), (256,), ()]}}),
        (
            ["KNeighborsClassifier.n_neighbors=5,15", "KNeighborsClassifier.weights=distance,none"],
            {"KNeighborsClassifier": {"n_neighbors": [5, 15], "weights": ["distance", None]}},
        ),
        (
            [
                "RandomForestClassifier.max_features=sqrt,0.5,3",
                "RandomForestClassifier.bootstrap=false",
            ],
            {"RandomForestClassifier": {"max_features": ["sqrt", 0.5, 3], "bootstrap": [False]}},
        ),
        (
            ["RandomForestClassifier.max_depth=4,none", "RandomForestClassifier.max_samples=0.5"],
            {"RandomForestClassifier": {"max_depth": [4, None], "max_samples": [0.5]}},
        ),
        (
            ["MLPClassifier.hidden_layer_sizes=32x16", "MLPClassifier.early_stopping=true"],
            {"MLPClassifier": {"hidden_layer_sizes": [(32, 16)], "early_stopping": [True]}},
        ),
        (["dense.batch_size=64, 128"], {"dense": {"batch_size": [64, 128]}}),
        (["dense.class_weight=none,balanced"], {"dense": {"class_weight": [None, "balanced"]}}),
        (["dense.standardize=true,false"], {"dense": {"standardize": [True, False]}}),
        (
            ["logistic.C=auto,0.1", "dense.dropout=0.3", "dense.l2=0"],
            {"logistic": {"C": ["auto", 0.1]}, "dense": {"dropout": [0.3], "l2": [0.0]}},
        ),
    ],
)
def test_values_are_read_as_their_parameters_take_them(texts, grid):
    found = parse_grid(texts, HEADS)
    assert found == grid
    for label, values in found.items():
        for name, tried in values.items():
            assert all(type(a) is type(b) for a, b in zip(tried, grid[label][name], strict=True))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["dense.l2"], "expected HEAD.PARAMETER=VALUE"),
        (["l2=1"], "expected HEAD.PARAMETER=VALUE"),
        (["dense.l3=1"], "no dense.l3, expected one of .*Did you mean dense.l2"),
        (["dense.random_state=1"], "Use --seeds for that"),
        (["RandomForestClassifier.random_state=1"], "Use --seeds for that"),
        (["KNeighborsClassifier.n_neighbours=1"], "Did you mean KNeighborsClassifier.n_neighbors"),
        (["KNeighborsClassifier.n_neighbors=few"], "expected numbers, such as 5,15, or none"),
        (["KNeighborsClassifier.weights="], "expected numbers, none, true, false or words"),
        (["logstic.C=1"], "Did you mean logistic.C"),
        (["dense.l2=a"], "expected numbers, such as 1e-4,1e-3"),
        (["dense.l2=1,"], "expected numbers"),
        (["dense.epochs=1.5"], "expected whole numbers"),
        (["dense.hidden=128,a"], "joined by x"),
        (["dense.class_weight=much"], "none or balanced"),
        (["dense.standardize=1"], "true or false"),
        (["dense.l2=1", "dense.l2=2"], "given twice"),
    ],
)
def test_bad_values_are_refused_in_one_line(texts, message):
    with pytest.raises(click.UsageError, match=message):
        parse_grid(texts, HEADS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densse", "'densse', expected dense or logistic, or .*Did you mean dense?"),
        ("sklearn.neighbors.KNeighboursClassifier", "Did you mean KNeighborsClassifier?"),
        ("sklearn.preprocessing.StandardScaler", "no scikit-learn classifier in sklearn.prepr"),
        ("sklearn.svm.SVR", "no scikit-learn classifier in sklearn.svm"),
        ("sklearn.base.ClassifierMixin", "no scikit-learn classifier"),
        ("sklearn.nothing.X", r"cannot be imported \(ModuleNotFoundError"),
        ("sklearn.ensemble.VotingClassifier", "without arguments.*Use it in Python"),
        ("os.system", "'os' is no installed package that builds on scikit-learn"),
        ("evil.Classifier", "'evil' is no installed package that builds on scikit-learn"),
        ("keras.Model", "'keras' is no installed package that builds on scikit-learn"),
        ("sklearn..SVC", "expected a name such as sklearn.svm.SVC"),
        ("sklearn.svm:SVC.x", "expected a name such as sklearn.svm.SVC"),
    ],
)
def test_only_installed_scikit_learn_classifiers_are_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(click.UsageError, match=message):
        make_head(name)
    with pytest.raises(click.UsageError, match="--heads: "):
        make_heads(f"dense,{name}")


def test_heads_have_their_own_names_or_those_of_their_classes() -> None:
    found = make_heads("dense, sklearn.neighbors.KNeighborsClassifier")
    assert {label: type(head).__name__ for label, head in found.items()} == {
        "dense": "DenseHead", "KNeighborsClassifier": "KNeighborsClassifier"
    }  # fmt: skip
    with pytest.raises(click.UsageError, match="--heads: dense is given twice"):
        make_heads("dense,logistic,dense")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    extract(noise_faces(400, copies=False), folder / "cache" / "faces.h5", backbone=TINY)
    return folder


def test_a_grid_over_any_classifier_prints_its_table(home: Path, tmp_path: Path) -> None:
    call = ["--per-class", "min", "--heads", "dense,sklearn.neighbors.KNeighborsClassifier"]
    call += ["--grid", "KNeighborsClassifier.n_neighbors=5,15", "--grid", "dense.epochs=2"]
    call += ["--grid", "dense.learning_rate=0.001,1e30", "--seeds", "2", "--select", "accuracy"]
    said = called("fer-compare", *call, "-o", tmp_path / "out", cwd=home)
    assert said.returncode == 0, said.stderr
    lines = [line.split() for line in said.stdout.splitlines()]
    assert lines[0] == ["validation", "test"]
    columns = "head setting fits failed selected" + " accuracy balanced_accuracy" * 2
    assert lines[1] == columns.split()
    assert [line[:4] for line in lines[2:6]] == [
        ["dense", "learning_rate=0.001", "2", "0"],
        ["dense", "learning_rate=1e+30", "2", "2"],
        ["KNeighborsClassifier", "n_neighbors=5", "1", "0"],
        ["KNeighborsClassifier", "n_neighbors=15", "1", "0"],
    ]
    assert "Failed: 2 fits of dense (learning_rate=1e+30). DenseHead: training" in said.stderr
    summary = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["head"] for each in summary["failed"]] == ["dense", "dense"]
    assert summary["experiment"]["select"] == "accuracy"
    own = [each for each in summary["fits"] if each["head"] == "KNeighborsClassifier"]
    best = max(each["scores"]["validation"]["accuracy"] for each in own)
    (chosen,) = (each for each in own if each["selected"])
    assert chosen["scores"]["validation"]["accuracy"] == best
    all_failed = [*call[:2], "--heads", "dense", "--grid", "dense.learning_rate=1e30", "--quiet"]
    said = called("fer-compare", *all_failed, "-o", tmp_path / "none", cwd=home)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "no setting could be fitted, 3 of 3 fits failed" in said.stderr


def test_weights_that_log_loss_cannot_choose_are_said(home: Path, tmp_path: Path) -> None:
    call = ["--per-class", "min", "--heads", "logistic", "--grid", "logistic.C=0.01"]
    call += ["--grid", "logistic.class_weight=none,balanced", "-o"]
    said = called("fer-compare", *call, tmp_path / "loss", cwd=home)
    assert "log loss, which never chooses weights such as balanced" in said.stderr
    assert "--select balanced_accuracy" in said.stderr
    said = called("fer-compare", *call, tmp_path / "b", "--select", "balanced_accuracy", cwd=home)
    assert "never chooses" not in said.stderr
    assert said.stdout.splitlines()[1].split().count("balanced_accuracy") == 2


def test_a_fit_shows_validation_and_test_images_are_scored_when_asked_for(
    home: Path, tmp_path: Path
) -> None:
    call = ["--per-class", "min", "--head", "sklearn.neighbors.KNeighborsClassifier"]
    call += ["--n-neighbors", "15", "--weights", "distance", "-o"]
    said = called("fer-fit-head", *call, tmp_path / "later", cwd=home)
    assert said.returncode == 0, said.stderr
    assert "validation" in said.stdout
    assert "test" not in said.stdout.replace(str(tmp_path), "")
    later = tmp_path / "later"
    assert f"Once you have chosen: fer-compare {later}\n" in said.stderr
    assert {"metrics.json", "predictions.csv", "head.skops"} <= {p.name for p in later.iterdir()}
    page = (later / "report.md").read_text()
    assert "validation images correctly" in page
    assert "The test images are not scored." in page
    metrics = json.loads((later / "metrics.json").read_text())
    assert (metrics["head"], metrics["params"]["n_neighbors"]) == ("KNeighborsClassifier", 15)
    at_once = called("fer-fit-head", *call, tmp_path / "at_once", "--test", cwd=home)
    assert at_once.returncode == 0, at_once.stderr
    assert [line.split()[0] for line in at_once.stdout.splitlines()[1:3]] == ["validation", "test"]
    expected = json.loads((tmp_path / "at_once" / "metrics.json").read_text())
    scored = called("fer-compare", later, "-o", tmp_path / "out", cwd=home)
    assert scored.returncode == 0, scored.stderr
    assert "scoring its test images, which was not done yet" in scored.stderr
    assert json.loads((later / "metrics.json").read_text())["scores"] == expected["scores"]
    csv = [(tmp_path / run / "predictions.csv").read_text() for run in ("later", "at_once")]
    assert csv[0] == csv[1]
    again = called("fer-compare", later, "-o", tmp_path / "again", cwd=home)
    assert "scoring its test images" not in again.stderr
    assert again.stdout.splitlines()[:3] == scored.stdout.splitlines()[:3]


def test_where_a_head_is_not_kept_the_same_call_scores_it_and_no_other_run_is_scored(
    home: Path, tmp_path: Path
) -> None:
    call = ["--per-class", "min", "--head", "sklearn.ensemble.RandomForestClassifier"]
    call += ["--n-estimators", "5"]
    said = called("fer-fit-head", *call, "-o", tmp_path / "forest", cwd=home)
    assert said.returncode == 0, said.stderr
    remedy = "Once you have chosen: the same call with --test and another -o\n"
    assert said.stderr.endswith(remedy)
    logistic = ["--per-class", "min", "--head", "logistic", "--C", "0.1"]
    called("fer-fit-head", *logistic, "-o", tmp_path / "logistic", cwd=home)
    runs = [tmp_path / "logistic", tmp_path / "forest"]
    said = called("fer-compare", *runs, "-o", tmp_path / "both", cwd=home)
    assert said.returncode == 2
    assert f"{tmp_path / 'forest'}: no fitted head" in said.stderr
    assert "scoring its test images" not in said.stderr
    for run in runs:
        assert set(json.loads((run / "metrics.json").read_text())["scores"]) == {"validation"}
    said = called("fer-fit-head", *call, "--test", "-o", tmp_path / "again", cwd=home)
    assert said.returncode == 0, said.stderr
    said = called("fer-compare", runs[0], tmp_path / "again", "-o", tmp_path / "b", cwd=home)
    assert said.returncode == 0, said.stderr


def test_scores_of_settings_that_were_not_selected_stay_unscored(
    home: Path, tmp_path: Path
) -> None:
    call = ["--per-class", "min", "--heads", "logistic", "--grid", "logistic.C=1e-4,10"]
    called("fer-compare", *call, "-o", tmp_path / "out", cwd=home)
    summary = json.loads((tmp_path / "out" / "results.json").read_text())
    (left,) = (f for f in summary["fits"] if not f["selected"])
    said = called("fer-compare", tmp_path / "out", "-o", tmp_path / "one", cwd=home)
    assert said.returncode == 0, said.stderr
    assert set(left["scores"]) == {"validation"}
    run = tmp_path / "out" / left["folder"]
    assert set(json.loads((run / "metrics.json").read_text())["scores"]) == {"validation"}
    said = called("fer-compare", run, "-o", tmp_path / "two", cwd=home)  # named by itself
    assert said.returncode == 0, said.stderr
    assert "test" in json.loads((run / "metrics.json").read_text())["scores"]


def test_a_comparison_selects_goes_on_and_reports(tmp_path: Path) -> None:
    faces = noise_faces(400, copies=False)
    write_csv(tmp_path / "faces.csv", faces)
    extract(faces, tmp_path / "faces.h5", backbone=TINY)
    call = ["faces.h5", "--per-class", "min", "--heads", "logistic", "--grid", "logistic.C=1e-4,10"]
    call += ["--sizes", "20,40", "-o", "out", "--faces", "faces.csv"]
    first = command("fer-compare", *call, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    summary = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [fit["selected"] for fit in summary["fits"]].count(True) == 1
    assert len(summary["fits"]) == 2 + 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 settings were tried" in page
    assert "fer-compare faces.h5 --per-class min" in page
    assert (tmp_path / "out" / "mistakes.png").is_file()
    assert (tmp_path / "out" / "sizes.png").is_file()
    again = command("fer-compare", *call, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "report.html").read_text() == page
    both = command("fer-compare", "out", "--grid", "logistic.C=1", cwd=tmp_path)
    assert both.returncode == 2
    assert "--grid: given runs that exist" in both.stderr
    for option in (["--heads", "dense"], ["--seeds", "3"], ["--all-emotions"], ["--workers", "2"]):
        refused = called("fer-compare", "out", *option, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"{option[0]}: given runs that exist, expected a store" in refused.stderr
    shown = called("fer-compare", "out", "-o", "again", cwd=tmp_path)
    assert "\nThe logistic head classified " in shown.stdout
    assert (tmp_path / "again" / "report.csv").is_file()


def test_networks_and_layers_are_compared_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    faces = noise_faces(300, copies=False)
    extract(faces, tmp_path / "one.h5", backbone=replace(TINY, layers=("two_relu",)))
    extract(faces, tmp_path / "other.h5", backbone=BackboneSpec("tiny", weights="random:1"))
    extract(noise_faces(200, seed=5), tmp_path / "there.h5", backbone=TINY)
    call = ["one.h5", "other.h5", "--features", "final", "--features", "two_relu", "--heads"]
    call += ["logistic,sklearn.naive_bayes.GaussianNB", "--per-class", "min"]
    said = called("fer-compare", *call, "-o", "out", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "two_relu: of one.h5 alone" in said.stderr
    lines = [line.split() for line in said.stdout.splitlines()[:8]]
    assert lines[1][:4] == ["network", "features", "head", "fits"]
    assert [line[-10:-8] for line in lines[2:8]] == [
        [features, head]
        for features in ("final", "two_relu", "final")
        for head in ("logistic", "GaussianNB")
    ]
    again = called("fer-compare", *call, "--workers", "2", "-o", "out", cwd=tmp_path)
    assert again.stdout == said.stdout
    shown = called("fer-compare", "out", "-o", "shown", cwd=tmp_path)
    assert shown.stdout.splitlines()[:8] == said.stdout.splitlines()[:8]
    elsewhere = ["one.h5", "--heads", "logistic", "--per-class", "min", "--test-on", "there.h5"]
    said = called("fer-compare", *elsewhere, "-o", "elsewhere", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "images of noise, none of which is in noise" in said.stderr
    for arguments, message in (
        (["one.h5", "other.h5", "--test-on", "there.h5"], "no test images by the network of other"),
        (["other.h5", "--test-on", "there.h5"], "there.h5 is by tiny (random weights), expected"),
        (["one.h5", "there.h5"], "there.h5: 200 rows, "),
        (["one.h5", "one.h5"], "number 2, one.h5 final, is given twice"),
        (["one.h5", "--features", "two_reli"], "Did you mean two_relu?"),
        (["one.h5", "out"], "one.h5: a file, expected the folder of a run"),
        (["one.h5", "--raters", "gone.csv"], "gone.csv: no such file"),
        (["out", "--raters", "gone.csv"], "--raters: given runs that exist"),
    ):
        refused = called("fer-compare", *arguments, "--per-class", "min", cwd=tmp_path)
        if arguments[0] == "out" or "out" in arguments:
            refused = called("fer-compare", *arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_the_code_in_a_report_repeats_its_fits(tmp_path: Path) -> None:
    extract(noise_faces(600), tmp_path / "cache" / "faces.h5", backbone=TINY)
    said = called(
        "fer-compare", "--seeds", "1", "-o", "both", "--split-seed", "3",
        "--class", "it is up=happiness,surprise", "--class", "down=anger,fear",
        "--per-class", "all",
        "--grid", "dense.hidden=8x4", "--grid", "dense.epochs=3", "--grid", "dense.l2=1e-05",
        "--grid", "dense.standardize=true", "--grid", "dense.class_weight=balanced",
        "--grid", "logistic.C=0.01", cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    (code,) = re.findall(
        r"^```\n(from fer_features.*?)^```",
        (tmp_path / "both" / "report.md").read_text(),
        re.M | re.S,
    )
    summary = json.loads((tmp_path / "both" / "results.json").read_text())
    again: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(code, again)
    assert len(again["results"]) == len(summary["fits"]) == 2
    for result, fit in zip(again["results"], summary["fits"], strict=True):
        assert (result.label, result.scores) == (fit["head"], fit["scores"])
