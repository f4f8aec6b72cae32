import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TINY, noise_faces
from tqdm import tqdm

from fer_features import BackboneSpec, DenseHead, LogisticHead, Result, Task, compare, extract
from fer_features.errors import OptionError, RunError
from fer_features.experiment.comparison_folder import load_results
from fer_features.experiment.fit_plan import nested_order, part_of
from fer_features.experiment.task import Data

GRID = {"dense": {"l2": [1e-4, 1e-1]}}


class Dense(DenseHead):
    """The dense head, counting its fits and stopped by Ctrl-C before the one named."""

    fits = 0
    stop_before = 0

    def fit(self, *args: Any, **named: Any) -> "Dense":
        if Dense.stop_before == Dense.fits + 1:
            raise KeyboardInterrupt
        Dense.fits += 1
        return super().fit(*args, **named)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    faces = noise_faces(500, copies=False)
    path = tmp_path_factory.mktemp("store") / "noise.h5"
    return Task(per_class="min").select(extract(faces, path, backbone=TINY))


@pytest.fixture(autouse=True)
def counted() -> None:
    Dense.fits = Dense.stop_before = 0


def heads() -> dict[str, Any]:
    return {"dense": Dense(hidden=(6,), epochs=2), "logistic": LogisticHead(C=1e-3)}


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def everything(results: list[Result]) -> list[Any]:
    """Return what a reader sees of results, but for the time they took."""
    return [
        (r.head, r.params, r.seed, r.scores, r.history, r.split, r.predictions.to_csv())
        for r in results
    ]


