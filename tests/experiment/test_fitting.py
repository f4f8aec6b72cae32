"""Any scikit-learn classifier as a head: its seeds, its validation rows, its answers, its file."""

import json
import random
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from support import TINY, noise_faces
from threadpoolctl import threadpool_limits

from fer_features import (
    BackboneSpec,
    DenseHead,
    LogisticHead,
    Result,
    Store,
    Task,
    compare,
    evaluate,
    extract,
    load_head,
)
from fer_features.errors import OptionError, RunError, TaskError
from fer_features.experiment import fitting
from fer_features.experiment.heads import Head
from fer_features.experiment.result import fit_and_evaluate, score_test
from fer_features.experiment.task import Data

BOTH = Task({"up": ["happiness", "surprise"], "down": ["anger", "fear"]})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    extract(noise_faces(300), folder / "faces.h5", backbone=replace(TINY, layers=("one",)))
    return folder


@pytest.fixture(scope="module")
def data(home: Path) -> Data:
    return BOTH.select(Store(home / "faces.h5"))


def shuffled(**options: Any) -> GridSearchCV:
    cv = StratifiedKFold(3, shuffle=True)
    return GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1.0]}, cv=cv, **options)


STUMP = DecisionTreeClassifier(max_depth=1, splitter="random")
SOME = RandomForestClassifier(2)

NESTED = {
    "forest": RandomForestClassifier(5),
    "piped": make_pipeline(PCA(4, svd_solver="randomized"), RandomForestClassifier(3)),
    "bagged": BaggingClassifier(DecisionTreeClassifier(max_features=2), 3),
    "boosted": AdaBoostClassifier(STUMP, n_estimators=3),
    "voting": VotingClassifier([("a", SOME), ("b", GaussianNB())], voting="soft"),
    "calibrated": CalibratedClassifierCV(SOME, cv=StratifiedKFold(2, shuffle=True)),
    "searched": shuffled(),
    "at random": RandomizedSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1.0, 9.0]}, n_iter=2),
}


