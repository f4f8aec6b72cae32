"""What a report claims, how it is written, and what it must never do."""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TINY, noise_faces

from fer_features import (
    BackboneSpec,
    DenseHead,
    LogisticHead,
    Result,
    Store,
    Task,
    compare,
    extract,
    load_results,
    write_report,
)
from fer_features.errors import RunError
from fer_features.experiment.scores import score
from fer_features.experiment.statistics import Difference, Estimate
from fer_features.faces.dataset import FaceDataset
from fer_features.report import content, figures, reproduction
from fer_features.report.content import Form, answer, notices
from fer_features.report.page import LICENCES
from fer_features.report.sections import Group, Pair, sections
from fer_features.sample.faces import draw_faces

NASTY = {"<script>alert(1)</script>": ["happiness"], "a|b`$x$` *_[c](d)": ["anger"]}


@pytest.fixture(scope="module")
def three(fits, heads) -> list[Result]:
    """Two seeds of one head, and another head that draws nothing."""
    return fits(heads=[heads["dense"](), heads["dense"](random_state=1), heads["logistic"]()])


def named(found: list[Any]) -> list[str]:
    return [each.text for each in found]


# --- how numbers are written ---


@pytest.mark.parametrize(
    ("score", "value", "margin", "said"),
    [
        ("accuracy", 0.8294, 0.011, "82.9"),
        ("accuracy", 0.8294, 0.023, "83"),
        ("accuracy", 0.82941, 0.0011, "82.94"),
        ("f1", 0.5, 0.3, "50"),
        ("log_loss", 0.3871, 0.021, "0.39"),
        ("log_loss", 0.3871, 0.0151, "0.387"),
        ("roc_auc", 0.91234, 0.009, "0.912"),
        ("ece", 1.234567, 0.000003, "1.23457"),
        ("accuracy", 0.8294, 0.0, "82.9"),
        ("accuracy", np.nan, np.nan, "\N{EN DASH}"),
    ],
)
def test_a_number_has_the_decimals_that_its_interval_allows(score, value, margin, said):
    found = Estimate(value, value - margin, value + margin, 1, 100, True)
    assert Form.of(score, [found])(value) == said


def test_a_difference_has_its_sign_and_no_negative_zero():
    form = Form.of("accuracy", [Difference(0.01, -0.01, 0.03, 0.3, True)], signed=True)
    assert [form(each) for each in (0.034, -0.034, -0.0001)] == ["+3", "\N{MINUS SIGN}3", "0"]


# --- sections, groups, pairs ---


def test_the_order_of_the_rows_does_not_matter(three):
    turned = [
        replace(r, predictions=r.predictions.iloc[::-1].reset_index(drop=True)) for r in three
    ]
    (as_is,), (other,) = sections(three), sections([turned[0], three[1], turned[2]])
    assert as_is.pairs == other.pairs
    assert as_is.scores == other.scores
    assert as_is.by_emotion == other.by_emotion


def test_copies_and_images_of_one_group_are_one_draw(three):
    def drawn(**columns: list[str]) -> int:
        rows = three[2].predictions
        test = rows["split"] == "test"
        rows = rows.assign(**{name: "" for name in columns if name not in rows})
        for name, values in columns.items():
            rows.loc[test, name] = values
        (section,) = sections([replace(three[2], predictions=rows)])
        said = "are one draw" in content.scores_table(section).note
        number = len(set(section.groups[0].answers.draw))
        assert said == (number < 120)
        return number

    n = 120
    alone = [f"{i:064x}" for i in range(n)]
    copied = [f"{i // 2:064x}" for i in range(n)]
    persons = [f"person {i // 4}" if i < 40 else "" for i in range(n)]
    assert drawn(digest=alone) == n
    assert drawn(digest=copied) == 60
    assert drawn(digest=alone, group=persons) == 10 + 80
    assert drawn(digest=copied, group=persons) == 10 + 40
    # A copy in two groups makes these one.
    bridged = [alone[0], alone[0], *alone[2:]]
    assert drawn(digest=bridged, group=["A", "B", "A", "B", *[""] * (n - 4)]) == 1 + n - 4


