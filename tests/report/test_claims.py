"""What a report claims: of which images and seeds, by which score, and with what verdict."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from fer_features.experiment.comparison_folder import Results
from fer_features.experiment.result import Result
from fer_features.experiment.scores import score
from fer_features.experiment.statistics import Difference, estimate
from fer_features.report.page import write_report
from fer_features.report.summary import SCORE_NAMES, Pair, sections
from fer_features.report.tables import (
    NOTHING,
    pairs_table,
    score_table,
    settings_table,
    spread_table,
)
from fer_features.report.words import answer, caution, notices, pairs_note, selection


@pytest.fixture(scope="module")
def three(fits, heads) -> list[Result]:
    """Two seeds of one head, and another head that draws nothing."""
    return fits(heads=[heads["dense"](), heads["dense"](random_state=1), heads["logistic"]()])


def test_of_each_group_the_score_is_the_mean_with_the_interval_of_its_rows(three):
    (section,) = sections(three)
    dense, logistic = section.groups
    assert (dense.random, logistic.random) == (True, False)
    for group in section.groups:
        for name, found in group.estimates.items():
            assert found.value == pytest.approx(group.mean("test", name), rel=1e-9)
            assert found.low < found.value < found.high, name
            assert found.covers_seeds
    rows = [r.predictions.query("split == 'test'") for r in three[:2]]
    target = (rows[0]["target"] == "negative").to_numpy().astype(int)
    p = np.array([each[["p_positive", "p_negative"]] for each in rows])
    by_rows, kept = estimate(target, p), dense.estimates["accuracy"]
    assert (by_rows.low, by_rows.high) == pytest.approx((kept.low, kept.high), rel=1e-9)


def test_the_order_of_the_rows_does_not_matter(three):
    turned = [
        replace(r, predictions=r.predictions.iloc[::-1].reset_index(drop=True)) for r in three
    ]
    mixed = [turned[0], three[1], turned[2]]
    (as_is,), (other,) = sections(three), sections(mixed)
    assert as_is.pairs == other.pairs
    assert as_is.groups[0].estimates == other.groups[0].estimates
    assert as_is.groups[0].errors == other.groups[0].errors


def test_copies_and_images_of_one_group_are_one_draw(three):
    def with_test(**columns: list[str]) -> Result:
        rows = three[2].predictions
        test = rows["split"] == "test"
        rows = rows.assign(**{name: "" for name in columns if name not in rows})
        for name, values in columns.items():
            rows.loc[test, name] = values
        return replace(three[2], predictions=rows)

    def drawn(result: Result) -> int:
        return len(set(sections([result])[0].groups[0].answers.draw))

    n = 120
    alone = [f"{i:064x}" for i in range(n)]
    copied = [f"{i // 2:064x}" for i in range(n)]
    persons = [f"person {i // 4}" if i < 40 else "" for i in range(n)]
    assert drawn(with_test(digest=alone)) == n
    assert drawn(with_test(digest=copied)) == 60
    assert drawn(with_test(digest=alone, group=persons)) == 10 + 80
    assert drawn(with_test(digest=copied, group=persons)) == 10 + 40
    # A copy in two groups makes these one.
    bridged = [alone[0], alone[0], *alone[2:]]
    apart = ["A", "B", "A", "B", *[""] * (n - 4)]
    assert drawn(with_test(digest=bridged, group=apart)) == 1 + n - 4
    said = caution(sections([with_test(digest=alone, group=persons)])[0])
    assert "Copies of one image, and images of one person or sequence, count as one draw." in said
    assert "one draw" not in caution(sections(three)[0])
    assert "Copies of one image count as one draw." in caution(
        sections([with_test(digest=copied)])[0]
    )


@pytest.mark.parametrize(
    ("bounds", "p", "holm", "lucky", "words"),
    [
        ((0.01, 0.03), 0.001, 0.01, (), "evidence that x is right more often than y"),
        ((-0.03, -0.01), 0.001, 0.01, (), "evidence that y is right more often than x"),
        ((-0.01, 0.03), 0.2, 0.2, (), "no evidence that they differ"),
        ((0.01, 0.03), 0.02, 0.06, (), "no evidence that they differ, as one of so many pairs"),
        ((0.01, 0.03), None, None, ("x",), "one seed of x: no verdict"),
        ((0.01, 0.03), None, None, ("x", "y"), "one seed of x and of y: no verdict"),
        ((-1.0, 1.0), None, None, (), "too few images: no verdict"),
    ],
)
def test_words_follow_the_interval_and_the_corrected_p(bounds, p, holm, lucky, words):
    apart = Difference(sum(bounds) / 2, *bounds, p, not lucky)
    assert Pair("x", "y", apart, holm, lucky).words == words


def test_one_seed_of_a_random_head_gets_no_verdict(three):
    (section,) = sections([three[0], three[2]])
    (pair,) = section.pairs
    assert (pair.difference.p, pair.holm, pair.difference.covers_seeds) == (None, None, False)
    assert "; one seed of dense: no verdict." in answer(section)
    (row,) = pairs_table(section).rows
    assert row[2].detail == "images only"
    assert [cell.text for cell in row[3:]] == ["\N{EN DASH}"] * 2
    assert "other images only, and there is no verdict" in pairs_note(section)
    assert "Holm" not in pairs_note(section)
    assert "other seeds" not in caution(section)
    assert score_table(section).rows[0][0].detail == "one seed"
    (section,) = sections(three)
    assert section.pairs[0].holm is not None
    assert "other seeds of the training together, for this training set" in caution(section)
    assert "no verdict" not in pairs_note(section)


def test_p_is_corrected_over_the_pairs_that_have_one(three, fits, heads):
    more = fits(heads=[heads["dense"](l2=0.5), heads["logistic"](C=1e-4)])
    (section,) = sections([*three, *more])
    judged = [pair for pair in section.pairs if pair.holm is not None]
    assert len(section.pairs) == 6
    assert len(judged) == 3
    assert "over the 3 pairs" in pairs_note(section)
    least = min(judged, key=lambda pair: pair.difference.p)
    assert least.holm == pytest.approx(min(1.0, 3 * least.difference.p))


def leaky(result: Result, leaks: np.ndarray, known: bool = True) -> Result:
    """Return a result some of whose test images occur in training, which are known or not."""
    rows = result.predictions
    test = (rows["split"] == "test").to_numpy()
    alone = rows[test][~leaks]
    p = alone[[f"p_{name}" for name in result.classes]].to_numpy()
    without = score(list(alone["target"]), p, result.classes, list(alone["predicted"]))
    column = np.full(len(rows), "", dtype=object)
    column[np.flatnonzero(test)[leaks]] = "train"
    return replace(
        result,
        predictions=rows.assign(leaked=column) if known else rows,
        split=result.split | {"leaked": {"test_in_train": int(leaks.sum())}},
        scores={**result.scores, "test": {**result.scores["test"], "unleaked": without}},
    )


def test_the_answer_leaves_out_images_that_leak(three, tmp_path):
    leaks = np.arange(120) % 4 == 0
    fits = [leaky(result, leaks) for result in three]
    (section,) = sections(fits)
    best = section.ranked[0]
    found = section.headlines[best.label]
    alone = [r.scores["test"]["unleaked"]["accuracy"] for r in best.results]
    assert found.value == pytest.approx(np.mean(alone))
    assert section.fits(best) == pytest.approx(alone)
    assert found.images == 90
    assert found.low < found.value < found.high
    said = answer(section)
    assert f"classified {found.value:.1%} of the 90 test images that do not leak correctly" in said
    assert f"95% interval {found.low:.1%} to {found.high:.1%}; " in said
    assert f"{best.mean('test', 'accuracy'):.1%} of all 120)" in said
    assert len(section.judged) == 90
    assert "on the 90 images that do not leak" in pairs_table(section).caption
    means = {
        g.label: np.mean([r.scores["test"]["unleaked"]["accuracy"] for r in g.results])
        for g in section.groups
    }
    (pair,) = section.pairs
    assert pair.difference.value == pytest.approx(means[pair.first] - means[pair.second])
    (notice,) = notices(fits, [section])
    assert notice.endswith("its test scores are too good. The answer leaves them out.")
    write_report(fits, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert said in text
    alone = best.unleaked("log_loss")
    assert alone.low < alone.value < alone.high
    cell = f"| {alone.value:.4f} ({alone.low:.4f}{NOTHING}{alone.high:.4f}) |"
    assert cell in text[text.index("with and without the images that also occur") :]


def test_where_it_is_not_known_which_images_leak_the_answer_has_no_interval(three, tmp_path):
    leaks = np.arange(120) % 4 == 0
    (section,) = sections([leaky(result, leaks, known=False) for result in three])
    (known,) = sections([leaky(result, leaks) for result in three])
    for label, found in section.headlines.items():
        assert found.value == pytest.approx(known.headlines[label].value)
        assert np.isnan([found.low, found.high]).all()
    assert "95% interval not known" in answer(section)
    assert len(section.judged) == 120
    write_report([leaky(result, leaks, known=False) for result in three], tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert {each["low"] for each in document["sections"][0]["headlines"]} == {None}


def test_what_validation_chose_is_bold_and_named_by_its_score(three):
    def chosen(select: str) -> list[Result]:
        return [replace(r, selection={"score": select, "selected": True}) for r in three]

    for select, said, did in (
        ("log_loss", "log loss", "classified"),
        ("accuracy", "accuracy", "classified"),
        ("balanced_accuracy", "balanced accuracy", "reached {value:.1%} balanced accuracy on the"),
        ("roc_auc", "ROC AUC", "reached {value:.1%} ROC AUC on the"),
    ):
        (section,) = sections(chosen(select))
        means = {g.label: g.mean("validation", select) for g in section.groups}
        best = (min if select == "log_loss" else max)(means, key=means.__getitem__)
        did = did.format(value=section.headlines[best].value)
        assert f"The {best} head, the best by validation {said}, {did} " in answer(section)
        test = score_table(section)
        bold = [cell.text for row in test.rows for cell in row if cell.chosen]
        assert bold == [best]
        bold = [c.text for row in spread_table(section, "validation").rows for c in row if c.chosen]
        assert bold == [best, f"{means[best]:.4f}"]
    assert sections(three)[0].select == "log_loss"
    (alone,) = sections(three[2:])
    assert not any(cell.chosen for row in score_table(alone).rows for cell in row)


@pytest.mark.parametrize("select", ["balanced_accuracy", "f1", "roc_auc", "average_precision"])
def test_the_answer_is_in_the_score_that_was_asked_for(three, tmp_path, select):
    chosen = [replace(r, selection={"score": select, "selected": True}) for r in three]
    (section,) = sections(chosen)
    assert section.score == select
    best = section.ranked[0]
    found = best.estimates[select]
    said = answer(section)
    assert f" reached {found.value:.1%} {SCORE_NAMES[select]} on the 120 test images (" in said
    assert f"95% interval {found.low:.1%} to {found.high:.1%})" in said
    assert section.fits(best) == best.values("test", select)
    (pair,) = section.pairs
    one, other = (group.mean("test", select) for group in section.ranked)
    assert pair.difference.value == pytest.approx(one - other)
    assert "right" not in pair.words
    name, chance = section.chance
    target = section.judged["target"]
    constant = np.array([[float(c == name) for c in section.classes]] * len(target))
    assert chance == score(list(target), constant, section.classes)[select]
    write_report(chosen, tmp_path)
    assert (tmp_path / f"{select.replace('_', '-')}.png").is_file()


def test_of_unequal_classes_the_answer_is_balanced_accuracy(three):
    def with_few(n: int, select: str) -> list[Result]:
        found = []
        for result in three:
            rows = result.predictions
            few = rows[(rows["split"] == "test") & (rows["target"] == "negative")].index[n:]
            rows = rows.drop(few)
            p = rows[[f"p_{name}" for name in result.classes]].to_numpy()
            test = (rows["split"] == "test").to_numpy()
            own = rows[test]
            scores = score(list(own["target"]), p[test], result.classes, list(own["predicted"]))
            selection = {"score": select, "selected": True}
            scores = {**result.scores, "test": scores}
            found.append(replace(result, predictions=rows, scores=scores, selection=selection))
        return found

    (section,) = sections(with_few(20, "log_loss"))
    assert section.score == "balanced_accuracy"
    said = answer(section)
    value = section.ranked[0].mean("test", "balanced_accuracy")
    assert f"reached {value:.1%} balanced accuracy on the " in said
    assert "(each class counts alike, as they are of unequal size; mean" in said or (
        "(each class counts alike, as they are of unequal size; 95%" in said
    )
    assert "Always answering one class would have 50.0%" in said
    assert sections(with_few(20, "accuracy"))[0].score == "accuracy"  # asked for
    assert sections(with_few(45, "log_loss"))[0].score == "accuracy"  # nearly equal
    assert sections(with_few(0, "roc_auc"))[0].score == "accuracy"  # not known without a class


def test_the_answer_gives_the_scores_of_all_heads(three):
    others = [replace(three[2], label=f"other {i}") for i in range(7)]
    (section,) = sections([*three, *others[:1]])
    third = section.ranked[2]
    said = answer(section)
    assert f"; {third.label} {section.headlines[third.label].value:.1%}. Always" in said
    (section,) = sections([*three, *others])
    behind = [section.headlines[group.label].value for group in section.ranked[6:]]
    assert f", 3 more {min(behind):.1%} to {max(behind):.1%}. Always" in answer(section)


def test_until_test_is_scored_the_report_is_about_validation(three, tmp_path):
    early = [
        replace(
            r,
            scores={"validation": r.scores["validation"]},
            predictions=r.predictions[r.predictions["split"] == "validation"],
        )
        for r in three
    ]
    (section,) = sections(early)
    assert section.split == "validation"
    best = section.ranked[0]
    said = answer(section)
    mean = best.mean("validation", "accuracy")
    assert f"classified {mean:.1%} of the 120 validation images correctly" in said
    assert said.endswith("The test images were not scored when this was written.")
    assert "about other validation images" in caution(section)
    assert "a little too good for that" in caution(section)
    write_report(early, tmp_path)
    assert pd.read_csv(tmp_path / "report.csv")["split"].unique().tolist() == ["validation"]
    document = json.loads((tmp_path / "report.json").read_text())
    assert {each["split"] for each in document["sections"]} == {"validation"}
    text = (tmp_path / "report.md").read_text()
    assert " --test" not in text
    of_test = [line for line in text.splitlines() if re.search("(?i)test (images|score|acc)", line)]
    assert len(of_test) == 3  # not scored, an empty column of every fit, how many leak
    assert f"{best.estimates['f1'].low:.4f}" in text


def test_parameters_are_spelt_as_the_commands_take_them(three, tmp_path):
    given = {"hidden": [16, 8], "standardize": False, "class_weight": None}
    fits = [replace(three[0], params={**given, "l2": l2}) for l2 in (0.001, 1e-5)]
    fits += [replace(three[1], params={**given, "standardize": True, "l2": 0.001})]
    (section,) = sections(fits)
    assert [group.label for group in section.groups] == [
        "dense (standardize=false, l2=0.001)",
        "dense (standardize=false, l2=1e-05)",
        "dense (standardize=true, l2=0.001)",
    ]
    write_report(fits, tmp_path)
    assert "hidden=16x8, standardize=false, class\\_weight=none, l2=0.001" in (
        (tmp_path / "report.md").read_text()
    )


def test_settings_are_ordered_by_the_score_that_selected(three):
    named = [replace(r, selection={"score": "f1", "selected": True}) for r in three]
    worse = {**three[0].scores["validation"], "f1": 0.0, "log_loss": 0.0}
    other = replace(
        three[0],
        params={"l2": 9.0},
        scores={"validation": worse},
        selection={"score": "f1", "selected": False},
    )
    (section,) = sections([*named, other])
    table = settings_table(section)
    assert table.columns[2:] == ("Validation F1", "Validation accuracy")
    assert [row[0].text for row in table.rows] == ["dense (l2=0.001)", "dense (l2=9)", "logistic"]
    assert [row[0].chosen for row in table.rows] == [True, False, True]
    assert "selected by its mean validation F1;" in selection(section)


def test_what_a_comparison_says_of_itself_is_said_on_top(three, tmp_path):
    weighed = [
        replace(r, params=r.params | {"class_weight": w})
        for r, w in zip(three, (None, "balanced", None), strict=True)
    ]
    write_report(Results(weighed, select="log_loss"), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert any("class_weight was chosen by validation log loss" in n for n in document["notices"])


def test_sections_are_made_once_while_they_are_held(three, tmp_path):
    held = sections(three)
    assert sections(list(three)) is held
    write_report(three, tmp_path)
    assert "pairs" in vars(held[0])  # computed by the report
    assert sections(three[:2]) is not held


def test_pairs_and_intervals_are_in_the_files(three, tmp_path):
    write_report([three[0], three[2]], tmp_path)
    (section,) = json.loads((tmp_path / "report.json").read_text())["sections"]
    (pair,) = section["pairs"]
    assert list(pair) == [
        "first", "second", "difference", "low", "high", "p", "covers_seeds", "holm", "words",
    ]  # fmt: skip
    assert (pair["p"], pair["holm"], pair["covers_seeds"]) == (None, None, False)
    covers = {h["label"]: h["scores"]["test"]["f1"]["covers_seeds"] for h in section["heads"]}
    assert covers == {"dense": False, "logistic": True}
    assert section["select"] == "log_loss"
    table = pd.read_csv(tmp_path / "report.csv")
    assert {"low", "high", "covers_seeds"} <= set(table.columns)
    for _, rows in table.query("split == 'test'").groupby("head"):
        assert rows[["low", "high"]].notna().all(axis=None)


def test_settings_of_matplotlib_change_nothing(three, tmp_path):
    run = three[2].save(tmp_path / "run")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "matplotlibrc").write_text(
        "text.usetex: True\nbackend: TkAgg\nfont.size: 30\nsavefig.dpi: 20\n"
        "savefig.bbox: tight\naxes.prop_cycle: cycler('color', ['r'])\naxes.xmargin: 0.4\n"
        "svg.image_inline: False\nlines.marker: x\npath.sketch: 1, 100, 2\n"
    )
    script = (
        "import sys; from fer_features import Result, write_report; "
        "write_report(Result.load(sys.argv[1]), sys.argv[2])"
    )
    plain = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "MATPLOTLIBRC")}
    odd = {"MPLBACKEND": "TkAgg", "MATPLOTLIBRC": str(tmp_path / "set" / "matplotlibrc")}
    outs = [tmp_path / "plain", tmp_path / "odd"]
    for out, environment in zip(outs, (plain, plain | odd), strict=True):
        command = [sys.executable, "-c", script, str(run), str(out)]
        subprocess.run(command, check=True, env=environment)
    named = [sorted(path.name for path in out.iterdir()) for out in outs]
    assert named[0] == named[1]
    for one, other in pairwise(outs):
        for name in named[0]:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