@pytest.mark.parametrize("name", NESTED)
def test_every_part_that_draws_is_seeded(
    data: Data, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = NESTED[name]
    before = repr(head)
    assert fitting.is_random(head)
    monkeypatch.setattr(fitting, "_global_seed", lambda seed: nullcontext())

    def said(seed: int) -> Any:
        np.random.seed(None)  # noqa: NPY002  # what is not seeded draws from here
        return fit_and_evaluate(fitting.seeded(head, seed), data)

    one, again, other = said(1), said(1), said(2)
    assert one.predictions.equals(again.predictions)
    assert (one.seed, other.seed, one.random) == (1, 2, True)
    assert one.params == other.params
    assert not any(each in ("random_state", "seed") for each in one.params)
    assert "random_state=1" not in json.dumps(one.params)
    assert repr(head) == before
    if name in ("forest", "piped", "bagged", "calibrated"):
        assert not one.predictions.equals(other.predictions)


class Drawing(GaussianNB):
    """A classifier that draws from the global generators, and has no seed."""

    def fit(self, X: Any, y: Any) -> Any:
        shift = np.random.normal(size=X.shape) + random.random()  # noqa: NPY002
        return super().fit(X + shift, y)

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(X + np.random.normal(size=X.shape))  # noqa: NPY002


def searched_forests() -> GridSearchCV:
    tried = {"last": [RandomForestClassifier(2), RandomForestClassifier(3)]}
    return GridSearchCV(Pipeline([("last", GaussianNB())]), tried, cv=2, n_jobs=2)


@pytest.mark.parametrize("make", [Drawing, searched_forests])
def test_what_has_no_seed_of_its_own_draws_by_the_fits_seed_with_any_workers(
    data: Data, make: Any
) -> None:
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    found = [compare(data, {"h": make()}, seeds=range(2), workers=n) for n in (1, 2)]
    for one, two in zip(*found, strict=True):
        assert one.predictions.equals(two.predictions)
    first, second = found[0]
    assert [(r.seed, r.random) for r in (first, second)] == [(0, True), (1, True)]
    own = [r.predictions[r.predictions["split"] == "validation"] for r in (first, second)]
    assert not own[0]["p_up"].equals(own[1]["p_up"])
    again = fit_and_evaluate(make(), data, seed=1)
    assert again.seed == 1
    assert list(again.predictions["p_up"]) == list(own[1]["p_up"])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002


def test_a_seed_beside_another_one_of_the_head_is_refused(data: Data) -> None:
    with pytest.raises(OptionError, match="seed: 1, expected 0 as the head has it"):
        fit_and_evaluate(LogisticHead(), data, seed=1)


@pytest.mark.parametrize(
    ("head", "random"),
    [
        (LogisticHead(), False),
        (make_pipeline(StandardScaler(), LogisticHead()), False),
        (make_pipeline(PCA(3), LogisticHead()), True),
        (BaggingClassifier(LogisticHead(), 2), True),
        (CalibratedClassifierCV(LogisticHead()), True),
        (DenseHead(), True),
        (KNeighborsClassifier(), False),
        (LogisticRegression(), True),
        (GridSearchCV(GaussianNB(), {}, cv=StratifiedKFold(3)), False),
        (Drawing(), True),
        (make_pipeline(StandardScaler(), Drawing()), True),
        (make_pipeline(FunctionTransformer(lambda X: X), GaussianNB()), True),
        (KNeighborsClassifier(metric=lambda a, b: abs(a - b).sum()), True),
        (GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1.0]}), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_head_is_fitted_once_only_where_nothing_in_it_can_draw(head: Any, random: bool) -> None:
    assert fitting.is_random(head) == random


def test_a_seed_that_parts_do_not_share_is_no_seed_of_the_fit(data: Data) -> None:
    head = make_pipeline(PCA(3, random_state=1), RandomForestClassifier(2, random_state=2))
    result = fit_and_evaluate(head, data)
    assert result.seed is None
    names = ("pca__random_state", "randomforestclassifier__random_state")
    assert [result.params[name] for name in names] == [1, 2]


@pytest.mark.parametrize("memory", [False, True])
def test_a_pipeline_that_ends_in_a_head_gives_it_validation_rows_as_alone(
    data: Data, tmp_path: Path, memory: bool
) -> None:
    with threadpool_limits(1):
        before = make_pipeline(StandardScaler(), PCA(4, random_state=0))
        trained = before.fit_transform(data.train.X)
        alone = {n: replace(s, X=before.transform(s.X)) for n, s in data.parts().items()}
        alone["train"] = replace(data.train, X=trained)
    expected = fit_and_evaluate(DenseHead(hidden=(4,), epochs=5), replace(data, **alone))
    rest = make_pipeline(PCA(4, random_state=0), DenseHead((4,), epochs=5))
    where = str(tmp_path) if memory else None
    piped = Pipeline([("scale", StandardScaler()), ("rest", rest)], memory=where)
    result = fit_and_evaluate(piped, data)
    assert result.scores == expected.scores
    assert result.history == expected.history
    assert {"val_loss", "epoch"} <= set(result.history[0])


def test_boosting_stops_on_the_validation_rows_unless_it_does_not_stop_early(data: Data) -> None:
    early = HistGradientBoostingClassifier(early_stopping=True, max_iter=3, random_state=0)
    held_out = {"X_val": data.validation.X, "y_val": data.validation.y}
    expected = clone(early).fit(data.train.X, data.train.y, **held_out)
    fit_and_evaluate(early, data)
    assert np.array_equal(early.validation_score_, expected.validation_score_)
    fit_and_evaluate(HistGradientBoostingClassifier(early_stopping=False, max_iter=3), data)


def test_a_classifiers_own_answers_are_scored_and_kept(data: Data, tmp_path: Path) -> None:
    strict = FixedThresholdClassifier(GaussianNB(), threshold=0.8, pos_label="up")
    tied = KNeighborsClassifier(2)
    voted = VotingClassifier([("a", GaussianNB()), ("b", tied)], voting="soft", weights=[1, 3])
    for name, head in {"strict": strict, "tied": tied, "voted": voted}.items():
        result = fit_and_evaluate(clone(head), data, test=True)
        own = result.fitted.predict(data.test.X)
        rows = result.predictions[result.predictions["split"] == "test"]
        assert list(rows["predicted"]) == list(own)
        assert result.scores["test"]["accuracy"] == np.mean(own == data.test.y)
        loaded = Result.load(result.save(tmp_path / name))
        assert loaded.scores == result.scores
        if name != "voted":
            most = rows[["p_up", "p_down"]].to_numpy().argmax(axis=1)
            assert list(own) != [("up", "down")[i] for i in most]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LinearSVC(), r"h: LinearSVC as it is set has no predict_proba.*CalibratedClassifierCV"),
        (SGDClassifier(), "SGDClassifier as it is set has no predict_proba"),
        (VotingClassifier([("a", GaussianNB())], voting="hard"), "no predict_proba"),
        (make_pipeline(StandardScaler(), LinearSVC()), "Pipeline as it is set has no predict_pro"),
        (RidgeClassifier(), "no predict_proba"),
        (SVC(), "no predict_proba"),
        (StackingClassifier([("a", GaussianNB())], LinearSVC()), "no predict_proba"),
        (GridSearchCV(SVC(), {"C": [1.0, 2.0], "kernel": ["rbf", "linear"]}), "no predict_proba"),
        (RandomizedSearchCV(LinearSVC(), {"C": [1.0, 2.0]}), "no predict_proba"),
        (GridSearchCV(GaussianNB(), {}, refit=False), "no predict_proba"),
        (FixedThresholdClassifier(LinearSVC()), "no predict_proba"),
        (Head(), "h: a head read from a file, expected an unfitted classifier"),
        (StandardScaler(), "h: a StandardScaler, expected a scikit-learn classifier"),
        (GaussianNB, "h: the class GaussianNB, expected a scikit-learn classifier"),
        ("dense", "h: a str, expected a scikit-learn classifier"),
        (DenseHead(dropout=2), "dropout=2, expected"),
        (make_pipeline(PCA(), DenseHead(dropout=2)), "dropout=2, expected"),
    ],
    ids=str,
)
def test_what_cannot_be_scored_is_refused_before_anything_is_fitted(
    data: Data, tmp_path: Path, head: Any, message: str
) -> None:
    class Counted(GaussianNB):
        def fit(self, *_: Any) -> None:
            raise AssertionError("fitted")

    with pytest.raises(OptionError, match=message):
        compare(data, {"first": Counted(), "h": head}, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_setting_without_probabilities_is_refused_too(data: Data) -> None:
    with pytest.raises(OptionError, match="no predict_proba"):
        compare(data, {"sgd": SGDClassifier()}, grid={"sgd": {"loss": ["log_loss", "hinge"]}})
    compare(data, {"sgd": SGDClassifier(loss="log_loss")}, seeds=[0])


STACK = StackingClassifier([("a", GaussianNB()), ("b", KNeighborsClassifier())])


@pytest.mark.parametrize(
    "head",
    [
        STACK,
        make_pipeline(StandardScaler(), STACK),
        GridSearchCV(STACK, {"passthrough": [False, True]}, cv=2),
        GridSearchCV(Pipeline([("last", LinearSVC())]), {"last": [GaussianNB()]}, cv=2),
        RandomizedSearchCV(SGDClassifier(), {"loss": ["log_loss"]}, n_iter=1, cv=2),
    ],
    ids=lambda head: f"{type(head).__name__}",
)
def test_what_has_probabilities_once_it_is_fitted_is_not_refused(data: Data, head: Any) -> None:
    assert not hasattr(head, "predict_proba")
    (result,) = compare(data, {"h": head}, seeds=[0])
    assert "test" in result.scores


def test_a_search_that_settles_on_what_has_no_probabilities_is_one_line(data: Data) -> None:
    tried = {"last": [RidgeClassifier(), DecisionTreeClassifier(max_depth=1, random_state=0)]}
    best = GridSearchCV(
        Pipeline([("last", LinearSVC())]),
        tried,
        cv=2,
        refit=lambda found: 0,  # whatever it scores
    )
    with pytest.raises(OptionError, match=r"GridSearchCV as it is set has no predict_proba.*Calib"):
        fit_and_evaluate(best, data)
    with pytest.raises(OptionError, match="no predict_proba"):
        evaluate(LinearSVC().fit(data.train.X, data.train.y), data)


def test_answers_that_are_no_probabilities_or_no_classes_are_refused(data: Data) -> None:
    class Odd(GaussianNB):
        """Wrong on purpose, in the way that is named."""

        way = "whole"

        def predict_proba(self, X: Any) -> Any:
            said = super().predict_proba(X)
            below = said * [[-1, 1]] + [[0, 1]]
            wide = np.full((len(X), 3), 1 / 3)
            odd = {"half": said / 2, "none": said * np.nan, "below": below, "wide": wide}
            return odd.get(self.way, said)

        def predict(self, X: Any) -> Any:
            odd = {"other": np.full(len(X), "sideways"), "tall": np.full((len(X), 1), "up")}
            return odd[self.way] if self.way in odd else super().predict(X)

    fit_and_evaluate(Odd(), data)
    for way, message in {
        "half": "Odd: says 0.*expected probabilities that sum to 1",
        "none": "Odd: says nan, nan of an image",
        "below": "Odd: says -",
        "wide": r"Odd: says probabilities of shape \(\d+, 3\), expected \(\d+, 2\)",
        "other": "Odd: answers 'sideways', expected up or down",
        "tall": r"Odd: answers of shape \(\d+, 1\), expected \(\d+,\), one class an image",
    }.items():
        Odd.way = way
        with pytest.raises(OptionError, match=message):
            fit_and_evaluate(Odd(), data)


def test_a_run_gives_back_its_fitted_head(data: Data, tmp_path: Path) -> None:
    for head in (DenseHead((4,), epochs=2), LogisticHead(C=0.1), KNeighborsClassifier(3)):
        result = fit_and_evaluate(head, data)
        loaded = Result.load(result.save(tmp_path / result.label))
        again = loaded.head()
        assert list(again.classes_) == ["down", "up"]
        assert (again.fingerprint_, again.features_) == (TINY.fingerprint, "final")
        rows = evaluate(again, data).predictions
        assert rows.equals(result.predictions)
    with pytest.raises(RunError, match="no fitted head here"):
        replace(result, fitted=None).head()


def test_a_head_refuses_embeddings_of_another_network_or_other_features(
    data: Data, home: Path, tmp_path: Path
) -> None:
    run = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "run")
    head = Result.load(run).head()
    other = BackboneSpec("tiny", "random:1")
    store = extract(noise_faces(300), tmp_path / "other.h5", backbone=other)
    short = TINY.fingerprint[:8], store.fingerprint[:8]
    message = "fitted to embeddings of the network {}, expected {}".format(*short)
    with pytest.raises(TaskError, match=message):
        evaluate(head, BOTH.select(store))
    with pytest.raises(TaskError, match="fitted to the features final, expected one as"):
        evaluate(head, BOTH.select(Store(home / "faces.h5"), "one"))
    with pytest.raises(TaskError, match="DenseHead is not fitted"):
        evaluate(DenseHead(), data)


