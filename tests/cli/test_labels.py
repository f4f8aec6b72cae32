"""Labels and groups from elsewhere, as a user of the commands gives them."""

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from support import TINY, called, noise_faces, write_csv

from fer_features import FaceDataset, Store, extract
from fer_features.cli import extract as extract_command
from fer_features.cli import fit_head
from fer_features.cli.command import as_flags, parse_map
from fer_features.faces.emotions import EMOTIONS

FIT = ["--head", "logistic", "--C", "0.01"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store of named images, and labels for them in German."""
    folder = tmp_path_factory.mktemp("home")
    faces = noise_faces(240, copies=False)
    source = np.array([f"S{i % 24:02d}/{i}.png" for i in range(240)])
    given = FaceDataset("named", "folder", faces.pixels, faces.emotion, faces.usage, source)
    extract(given, folder / "cache" / "named.h5", backbone=TINY)
    words = ("Wut", "Ekel", "Angst", "Freude", "Trauer", "happy", "unklar")
    rows = [f"{name};{words[i % 7]}" for i, name in enumerate(source[:230])]
    (folder / "labels.csv").write_text("\n".join(["Datei;Label", *rows]).replace("Datei", "file"))
    return folder


MAP = ["--map", "Wut=anger", "--map", "Ekel=disgust", "--map", "Angst=fear", "--map",
       "Freude=happiness", "--map", "Trauer=sadness", "--map", "unklar=none"]  # fmt: skip


def test_labels_join_through_the_command_to_the_report(home: Path, tmp_path: Path) -> None:
    call = ["--labels", "labels.csv", *MAP, "--group-by", "^(S[0-9]+)/", *FIT]
    said = called("fer-fit-head", *call, "--test", "-o", tmp_path / "run", cwd=home)
    assert said.returncode == 0, said.stderr
    labels, groups = said.stderr.splitlines()[:2]
    assert labels.startswith("Labels: labels.csv (column Label, sha256 ")
    assert "198 of 240 rows have an emotion by them, 42 none. Against the store " in labels
    assert " and 42 have lost theirs; " in labels
    assert groups == "Groups: 24, by '^(S[0-9]+)/'"
    split = json.loads((tmp_path / "run" / "metrics.json").read_text())["split"]
    assert split["labels"]["name"] == "labels.csv"
    assert split["labels"]["kind"] == "table"
    assert split["labels"]["labelled"] == 198
    assert split["labels"]["map"]["angst"] == "fear"
    assert split["groups"] == {"count": 24, "by": "^(S[0-9]+)/", "left_out": 0}
    assert split["per_class"] == "all"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "those of labels.csv (a table; sha256 " in report
    assert "Groups (persons or sequences), by the pattern ^(S" in report
    script = report[report.index("from fer_features") :].partition("\nwrite_report(")[0]
    repeated: dict[str, Any] = {}
    with contextlib.chdir(home):
        exec(compile(script, "reproduced", "exec"), repeated)
    [again] = repeated["results"]
    assert again.scores == json.loads((tmp_path / "run" / "metrics.json").read_text())["scores"]


def test_a_comparison_says_its_labels_and_is_another_one_with_others(
    home: Path, tmp_path: Path
) -> None:
    call = ["--heads", "logistic", "--grid", "logistic.C=0.01", "-o", tmp_path / "out"]
    own = called("fer-compare", *call, "--per-class", "all", cwd=home)
    assert own.returncode == 0, own.stderr
    assert "Labels: " not in own.stderr
    other = called("fer-compare", *call, "--labels", "labels.csv", *MAP, cwd=home)
    assert other.returncode == 2
    assert "Labels: labels.csv" in other.stderr
    call[-1] = tmp_path / "other"
    other = called("fer-compare", *call, "--labels", "labels.csv", *MAP, cwd=home)
    assert other.returncode == 0, other.stderr
    assert other.stderr.count("Labels: labels.csv (column Label, ") == 1
    quiet = called(
        "fer-compare", *call[:-1], tmp_path / "q", "--labels", "labels.csv", *MAP, "--quiet",
        cwd=home,
    )  # fmt: skip
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_the_map_that_an_error_asks_for_is_one_that_can_be_pasted(home: Path) -> None:
    said = called("fer-fit-head", "--labels", "labels.csv", *FIT, cwd=home)
    assert said.returncode == 2
    assert "'Wut' (33), 'Ekel' (33)" in said.stderr
    found = re.search(r"(--map \S+=EMOTION)", said.stderr)
    assert found
    assert found[1] == "--map Wut=EMOTION"


@pytest.mark.parametrize(("shift", "doubted"), [(0, False), (1, True)])
def test_labels_of_a_part_are_doubted_only_where_they_disagree(
    home: Path, tmp_path: Path, shift: int, doubted: bool
) -> None:
    store = Store(home / "cache" / "named.h5")
    emotion = (store.emotion[:120] + shift) % 7
    rows = [f"{name},{EMOTIONS[e]}" for name, e in zip(store.source[:120], emotion, strict=True)]
    (tmp_path / "part.csv").write_text("\n".join(["file,emotion", *rows]) + "\n")
    call = ["--labels", tmp_path / "part.csv", *FIT, "-o", tmp_path / "run"]
    said = called("fer-fit-head", *call, cwd=home)
    assert said.returncode == 0, said.stderr
    assert " and 120 have lost theirs; " in said.stderr
    assert ("They differ in most of the 120 rows that have both" in said.stderr) is doubted
    assert ("are they of this source?" in said.stderr) is doubted


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("{0:02d}/happy/{1}.png", "Mend it, such as --group-by '^(.*)/'."),
        ("S{0:02d}_{1}.png", "Mend it, such as --group-by '^([^_]+)_'."),
        ("img{1}.png", "Mend it, or leave it out."),
    ],
)
def test_the_remedy_of_a_pattern_that_finds_no_group_is_one_that_does(
    tmp_path: Path, source: str, remedy: str
) -> None:
    faces = noise_faces(240, copies=False)
    names = np.array([source.format(i % 24, i) for i in range(240)])
    given = FaceDataset("named", "folder", faces.pixels, faces.emotion, faces.usage, names)
    extract(given, tmp_path / "named.h5", backbone=TINY)
    call = ["named.h5", "--per-class", "min", *FIT, "--group-by"]
    said = called("fer-fit-head", *call, "(x{9})", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.endswith(f"is the person or sequence. {remedy}\n")
    if found := re.search(r"(--group-by .*)\.$", said.stderr):
        said = called("fer-fit-head", *call, shlex.split(found[1])[1], cwd=tmp_path)
        assert said.returncode == 0, said.stderr


def test_of_row_numbers_no_pattern_is_asked_for_but_a_column(tmp_path: Path) -> None:
    faces = noise_faces(240, copies=False)
    write_csv(tmp_path / "faces.csv", faces)
    call = ["faces.csv", "-o", "faces.h5", "--backbone", "tiny", "--weights", "random"]
    called("fer-extract", *call, cwd=tmp_path)
    fit = ["fer-fit-head", "faces.h5", "--per-class", "min", *FIT]
    said = called(*fit, "--group-by", "^(.*)/", cwd=tmp_path)
    assert said.returncode == 2
    assert "such as '" in said.stderr
    remedy = 'These are row numbers, which name nobody: give the file a column "group" and extract'
    assert remedy in said.stderr
    lines = (tmp_path / "faces.csv").read_text().splitlines()
    grouped = [f"{lines[0]},group", *(f"{line},{i % 24}" for i, line in enumerate(lines[1:]))]
    (tmp_path / "faces.csv").write_text("\n".join(grouped) + "\n")
    again = called("fer-extract", *call, cwd=tmp_path)
    assert "nothing computed" in again.stderr
    assert "Groups: 24, the store's own" in called(*fit, cwd=tmp_path).stderr


def test_all_emotions_are_those_of_the_labels(home: Path, tmp_path: Path) -> None:
    call = ["--labels", "labels.csv", *MAP, "--all-emotions", *FIT, "-o", tmp_path / "run"]
    said = called("fer-fit-head", *call, cwd=home)
    assert said.returncode == 0, said.stderr
    classes = json.loads((tmp_path / "run" / "metrics.json").read_text())["task"]["classes"]
    assert list(classes) == ["anger", "disgust", "fear", "happiness", "sadness"]


def test_kept_groups_that_leak_are_said_on_top(home: Path, tmp_path: Path) -> None:
    call = ["--split", "usage", "--duplicates", "keep", "--group-by", "^(S[0-9]+)/", *FIT]
    said = called("fer-fit-head", *call, "--test", "-o", tmp_path / "run", cwd=home)
    assert said.returncode == 0, said.stderr
    leak = re.search(r"Test images leak: of (\d+), (\d+) are of a person or seq", said.stderr)
    assert leak
    assert 0 < int(leak[2]) <= int(leak[1])
    top = (tmp_path / "run" / "report.md").read_text().split("classified")[0]
    assert leak[0] in top


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ('Use split="random".', "Use --split random."),
        ('Use per_class="min", or a number.', "Use --per-class min, or a number."),
        ("Use per_class=100.", "Use --per-class 100."),
        ("asks min_agreement=0.5 of", "asks --min-agreement 0.5 of"),
        ("Add labels=FILE, or", "Add --labels FILE, or"),
        ('with map={"7": "EMOTION"}, or', "with --map 7=EMOTION, or"),
        ("map={'a b': 'fear', 'c': 'none'}.", "--map 'a b=fear' --map c=none."),
        ('such as group_by="^([^/]+)/"', "such as --group-by '^([^/]+)/'"),
        ("pass standardize=True.", "pass --standardize."),
        ("pass standardize=False.", "pass standardize=False."),
        ('take them all with classes="all".', "take them all with --all-emotions."),
        ('strange="random", y=1', 'strange="random", y=1'),
        ("dense.dropout=1.5, a/split=2", "dense.dropout=1.5, a/split=2"),
        ("pass --per-class min", "pass --per-class min"),
    ],
)
def test_remedies_in_pythons_spelling_are_told_as_flags(text: str, flags: str) -> None:
    assert as_flags(text, fit_head.main.params) == flags


def test_a_remedy_is_left_alone_by_a_command_that_has_no_such_option() -> None:
    text = 'Use split="random" or limit=3.'
    assert as_flags(text, extract_command.main.params) == 'Use split="random" or --limit 3.'


def test_the_last_equals_sign_divides_a_word_from_its_emotion() -> None:
    assert parse_map(["a=b=fear", "7=contempt"]) == {"a=b": "fear", "7": "contempt"}
    assert parse_map(["=none"]) == {"": "none"}  # a blank cell
    for texts in (["fear"], ["a="], ["a=fear", "a=anger"]):
        with pytest.raises(click.UsageError, match="--map"):
            parse_map(texts)