@pytest.mark.parametrize(
    ("bounds", "p", "holm", "lucky", "words"),
    [
        ((0.01, 0.03), 0.001, 0.01, (), "evidence that x is better"),
        ((-0.03, -0.01), 0.001, 0.01, (), "evidence that y is better"),
        ((-0.01, 0.03), 0.2, 0.2, (), "no evidence of a difference"),
        ((0.01, 0.03), 0.02, 0.06, (), "no evidence of a difference, as one of so many pairs"),
        ((0.01, 0.03), None, None, ("x",), "no verdict: one seed of x"),
        ((0.01, 0.03), None, None, ("x", "y"), "no verdict: one seed of x and of y"),
        ((-1.0, 1.0), None, None, (), "no verdict: too few images"),
    ],
)
def test_words_follow_the_interval_and_the_corrected_p(bounds, p, holm, lucky, words):
    pair = Pair("x", "y", Difference(sum(bounds) / 2, *bounds, p, not lucky), holm, lucky)
    assert pair.words == words
    assert (pair.better is None) == ("evidence that" not in words)


def test_one_seed_of_a_random_head_gets_no_verdict_and_that_is_said_on_top(three):
    (section,) = sections([three[0], three[2]])
    (pair,) = section.pairs
    assert (pair.difference.p, pair.holm, pair.difference.covers_seeds) == (None, None, False)
    assert ": no verdict: one seed of dense." in answer(section)
    said = "One seed of dense: how much its luck matters is not known, so there is no verdict."
    assert said in named(notices([three[0], three[2]], [section]))
    (section,) = sections(three)
    assert section.pairs[0].holm is not None
    assert notices(three, [section]) == []
    assert " and other seeds" in content.scores_table(section).note


def test_p_is_corrected_over_the_pairs_that_have_one(three, fits, heads):
    more = fits(heads=[heads["dense"](l2=0.5), heads["logistic"](C=1e-4)])
    (section,) = sections([*three, *more])
    judged = [pair for pair in section.pairs if pair.holm is not None]
    assert (len(section.pairs), len(judged)) == (6, 3)
    least = min(judged, key=lambda pair: pair.difference.p)
    assert least.holm == pytest.approx(min(1.0, 3 * least.difference.p))


def test_runs_of_other_test_images_or_labels_are_not_compared(three, fits, heads):
    elsewhere = fits(drawn=1, heads=[heads["logistic"]()])
    parts = sections([*three, *elsewhere])
    assert [len(part.groups) for part in parts] == [2, 1]
    assert any(
        said.startswith("2 different sets of test images")
        for said in named(notices([*three, *elsewhere], parts))
    )
    rows = three[2].predictions
    relabelled = rows.assign(emotion=rows["emotion"].replace("fear", "sadness"))
    parts = sections([*three, replace(three[2], predictions=relabelled, seed=1)])
    assert [len(part.groups) for part in parts] == [2, 1]


def test_groups_are_named_by_what_sets_them_apart(three, fits, heads, results):
    def labels(given: list[Result]) -> list[str]:
        (section,) = sections(given)
        return [group.label for group in section.groups]

    others = fits(heads=[heads["dense"](l2=0.5)])
    assert labels([*three, *others]) == ["dense (l2=0.001)", "logistic", "dense (l2=0.5)"]
    assert labels([*three, *three]) == ["dense", "logistic"]
    first = three[2]
    params = {**first.params, "C": 1}
    whole, fraction = replace(first, params=params), replace(first, params={**params, "C": 1.0})
    assert labels([whole, replace(fraction, seed=1)]) == ["logistic"]
    unlike = {**first.split, "copies": {"rows": 1, "images": 1, "disagreeing": 0}}
    assert labels([first, replace(first, split=unlike)]) == ["logistic", "logistic #2"]
    store = {**first.store, "features": "inner"}
    inner = replace(first, store=store, features="inner")
    assert labels([first, inner]) == ["logistic on final", "logistic on inner"]
    other = replace(first, store={**first.store, "network": "Other"}, fingerprint="f" * 64)
    assert labels([first, other]) == ["logistic on InceptionResNetV2", "logistic on Other"]
    twin = replace(first, fingerprint="f" * 64)
    assert labels([first, twin]) == [
        "logistic on InceptionResNetV2 5eed5eed", "logistic on InceptionResNetV2 ffffffff"
    ]  # fmt: skip
    assert {group.embedding for group in sections(results["embeddings"])[0].groups} == {
        "tiny final", "EfficientNetB0 final", "EfficientNetB0 a_long_layer_name+another"
    }  # fmt: skip