@pytest.mark.parametrize("kind", [DenseHead, LogisticHead, KNeighborsClassifier])
def test_a_head_of_a_run_that_is_fitted_again_is_another_fits(data: Data, kind: Any) -> None:
    head = fit_and_evaluate(kind(), data).head()
    assert head.fingerprint_ == TINY.fingerprint
    other = replace(data, store=data.store | {"fingerprint": "f" * 64})
    with pytest.raises(TaskError, match=r"or fit it to these\."):
        evaluate(head, other)
    head.fit(data.train.X, data.train.y)
    assert evaluate(head, other).fingerprint == "f" * 64
    if kind is not KNeighborsClassifier:
        assert not hasattr(head, "fingerprint_")
        assert not hasattr(head, "features_")


def test_a_head_read_from_a_file_is_not_said_to_be_fitted_again(data: Data, tmp_path: Path) -> None:
    fitted = LogisticHead(C=0.1).fit(data.train.X, data.train.y)
    fitted.save(tmp_path / "head.keras", fingerprint="f" * 64)
    head = load_head(tmp_path / "head.keras")
    with pytest.raises(TaskError, match=r"or fit a DenseHead or a LogisticHead to these\."):
        evaluate(head, data)
    other = Task({"up": "happiness", "low": "fear"}).select(Store(data.store["path"]))
    with pytest.raises(TaskError, match=r"Take the task that it was fitted to, or fit a DenseHea"):
        evaluate(head, other)


