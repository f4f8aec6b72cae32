"""What one rater scores: by hand, against a plain loop, and beside a head."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import LogisticHead, Result, Task, extract
from fer_features.errors import RunError
from fer_features.experiment.raters import VOTE_COLUMNS, Raters, raters_of, scored_votes
from fer_features.experiment.result import fit_and_evaluate
from fer_features.experiment.statistics import difference, estimate
from fer_features.faces.emotions import EMOTIONS

CLASSES = {"positive": ["happiness"], "negative": ["anger", "fear", "sadness"]}
HAPPY, SAD, FEAR, NEUTRAL, OTHER = 3, 4, 2, 6, 8


def votes(*rows: dict[int, int]) -> Any:
    found = np.zeros((len(rows), 9), dtype=np.int64)
    for row, said in enumerate(rows):
        for column, count in said.items():
            found[row, column] = count
    return found


def accuracy(found: Raters) -> float:
    return estimate(found.target, found.p, random=False).value


def test_each_vote_is_scored_against_the_others_of_its_image() -> None:
    found = scored_votes(
        votes(
            {HAPPY: 8, SAD: 1, FEAR: 1},  # the eight agree with 7:2, the two do not with 8:1
            {SAD: 5, NEUTRAL: 4, OTHER: 1},  # five negative votes, five outside
            {HAPPY: 2, SAD: 1},  # a happy one's others are a tie; the sad one's say happy
            {HAPPY: 1, NEUTRAL: 9},  # nobody else in the task
            {HAPPY: 1, SAD: 1},  # each is wrong by the other
            {},
        ),
        list(CLASSES.values()),
    )
    assert found.in_task.tolist() == [[8, 2], [0, 5], [2, 1], [1, 0], [1, 1], [0, 0]]
    lines = list(zip(found.row.tolist(), found.said.tolist(), found.target.tolist(), strict=True))
    assert lines == (
        [(0, 0, 0)] * 8 + [(0, 1, 0)] * 2 + [(1, 1, 1)] * 5 + [(2, 1, 0), (4, 0, 1), (4, 1, 0)]
    )
    assert found.images == 4
    assert found.votes == 10 + 10 + 3 + 10 + 2
    assert found.share_outside == pytest.approx(14 / 35)
    assert found.share_tied == pytest.approx(3 / 21)
    assert accuracy(found) == pytest.approx(13 / 18)
    assert found.agreement[:5] == pytest.approx([0.8, 1, 2 / 3, 1, 0.5])
    assert np.isnan(found.agreement[5])


def by_a_loop(cast: Any, classes: list[list[str]]) -> list[tuple[int, int, int]]:
    """Ask each voter of each image in turn, and count the others'."""
    found = []
    for row, counts in enumerate(cast.tolist()):
        voters = [column for column, count in enumerate(counts) for _ in range(count)]
        said = [
            next((k for k, held in enumerate(classes) if c < 8 and EMOTIONS[c] in held), None)
            for c in voters
        ]
        for voter, own in enumerate(said):
            others = [each for i, each in enumerate(said) if i != voter and each is not None]
            tally = sorted(((others.count(k), k) for k in set(others)), reverse=True)
            if own is None or not tally or (len(tally) > 1 and tally[0][0] == tally[1][0]):
                continue
            found.append((row, own, tally[0][1]))
    return sorted(found)


@pytest.mark.parametrize(
    "classes", [list(CLASSES.values()), [[name] for name in EMOTIONS], [["anger"], ["contempt"]]]
)
def test_random_votes_are_scored_as_a_loop_over_voters_does(classes: list[list[str]]) -> None:
    rng = np.random.default_rng(0)
    cast = rng.multinomial(7, rng.dirichlet(np.full(9, 0.4)), size=60)
    cast[:5] = 0
    found = scored_votes(cast, classes)
    lines = sorted(zip(found.row.tolist(), found.said.tolist(), found.target.tolist(), strict=True))
    assert lines == by_a_loop(cast, classes)
    assert len(lines) > 20
    assert found.votes == 7 * 55


def test_raters_and_heads_are_compared_on_the_same_lines() -> None:
    """A head that always says what most raters say is right where they are, or more often."""
    rng = np.random.default_rng(1)
    cast = rng.multinomial(10, [0.05, 0, 0.05, 0.5, 0.3, 0, 0, 0, 0.1], size=200)
    found = scored_votes(cast, list(CLASSES.values()))
    most = np.eye(2)[None, found.in_task.argmax(axis=1)]
    apart = difference(
        found.target, most[:, found.row], found.p, random=(False, False), groups=found.row
    )
    loop = np.mean([most[0, row].argmax() == target for row, _, target in by_a_loop(
        cast, list(CLASSES.values()))])  # fmt: skip
    assert apart.value == pytest.approx(loop - accuracy(found))
    assert apart.low > 0
    plain = difference(found.target, most[:, found.row], found.p, random=(False, False))
    assert apart.high - apart.low != plain.high - plain.low  # an image's lines are one draw


def test_votes_are_kept_with_the_predictions_and_checked(tmp_path: Path) -> None:
    faces = noise_faces(120, copies=False)
    store = extract(faces, tmp_path / "faces.h5", backbone=TINY, engine="tensorflow")
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    rng = np.random.default_rng(0)
    cast = rng.multinomial(10, np.full(10, 0.1), size=120)
    usages = ("Training", "PublicTest", "PrivateTest")
    lines = [
        f"{usages[usage]},{i}.png,{','.join(map(str, row))}"
        for i, (usage, row) in enumerate(zip(faces.usage, cast, strict=True))
    ]
    path = tmp_path / "votes.csv"
    path.write_text("\n".join([f"Usage,Image name,{names}", *lines]) + "\n")
    task = Task(CLASSES, per_class="all")
    data = task.select(store).with_raters(path)
    assert data.split["raters"]["name"] == "votes.csv"
    assert np.array_equal(data.test.y, task.select(store).test.y)  # the labels stay
    result = fit_and_evaluate(LogisticHead(C=0.01), data, test=True)
    kept = Result.load(result.save(tmp_path / "run")).predictions
    assert kept.equals(result.predictions)
    assert tuple(kept.columns[-9:]) == VOTE_COLUMNS
    columns = (
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "neutral",
        "contempt",
    )
    for _, line in kept.iterrows():
        row = cast[int(line["source"]) - 1]
        for name in columns:
            assert line[f"votes_{name}"] == row[names.split(",").index(name)]
        assert line["votes_other"] == row[-2:].sum()
    by_label = Task(CLASSES, per_class="all", labels=path).select(store)
    assert "raters" not in by_label.split
    assert by_label.test.votes.sum(axis=1).tolist() == [10] * len(by_label.test)
    tested = kept[kept["split"] == "test"]
    assert raters_of(tested, result.task["classes"]).votes == 10 * len(tested)
    assert raters_of(tested.drop(columns=list(VOTE_COLUMNS)), CLASSES) is None
    csv = tmp_path / "run" / "predictions.csv"
    text = csv.read_text()
    header, first, rest = text.split("\n", 2)
    for broken in (
        f"{header}\n{first.rpartition(',')[0]},-1\n{rest}",
        f"{header}\n{first.rpartition(',')[0]},1.5\n{rest}",
        f"{header}\n{first.rpartition(',')[0]},\n{rest}",
        text.replace("votes_other", "votes_others"),
    ):
        csv.write_text(broken)
        with pytest.raises(RunError, match=r"predictions\.csv: (not readable|columns)"):
            Result.load(tmp_path / "run")