def test_what_validation_chose_is_bold_and_named_by_its_score(three):
    for select, did in (
        ("log_loss", "classified"),
        ("balanced_accuracy", "reached"),
        ("roc_auc", "reached"),
    ):
        chosen = [replace(r, selection={"score": select, "selected": True}) for r in three]
        (section,) = sections(chosen)
        means = {g.label: g.mean("validation", select) for g in section.groups}
        best = (min if select == "log_loss" else max)(means, key=means.__getitem__)
        by = f"best of 2 by validation {content.SCORE_NAMES[select]}"
        assert answer(section).startswith(f"The {best} head, {by}, {did} ")
        frame = content.scores_table(section).frame
        assert [cell.text for cell in frame["Head"] if cell.bold] == [best]
        assert section.score == ("accuracy" if select == "log_loss" else select)
    (alone,) = sections(three[2:])
    assert not any(cell.bold for cell in content.scores_table(alone).frame["Head"])


def test_of_unequal_classes_the_answer_is_balanced_accuracy(three):
    def with_few(n: int, select: str) -> list[Result]:
        found = []
        for result in three:
            rows = result.predictions
            few = rows[(rows["split"] == "test") & (rows["target"] == "negative")].index[n:]
            rows = rows.drop(few)
            own = rows[rows["split"] == "test"]
            p = own[[f"p_{name}" for name in result.classes]].to_numpy()
            scores = score(list(own["target"]), p, result.classes, list(own["predicted"]))
            scores = {**result.scores, "test": scores}
            chosen = {"score": select, "selected": True}
            found.append(replace(result, predictions=rows, scores=scores, selection=chosen))
        return found

    (section,) = sections(with_few(20, "log_loss"))
    assert section.score == "balanced_accuracy"
    assert "(classes are of unequal size, so each counts alike; 95% interval" in answer(section)
    assert "Always answering one class would reach 50.0%" in answer(section)
    assert sections(with_few(20, "accuracy"))[0].score == "accuracy"  # asked for
    assert sections(with_few(45, "log_loss"))[0].score == "accuracy"  # nearly equal
    assert sections(with_few(0, "roc_auc"))[0].score == "accuracy"  # not known without a class
    alone = with_few(0, "log_loss")
    assert "would be right 100.0% of the time: no head can do better." in answer(
        sections(alone[2:])[0]
    )


def test_heads_level_at_the_shown_digit_are_called_level(three):
    said = answer(sections([three[2], replace(three[2], label="other")])[0])
    assert "It is level with other (95% interval" in said
    assert "no evidence of a difference" in said
    assert "level with other by validation log loss, classified" in said


# --- what is said on top ---


def test_notices_are_few_and_say_what_makes_numbers_doubtful(three, results):
    def said(given: list[Result]) -> list[str]:
        return named(notices(given, sections(given)))

    assert said(list(results["compared"]))[:2] == [
        "Random weights: never trained on anything. This is not an ImageNet result.",
        "Tiny backbone: the three layers that tests run on.",
    ]
    mixed = [r for r in results["embeddings"] if r.fingerprint != "5eed" * 16]
    first = "Random weights (EfficientNetB0): never trained on anything."
    assert said([*mixed, three[2]])[0].startswith(first)
    assert said(list(results["crossed"]))[2] == (
        "Cross-database: trained on drawn, tested on CK+; 6 of its images are left out, as drawn "
        "has them too."
    )
    assert said([results["validation"]])[0].startswith("Validation scores: ")
    none = dict.fromkeys(three[0].split["leaked"], 0)
    leaked = none | {"test_in_train": 12, "test_groups_in_validation": 7}
    kept = [replace(r, split=r.split | {"leaked": leaked}) for r in three]
    assert said(kept) == [
        "Test images leak: of 120, 12 occur in training and 0 in validation, and 0 are of a person "
        "or sequence that occurs in training and 7 in validation. Scores are too good."
    ]
    assert said(three) == []


