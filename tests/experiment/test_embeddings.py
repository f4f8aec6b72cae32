"""One task by several networks and layers, tested on other data sets, on the very same images."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from support import TINY, noise_faces

from fer_features import (
    BackboneSpec,
    DenseHead,
    FaceDataset,
    FerFeaturesError,
    LogisticHead,
    Result,
    Store,
    Task,
    compare,
    extract,
)
from fer_features.errors import OptionError, RunError, SourceError, TaskError
from fer_features.experiment.comparison import embeddings_of
from fer_features.experiment.comparison_folder import Results, load_results
from fer_features.experiment.fitting import fit
from fer_features.experiment.result import evaluate, fit_and_evaluate, score_test
from fer_features.experiment.task import Data

N = 300
OTHER = BackboneSpec("tiny", weights="random:1")
LAYERED = replace(TINY, layers=("two_relu",))
HEADS = {"dense": DenseHead((4,), epochs=2), "logistic": LogisticHead(C=0.01)}


def embedded(faces: FaceDataset, path: Path, spec: BackboneSpec) -> Store:
    return extract(faces, path, backbone=spec, engine="tensorflow")


def permuted(faces: FaceDataset, order: Any) -> FaceDataset:
    parts = ("pixels", "emotion", "usage", "source", "group")
    return replace(faces, **{name: getattr(faces, name)[order] for name in parts})


def in_colour(faces: FaceDataset) -> FaceDataset:
    """Return the faces at twice the size, in three channels: images of another form."""
    pixels = faces.pixels.repeat(2, axis=1).repeat(2, axis=2)
    return replace(faces, pixels=np.stack([pixels] * 3, axis=3))


@pytest.fixture(scope="module")
def faces() -> FaceDataset:
    return replace(noise_faces(N), group=np.array([f"p{i % 60}" for i in range(N)]))


@pytest.fixture(scope="module")
def elsewhere(faces: FaceDataset) -> FaceDataset:
    """Another data set, of which the first 30 images are in the first one, too."""
    other = noise_faces(N, seed=5)
    other.pixels[:30] = faces.pixels[:30]
    group = np.array([f"p{i % 40}" for i in range(N)])
    return replace(other, name="elsewhere", group=group)


@pytest.fixture(scope="module")
def folder(
    faces: FaceDataset, elsewhere: FaceDataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Both data sets under two networks; the second network's rows in another order."""
    folder = tmp_path_factory.mktemp("stores")
    order = np.random.default_rng(1).permutation(N)
    embedded(faces, folder / "a.h5", LAYERED)
    embedded(permuted(faces, order), folder / "b.h5", OTHER)
    embedded(in_colour(faces), folder / "colour.h5", TINY)
    embedded(elsewhere, folder / "there_a.h5", LAYERED)
    embedded(permuted(elsewhere, order), folder / "there_b.h5", OTHER)
    return folder


@pytest.fixture
def store(folder: Path) -> Callable[[str], Store]:
    return lambda name: Store(folder / f"{name}.h5")


TASK = Task({"up": ["happiness", "surprise", "neutral"], "down": ["anger", "fear", "sadness"]},
            per_class="all")  # fmt: skip


def by_source(store: Store, features: str, source: Any) -> Any:
    row = {each: i for i, each in enumerate(store.source.tolist())}
    return store.embeddings([row[each] for each in source.tolist()], features)


@pytest.mark.parametrize("name", ["b", "colour"])
def test_the_same_images_are_read_from_another_store_whatever_their_order_and_form(
    store: Any, name: str
) -> None:
    first, other = TASK.select(store("a"), "two_relu"), store(name)
    data = first.on(other)
    assert data.split == first.split
    assert data.store["fingerprint"] == other.fingerprint
    assert data.store["rows_of"] == {"name": "a.h5", "path": first.store["path"]}
    for part in ("train", "validation", "test"):
        one, two = first.parts()[part], data.parts()[part]
        for field in ("y", "emotion", "digest", "source", "group"):
            assert np.array_equal(getattr(one, field), getattr(two, field))
        assert np.array_equal(two.X, by_source(other, "final", one.source))
        assert not np.array_equal(one.X, two.X)
    back = data.on(store("a"), "two_relu")
    assert np.array_equal(back.test.X, first.test.X)
    assert back.store == first.store


