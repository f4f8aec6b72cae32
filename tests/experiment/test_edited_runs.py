"""Runs and comparisons whose JSON was edited by hand: read, or refused in one line."""

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import mutations
import pytest
from sklearn.naive_bayes import GaussianNB
from support import TINY, noise_faces

from fer_features import (
    DenseHead,
    FerFeaturesError,
    LogisticHead,
    Result,
    Task,
    compare,
    extract,
    load_results,
    write_report,
)
from fer_features.errors import OptionError, RunError
from fer_features.experiment import run_document
from fer_features.experiment.comparison_folder import Results
from fer_features.experiment.result import fit_and_evaluate, score_test
from fer_features.experiment.run_head import load_run_head
from fer_features.experiment.task import Data
from fer_features.report.sections import sections

PUT = (None, [], {}, "x", -1, 1.5, True, [None], {"x": None})
HUGE = "a number that no float can be"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("home")
    store = extract(noise_faces(300), home / "noise.h5", backbone=TINY)
    labels = home / "labels.csv"
    rows = [f"{row},{('happiness', 'fear', 'anger')[row % 3]}" for row in range(1, 301)]
    labels.write_text("\n".join(["source,emotion", *rows]))
    task = Task(
        {"up": ["happiness"], "down": ["anger", "fear"]},
        labels=labels,
        group_by=r"^(\d+)\d$|^",
        duplicates="keep",
    )
    return task.select(store)