@pytest.mark.parametrize("warns", [True, False])
def test_int8_is_said_in_one_line_that_warns_only_where_the_store_does(three, warns):
    cosine = {"final": {"centred": {"min": 0.5, "median": 0.871}, "warns": warns}}
    [made] = three[2].store["provenance"]["passes"]
    store = three[2].store | {"provenance": {"passes": [made | {"cosine": cosine}]}}
    quantised = replace(three[2], store=store)
    (found,) = notices([quantised], sections([quantised]))
    assert found.text == (
        "int8 embeddings: centred cosine to float32 0.87 in the median. Judge them by the heads."
    )
    assert found.warns is warns
    assert notices([replace(quantised, features="inner")], sections([quantised])) == []


def test_failures_are_said_on_top(results, reports):
    document = json.loads(reports["raters"].with_name("report.json").read_text())
    assert "Failed: 1 fit of svc. svc: cannot be fitted (no memory)." in document["notices"]


def test_labels_groups_copies_and_what_is_left_out_are_said_with_the_data(three):
    labels = {
        "name": "votes.csv", "sha256": "5eed" * 16, "kind": "ferplus", "column": "",
        "min_agreement": 0.5, "labels_as": None, "map": {"contempt": "none"}, "labelled": 33000,
        "none": 2887, "lost": 2800, "changed": 11000, "changed_class": 9876, "unmatched": 5,
    }  # fmt: skip
    groups = {"count": 1234, "by": "^(S[0-9]+)_", "left_out": 17}
    dataset = three[2].store["dataset"] | {"left_out": {"no emotion": 7}}
    other = replace(
        three[2],
        split=three[2].split | {"labels": labels, "groups": groups},
        store=three[2].store | {"dataset": dataset},
    )
    (section,) = sections([other])
    assert content.data_facts(section) == [
        "Source: drawn, 600 rows; 7 left out: no emotion.",
        "Split: drawn at random, split seed 42.",
        "Copies: 620 rows of these emotions are 600 distinct images, 3 of them with copies under "
        "more than one class; those are left out, and each other image is used once.",
        "Leaks: no test image is in training or validation.",
        "Groups (persons or sequences), by the pattern ^(S[0-9]+)_: 1,234; 17 images left out, as "
        "their group is in a later split.",
        "Labels: not the source's own but those of votes.csv (votes of FER+'s raters, at least 50% "
        "agreeing; sha256 5eed5eed): 33,000 rows have an emotion by them, 2,887 none. Against the "
        "source 11,000 have another one and 2,800 have lost theirs; 9,876 rows change class, join "
        "the task or leave it; 5 labels match no row.",
    ]


def test_more_data_helps_only_where_the_interval_and_several_seeds_say_so(three):
    def grown(better: float, seeds: int) -> str:
        def fit(seed: int, size: int, gain: float) -> Result:
            rows = three[0].predictions.query("split == 'validation'").copy()
            rng = np.random.default_rng([seed, size])
            p = 0.6 + gain + 0.02 * rng.standard_normal(len(rows))
            rows["p_positive"] = np.where(rows["target"] == "positive", p, 1 - p)
            rows["p_negative"] = 1 - rows["p_positive"]
            split = {**three[0].split, "sizes": {"train": {"a": size}}}
            return replace(three[0], seed=seed, split=split, predictions=rows)

        few, many = ([fit(i, n, g) for i in range(seeds)] for n, g in ((50, 0.0), (90, better)))
        return content.size_said(Group("dense", tuple(many), sized=tuple(few)))

    assert grown(0.1, 1).endswith("one seed of it: no verdict.")
    begins = "From 50 to 90 training images the validation log loss of dense falls by 0.1"
    assert grown(0.1, 3).startswith(begins)
    assert grown(0.1, 3).endswith("more data still helps.")
    assert grown(-0.1, 3).endswith("more data does not help.")
    assert grown(0.0, 3).endswith("no evidence that more data helps.")


# --- the page ---


