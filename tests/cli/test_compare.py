"""``fer-compare`` on a grid, and what ``--grid`` takes."""

import json
import shlex
from pathlib import Path

import click
import pytest
from support import TINY, called, command, noise_faces, write_csv

from fer_features import DenseHead, LogisticHead, extract
from fer_features.cli.grid import parse_grid

HEADS = {"dense": DenseHead(), "logistic": LogisticHead()}


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        ([], {}),
        (["dense.l2=1e-4,0.001"], {"dense": {"l2": [1e-4, 1e-3]}}),
        (["dense.hidden=128x64,256"], {"dense": {"hidden": [(128, 64), (256,)]}}),
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
        (["dense.seed=1"], "Use --seeds for that"),
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
    assert shown.stdout.startswith("The logistic head classified ")
    assert (tmp_path / "again" / "report.csv").is_file()


def test_the_commands_of_a_report_repeat_its_fits(tmp_path: Path) -> None:
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
    lines = (tmp_path / "both" / "report.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("fer-fit-head")]
    summary = json.loads((tmp_path / "both" / "results.json").read_text())
    assert len(commands) == len(summary["fits"]) == 2
    scores = {fit["head"]: fit["scores"] for fit in summary["fits"]}
    for position, line in enumerate(commands, 1):
        again = called(*shlex.split(line), cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        [folder] = (tmp_path / "runs").glob(f"{position:04d}-*")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["scores"] == scores[metrics["head"]]
