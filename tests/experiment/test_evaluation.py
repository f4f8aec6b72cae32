import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from fer_features.errors import RunError, TaskError
from fer_features.experiment.drawing import count_copies
from fer_features.experiment.heads import LogisticHead
from fer_features.experiment.result import Result, evaluate, fit_and_evaluate
from fer_features.experiment.run_document import SPLITS
from fer_features.experiment.run_folder import check_free
from fer_features.experiment.scores import SCORES, decide, score
from fer_features.experiment.task import Data, Split, Task
from fer_features.faces.emotions import EMOTIONS

AWKWARD = {'"NA"': ["happiness"], "null": ["anger", "fear"], "1,5 <b>": ["sadness"]}
CLASSES = {
    "two": Task().emotions,
    "seven": Task.all_emotions().emotions,
    "awkward": AWKWARD,
}


def drawn_data(classes: dict[str, Any], rows: int = 300) -> Data:
    X, y = make_classification(
        rows,
        12,
        n_informative=8,
        n_classes=len(classes),
        n_clusters_per_class=1,
        flip_y=0.3,
        random_state=1,
    )
    task = Task(classes, per_class="all")
    names = np.array(list(classes))
    emotion = np.array([EMOTIONS.index(classes[names[k]][0]) for k in y], dtype=np.int8)
    digest = np.random.default_rng(0).integers(0, 256, (rows, 32), dtype=np.uint8)
    # Read back as numbers or as missing, these would be 7, 1000 and NaN.
    source = np.array([("007", "1e3", "NA", "é/😀, 'x'.png")[i % 4] for i in range(rows)])
    splits = {
        name: Split(X[part].astype(np.float32), names[y[part]], emotion[part], digest[part],
                    source[part])
        for name, part in (
            ("train", slice(0, 180)), ("validation", slice(180, 240)), ("test", slice(240, None))
        )
    }  # fmt: skip
    store = {
        "name": "drawn.h5",
        "fingerprint": "ab" * 32,
        "features": "final",
        "backbone": {},
        "dataset": {},
    }
    sizes = {
        part: {name: int((each.y == name).sum()) for name in classes}
        for part, each in splits.items()
    }
    split = {"seed": np.int64(42), "sizes": sizes}
    return Data(task, **splits, classes=tuple(classes), split=split, store=store)


def fitted(data: Data) -> LogisticRegression:
    head = LogisticRegression(C=0.1, max_iter=500).fit(data.train.X, data.train.y)
    head.fit_seconds_ = 0.25
    head.history_ = [{"C": np.float64(0.1), "val_log_loss": math.nan}]
    return head