def test_the_page_loads_nothing_and_holds_no_mean_twice(reports, page):
    found = page(reports["compared"])
    addresses = [
        value
        for _, attributes in found.elements
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "data", "action", "poster")
    ]
    assert len(addresses) > 20
    assert all(address.startswith("data:") for address in addresses)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "iframe", "object", "embed"})
    markdown = reports["compared"].with_name("report.md").read_text()
    cells = re.findall("[\\d.]+ \\([\\d.]+\N{EN DASH}[\\d.]+\\)", markdown)
    assert len(cells) > 20
    first = [cell for cell in cells if "." in cell.split(" ")[0]]
    assert len(set(first)) > 0.9 * len(first)  # ROC AUC 0.91 may be two heads'


def test_words_are_the_fields(reports):
    text = reports["compared"].with_name("report.md").read_text()
    for heading in ("Scores", "Classes and emotions", "Probabilities", "Data", "Reproduce"):
        assert f"\n## {heading}\n" in text
    assert "**Calibration.**" in text
    assert "| A minus B " in text
    assert "targets" not in text


def test_a_head_has_one_colour_in_every_figure(results):
    (section,) = sections(results["embeddings"])
    look = figures.looks(section)
    colours = {group.first.label: {look[group.label].colour} for group in section.groups}
    for group in section.groups:
        colours[group.first.label].add(look[group.label].colour)
    assert all(len(each) == 1 for each in colours.values())
    assert len({look[group.label] for group in section.groups}) == len(section.groups)
    (section,) = sections(results["forty"])
    assert len({each.colour for each in figures.looks(section).values()}) == 3


def test_cost_is_drawn_where_passes_differ_in_it(results):
    def drawn(given: list[Result]) -> set[str]:
        (section,) = sections(given)
        return {each.name for each in figures.pictures(section, "")}

    assert "cost" in drawn(results["embeddings"])
    one = [each for each in results["embeddings"] if each.store["network"] != "tiny"]
    assert "cost" not in drawn(one)


def test_figures_lie_beside_the_page_and_markdown_shows_them(reports):
    folder = reports["compared"].parent
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert sorted(linked) == sorted(path.name for path in folder.glob("*.png"))
    assert sorted(linked) == [
        "calibration.png", "confusion-2-dense.png", "confusion-3-knn.png", "confusion.png",
        "emotions.png", "faces.png", "forest.png", "learning-curve-dense.png", "mistakes.png",
        "precision-recall.png", "regularisation-logistic.png", "roc.png", "sizes.png",
    ]  # fmt: skip
    for name in linked:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_every_colour_of_a_figure_has_a_dark_one(reports):
    for name in ("compared", "embeddings"):
        text = reports[name].read_text()
        for each in re.findall(r'srcset="data:image/svg\+xml;base64,([^"]+)"', text):
            colours = set(re.findall(rb"#[0-9a-f]{6}\b", base64.b64decode(each)))
            assert {c.decode() for c in colours} <= {*figures.DARK, *figures.DARK.values()}
    light = b" ".join(colour.encode() for colour in figures.DARK)
    assert figures.darkened(light).decode().split() == list(figures.DARK.values())


