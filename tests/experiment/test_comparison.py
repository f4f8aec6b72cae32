import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TINY, noise_faces
from tqdm import tqdm

from fer_features import (
    BackboneSpec,
    DenseHead,
    LogisticHead,
    Result,
    Store,
    Task,
    compare,
    extract,
)
from fer_features.errors import OptionError, RunError
from fer_features.experiment.comparison_folder import Results, load_results
from fer_features.experiment.fitting import kept_file
from fer_features.experiment.scores import SCORES, SMALLER_IS_BETTER
from fer_features.experiment.task import Data, Split, nested_order, part_of

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
        (r.label, r.params, r.seed, r.scores, r.history, r.split, r.predictions.to_csv())
        for r in results
    ]


@pytest.fixture(scope="module")
def finished(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, compare(data, heads(), grid=GRID, seeds=range(2), sizes=[20, 60], out=folder)


def test_every_setting_is_fitted_under_every_seed_and_a_logistic_head_once(finished, data):
    _, results = finished
    whole = [result for result in results if "train_part" not in result.split]
    assert [(r.label, r.params.get("l2"), r.seed) for r in whole] == [
        ("dense", 1e-4, 0),
        ("dense", 1e-4, 1),
        ("dense", 1e-1, 0),
        ("dense", 1e-1, 1),
        ("logistic", None, 0),
    ]
    held_out = {"X_val": data.validation.X, "y_val": data.validation.y}
    alone = LogisticHead(C=1e-3).fit(data.train.X, data.train.y, **held_out)
    said = whole[-1].predictions
    np.testing.assert_array_equal(
        said.loc[said["split"] == "test", "p_positive"],
        alone.predict_proba(data.test.X)[:, list(alone.classes_).index("positive")],
    )


def test_settings_are_selected_by_mean_validation_log_loss_and_only_those_see_the_test_rows(
    finished,
):
    folder, results = finished
    dense = [r for r in results if r.label == "dense" and "train_part" not in r.split]
    mean = {
        l2: np.mean([r.scores["validation"]["log_loss"] for r in dense if r.params["l2"] == l2])
        for l2 in GRID["dense"]["l2"]
    }
    best = min(mean, key=mean.__getitem__)
    for kept in (results, load_results(folder)):
        for result in kept:
            chosen = result.label == "logistic" or result.params["l2"] == best
            tested = chosen and "train_part" not in result.split
            assert set(result.scores) == ({"validation", "test"} if tested else {"validation"})
            splits = {"validation", "test"} if tested else {"validation"}
            assert set(result.predictions["split"]) == splits
    summary = json.loads((folder / "results.json").read_text())
    selected = {each["head"]: each for each in summary["selected"]}
    assert selected["dense"]["params"]["l2"] == best
    assert {(each["fingerprint"], each["features"]) for each in summary["selected"]} == {
        (results[0].fingerprint, "final")
    }
    loss = {"dense": mean[best]}
    loss["logistic"] = next(
        r.scores["validation"]["log_loss"] for r in results if r.label == "logistic"
    )
    assert list(selected) == sorted(loss, key=loss.__getitem__)


def test_the_folder_holds_a_run_for_each_fit_and_two_tables_of_all(finished):
    folder, results = finished
    summary = json.loads((folder / "results.json").read_text())
    assert (summary["format"], summary["format_version"]) == ("fer-features/comparison", 1)
    assert summary["complete"]
    assert len(summary["fits"]) == len(results) == 5 + 2 * (2 + 1)
    there = {path.name for path in folder.iterdir()}
    assert there == {
        ".lock",
        "fits",
        "results.json",
        "results.csv",
    }
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
    assert [r.params["l2"] for r in results if r.label == "dense"] == [1e-4, 1e-4, 1e-2, 1e-2]
    assert Dense.fits == 2
    assert everything(load_results(call["out"])) == everything(results)


def test_a_setting_that_diverges_fails_alone_and_is_not_tried_again(data, tmp_path):
    rates = {"dense": {"learning_rate": [1e-3, 1e30]}}
    call = {"grid": rates, "seeds": range(2), "out": tmp_path / "runs"}
    results = compare(data, heads(), **call)
    assert Dense.fits == 4
    assert [(r.label, r.seed, "test" in r.scores) for r in results] == [
        ("dense", 0, True), ("dense", 1, True), ("logistic", 0, True)
    ]  # fmt: skip
    assert [(f.label, f.seed, f.params["learning_rate"]) for f in results.failed] == [
        ("dense", 0, 1e30), ("dense", 1, 1e30)
    ]  # fmt: skip
    assert "diverged" in results.failed[0].reason
    assert "\n" not in results.failed[0].reason
    table = results.settings().set_index("setting")
    assert list(table["failed"]) == [0, 2, 0]
    (said,) = results.notices()
    assert said.startswith("Failed: 2 fits of dense (learning_rate=1e+30). ")
    assert results.to_frame()["failed"].notna().sum() == 2
    kept = load_results(tmp_path / "runs")
    assert [vars(f) for f in kept.failed] == [vars(f) for f in results.failed]
    again = compare(data, heads(), **call)
    assert Dense.fits == 4
    assert everything(again) == everything(results)
    assert [f.reason for f in again.failed] == [f.reason for f in results.failed]


def test_fits_of_several_tasks_are_lines_of_their_own_and_never_averaged(data):
    path = Path(data.store["path"])
    other = Task({"up": ["surprise"], "down": ["fear"]}, per_class="min").select(Store(path))
    again = Task({"up": ["surprise"], "down": ["fear"]}, per_class="min", split_seed=7)
    named = {"logistic": LogisticHead(C=1e-3)}
    each = [compare(rows, named) for rows in (data, other, again.select(Store(path)))]
    both = Results([result for results in each for result in results], select="log_loss")
    table = both.settings()
    assert list(table["task"]) == ["positive negative", "up down", "up down #2"]
    assert list(table["fits"]) == [1, 1, 1]
    assert list(table["test accuracy"]) == [r[0].scores["test"]["accuracy"] for r in each]
    assert "task" not in each[0].settings()


def test_fits_of_fewer_images_are_of_the_same_task(finished):
    _, results = finished
    assert any("train_part" in result.split for result in results)
    assert "task" not in results.settings()


def test_a_comparison_of_which_everything_fails_says_why(data, tmp_path):
    with pytest.raises(OptionError, match=r"no setting could be fitted, 2 of 2 fits.*diverged"):
        compare(
            data, {"d": Dense(hidden=(6,), learning_rate=1e30)}, seeds=[0, 1], out=tmp_path / "runs"
        )


class Unlucky(GaussianNB):
    """A classifier that fails as it is told to, on the rows it is told to."""

    def __init__(self, fails: str | None = None, random_state: int | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "Unlucky":
        if self.fails == "disk":
            raise OSError(28, "No space left on device", "/scratch/x")
        if self.fails == "odd" and self.random_state % 2:
            raise ValueError("an odd seed,\nand two lines")
        return super().fit(X, y)

    def predict_proba(self, X: Any) -> Any:
        said = super().predict_proba(X)
        return said * np.nan if self.fails == "says" else said


@pytest.mark.parametrize(
    ("fails", "failed", "reason"),
    [
        ("disk", 2, "OSError: [Errno 28] No space left on device: '/scratch/x'"),
        ("odd", 1, "ValueError: an odd seed, and two lines"),
        ("says", 2, "Unlucky: says nan, nan of an image"),
    ],
)
def test_whatever_ends_a_fit_is_that_fits_own_and_its_setting_is_not_selected(
    data, tmp_path, fails, failed, reason
):
    grid = {"u": {"fails": [fails, None]}}
    results = compare(data, {"u": Unlucky()}, grid=grid, seeds=range(2), out=tmp_path / "runs")
    assert [f.reason.startswith(reason) for f in results.failed] == [True] * failed
    assert {r.params["fails"] for r in results if "test" in r.scores} == {None}


def test_a_head_that_fails_altogether_leaves_the_others(data):
    results = compare(data, {"u": Unlucky("disk"), "ours": LogisticHead(C=1e-3)}, seeds=[0])
    assert [(r.label, "test" in r.scores) for r in results] == [("ours", True)]
    assert list(results.settings()["head"]) == ["ours", "u"]


def test_a_disk_that_is_full_while_results_are_written_is_said_to_be(data, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        compare(data, {"ours": LogisticHead(C=1e-3)}, out=tmp_path / "runs")


@pytest.mark.parametrize("select", SCORES)
def test_any_score_selects_on_validation_in_its_own_direction(data, tmp_path, select):
    grid = {"neighbours": {"n_neighbors": [1, 5, 40]}, "ours": {"C": [1e-5, 1e-2, 10.0]}}
    named = {"neighbours": KNeighborsClassifier(), "ours": LogisticHead()}
    out = tmp_path / "runs"
    results = compare(data, named, grid=grid, select=select, out=out)
    choose = min if select in SMALLER_IS_BETTER else max
    for label in named:
        own = [r for r in results if r.label == label]
        best = choose(r.scores["validation"][select] for r in own)
        tested = [r for r in own if "test" in r.scores]
        assert len(tested) == 1
        assert tested[0].scores["validation"][select] == best
        assert [r.selection for r in own] == [
            {"score": select, "selected": r is tested[0]} for r in own
        ]
    summary = json.loads((out / "results.json").read_text())
    assert summary["experiment"]["select"] == select
    kept = load_results(out)
    assert kept.select == select
    assert [r.selection for r in kept] == [r.selection for r in results]
    order = [next(r for r in results if r.label == label and "test" in r.scores).scores
             for label in (each["head"] for each in summary["selected"])]  # fmt: skip
    first, second = (scores["validation"][select] for scores in order)
    assert choose(first, second) == first


def test_until_one_is_selected_another_score_may_select(data, tmp_path, monkeypatch):
    call = {"grid": {"ours": {"C": [1e-5, 10.0]}}, "out": tmp_path / "runs"}
    monkeypatch.setattr("fer_features.experiment.comparison.settle", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(data, {"ours": LogisticHead()}, **call)
    monkeypatch.undo()
    results = compare(data, {"ours": LogisticHead()}, select="f1", **call)
    assert {r.selection["score"] for r in load_results(call["out"])} == {"f1"}
    with pytest.raises(RunError, match="comparison with other select"):
        compare(data, {"ours": LogisticHead()}, select="ece", **call)
    assert everything(load_results(call["out"])) == everything(results)


def test_an_unknown_score_or_the_same_embedding_twice_is_refused(data):
    with pytest.raises(OptionError, match=r"select: 'acuracy', expected one of.*'accuracy'"):
        compare(data, heads(), select="acuracy")
    with pytest.raises(OptionError, match=r"data: number 2, noise\.h5 final, is given twice"):
        compare([data, data], heads())
    with pytest.raises(OptionError, match="data: none, expected what Task"):
        compare([], heads())
    assert Dense.fits == 0
    ours = {"ours": LogisticHead(C=1e-3)}
    assert everything(compare([data], ours)) == everything(compare(data, ours))


def test_class_weights_weighed_by_log_loss_are_said_to_be_never_chosen(data):
    grid = {"ours": {"class_weight": [None, "balanced"]}}
    ours = {"ours": LogisticHead(C=1e-3)}
    said = compare(data, ours, grid=grid).notices()
    assert len(said) == 1
    assert "log loss, which never chooses" in said[0]
    assert compare(data, ours, grid=grid, select="balanced_accuracy").notices() == []
    assert compare(data, ours).notices() == []


def test_other_scikit_learn_classifiers_are_compared_too(data, tmp_path):
    named = {
        "forest": RandomForestClassifier(5),
        "piped": make_pipeline(StandardScaler(), KNeighborsClassifier()),
        "ours": LogisticHead(C=1e-3),
    }
    results = compare(data, named, seeds=range(2), out=tmp_path / "runs")
    assert [(r.label, r.seed, r.random) for r in results] == [
        ("forest", 0, True), ("forest", 1, True), ("piped", None, False), ("ours", 0, False)
    ]  # fmt: skip
    forests = [r.predictions.drop(columns="source").to_csv() for r in results[:2]]
    assert forests[0] != forests[1]
    assert [kept_file(r.folder) and kept_file(r.folder).name for r in results] == [
        None, None, "head.skops", "head.keras"
    ]  # fmt: skip
    assert results.notices() == [
        "Not kept: the fitted forest, as reading it again would mean to trust its file."
    ]
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


@pytest.fixture(scope="module")
def wide() -> Data:
    """Random embeddings as long as InceptionResNetV2's."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 1536)).astype(np.float32)
    y = np.where(X[:, :5].sum(axis=1) + rng.normal(size=900) > 0, "positive", "negative")
    digest = rng.integers(0, 256, (900, 32), dtype=np.uint8)
    emotion = np.where(y == "positive", 3, 0).astype(np.int8)
    source = np.arange(900).astype(np.str_)
    every = Split(X, y, emotion, digest, source)
    parts = [
        Split(*(getattr(every, name)[rows] for name in ("X", "y", "emotion", "digest", "source")))
        for rows in (slice(540), slice(540, 720), slice(720, 900))
    ]
    store = {"fingerprint": "ab" * 32, "features": "final", "dataset": {"sha256": None}}
    sizes = {name: {} for name in ("train", "validation", "test")}
    return Data(Task(), *parts, ("positive", "negative"), {"sizes": sizes}, store)


def test_a_worker_that_is_killed_is_said_to_be_and_what_is_finished_is_kept(data, tmp_path):
    class Greedy(GaussianNB):
        def __init__(self, kill: bool = False) -> None:
            super().__init__()
            self.kill = kill

        def fit(self, *rows: Any) -> "Greedy":
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)  # as the system does for lack of memory
            return super().fit(*rows)

    grid = {"greedy": {"kill": [False, True]}}
    with pytest.raises(RunError, match=r"workers: a process of 2 died in a fit.*workers=1"):
        compare(data, {"greedy": Greedy()}, grid=grid, workers=2, out=tmp_path / "runs")
    results = compare(data, {"greedy": Greedy()}, seeds=[0], out=tmp_path / "runs")
    assert [r.label for r in results] == ["greedy"]


def test_any_number_of_workers_gives_the_same_bits_at_1536_features(wide, tmp_path):
    named = {
        "dense": DenseHead(epochs=4, standardize=True),
        "logistic": LogisticHead(C=1e-3),
        "neighbours": KNeighborsClassifier(5),
        "forest": RandomForestClassifier(20, n_jobs=2),
        "boosted": HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=4),
        "lda": make_pipeline(PCA(50), LinearDiscriminantAnalysis()),
    }
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        found.append(compare(wide, named, seeds=range(2), workers=workers, out=out))
        assert not found[-1].failed
    assert everything(found[0]) == everything(found[1])
    for one, two in zip(*found, strict=True):
        files = kept_file(one.folder), kept_file(two.folder)
        assert all(files) or not any(files)
        if one.label in ("dense", "logistic"):
            assert files[0].read_bytes() == files[1].read_bytes()


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
        ({"backbone": BackboneSpec("tiny", "random:1")}, "embeddings"),
        ({"limit": 499}, "rows, split, embeddings"),
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
        ({"seeds": 3}, r"seeds: 3, expected whole numbers, such as range\(3\)"),
        ({"seeds": "012"}, "seeds: '012', expected whole numbers"),
        *[
            ({"seeds": [0, bad]}, f"seeds: {bad!r}, expected whole numbers from 0 to 4294967295")
            for bad in (-1, "a", 1.0, True, 2**32, None)
        ],
        ({"heads": [LogisticHead()]}, r"heads: \[LogisticHead\(\)\], expected a mapping by name"),
        ({"heads": {1: LogisticHead()}}, "heads: .*expected a mapping by name"),
        ({"heads": LogisticHead()}, "heads: .*expected a mapping by name"),
        ({"heads": {}}, "heads: none"),
        ({"grid": [1]}, r"grid: \[1\], expected a mapping by name"),
        ({"grid": {"logistic": [1]}}, r"grid: logistic: \[1\], expected a mapping by name"),
        ({"grid": {"logistic": {"C": 1}}}, r"grid: logistic.C: 1, .*such as \[1\]\."),
        ({"grid": {"logistic": {"C": "auto"}}}, r"C: 'auto', .*such as \['auto'\]\."),
        ({"grid": {"logistic": {"C": {1: 2}}}}, r"C: \{1: 2\}, expected a list"),
        ({"sizes": 20}, "sizes: 20, expected numbers of images"),
        ({"sizes": "20"}, "sizes: '20', expected numbers of images"),
        ({"sizes": [20.5]}, "sizes: 20.5, expected whole numbers above 0"),
        ({"sizes": [True]}, "sizes: True, expected whole numbers above 0"),
        ({"workers": 0}, "workers: 0, expected a whole number above 0"),
        ({"workers": "2"}, "workers: '2', expected a whole number above 0"),
        ({"select": None}, "select: None, expected one of"),
        ({"select": ["f1"]}, r"select: \['f1'\], expected one of"),
        ({"out": 5}, "folder: 5, expected a path"),
        ({"out": ""}, "folder: '', expected a path"),
        ({"data": "store.h5"}, r"data: str, expected what Task\(\).select\(store\) returns"),
        ({"data": [None]}, "data: NoneType, expected what"),
        ({"grid": {"dens": {}}}, "unknown head 'dens'.*Did you mean dense"),
        ({"grid": {"dense": {"dropuot": [1]}}}, "no parameter 'dropuot'.*Did you mean dropout"),
        ({"grid": {"dense": {"random_state": [1]}}}, "Use seeds"),
        ({"grid": {"dense": {"l2": []}}}, "expected a list of values"),
        ({"grid": {"dense": {"dropout": [0.5, 1.5]}}}, "dropout=1.5, expected a number from 0 to"),
        ({"grid": {"logistic": {"C": ["auto", -1]}}}, "C=-1, expected 'auto' or a number above 0"),
        ({"sizes": [0]}, "sizes: 0, expected whole numbers above 0"),
        ({"sizes": [10**6]}, "training images"),
        ({"sizes": [1]}, "too few for an image of"),
    ],
)
def test_a_bad_plan_is_refused_before_the_first_fit(data, tmp_path, arguments, message):
    with pytest.raises(OptionError, match=message):
        compare(**{"data": data, "heads": heads(), "out": tmp_path / "new", **arguments})
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
    assert [result.label for result in load_results(tmp_path / "labels")] == labels


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