def test_other_features_of_one_store_are_of_the_same_images(store: Any) -> None:
    data = TASK.select(store("a")).on(store("a"), "final+two_relu")
    whole = TASK.select(store("a"), "final+two_relu")
    assert np.array_equal(data.test.X, whole.test.X)
    assert data.store == whole.store
    assert data.store["dimension"] == 32 == data.train.X.shape[1]
    assert data.store["network"] == "tiny (random weights)"


def other_pixels(faces: FaceDataset) -> FaceDataset:
    pixels = faces.pixels.copy()
    pixels[7, 0, 0] ^= 1
    return replace(faces, pixels=pixels)


def other(field: str, row: int, value: Any) -> Callable[[FaceDataset], FaceDataset]:
    def change(faces: FaceDataset) -> FaceDataset:
        values = getattr(faces, field).copy()
        values[row] = value
        return replace(faces, **{field: values})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_pixels, r"b.h5: another image than in .*a.h5 in 1 of 300 rows, such as '8'"),
        (other("emotion", 4, -1), "another emotion than in .* in 1 of 300 rows, such as '5'"),
        (other("usage", 4, -1), "another usage than in .*such as '5'; expected equal ones"),
        (other("group", 4, ""), "another group than in .*such as '5'"),
        (other("source", 4, "x"), "300 rows, .*a.h5 has 300, and 2 are in one of the two alone"),
        (lambda faces: permuted(faces, np.arange(N - 1)), "299 rows, .*a.h5 has 300, and 1 are"),
        (other("source", 4, "1"), "b.h5: several rows of one source, expected each once"),
    ],
)
def test_stores_whose_rows_differ_in_anything_are_not_compared(
    faces: FaceDataset, store: Any, change: Any, message: str, tmp_path: Path
) -> None:
    unlike = embedded(change(faces), tmp_path / "b.h5", OTHER)
    first = TASK.select(store("a"))
    with pytest.raises(TaskError, match=message) as caught:
        first.on(unlike)
    assert "\n" not in str(caught.value)
    with pytest.raises(TaskError, match=message):
        embeddings_of(TASK, [store("a"), unlike])


def test_a_store_that_was_written_anew_since_is_refused(
    faces: FaceDataset, store: Any, tmp_path: Path
) -> None:
    own = embedded(faces, tmp_path / "own.h5", TINY)
    data = TASK.select(own)
    (tmp_path / "own.h5").unlink()
    embedded(noise_faces(N, seed=9), tmp_path / "own.h5", TINY)
    with pytest.raises(TaskError, match="holds other images now, expected those that were chosen"):
        data.on(Store(tmp_path / "own.h5"))


def test_data_of_other_rows_are_refused_and_the_remedy_leads_on(store: Any) -> None:
    first = TASK.select(store("a"))
    for unlike in (TASK.select(store("b")), replace(TASK, split_seed=1).select(store("a"))):
        with pytest.raises(OptionError, match=r"number 2, .* has other rows.*first\.on\(store"):
            compare([first, unlike], HEADS)
    assert len(compare([first, first.on(store("b"))], {"l": LogisticHead(C=0.01)})) == 2


@pytest.fixture(scope="module")
def data(folder: Path) -> list[Data]:
    stores = [Store(folder / f"{name}.h5") for name in ("a", "b")]
    return embeddings_of(TASK, stores, ["final", "final+two_relu"])


def everything(results: Any) -> list[Any]:
    return [
        (r.label, r.fingerprint, r.features, r.params, r.seed, r.scores, r.split,
         r.predictions.to_csv())
        for r in results
    ]  # fmt: skip