@pytest.mark.parametrize("head", [LogisticHead(C=0.1), KNeighborsClassifier(3)])
def test_a_run_saved_again_takes_its_head_along(data: Data, tmp_path: Path, head: Any) -> None:
    one = fit_and_evaluate(clone(head), data).save(tmp_path / "one")
    two = Result.load(one).save(tmp_path / "two")
    names = sorted(path.name for path in one.iterdir())
    assert len(names) == 3
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert evaluate(Result.load(two).head(), data).scores == Result.load(one).scores


def test_a_head_of_another_run_or_one_to_be_trusted_is_refused(data: Data, tmp_path: Path) -> None:
    from skops.io import dump

    run = fit_and_evaluate(KNeighborsClassifier(3), data).save(tmp_path / "run")
    forest = RandomForestClassifier(2).fit(data.train.X, data.train.y)
    dump(forest, run / "head.skops")
    with pytest.raises(RunError, match=r"head\.skops: would run sklearn\.tree\._tree\.Tree"):
        Result.load(run).head()
    other = GaussianNB().fit(data.train.X, np.where(data.train.y == "up", "a", "b"))
    dump(other, run / "head.skops")
    with pytest.raises(RunError, match=r"a head of the classes a, b, expected down, up .*Put back"):
        Result.load(run).head()
    dump(StandardScaler().fit(data.train.X), run / "head.skops")
    with pytest.raises(RunError, match="no fitted classifier"):
        Result.load(run).head()
    (run / "head.skops").write_bytes(b"no archive")
    with pytest.raises(RunError, match="damaged or no classifier"):
        Result.load(run).head()
    (run / "head.skops").unlink()
    with pytest.raises(RunError, match=r"no fitted head, expected head\.keras or head\.skops"):
        Result.load(run).head()
    ours = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "ours")
    held = replace(data, store=data.store | {"features": "one"})
    other = fit_and_evaluate(LogisticHead(C=0.1), held).save(tmp_path / "other")
    shutil.copy(other / "head.keras", ours / "head.keras")
    with pytest.raises(RunError, match="a head of features one, expected final"):
        Result.load(ours).head()