def edits(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Yield each way to change one value of a document, lists by their first two entries."""
    parts = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        parts = list(enumerate(value))[:2]
    for name, part in parts:
        here = (*place, name)
        yield "without", here, None
        for put in (*PUT, HUGE):
            yield "put", here, put
        yield from edits(part, here)


def edited(document: Any, how: str, place: tuple[Any, ...], put: Any) -> str:
    document = deepcopy(document)
    inner = document
    for name in place[:-1]:
        inner = inner[name]
    if how == "without":
        del inner[place[-1]]
    else:
        inner[place[-1]] = put
    return json.dumps(document).replace(json.dumps(HUGE), "1e999")


def shown(results: Any, report: Path) -> None:
    repr(results)
    results.to_frame()
    results._repr_html_()
    write_report(results, report)


def check_edits(place: Path, read: Any, report: Path | None) -> tuple[int, int]:
    """Read a folder with each value of a file edited; return how many were read and refused."""
    whole = place.read_text()
    fine, said = 0, list[str]()
    for how, where, put in edits(json.loads(whole)):
        place.write_text(edited(json.loads(whole), how, where, put))
        try:
            results = read()
            if report is not None:
                shown(results, report)
            fine += 1
        except FerFeaturesError as error:
            said.append(str(error))
        except Exception as error:
            raise AssertionError(f"{how} {where} {put!r}: {error!r}") from error
    place.write_text(whole)
    assert not any("\n" in each for each in said)
    return fine, len(said)


HEADS = {"dense": DenseHead((4,), epochs=3), "logistic": LogisticHead()}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_run_with_any_value_edited_is_shown_or_refused_in_one_line(
    data: Data, tmp_path: Path, name: str
) -> None:
    run = fit_and_evaluate(HEADS[name], data, test=True).save(tmp_path / "run")
    report = tmp_path / "report"
    fine, refused = check_edits(run / "metrics.json", lambda: Result.load(run), report)
    assert refused > fine > 100


@pytest.mark.parametrize(
    ("place", "put", "message"),
    [
        ("split.sizes", None, r"'split\.sizes' is null, expected an object"),
        ("split.sizes.train", [], r"'split\.sizes\.train' is \[\], expected an object"),
        ("split.sizes.train.up", -1, r"'split\.sizes\.train\.up' is -1, expected a count"),
        ("split.sizes", {}, r"no 'train' in 'split\.sizes'"),
        ("split.labels.map", "x", r"'split\.labels\.map' is \"x\", expected an object"),
        ("split.groups", {}, r"no 'count' in 'split\.groups'"),
        ("params", [1], r"'params' is \[1\], expected an object"),
        ("seconds", {}, "no 'fit' in 'seconds'"),
        ("seconds.fit", "x", "expected a number"),
        ("seed", True, "'seed' is true, expected a whole number"),
        ("selection", {"score": "loss", "selected": True}, 'is "loss", expected a score'),
        ("selection", {"score": [], "selected": True}, r"is \[\], expected a score"),
        ("calibration.temperature", 1e308, "expected a number from 0.05 to 20"),
        ("calibration.temperature", 5e-324, "expected a number from 0.05 to 20"),
        ("store.provenance.passes", [{"images": 1, "files": [1]}], "expected an object"),
        ("outputs", ["up", "up"], "'outputs' is .*expected up, down in some order"),
        ("task.classes", {"up": ["jxy"], "down": ["fear"]}, "'task': class 'up': unknown emotion"),
        ("task.classes", {"up": ["joy"], "down": ["fear"]}, r"'joy'\], expected \['happiness'\]"),
        ("task.classes", {"up": ["happiness"]}, "expected up in some order"),
        ("scores.test.f1", 0.123, r"test f1 0\.123, expected 0\.\d+ as predictions\.csv"),
        ("scores.test.per_class", {}, r"test per_class \{\}, expected"),
        ("scores.unseen", {}, "expected validation and test"),
        ("history", {"C": 1}, "'history' is .*expected a list"),
        ("history", [{"val_loss": 1}], "expected numbers epoch, loss, val_loss"),
        ("seconds.fit", HUGE, "1e999 is too large a number"),
        ("store.provenance.passes", [{}], r"no 'images' in 'store\.provenance\.passes\[0\]'"),
    ],
)
def test_what_is_not_as_the_format_says_is_named(
    run: Path, place: str, put: Any, message: str
) -> None:
    *above, last = place.split(".")
    path = run / "metrics.json"
    document = json.loads(path.read_text())
    path.write_text(edited(document, "put", (*above, last), put))
    with pytest.raises(RunError, match=message) as caught:
        Result.load(run)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(data: Data, tmp_path: Path) -> Path:
    return fit_and_evaluate(LogisticHead(C=0.1), data, test=True).save(tmp_path / "run")


@pytest.mark.slow
def test_a_comparison_with_any_value_edited_is_read_or_refused_in_one_line(
    data: Data, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    tried = {"dense": {"learning_rate": [1e-3, 1e30]}}
    compare(data, {"dense": DenseHead((4,), epochs=1)}, grid=tried, seeds=[0], out=folder)

    def read() -> Results:
        results = load_results(folder)
        results.settings(), results.notices(), repr(results), results.to_frame()
        return results

    assert len(read().failed) == 1
    path = folder / "results.json"
    summary = json.loads(path.read_text())
    for fit in summary["fits"]:  # of the rest nothing is read: it is in the runs
        del fit["scores"], fit["params"]
    summary["experiment"] = {"select": "log_loss"}
    summary["selected"] = summary["selected"][:1]
    summary["selected"][0]["params"] = {}
    path.write_text(json.dumps(summary))
    fine, refused = check_edits(path, read, None)
    assert refused > 40
    assert fine > 10


def test_a_run_whose_split_was_edited_is_scored_on_test_or_refused(
    data: Data, tmp_path: Path
) -> None:
    run = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "run")
    path = run / "metrics.json"
    whole = json.loads(path.read_text())
    for how, where, put in edits(whole["split"], ("split",)):
        if len(where) > 2 or put not in (None, "x"):
            continue
        path.write_text(edited(whole, how, where, put))
        with suppress(FerFeaturesError):
            score_test(Result.load(run))
        path.write_text(json.dumps(whole))


def test_one_fit_given_several_times_counts_once(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    grid = {"ours": {"C": [1e-4, 0.1]}}
    results = compare(data, {"ours": LogisticHead()}, grid=grid, seeds=[0], out=folder)
    tested = next(each for each in results if "test" in each.scores)
    untested = next(each for each in results if "test" not in each.scores)
    again = Results([*results, *load_results(folder), *load_results(tested.folder)])
    assert len(again) == 2
    assert again.notices() == ["Counted once: 3 fits of ours that are the same as another here."]
    assert list(again.settings()["fits"]) == [1, 1]
    shutil.copytree(untested.folder, tmp_path / "copy")
    late = Results([*results, score_test(Result.load(tmp_path / "copy"))])
    assert [("test" in each.scores) for each in late] == [True, True]
    assert Results(results).notices() == []


def test_what_no_seed_changes_is_one_fit_under_any_seed_and_else_each_is_one(data: Data) -> None:
    same = [fit_and_evaluate(LogisticHead(C=0.1, random_state=s), data, test=True) for s in (0, 1)]
    found = Results(same)
    assert [each.seed for each in found] == [0]
    assert "Counted once: 1 fit of logistic that is the same as another here." in found.notices()
    (section,) = sections(found)
    assert len(section.groups[0].results) == 1
    heads = [DenseHead((4,), epochs=2, random_state=seed) for seed in (0, 1)]
    assert len(Results([fit_and_evaluate(head, data) for head in heads])) == 2


def repacked(path: Path, change: Callable[[bytes], bytes], packing: int = 0) -> None:
    """Write a head's archive again, with its weights changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] = change(members["model.weights.h5"])
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_numbers(weights: bytes, shape: tuple[int, ...], **how: Any) -> bytes:
    """Return weights of which the first state another shape."""
    held = io.BytesIO(weights)
    with h5py.File(held, "r+") as file:
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", shape, "<f8", **how)
    return held.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: with_numbers(weights, (2**30, 2), chunks=(2**16, 2)),
        lambda weights: with_numbers(weights, (2**30, 2)),
        lambda weights: with_numbers(weights, (48, 2), external=[("/dev/zero", 0, 768)]),
    ],
    ids=["in chunks", "of nothing", "elsewhere"],
)
def test_a_head_that_states_numbers_it_has_not_is_refused_unread(run: Path, change: Any) -> None:
    repacked(run / "head.keras", change)
    before = mutations.peak()
    with pytest.raises(
        RunError, match=r"head\.keras: damaged or no head \(weights that do not lie"
    ):
        load_run_head(run)
    assert mutations.peak() - before < 100 * 1024