CALL: dict[str, Any] = {
    "grid": {"dense": {"l2": [1e-3, 1e-1]}}, "seeds": range(2), "sizes": [40]
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(data: list[Data], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("runs") / "c"
    return folder, compare(data, HEADS, out=folder, **CALL)


def test_every_head_is_fitted_to_every_embedding_and_selected_on_each(
    data: list[Data], finished: Any
) -> None:
    folder, results = finished
    whole = [r for r in results if "train_part" not in r.split]
    order = [(r.store["network"][-2], r.features, r.label) for r in whole]
    assert list(dict.fromkeys(order)) == [
        (net, features, head)
        for net, features in (("s", "final"), ("s", "final+two_relu"), ("1", "final"))
        for head in HEADS
    ]
    assert len(whole) == 3 * (2 * 2 + 1)
    for each in {(r.fingerprint, r.features, r.label) for r in whole}:
        own = [r for r in whole if (r.fingerprint, r.features, r.label) == each]
        mean = {
            l2: np.mean(
                [r.scores["validation"]["log_loss"] for r in own if r.params.get("l2") == l2]
            )
            for l2 in {r.params.get("l2") for r in own}
        }
        best = min(mean, key=mean.__getitem__)
        assert {r.params.get("l2") for r in own if "test" in r.scores} == {best}
    sized = [r for r in results if "train_part" in r.split]
    assert len(sized) == 3 * (2 + 1)
    summary = json.loads((folder / "results.json").read_text())
    assert [(e["fingerprint"], e["features"]) for e in summary["experiment"]["embeddings"]] == [
        (d.store["fingerprint"], d.store["features"]) for d in data
    ]
    assert len(summary["selected"]) == 6
    assert everything(load_results(folder)) == everything(results)
    table = results.settings()
    assert list(table.columns[:3]) == ["network", "features", "head"]
    assert len(table) == 3 * (2 + 1)
    assert table["selected"].sum() == 6


def test_what_is_compared_is_answered_on_the_same_images_in_the_same_order(
    data: list[Data], finished: Any
) -> None:
    tested = [r.predictions for r in finished[1] if "test" in r.scores]
    assert len(tested) > 6
    columns = ["source", "digest", "split", "emotion", "group", "target"]
    for each in tested:
        assert each[columns].equals(tested[0][columns])
    alone = LogisticHead(C=0.01)
    fit(alone, data[2])
    own = next(r for r in finished[1] if r.fingerprint == data[2].store["fingerprint"]
               and r.label == "logistic" and "test" in r.scores)  # fmt: skip
    assert evaluate(alone, data[2], test=True).scores == own.scores


def test_a_comparison_of_embeddings_is_the_same_to_the_bit_with_any_workers(
    data: list[Data],
) -> None:
    named = {"logistic": LogisticHead(C=0.01), "bayes": GaussianNB()}
    one, two = (compare(data[1:], named, seeds=[0], sizes=[40], workers=n) for n in (1, 2))
    assert len(one) == 2 * 2 * 2
    assert everything(one) == everything(two)


def test_a_stopped_comparison_goes_on_and_may_be_given_another_embedding_until_one_is_selected(
    data: list[Data], finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    original = LogisticHead.fit

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        fits.append(self)
        if len(fits) == 2 and stopping:
            raise KeyboardInterrupt
        return original(self, *args, **named)

    monkeypatch.setattr(LogisticHead, "fit", counted)
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        compare(data[:2], HEADS, out=tmp_path / "c", **CALL)
    stopping = False
    results = compare(data, HEADS, out=tmp_path / "c", **CALL)
    assert len(fits) == 2 + 2 + 3  # of three on all images the first was there
    assert everything(results) == everything(finished[1])
    with pytest.raises(RunError, match="comparison with other embeddings"):
        compare(data[:2], HEADS, out=tmp_path / "c", **CALL)


def test_a_head_that_fails_on_one_network_says_on_which(store: Any, tmp_path: Path) -> None:
    class OfSixteen(QuadraticDiscriminantAnalysis):
        def fit(self, X: Any, y: Any) -> Any:
            if X.shape[1] > 16:
                raise ValueError("too wide")
            return super().fit(X, y)

    data = embeddings_of(TASK, [store("a")], ["final", "final+two_relu"])
    results = compare(data, {"q": OfSixteen(reg_param=0.1)}, seeds=[0], out=tmp_path / "c")
    assert [(r.features, "test" in r.scores) for r in results] == [("final", True)]
    (failed,) = load_results(tmp_path / "c").failed
    assert (failed.features, failed.network) == ("final+two_relu", "tiny (random weights)")
    assert failed.fingerprint == data[0].store["fingerprint"]
    (said,) = [each for each in results.notices() if each.startswith("Failed")]
    assert said.startswith("Failed: 1 fit of q on tiny (random weights) final+two_relu. ")
    assert list(results.settings()["failed"]) == [0, 1]


def test_features_are_those_of_the_stores_that_have_them(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    stores = [store("b"), store("a")]
    found = embeddings_of(TASK, stores, ["final", "two_relu", "final"])
    assert [(d.store["name"], d.store["features"]) for d in found] == [
        ("b.h5", "final"), ("a.h5", "final"), ("a.h5", "two_relu")
    ]  # fmt: skip
    assert caplog.text.count("two_relu: of ") == 1
    assert "a.h5 alone" in caplog.text
    with pytest.raises(OptionError, match=r"no store has 'two_reli'.*b\.h5 has final; .*--layers"):
        embeddings_of(TASK, stores, ["final", "two_reli"])
    with pytest.raises(OptionError, match=r"b\.h5 has none of two_relu, expected some of each"):
        embeddings_of(TASK, stores, ["two_relu"])


def test_test_on_is_every_image_of_the_task_in_the_other_data_set_but_the_known_ones(
    store: Any, faces: FaceDataset, elsewhere: FaceDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fer_features")
    first = TASK.select(store("a"))
    data = first.tested_on(store("there_a"))
    assert data.train is first.train
    assert data.validation is first.validation
    known = {bytes(each) for each in faces.digest}
    inside = np.isin(elsewhere.emotion, [0, 2, 3, 4, 5, 6])
    new = [bytes(each) not in known for each in elsewhere.digest]
    assert list(data.test.source) == [str(i + 1) for i in np.flatnonzero(inside & new)]
    assert not known & {bytes(each) for each in data.test.digest}
    assert np.array_equal(data.test.X, by_source(store("there_a"), "final", data.test.source))
    said = data.split["test_on"]
    assert json.loads(json.dumps(data.split)) == data.split
    assert (said["dataset"], said["rows"], said["outside"]) == ("elsewhere", N, (~inside).sum())
    assert said["images"] - said["disagreeing"] - said["left_out"] == len(data.test)
    assert said["left_out"] > 10
    assert sum(data.split["sizes"]["test"].values()) == len(data.test)
    assert data.split["sizes"]["train"] == first.split["sizes"]["train"]
    assert data.split["rows"] != first.split["rows"]
    assert f"Test: {len(data.test)} images of elsewhere, none of which is in noise" in caplog.text
    # A group of another data set is another one, whatever it is called.
    assert set(data.test.group) <= {f"elsewhere/p{i}" for i in range(40)}
    assert not any(data.split["leaked"].values())
    every = np.concatenate([part.group for part in data.parts().values()])
    assert data.split["groups"]["count"] == len(set(every.tolist()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "there_b",
            r"of the network tiny \(random weights 1\), .* expected tiny \(random weights\)",
        ),
        ("a", r"no image to test on: \d+ are of the task's emotions.* are in a\.h5, too"),
    ],
)
def test_what_cannot_be_tested_on_is_refused(store: Any, name: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        TASK.select(store("a")).tested_on(store(name))
    with pytest.raises(TaskError, match="Call it first, and on"):
        TASK.select(store("a")).on(store("b")).tested_on(store("there_b"))


def test_networks_are_compared_on_the_same_images_of_another_data_set(store: Any) -> None:
    stores, there = [store("a"), store("b")], [store("there_b"), store("there_a")]
    one, two, three = embeddings_of(TASK, stores, ["final", "two_relu"], test_on=there)
    assert one.split == two.split == three.split
    assert two.store["test_on"]["name"] == "there_a.h5"
    assert three.store["test_on"]["name"] == "there_b.h5"
    assert np.array_equal(three.test.digest, one.test.digest)
    assert np.array_equal(three.test.X, by_source(store("there_b"), "final", one.test.source))
    for lacking, message in (
        (there[:1], "no test images by the network of .*a.h5"),
        ([*there, there[0]], "are of one network, expected one store for each"),
    ):
        with pytest.raises(OptionError, match=message):
            embeddings_of(TASK, stores, test_on=lacking)
    with pytest.raises(OptionError, match=r"there_b\.h5 is by .*, expected the network of "):
        embeddings_of(TASK, stores[:1], test_on=there)
    with pytest.raises(TaskError, match="test_store: None, expected the test images' store"):
        one.on(store("b"))


def votes_of(path: Path, faces: FaceDataset) -> Path:
    """Write FER+'s table for faces: nine say the emotion, one says another."""
    order = (6, 3, 5, 4, 0, 1, 2, 7)
    lines = [
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    ]
    for i, (emotion, usage) in enumerate(zip(faces.emotion, faces.usage, strict=True)):
        votes = [0] * 10
        votes[order.index(emotion)] = 9
        votes[i % 10] += 1
        usages = ("Training", "PublicTest", "PrivateTest")
        lines.append(f"{usages[usage]},f{i}.png,{','.join(map(str, votes))}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["on", "tested_on", "both"])
def test_test_images_are_scored_later_as_at_once(
    store: Any, elsewhere: FaceDataset, faces: FaceDataset, tmp_path: Path, kind: str
) -> None:
    there = [store("there_a"), store("there_b")] if kind != "on" else []
    raters = votes_of(tmp_path / "votes.csv", faces if kind == "on" else elsewhere)
    stores = [store("a"), store("b")] if kind != "tested_on" else [store("a")]
    data = embeddings_of(TASK, stores, test_on=there[: len(stores)], raters=raters)[-1]
    assert ("rows_of" in data.store) == (kind != "tested_on")
    at_once = fit_and_evaluate(LogisticHead(C=0.01), data, test=True)
    run = fit_and_evaluate(LogisticHead(C=0.01), data).save(tmp_path / "run")
    scored = score_test(Result.load(run))
    assert scored.scores == at_once.scores
    assert scored.predictions.equals(at_once.predictions)
    again = Result.load(run)
    assert again.predictions.equals(at_once.predictions)
    assert again.store == at_once.store
    assert again.split == at_once.split


def test_runs_of_which_a_store_or_the_votes_changed_are_not_scored(
    store: Any, faces: FaceDataset, folder: Path, tmp_path: Path
) -> None:
    raters = votes_of(tmp_path / "votes.csv", faces)
    data = embeddings_of(TASK, [store("a"), store("b")], raters=raters)[-1]
    run = fit_and_evaluate(LogisticHead(C=0.01), data).save(tmp_path / "run")
    text = raters.read_text()
    raters.write_text(text.replace(",9,", ",8,", 1))
    with pytest.raises(RunError, match=r"votes\.csv holds other votes now"):
        score_test(Result.load(run))
    raters.write_text(text)
    document = json.loads((run / "metrics.json").read_text())
    document["store"]["rows_of"]["path"] = str(tmp_path / "gone.h5")
    (run / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"rows cannot be had again .*gone\.h5"):
        score_test(Result.load(run))


def test_a_table_of_one_emotion_an_image_has_no_raters(store: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("source,emotion\n1,fear\n")
    with pytest.raises(SourceError, match=r"labels\.csv: one emotion an image, expected votes"):
        TASK.select(store("a")).with_raters(tmp_path / "labels.csv")


def test_a_run_elsewhere_whose_places_were_edited_is_scored_or_refused(
    store: Any, elsewhere: FaceDataset, tmp_path: Path
) -> None:
    raters = votes_of(tmp_path / "votes.csv", elsewhere)
    stores, there = [store("a"), store("b")], [store("there_a"), store("there_b")]
    data = embeddings_of(TASK, stores, test_on=there, raters=raters)[-1]
    run = fit_and_evaluate(LogisticHead(C=0.01), data).save(tmp_path / "run")
    whole = json.loads((run / "metrics.json").read_text())
    places = [("split", "raters"), ("split", "test_on"), ("store", "rows_of"), ("store", "test_on")]
    inner = [(*place, name) for place in places for name in whole[place[0]][place[1]]]
    said = []
    for *above, last in [*places, *inner]:
        for put in (None, "x", {}, 0.5):
            document = json.loads(json.dumps(whole))
            part = document
            for name in above:
                part = part[name]
            if put is None:
                del part[last]
            else:
                part[last] = put
            (run / "metrics.json").write_text(json.dumps(document))
            try:
                score_test(Result.load(run))
            except FerFeaturesError as error:
                said.append(str(error))
    assert len(said) > 60
    assert not any("\n" in each for each in said)