@pytest.mark.parametrize(
    "task",
    [
        BOTH,
        Task.all_emotions(split="usage", per_class="min", duplicates="keep"),
        Task(per_class="min", split_seed=3, group_by=r"^(\d+)\d$|^"),
    ],
    ids=["two", "seven", "groups"],
)
def test_test_images_scored_later_get_the_scores_they_had_got_at_once(
    home: Path, tmp_path: Path, task: Task
) -> None:
    data = task.select(Store(home / "faces.h5"))
    expected = fit_and_evaluate(LogisticHead(C=0.1), data, test=True)
    run = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "run")
    before = Result.load(run)
    assert set(before.scores) == {"validation"}
    scored = score_test(before)
    assert scored.scores == expected.scores
    assert scored.predictions.equals(expected.predictions)
    kept = Result.load(run)
    assert kept.scores == expected.scores
    assert score_test(kept) is kept
    assert ("group" in kept.predictions) == bool(task.group_by)


def test_another_runs_head_is_not_scored_on_test(home: Path, tmp_path: Path) -> None:
    data = BOTH.select(Store(home / "faces.h5"))
    runs = [fit_and_evaluate(LogisticHead(C=C), data).save(tmp_path / str(C)) for C in (0.1, 0.001)]
    (runs[0] / "head.keras").write_bytes((runs[1] / "head.keras").read_bytes())
    with pytest.raises(RunError, match="its head does not say of the validation images what"):
        score_test(Result.load(runs[0]))
    assert set(Result.load(runs[0]).scores) == {"validation"}


def test_a_part_of_the_training_set_is_scored_later_as_at_once(home: Path, tmp_path: Path) -> None:
    task = replace(BOTH, duplicates="keep", split="usage")
    data = task.select(Store(home / "faces.h5"))
    results = compare(data, {"ours": LogisticHead(C=0.1)}, sizes=[30], out=tmp_path / "runs")
    part = next(r for r in results if r.split.get("train_part"))
    scored = score_test(Result.load(part.folder))
    assert scored.scores["validation"] == part.scores["validation"]
    assert len(scored.predictions) == len(data.validation) + len(data.test)


def test_labels_of_a_file_are_read_again_for_test_scores(home: Path, tmp_path: Path) -> None:
    rows = [f"{row},{('happiness', 'fear')[row % 2]}" for row in range(1, 301)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["source,emotion", *rows]))
    data = replace(BOTH, labels=labels).select(Store(home / "faces.h5"))
    expected = fit_and_evaluate(LogisticHead(C=0.1), data, test=True)
    run = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "run")
    assert score_test(Result.load(run)).scores == expected.scores
    run = fit_and_evaluate(LogisticHead(C=0.1), data).save(tmp_path / "again")
    labels.write_text("\n".join(["source,emotion", *rows[:200]]))
    with pytest.raises(RunError, match="hold other rows of this task now"):
        score_test(Result.load(run))
    labels.unlink()
    with pytest.raises(RunError, match=r"its rows cannot be had again \(.*labels\.csv: no such"):
        score_test(Result.load(run))