def test_a_head_packed_once_more_is_refused_unpacked(run: Path) -> None:
    repacked(run / "head.keras", lambda held: held + bytes(10**8), zipfile.ZIP_DEFLATED)
    assert (run / "head.keras").stat().st_size < 10**6
    before = mutations.peak()
    with pytest.raises(RunError, match=r"head\.keras: damaged .* is compressed\)"):
        load_run_head(run)
    assert mutations.peak() - before < 50 * 1024


def test_a_classifier_packed_once_more_is_refused_unpacked(data: Data, tmp_path: Path) -> None:
    run = fit_and_evaluate(GaussianNB(), data).save(tmp_path / "run")
    Result.load(run).head()
    path = run / "head.skops"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + b" " * 10**6)
    with pytest.raises(RunError, match=r"head\.skops: damaged or no classifier \(.* is compressed"):
        Result.load(run).head()


@pytest.mark.parametrize(
    ("number", "said"), [(27, r"the classes down, \\x1bp,"), (2**31, "damaged or no classifier")]
)
def test_class_names_that_are_no_text_are_told_on_one_line(
    data: Data, tmp_path: Path, number: int, said: str
) -> None:
    path = fit_and_evaluate(GaussianNB(), data).save(tmp_path / "run") / "head.skops"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    letter, none = "u".encode("utf-32-le"), struct.pack("<I", number)
    assert any(letter in content for content in members.values())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(letter, none))
    with pytest.raises(RunError, match=rf"head\.skops: .*{said}") as caught:
        Result.load(path.parent).head()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["of classes", "of texts"])
def test_a_head_whose_words_are_no_words_is_refused(run: Path, kind: str) -> None:
    path = run / "head.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(members["head.json"])
    about |= {"classes": [["a"], {}]} if kind == "of classes" else {"features": ["final"]}
    members["head.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(RunError, match=r"head\.json does not fit the weights"):
        Result.load(run).head()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe with a name")
def test_a_pipe_in_place_of_the_predictions_is_not_waited_for(run: Path) -> None:
    (run / "predictions.csv").unlink()
    os.mkfifo(run / "predictions.csv")
    with pytest.raises(RunError, match=r"predictions\.csv: not readable \(no regular file\)"):
        Result.load(run)


def test_a_document_without_end_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_document, "MOST_BYTES", 1000)
    with pytest.raises(RunError, match=r"metrics\.json: not JSON \(more than 1,000 bytes\)"):
        Result.load(run)


def test_words_of_a_file_are_told_on_one_line(run: Path) -> None:
    path = run / "predictions.csv"
    path.write_bytes(path.read_bytes().replace(b"source", b"so\x1b[2J" + b"x" * 3000, 1))
    with pytest.raises(RunError, match=r"columns so\\x1b\[2Jxxx") as caught:
        Result.load(run)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("folder", [5, None, "", b"run", ["run"]])
def test_what_is_no_path_is_refused(run: Path, folder: Any) -> None:
    result = Result.load(run)
    calls = [Result.load, load_results, result.update]
    for call in calls if folder is None else [*calls, result.save]:
        with pytest.raises(OptionError, match=r"folder: .*, expected a path"):
            call(folder)