def test_a_report_is_the_same_bytes_again_from_saved_runs_whatever_matplotlib_is_set_to(
    reports, tmp_path
):
    first = reports["one"].parent
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nbackend: TkAgg\nfont.size: 30\nsavefig.dpi: 20\n"
        "savefig.bbox: tight\naxes.prop_cycle: cycler('color', ['r'])\naxes.xmargin: 0.4\n"
        "svg.image_inline: False\nlines.marker: x\npath.sketch: 1, 100, 2\n"
    )
    script = (
        "import json, sys; from pathlib import Path; from fer_features import Result, write_report;"
        "from fer_features.experiment.comparison_folder import Results;"
        "runs = Results([Result.load(f) for f in sorted(Path(sys.argv[1]).iterdir())]);"
        "write_report(runs, sys.argv[2], command=sys.argv[3]);"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    call = [sys.executable, "-c", script, first / "fits", tmp_path / "again"]
    call.append("fer-compare --seeds 2 " + "x" * 90)
    odd = {"MPLBACKEND": "TkAgg", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    done = subprocess.run(
        call, check=True, capture_output=True, text=True, env={**os.environ, **odd}
    )
    assert not {"tensorflow", "keras", "h5py"} & set(json.loads(done.stdout))
    names = sorted(path.name for path in first.iterdir() if path.is_file())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert "card.md" in names
    for each in names:
        assert (first / each).read_bytes() == (tmp_path / "again" / each).read_bytes(), each


def test_text_of_names_cannot_become_markup(fits, heads, page, tmp_path):
    [result] = fits(NASTY, heads=[heads["dense"]()])
    store = {**result.store, "name": "<img src=x onerror=alert(1)>.h5", "network": "<b>net</b>"}
    store["dataset"] = {"name": "<b>faces</b>"}
    found = page(write_report(replace(result, store=store), tmp_path))
    tags = {tag for tag, _ in found.elements}
    assert not {"script", "b"} & tags
    assert sum(tag == "img" for tag, _ in found.elements) == 7
    for name in (*NASTY, "<b>faces</b>"):
        assert " ".join(name.split()) in found.text
    for name in ("report.md", "card.md"):
        markdown = (tmp_path / name).read_text()
        outside = "".join(markdown.split("```")[::2])
        assert "<script>" not in outside.partition("\n---\n")[2]
        tables = re.findall(r"(?:^\|.*\n)+", outside, flags=re.M)
        assert len(tables) > 4
        for table in tables:  # a name that broke out would make a cell of its own
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_where_files_lay_is_not_in_a_report(three, tmp_path):
    [made] = three[0].store["provenance"]["passes"]
    made = {**made, "files": {"backbone": "/home/somebody/mine.keras"}, "engine": "openvino"}
    store = {**three[0].store, "path": "/home/somebody/a.h5", "provenance": {"passes": [made]}}
    write_report(replace(three[0], store=store), tmp_path)
    texts = [path.read_text() for path in tmp_path.iterdir() if path.suffix != ".png"]
    assert len(texts) == 5
    assert "openvino" in "".join(texts)
    assert "somebody" not in "".join(texts)


def test_faces_are_found_by_digest_and_an_odd_source_is_refused(results, faces, tmp_path):
    tested = next(each for each in results["compared"] if "test" in each.scores)
    given = faces(tested)
    rows = tested.predictions.query("split == 'test'")
    some = replace_rows(given, np.flatnonzero((rows["target"] == "positive").to_numpy())[::-1])
    (section,) = sections(results["compared"])
    names = [each.name for each in figures.pictures(section, "", some)]
    assert names[-2:] == ["faces", "mistakes"]
    with pytest.raises(RunError, match="none of the test images"):
        write_report(results["compared"], tmp_path / "out", faces=draw_faces(40, seed=9))
    assert not (tmp_path / "out").exists()


def replace_rows(faces: FaceDataset, order: Any) -> FaceDataset:
    fields = ("pixels", "emotion", "usage", "source", "group")
    shuffled = replace(faces, **{name: getattr(faces, name)[order] for name in fields})
    object.__setattr__(shuffled, "digest", faces.digest[order])
    return shuffled


def test_a_new_report_leaves_no_file_of_the_old_one(three, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    write_report(three[2], tmp_path)
    assert {"card.md", "regularisation-logistic.png"} <= {p.name for p in tmp_path.iterdir()}
    write_report(three[:2], tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert not {"card.md", "regularisation-logistic.png"} & left
    assert {"mine.png", "forest.png", "learning-curve-dense.png"} <= left


def test_no_runs_or_an_unwritable_folder_is_a_run_error(three, tmp_path):
    with pytest.raises(RunError, match="no run, expected at least one"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(three[2], tmp_path / "file")


def test_what_a_store_does_not_record_is_no_obstacle(three):
    bare = replace(three[2], store={"name": "old.h5", "fingerprint": "ab"})
    (section,) = sections([bare])
    assert "not recorded" in content.cost_said(section)
    assert reproduction.commands(section, None) == ["fer-extract SOURCE -o cache/old.h5"]
    assert len(content.data_facts(section)) == 3


def test_what_the_original_published_stands_beside_its_own_images_and_classes_alone(three):
    def said(rows: int, **classes: list[str]) -> str:
        first = three[2]
        dataset = {**first.store.get("dataset", {}), "rows": rows}
        task = {**first.task, "classes": classes} if classes else first.task
        (section,) = sections(
            [replace(first, store={**first.store, "dataset": dataset}, task=task)]
        )
        return content.published_said(section)

    assert "accuracy 0.794" in said(35_887)
    assert said(600) == said(35_887, up=["happiness"], down=["anger"]) == ""


# --- for machines ---


def test_the_report_is_data_too(results, reports, page):
    document = json.loads(reports["compared"].with_name("report.json").read_text())
    (section,) = document["sections"]
    assert section["answer"] in page(reports["compared"]).text
    (made,) = sections(results["compared"])
    for head in section["heads"]:
        found = made.scores[head["label"]]["f1"]
        kept = head["scores"]["test"]["f1"]
        assert (kept["mean"], kept["low"], kept["high"]) == (found.value, found.low, found.high)
    (pair, *_) = section["pairs"]
    assert list(pair) == [
        "first", "second", "value", "low", "high", "p", "covers_seeds", "holm", "words",
    ]  # fmt: skip
    table = pd.read_csv(reports["compared"].with_name("report.csv"))
    assert len(table) == 3 * 2 * 10
    row = table.query("head == 'dense' and split == 'test' and score == 'f1'").iloc[0]
    dense = next(head for head in section["heads"] if head["label"] == "dense")
    kept = dense["scores"]["test"]["f1"]
    names = ["mean", "low", "highest"]  # pandas 2 reads the last bit otherwise
    assert row[names].tolist() == pytest.approx([kept[name] for name in names], rel=1e-15)


# --- the model card ---


def test_a_run_has_a_model_card_whose_head_is_yaml(reports, results):
    text = reports["one"].with_name("card.md").read_text()
    _, head, body = text.split("---\n", 2)
    said = yaml.safe_load(head)
    result = results["one"]
    assert said["license"] == "apache-2.0"
    assert said["datasets"] == ["drawn"]
    [entry] = said["model-index"]
    [evaluation] = entry["results"]
    metrics = {each["type"]: each["value"] for each in evaluation["metrics"]}
    for name in ("accuracy", "f1", "log_loss"):
        assert metrics[name] == pytest.approx(result.scores["test"][name], rel=1e-9)
    for heading in (
        "Task", "Data and labels", "Scores", "By class", "Calibration", "Backbone and licence",
        "Intended use", "Not to be used for",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in body
    assert f"temperature {result.calibration['temperature']:.2f}," in body
    assert "Article 5(1)(f) of Regulation (EU) 2024/1689" in body
    (section,) = sections([result])
    assert answer(section) in body  # the same content, said again
    assert "apache-2.0, as the documentation of Keras 2.1 says" in body


@pytest.mark.parametrize(
    ("network", "weights", "licence"),
    [
        ("MobileNetV2", "imagenet", "apache-2.0"),
        ("MobileNetV3Small", "imagenet", "unknown"),
        ("ResNet50", "imagenet", "mit"),
        ("ResNet50V2", "imagenet", "unknown"),
        ("VGG19", "imagenet", "cc-by-4.0"),
        ("EfficientNetB0", "imagenet", "unknown"),
        ("VGG19", "random:0@keras-3.15.1", "unknown"),
        ("sha256:ab", None, "unknown"),
    ],
)
def test_a_licence_is_stated_only_where_it_is_known(three, network, weights, licence):
    from fer_features.report.page import _card

    backbone = {"backbone": network, "weights": weights, "input_size": 224}
    changed = replace(three[2], store=three[2].store | {"backbone": backbone})
    card = _card(sections([changed])[0])
    assert card["head"]["license"] == licence
    assert ("not known here; see" in card["licence"]) == (
        licence == "unknown" and not str(weights).startswith("random")
    )
    assert set(LICENCES.values()) <= {"apache-2.0", "bsd-3-clause", "mit", "cc-by-4.0"}


def test_a_comparison_has_no_model_card(reports):
    assert not reports["compared"].with_name("card.md").exists()


# --- reproduce ---


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """Two networks' stores of one source, and one of another, in cache/."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "cache").mkdir()
    faces = noise_faces(240)
    extract(faces, folder / "cache/a.h5", backbone=replace(TINY, layers=("two_relu",)))
    extract(faces, folder / "cache/b.h5", backbone=BackboneSpec("tiny", weights="random:1"))
    for name, spec in (
        ("c", replace(TINY, layers=("two_relu",))),
        ("d", BackboneSpec("tiny", weights="random:1")),
    ):
        extract(noise_faces(120, seed=5), folder / f"cache/{name}.h5", backbone=spec)
    return folder


def test_the_script_to_reproduce_python_only_settings_gives_the_same_again(stores):
    task = Task(
        {"up": ["happiness", "surprise"], "down": ["anger", "sadness"], "other": ["fear"]},
        per_class="min",
        split_seed=7,
        group_by="(.)$",
    )
    a, b, c, d = (Store(stores / f"cache/{name}.h5") for name in "abcd")
    data = task.select(a, "final+two_relu").tested_on(c)
    heads = {
        "logistic": LogisticHead(C=0.1),
        "scaled": make_pipeline(StandardScaler(), KNeighborsClassifier(7)),
        "GaussianNB": GaussianNB(),
    }
    both = [data, data.on(b, "final", test_store=d)]
    results = compare(both, heads, seeds=[3], select="accuracy", out=stores / "runs")
    write_report(results, stores / "first")
    text = (stores / "first" / "report.md").read_text()
    script = text[text.index("from fer_features") :].partition("\n```")[0]
    with contextlib.chdir(stores):
        exec(compile(script, "reproduced", "exec"), {})
    first, again = (
        json.loads((stores / name / "report.json").read_text()) for name in ("first", "report")
    )
    assert len(first["sections"][0]["heads"]) == 6
    assert len(sections(load_results(stores / "runs"))) == 1
    for one, other in zip(*(d["sections"][0]["heads"] for d in (first, again)), strict=True):
        assert one["label"] == other["label"]
        assert one["split"] == other["split"]
        assert one["scores"] == other["scores"]
    lines = text[text.index("fer-extract") :].splitlines()[:2]
    assert lines == [
        "fer-extract SOURCE -o cache/a.h5 --backbone tiny --weights random:0 --input-size 64 "
        "--layers two_relu",
        "fer-extract SOURCE -o cache/b.h5 --backbone tiny --weights random:1 --input-size 64",
    ]


def test_the_users_own_call_is_shown_and_heads_are_made_as_they_were(three, fits, tmp_path):
    (section,) = sections(three)
    assert reproduction.commands(section, "fer-compare --seeds '2 <b>'")[-1] == (
        "fer-compare --seeds '2 <b>'"
    )
    head = DenseHead(hidden=(8, 4), standardize=True, class_weight="balanced")
    imports: set[tuple[str, str]] = set()
    params = {k: v for k, v in head.get_params().items() if k != "random_state"}
    listed = params | {"hidden": [8, 4]}
    said = reproduction._expression(replace(three[0], params=listed, label="mine"), imports)
    assert said == "DenseHead(class_weight='balanced', hidden=[8, 4], standardize=True)"
    assert imports == {("fer_features", "DenseHead")}
    assert reproduction._expression(three[0], set()) == "clone(Result.load('RUN').head())"
    again = reproduction.python(sections([fits(heads=[KNeighborsClassifier(9)], test=False)[0]])[0])
    fit = "fit_and_evaluate(seeded(KNeighborsClassifier(n_neighbors=9), 0), data1, seed=0)"
    assert fit in again


def test_labels_raters_and_limits_are_in_the_script(three):
    labels = {"name": "votes.csv", "sha256": "5eed", "map": {"a": "fear"}}
    labels |= {"min_agreement": 0.5, "labels_as": None}
    split = three[2].split | {"labels": labels, "per_class": 100, "duplicates": "keep"}
    (section,) = sections([replace(three[2], split=split)])
    assert (
        "per_class=100, split='random', split_seed=42, duplicates='keep', labels='votes.csv', "
        "min_agreement=0.5, map={'a': 'fear'})"
    ) in reproduction.python(section)