def test_a_store_that_is_another_one_now_scores_nothing(
    data: Data, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "faces.h5"
    shutil.copy(home / "faces.h5", path)
    run = fit_and_evaluate(LogisticHead(C=0.1), BOTH.select(Store(path))).save(tmp_path / "run")
    before = {each: each.read_bytes() for each in run.iterdir()}
    other = BackboneSpec("tiny", "random:1")
    for spec, faces, message in (
        (other, noise_faces(300), f"{other.fingerprint[:8]}, expected {TINY.fingerprint[:8]}"),
        (TINY, noise_faces(299), "hold other rows of this task now"),
        (TINY, noise_faces(8), "its rows cannot be had again"),
    ):
        path.unlink()
        extract(faces, path, backbone=spec)
        with pytest.raises(RunError, match=message):
            score_test(Result.load(run))
    path.unlink()
    with pytest.raises(RunError, match=r"faces\.h5: no such file, expected a store"):
        score_test(Result.load(run))
    assert {each: each.read_bytes() for each in run.iterdir()} == before


def test_a_frame_and_a_short_text_of_everything(data: Data) -> None:
    assert repr(data).startswith("Data(up, down: ")
    assert repr(data).endswith("16 numbers of final)")
    frame = data.to_frame()
    assert list(frame["split"].unique()) == ["train", "validation", "test"]
    assert list(frame["class"]) == [y for part in data.parts().values() for y in part.y]
    assert "<table" in data._repr_html_()
    assert "<br>noise: 9 rows by emotion: " in noise_faces(9)._repr_html_()
    results = compare(data, {"ours": LogisticHead()}, grid={"ours": {"C": [1e-4, 0.1]}})
    assert repr(results) == "Results(ours: 2 fits, 1 scored on test)"
    assert list(results.settings()["setting"]) == ["C=0.0001", "C=0.1"]
    assert sum(results.settings()["test accuracy"].notna()) == 1
    lines = results.to_frame()
    for result, (_, line) in zip(results, lines.iterrows(), strict=True):
        assert line["validation_f1"] == result.scores["validation"]["f1"]
        assert len(repr(result)) < 200
        assert "<table" in result._repr_html_()
        assert result.to_frame().loc["validation", "ece"] == result.scores["validation"]["ece"]
    assert "<table" in results._repr_html_()


def test_fits_leave_the_threads_of_others_as_they_were(data: Data) -> None:
    from threadpoolctl import threadpool_info

    before = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
    seen = []

    class Looking(GaussianNB):
        def fit(self, *rows: Any) -> Any:
            seen.extend(each["num_threads"] for each in threadpool_info())
            return super().fit(*rows)

        def predict_proba(self, X: Any) -> Any:
            seen.extend(each["num_threads"] for each in threadpool_info())
            return super().predict_proba(X)

    fit_and_evaluate(Looking(), data)
    assert set(seen) == {1}
    assert [(each["filepath"], each["num_threads"]) for each in threadpool_info()] == before


def test_svc_is_fitted_with_probabilities_by_calibration(data: Data) -> None:
    results = compare(data, {"svc": CalibratedClassifierCV(SVC(), cv=2)}, seeds=range(2))
    assert [r.seed for r in results] == [0, 1]


@pytest.mark.parametrize("given", [None, "faces.h5", (1, 2)])
def test_what_is_no_data_or_no_classifier_is_refused(data: Data, given: Any) -> None:
    head = LogisticHead(C=0.1).fit(data.train.X, data.train.y)
    for call in (evaluate, fit_and_evaluate):
        with pytest.raises(
            OptionError, match=r"data: .*expected what Task\(\)\.select\(store\) re"
        ):
            call(head, given)
    for head in (given, GaussianNB):
        with pytest.raises(OptionError, match="expected a fitted scikit-learn classifier"):
            evaluate(head, data)
    with pytest.raises(OptionError, match="seeds: -1, expected"):
        fit_and_evaluate(GaussianNB(), data, seed=-1)


def test_a_history_of_another_form_is_left_out_of_the_run(data: Data, tmp_path: Path) -> None:
    for noted in ({"loss": [1.0]}, [{"val_loss": 1.0}], "epochs", [1, 2], None, 5):
        head = GaussianNB().fit(data.train.X, data.train.y)
        head.history_ = noted
        result = evaluate(head, data)
        assert result.history == []
    assert Result.load(result.save(tmp_path / "run")).history == []