@pytest.fixture(scope="module", params=CLASSES)
def result(request: pytest.FixtureRequest) -> Result:
    data = drawn_data({name: list(held) for name, held in CLASSES[request.param].items()})
    return evaluate(fitted(data), data, test=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    return evaluate(fitted(data), data, test=True).save(tmp_path / "runs" / "0001-logistic")


def recomputed(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Score rows by scikit-learn's functions on class names, not by the way under test."""
    target, predicted = rows["target"].to_list(), rows["predicted"].to_list()
    p = rows[[f"p_{name}" for name in classes]].to_numpy()
    by_name = np.argsort(classes)
    one_hot = np.array([[name == each for name in classes] for each in target])
    two = len(classes) == 2
    average = {"pos_label": classes[0]} if two else {"average": "macro", "labels": list(classes)}
    average["zero_division"] = 0.0
    return {
        "accuracy": metrics.accuracy_score(target, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(target, predicted),
        "precision": metrics.precision_score(target, predicted, **average),
        "recall": metrics.recall_score(target, predicted, **average),
        "f1": metrics.f1_score(target, predicted, **average),
        "roc_auc": metrics.roc_auc_score(one_hot[:, 0], p[:, 0])
        if two
        else metrics.roc_auc_score(target, p[:, by_name], multi_class="ovr",
                                   labels=sorted(classes)),
        "average_precision": metrics.average_precision_score(one_hot[:, 0], p[:, 0])
        if two
        else metrics.average_precision_score(one_hot, p),
        "log_loss": metrics.log_loss(target, p[:, by_name], labels=sorted(classes)),
        "brier": metrics.brier_score_loss(one_hot[:, 0], p[:, 0])
        if two
        else metrics.brier_score_loss(target, p[:, by_name], labels=sorted(classes)),
        "ece": calibration_error(one_hot[:, 0], p[:, 0])
        if two
        else calibration_error(p.argmax(axis=1) == one_hot.argmax(axis=1), p.max(axis=1)),
        "confusion": metrics.confusion_matrix(target, predicted, labels=list(classes)).tolist(),
    }  # fmt: skip


def calibration_error(came: Any, said: Any) -> float:
    bins = pd.cut(said, np.arange(11) / 10, right=False).add_categories("1").fillna("1")
    bins = np.where(said == 1, "[0.9, 1.0)", bins.astype(str))
    table = pd.DataFrame({"came": came.astype(float), "said": said, "bin": bins}).groupby("bin")
    return float(
        (abs(table["came"].mean() - table["said"].mean()) * table.size()).sum() / len(said)
    )


def test_scores_recomputed_from_the_files_agree_to_the_last_digit(result, tmp_path):
    folder = result.save(tmp_path / "run")
    document = json.loads((folder / "metrics.json").read_text())
    table = Result.load(folder).predictions
    for split in SPLITS:
        rows = table[table["split"] == split]
        assert len(rows) == 60
        expected = recomputed(rows, result.classes)
        # Summed class by class in another order, a macro average may differ in the 16th digit.
        for name in SCORES:
            assert document["scores"][split][name] == pytest.approx(expected[name], rel=1e-13)
        assert document["scores"][split]["confusion"] == expected["confusion"]
        again = score(
            list(rows["target"]),
            rows[[f"p_{name}" for name in result.classes]].to_numpy(),
            result.classes,
            list(rows["predicted"]),
        )
        assert again == document["scores"][split]


def test_two_class_scores_are_the_first_classs():
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    scored = evaluate(fitted(data), data, test=True).scores["test"]
    (tp, fn), (fp, tn) = scored["confusion"]
    assert scored["accuracy"] == (tp + tn) / 60
    assert scored["precision"] == tp / (tp + fp)
    assert scored["recall"] == tp / (tp + fn)


def test_a_result_read_back_is_the_same(result, tmp_path):
    loaded = Result.load(result.save(tmp_path / "run"))
    for name in set(Result.__dataclass_fields__) - {"predictions", "folder", "fitted"}:
        assert getattr(loaded, name) == getattr(result, name), name
    assert loaded.classes == result.classes
    assert loaded.outputs == sorted(result.classes)
    pd.testing.assert_frame_equal(
        loaded.predictions, result.predictions, check_dtype=False, check_exact=True
    )
    assert set(loaded.predictions["source"]) == {"007", "1e3", "NA", "é/😀, 'x'.png"}


def test_columns_of_the_predictions_are_in_the_tasks_order(result):
    columns = [f"p_{name}" for name in result.classes]
    assert list(result.predictions.columns) == [
        "source", "digest", "split", "emotion", "target", "predicted", *columns
    ]  # fmt: skip
    assert set(result.predictions["split"]) == {"validation", "test"}
    assert result.predictions["digest"].str.fullmatch("[0-9a-f]{64}").all()
    assert np.allclose(result.predictions[columns].sum(axis=1), 1, rtol=0, atol=1e-12)


def test_at_a_tie_the_first_class_is_taken():
    tied = np.array([[0.5, 0.5], [0.4, 0.6], [0.6, 0.4]])
    assert list(decide(tied, ["positive", "negative"])) == ["positive", "negative", "positive"]
    assert score(["positive"] * 3, tied, ["positive", "negative"])["confusion"] == [[2, 1], [0, 0]]


def test_what_one_class_alone_leaves_undefined_is_none():
    scored = score(["a", "a"], np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"])
    assert scored["roc_auc"] is None
    assert scored["average_precision"] is None
    assert scored["accuracy"] == scored["balanced_accuracy"] == 0.5
    three = score(["a", "b"], np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]), ["a", "b", "c"])
    assert three["roc_auc"] is None
    assert three["accuracy"] == 1.0


def test_metrics_json_is_strict_json_without_nan(run):
    def refuse(name: str) -> None:
        raise AssertionError(name)

    document = json.loads((run / "metrics.json").read_text(), parse_constant=refuse)
    assert (document["format"], document["format_version"]) == ("fer-features/result", 1)
    assert document["history"] == [{"C": 0.1, "val_log_loss": None}]
    assert document["split"]["seed"] == 42
    assert document["task"] == {"classes": {"up": ["happiness"], "down": ["anger"]}}
    assert document["seconds"]["fit"] == 0.25
    assert document["versions"]["numpy"] == np.__version__


def test_probabilities_of_a_float32_head_are_scored_as_they_are_kept(tmp_path):
    class Rounded(LogisticRegression):
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X).astype(np.float32)

    data = drawn_data({name: [name] for name in EMOTIONS})
    result = evaluate(Rounded(max_iter=500).fit(data.train.X, data.train.y), data, test=True)
    loaded = Result.load(result.save(tmp_path / "run"))
    rows = loaded.predictions[loaded.predictions["split"] == "test"]
    p = rows[[f"p_{name}" for name in EMOTIONS]].to_numpy()
    assert score(list(rows["target"]), p, EMOTIONS) == loaded.scores["test"]


def test_a_head_of_other_classes_is_refused():
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    other = drawn_data({"up": ["happiness"], "low": ["anger"]})
    with pytest.raises(
        TaskError, match=r"fitted to the classes low, up, expected up, down\. Take the "
    ):
        evaluate(fitted(other), data)


def test_an_existing_run_is_never_overwritten(run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(RunError, match="already holds files"):
        Result.load(run).save(run)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_an_empty_folder_is_filled_and_a_file_is_refused(run, tmp_path):
    result = Result.load(run)
    (tmp_path / "empty").mkdir()
    assert Result.load(result.save(tmp_path / "empty")).scores == result.scores
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"file: a file, expected a new or an empty folder\."):
        result.save(tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot be written \(.*file: Not a directory\)"):
        result.save(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_save_that_fails_leaves_nothing(run, tmp_path):
    class Broken(LogisticHead):
        def save(self, *_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    result = evaluate(Broken(C=0.1).fit(data.train.X, data.train.y), data, test=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="No space left on device"):
        result.save(tmp_path / "runs" / "0002")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fit_scored_on_validation_alone_holds_no_test_row_until_it_is_updated(tmp_path):
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    head = fitted(data)
    chosen_among = evaluate(head, data)
    folder = chosen_among.save(tmp_path / "run")
    kept = (folder / "head.skops").read_bytes()
    loaded = Result.load(folder)
    assert list(loaded.scores) == ["validation"]
    assert set(loaded.predictions["split"]) == {"validation"}
    scored = evaluate(head, data, test=True)
    scored.update(folder)
    assert Result.load(folder).scores == scored.scores
    assert set(Result.load(folder).predictions["split"]) == {"validation", "test"}
    assert (folder / "head.skops").read_bytes() == kept


def test_another_fits_folder_is_not_updated(run):
    other = Result(**{**vars(Result.load(run)), "seed": 5})
    before = (run / "metrics.json").read_bytes()
    with pytest.raises(RunError, match="a run with another seed, expected the same fit's"):
        other.update(run)
    assert (run / "metrics.json").read_bytes() == before


def test_fitting_and_scoring_in_one_call_gives_what_the_two_calls_give(capsys):
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    held_out = (data.validation.X, data.validation.y)
    head = LogisticHead().fit(data.train.X, data.train.y, X_val=held_out[0], y_val=held_out[1])
    apart = evaluate(head, data)
    together = fit_and_evaluate(LogisticHead(), data)
    assert together.scores == apart.scores
    assert together.history == apart.history
    assert (together.label, together.seed) == ("logistic", 0)
    assert capsys.readouterr().err == ""  # nobody asked for a bar


def test_runs_number_themselves(run, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    result = Result.load(run)
    assert result.save() == Path("runs/0001-LogisticRegression")
    for name in ("0007-logistic", "mine"):
        Path("runs", name).mkdir(parents=True)
    assert result.save() == Path("runs/0008-LogisticRegression")
    assert Result.load("runs/0008-LogisticRegression").scores == result.scores
    assert replace(result, label="../a b").save() == Path("runs/0009-a_b")


def test_runs_that_end_at_the_same_moment_are_all_kept(run, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    results = [Result.load(run) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(Result.save, results))
    assert len(set(folders)) == 8
    assert all(Result.load(folder).scores == results[0].scores for folder in folders)
    assert len(list(Path("runs").iterdir())) == 8


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_fitted(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"cannot be written \(.*file: Not a directory\)\. Name an"):
        check_free(tmp_path / "file" / "deep" / "run")
    check_free(tmp_path / "new" / "deep" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def edited(run: Path, change: Any) -> None:
    path = run / "metrics.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rewritten(run: Path, change: Any) -> None:
    path = run / "predictions.csv"
    table = pd.read_csv(path, dtype="str", keep_default_na=False)
    change(table).to_csv(path, index=False)


def swapped(table: pd.DataFrame) -> pd.DataFrame:
    """Say the other class in the second row, and leave its probabilities."""
    said = table["predicted"].to_numpy(copy=True)
    said[1] = next(name for name in table["target"].unique() if name != said[1])
    return table.assign(predicted=said)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), r"no metrics\.json, expected the folder"),
        (lambda run: (run / "metrics.json").write_text("{"), r"metrics\.json: not JSON \("),
        (lambda run: (run / "metrics.json").write_bytes(b"\xff\xfe"), r"not JSON \("),
        (lambda run: (run / "metrics.json").write_text("[1]"), "format None, expected"),
        (lambda run: edited(run, lambda d: d.update(format="other/result")), "'other/result'"),
        (lambda run: edited(run, lambda d: d.update(format_version=2)), "2, this .* up to 1"),
        (lambda run: edited(run, lambda d: d.update(format_version="1")), "format_version '1'"),
        (lambda run: edited(run, lambda d: d.pop("scores")), "no 'scores'"),
        (
            lambda run: edited(run, lambda d: d["scores"]["test"].pop("f1")),
            r"test f1 null, expected 0\.\d+ as",
        ),
        (lambda run: edited(run, lambda d: d["scores"].update(test=[])), r"'scores.test' is \[\]"),
        (lambda run: edited(run, lambda d: d.update(task={})), "no 'classes' in 'task'"),
        (
            lambda run: edited(run, lambda d: d.update(seed="x")),
            "'seed' is \"x\", expected a whole number",
        ),
        (lambda run: edited(run, lambda d: d["params"].update(C=math.nan)), "NaN is not a JSON"),
        (
            lambda run: edited(run, lambda d: d["scores"]["test"].update(accuracy=0.99)),
            r"metrics.json: test accuracy 0\.99, expected 0\.\d+ as predictions\.csv has it",
        ),
        (
            lambda run: edited(run, lambda d: d["scores"]["test"].update(log_loss=0.1)),
            "test log_loss 0.1, expected",
        ),
        (lambda run: rewritten(run, lambda rows: rows[:-1]), "test confusion .* expected"),
        (lambda run: rewritten(run, swapped), "validation confusion .* expected"),
        (
            lambda run: rewritten(run, lambda rows: rows.assign(predicted="none")),
            r"predictions\.csv row 1: not an emotion, a class, an answer and probabilities",
        ),
        (
            lambda run: rewritten(run, lambda rows: rows[rows["split"] != "test"]),
            r"predictions\.csv: no test images, expected those that metrics\.json scores",
        ),
        (lambda run: (run / "predictions.csv").unlink(), r"no predictions\.csv"),
        (lambda run: (run / "predictions.csv").write_text(""), r"predictions\.csv: not readable"),
        (lambda run: (run / "predictions.csv").write_text("a,b\n1,2\n"), "columns a, b, expected"),
    ],
)
def test_a_damaged_run_is_one_line_that_names_it(run, spoil, message):
    spoil(run)
    with pytest.raises(RunError, match=message) as caught:
        Result.load(run)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_probability_that_is_no_number_is_refused(run):
    path = run / "predictions.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",much"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"predictions\.csv: not readable"):
        Result.load(run)


def test_scores_without_what_leaks_stand_beside_those_with_it(tmp_path):
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    assert "unleaked" not in evaluate(fitted(data), data, test=True).scores["test"]
    digest = data.test.digest.copy()
    digest[[0, 5]], digest[7] = data.train.digest[3], data.validation.digest[1]
    group = np.full(60, "")
    group[[9, 11]] = "p", "q"
    leaky = replace(
        data,
        test=replace(data.test, digest=digest),
        train=replace(data.train, group=np.where(np.arange(180) == 4, "p", "")),
        validation=replace(data.validation, group=group),
    )
    result = evaluate(fitted(leaky), leaky, test=True)
    for split, leaking in (("test", [60, 65, 67]), ("validation", [9])):
        rows = result.predictions[result.predictions["split"] == split].drop(index=leaking)
        for name, value in recomputed(rows, result.classes).items():
            found = result.scores[split]["unleaked"][name]
            assert found == pytest.approx(np.array(value), rel=1e-13), name
    assert list(result.to_frame().index) == [
        "validation", "validation unleaked", "test", "test unleaked"
    ]  # fmt: skip
    assert Result.load(result.save(tmp_path / "run")).scores == result.scores


def test_where_every_image_leaks_the_scores_without_are_null(tmp_path):
    data = drawn_data({"up": ["happiness"], "down": ["anger"]})
    all_of_one = replace(data, validation=replace(data.validation, digest=data.train.digest[:60]))
    result = evaluate(fitted(data), all_of_one)
    alone = result.scores["validation"]["unleaked"]
    assert set(map(alone.get, SCORES)) == {None}
    assert alone["confusion"] == [[0, 0], [0, 0]]
    assert Result.load(result.save(tmp_path / "run")).scores == result.scores


def test_copies_and_disagreeing_images_of_a_task_are_counted():
    #               two alike  disagree   with outside  alone  outside  none
    labels = np.array([0, 0, 0, 1, 1, -1, 1, -1, -1, 0])
    images = np.array([1, 1,     2, 2,      3, 3,         4,    5, 5,    6])  # fmt: skip
    emotion = np.array([3] * 9 + [-1])
    digest = np.repeat(images[:, None], 32, axis=1).astype(np.uint8)
    table = pd.DataFrame({"label": labels, "emotion": emotion})
    assert count_copies(table, digest) == {"rows": 6, "images": 4, "disagreeing": 2}