@pytest.fixture(scope="module")
def finished(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, compare(data, heads(), grid=GRID, seeds=range(2), sizes=[20, 60], out=folder)


def test_every_setting_is_fitted_under_every_seed_and_a_logistic_head_once(finished, data):
    _, results = finished
    whole = [result for result in results if "train_part" not in result.split]
    assert [(r.head, r.params.get("l2"), r.seed) for r in whole] == [
        ("dense", 1e-4, 0),
        ("dense", 1e-4, 1),
        ("dense", 1e-1, 0),
        ("dense", 1e-1, 1),
        ("logistic", None, 0),
    ]
    alone = LogisticHead(C=1e-3).fit(
        data.train.X, data.train.y, validation=(data.validation.X, data.validation.y)
    )
    said = whole[-1].predictions
    np.testing.assert_array_equal(
        said.loc[said["split"] == "test", "p_positive"],
        alone.predict_proba(data.test.X)[:, list(alone.classes_).index("positive")],
    )


def test_settings_are_selected_by_mean_validation_log_loss_and_only_those_see_the_test_rows(
    finished,
):
    folder, results = finished
    dense = [r for r in results if r.head == "dense" and "train_part" not in r.split]
    mean = {
        l2: np.mean([r.scores["validation"]["log_loss"] for r in dense if r.params["l2"] == l2])
        for l2 in GRID["dense"]["l2"]
    }
    best = min(mean, key=mean.__getitem__)
    for kept in (results, load_results(folder)):
        for result in kept:
            chosen = result.head == "logistic" or result.params["l2"] == best
            tested = chosen and "train_part" not in result.split
            assert set(result.scores) == ({"validation", "test"} if tested else {"validation"})
            splits = {"validation", "test"} if tested else {"validation"}
            assert set(result.predictions["split"]) == splits
    summary = json.loads((folder / "results.json").read_text())
    assert summary["selected"]["dense"]["l2"] == best
    loss = {"dense": mean[best]}
    loss["logistic"] = next(
        r.scores["validation"]["log_loss"] for r in results if r.head == "logistic"
    )
    assert list(summary["selected"]) == sorted(loss, key=loss.__getitem__)


def test_the_folder_holds_a_run_for_each_fit_and_two_tables_of_all(finished):
    folder, results = finished
    summary = json.loads((folder / "results.json").read_text())
    assert (summary["format"], summary["format_version"]) == ("fer-features/comparison", 1)
    assert summary["complete"]
    assert len(summary["fits"]) == len(results) == 5 + 2 * (2 + 1)
    assert {path.name for path in folder.iterdir()} == {"fits", "results.json", "results.csv"}
    table = pd.read_csv(folder / "results.csv", dtype="str", keep_default_na=False)
    for fit, (_, line), result in zip(summary["fits"], table.iterrows(), results, strict=True):
        run = folder / fit["folder"]
        assert {path.name for path in run.iterdir()} == {
            "metrics.json",
            "predictions.csv",
            "head.keras",
        }
        assert json.loads((run / "metrics.json").read_text())["scores"] == fit["scores"]
        assert fit["scores"] == result.scores
        assert line["folder"] == fit["folder"]
        assert float(line["validation_log_loss"]) == result.scores["validation"]["log_loss"]
        assert line["selected"] == str("test" in result.scores)
        assert int(line["train_images"]) == sum(result.split["sizes"]["train"].values())
    assert everything(load_results(folder)) == everything(results)


def test_a_finished_comparison_called_again_fits_nothing_and_changes_nothing(finished, data):
    folder, results = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = compare(data, heads(), grid=GRID, seeds=range(2), sizes=[20, 60], out=folder)
    assert Dense.fits == 0
    assert everything(again) == everything(results)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_stopped_comparison_goes_on_where_it_stopped(finished, data, tmp_path):
    folder = tmp_path / "stopped"
    arguments = {"grid": GRID, "seeds": range(2), "sizes": [20, 60], "out": folder}
    Dense.stop_before = 4
    with pytest.raises(KeyboardInterrupt):
        compare(data, heads(), **arguments)
    assert len(list(folder.glob("fits/*"))) == 3
    with pytest.raises(RunError, match="unfinished comparison"):
        load_results(folder)
    Dense.fits = Dense.stop_before = 0
    results = compare(data, heads(), **arguments)
    assert Dense.fits == 1 + 4
    assert everything(results) == everything(finished[1])


def test_until_one_is_selected_settings_may_change_and_fits_are_kept(data, tmp_path, monkeypatch):
    call = {"seeds": range(2), "out": tmp_path / "runs"}
    Dense.stop_before = 4
    with pytest.raises(KeyboardInterrupt):
        compare(data, heads(), grid=GRID, **call)
    Dense.fits = Dense.stop_before = 0
    # Stopped between the selection and the last test scores: now it is settled.
    monkeypatch.setattr(Result, "update", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(data, heads(), grid={"dense": {"l2": [1e-4, 1e-2]}}, **call)
    assert Dense.fits == 2  # of the two settings one was there
    with pytest.raises(RunError, match="comparison with other settings"):
        compare(data, heads(), grid=GRID, **call)
    monkeypatch.undo()
    results = compare(data, heads(), grid={"dense": {"l2": [1e-4, 1e-2]}}, **call)
    assert [r.params["l2"] for r in results if r.head == "dense"] == [1e-4, 1e-4, 1e-2, 1e-2]
    assert Dense.fits == 2
    assert everything(load_results(call["out"])) == everything(results)


def test_a_setting_that_diverges_names_itself_and_can_be_left_out(data, tmp_path):
    rates = {"dense": {"learning_rate": [1e-3, 1e30]}}
    with pytest.raises(OptionError, match=r"diverged with learning_rate=1e\+30.*smaller"):
        compare(data, heads(), grid=rates, seeds=[0], out=tmp_path / "runs")
    assert Dense.fits == 2
    compare(data, heads(), seeds=[0], out=tmp_path / "runs")
    assert Dense.fits == 2


def test_other_scikit_learn_classifiers_are_compared_too(data, tmp_path):
    named = {
        "forest": RandomForestClassifier(5),
        "piped": make_pipeline(StandardScaler(), LogisticRegression()),
        "ours": LogisticHead(C=1e-3),
    }
    results = compare(data, named, seeds=range(2), out=tmp_path / "runs")
    assert [(r.head, r.seed) for r in results] == [
        ("forest", 0), ("forest", 1), ("piped", None), ("ours", 0)
    ]  # fmt: skip
    forests = [r.predictions.drop(columns="source").to_csv() for r in results[:2]]
    assert forests[0] != forests[1]
    again = compare(data, named, seeds=range(2), out=tmp_path / "runs")
    assert everything(again) == everything(results)
    # Not kept, such a fit is done again where only its test scores were missing.
    for fit in json.loads((tmp_path / "runs" / "results.json").read_text())["fits"]:
        result = Result.load(tmp_path / "runs" / fit["folder"])
        del result.scores["test"]
        rows = result.predictions
        replace(result, predictions=rows[rows["split"] != "test"]).update(
            tmp_path / "runs" / fit["folder"]
        )
    assert everything(compare(data, named, seeds=range(2), out=tmp_path / "runs")) == everything(
        results
    )


def test_the_time_left_is_that_of_the_fits_left(finished, data, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    for lost in (folder / "fits").glob("logistic-*"):
        shutil.rmtree(lost)
    seen = []

    class Seen(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            # Drawn after each fit, however quick: the rate then counts them one by one.
            super().__init__(*arguments, **options, mininterval=0)

        def update(self, n: float | None = 1) -> bool | None:
            super().update(n)
            seen.append((self.initial, self.n, self.total, self._ema_dn()))
            return None

    monkeypatch.setattr("fer_features.experiment.comparison.tqdm", Seen)
    call = {"grid": GRID, "seeds": range(2), "sizes": [20, 60], "out": folder}
    compare(data, heads(), progress=True, **call)
    # Of 11 fits 8 are kept: after each new one, one fit is what the clock saw.
    assert [(n, total) for _, n, total, _ in seen] == [(5, 11), (10, 11), (11, 11)]
    assert seen[-1][0] == 8
    assert all(ema <= 1 for *_, ema in seen)


def test_fits_that_were_lost_are_done_again(finished, data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    lost = json.loads((folder / "results.json").read_text())["fits"]
    for index in (1, 2):
        shutil.rmtree(folder / lost[index]["folder"])
    (folder / "fits" / ".dense-0.partial").mkdir()  # what a killed process leaves
    results = compare(data, heads(), grid=GRID, seeds=range(2), sizes=[20, 60], out=folder)
    assert Dense.fits == 2
    assert everything(results) == everything(finished[1])
    assert not list(folder.glob("fits/.*"))


def test_fits_side_by_side_equal_fits_one_by_one_to_the_bit(finished, data, tmp_path):
    named = {"dense": DenseHead(hidden=(6,), epochs=2), "logistic": LogisticHead(C=1e-3)}
    arguments = {"grid": GRID, "seeds": range(2), "sizes": [20, 60]}
    parallel = compare(data, named, out=tmp_path / "two", workers=2, **arguments)
    assert everything(parallel) == everything(finished[1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seeds": range(3)}, "seeds"),
        ({"grid": {}}, "settings"),
        ({"sizes": []}, "sizes"),
        ({"task": Task(per_class="min", split_seed=1)}, "rows, split"),
        ({"task": Task(dict(reversed(Task().emotions.items())), "min")}, "classes, rows, split"),
        ({"task": Task({"a": "happiness", "b": "fear"}, "min")}, "classes, rows, split"),
        ({"backbone": BackboneSpec("tiny", "random:1")}, "fingerprint"),
        ({"limit": 499}, "rows, split, source"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(finished, data, tmp_path, change, named):
    arguments = {"grid": GRID, "seeds": range(2), "sizes": [20, 60], **change}
    task = arguments.pop("task", data.task)
    faces = noise_faces(arguments.pop("limit", 500), copies=False)
    store = extract(faces, tmp_path / "s.h5", backbone=arguments.pop("backbone", TINY))
    data = task.select(store)
    with pytest.raises(RunError, match=f"comparison with other {named}, expected this one's"):
        compare(data, heads(), out=finished[0], **arguments)
    assert Dense.fits == 0


def test_a_folder_of_other_files_is_refused_and_left_alone(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="already holds files"):
        compare(data, heads(), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunError, match="a file, expected"):
        compare(data, heads(), out=tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds: none"),
        ({"grid": {"dens": {}}}, "unknown head 'dens'.*Did you mean dense"),
        ({"grid": {"dense": {"dropuot": [1]}}}, "no parameter 'dropuot'.*Did you mean dropout"),
        ({"grid": {"dense": {"seed": [1]}}}, "Use seeds"),
        ({"grid": {"dense": {"l2": []}}}, "expected a list of values"),
        ({"grid": {"dense": {"dropout": [0.5, 1.5]}}}, "dropout=1.5, expected a number from 0 to"),
        ({"grid": {"logistic": {"C": ["auto", -1]}}}, "C=-1, expected 'auto' or a number above 0"),
        ({"sizes": [0]}, "sizes: 0, expected 1 to"),
        ({"sizes": [10**6]}, "training images"),
        ({"sizes": [1]}, "too few for an image of"),
    ],
)
def test_a_bad_plan_is_refused_before_the_first_fit(data, tmp_path, arguments, message):
    with pytest.raises(OptionError, match=message):
        compare(data, heads(), out=tmp_path / "new", **arguments)
    assert Dense.fits == 0
    assert not (tmp_path / "new").exists()


def test_any_label_makes_a_safe_folder_and_no_two_share_one(data, tmp_path):
    labels = ["../up", "a/b", "a\\b", "ä ö", "", "x" * 300, "CON:*?"]
    compare(data, {name: LogisticHead(C=1e-3) for name in labels}, out=tmp_path / "labels")
    names = [path.name for path in (tmp_path / "labels" / "fits").iterdir()]
    assert len(names) == len(labels)
    assert all(
        len(name) < 60 and name.replace("-", "").replace("_", "").isalnum() for name in names
    )
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
    assert [result.head for result in load_results(tmp_path / "labels")] == labels


def test_a_value_tried_twice_is_fitted_once(data):
    results = compare(data, {"logistic": LogisticHead()}, grid={"logistic": {"C": [0.1, 1e-1]}})
    assert len(results) == 1


def test_parts_of_the_training_set_are_nested_and_keep_the_shares_of_the_classes(data):
    parts = [part_of(data, size) for size in (20, 60, len(data.train))]
    for smaller, larger in itertools.pairwise(parts):
        assert {*smaller.train.source} < {*larger.train.source}
    for part in parts:
        counts = [int((part.train.y == name).sum()) for name in data.classes]
        assert max(counts) - min(counts) <= 1
        assert part.validation is data.validation
        assert part.split["sizes"]["train"] == dict(zip(data.classes, counts, strict=True))
        assert part.split["train_part"] == sum(counts)
    y = np.array(["rare"] * 10 + ["common"] * 90)
    shares = [np.mean(y[nested_order(y, 0)[:n]] == "rare") for n in (20, 50, 100)]
    np.testing.assert_allclose(shares, 0.1, atol=0.001)
