import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from fer_features.errors import RunError
from fer_features.experiment.result import Result
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS
from fer_features.report.page import write_report
from fer_features.report.pictures import pictures
from fer_features.report.style import DARK, darkened, legends
from fer_features.report.summary import Group, sections
from fer_features.report.tables import COLUMNS, NOTHING
from fer_features.report.words import answer, caution, emotion_said, selection, size_said
from fer_features.sample.faces import draw_faces

SEVEN = {name: [name] for name in EMOTIONS}
NASTY = {"<script>alert(1)</script>": ["happiness"], "a|b`$x$` *_[c](d)": ["anger"]}


class Page(HTMLParser):
    """What a page holds: its elements, and all the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data + " "


@pytest.fixture(scope="module")
def two(fits) -> list[Result]:
    return fits()


@pytest.fixture(scope="module")
def report(two, tmp_path_factory) -> Path:
    """The page on both heads."""
    return write_report(two, tmp_path_factory.mktemp("report"))


def test_the_answer_is_of_the_head_that_validation_chose(two, report):
    page = Page(report)
    rows = [result.predictions[result.predictions["split"] == "test"] for result in two]
    accuracy = [accuracy_score(table["target"], table["predicted"]) for table in rows]
    means = {"dense": (accuracy[0] + accuracy[1]) / 2, "logistic": accuracy[2]}
    losses = [result.scores["validation"]["log_loss"] for result in two]
    loss = {"dense": (losses[0] + losses[1]) / 2, "logistic": losses[2]}
    best, other = sorted(loss, key=loss.__getitem__)
    shown = {name: round(100 * mean, 1) for name, mean in means.items()}
    lead = shown[best] - shown[other]
    chance = rows[0]["target"].value_counts(normalize=True).max()
    said = answer(sections(two)[0])
    assert said in page.text
    assert said.startswith(
        f"The {best} head, the best by validation log loss, classified {shown[best]:.1f}% of the "
        "120 test images correctly ("
    )
    verb = "more" if lead > 0 else "less"
    assert f"{abs(lead):.1f} percentage points {verb} than {other} ({means[other]:.1%}): " in said
    assert "evidence that" in said
    assert f"would be right {chance:.1%} of the time" in said
    assert said.count(". ") == 1


def test_the_report_holds_every_score(two, report):
    page = Page(report)
    markdown = report.with_name("report.md").read_text()
    logistic = two[2].scores
    for split in ("validation", "test"):
        for name, value in logistic[split].items():
            if name in COLUMNS:
                assert f"{value:.4f}" in page.text, name
                assert f"{value:.4f}" in markdown, name
    for count in (n for row in logistic["test"]["confusion"] for n in row):
        assert f" {count} " in page.text
    mean = (two[0].scores["test"]["f1"] + two[1].scores["test"]["f1"]) / 2
    assert f"{mean:.4f}" in page.text


def test_the_page_loads_nothing_and_every_figure_is_described(report):
    page = Page(report)
    addresses = [
        value
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "data", "action", "poster")
    ]
    assert len(addresses) >= 8
    assert all(address.startswith("data:") for address in addresses)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "embed"})
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 11
    assert all(len(image["alt"]) > 20 for image in images)
    assert len({image["src"] for image in images}) == 11
    assert sum(tag == "source" for tag, _ in page.elements) == 11


def test_figures_lie_beside_the_page_and_markdown_shows_them(report):
    folder = report.parent
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert sorted(linked) == sorted(path.name for path in folder.glob("*.png"))
    assert sorted(linked) == [
        "accuracy.png", "calibration.png", "confusion-dense.png", "confusion-logistic.png",
        "emotions.png", "learning-curve-dense.png", "precision-recall.png",
        "regularisation-logistic.png", "roc.png", "targets-dense.png", "targets-logistic.png",
    ]  # fmt: skip
    for name in linked:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_is_the_same_bytes_again_and_from_saved_runs(two, report, tmp_path):
    folders = [result.save(tmp_path / str(i)) for i, result in enumerate(two)]
    first = report
    second = write_report([Result.load(folder) for folder in folders], tmp_path / "second")
    names = sorted(path.name for path in first.parent.iterdir())
    assert names == sorted(path.name for path in second.parent.iterdir())
    for name in names:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes(), name


def test_one_result_gets_a_report_beside_its_run(two, tmp_path):
    folder = two[0].save(tmp_path / "run")
    page = Page(write_report(Result.load(folder), folder))
    assert "The dense head on drawn" in page.text
    assert "did best" not in page.text
    assert (folder / "confusion.png").exists()
    assert Result.load(folder).scores == two[0].scores


@pytest.mark.parametrize("classes", [SEVEN, NASTY], ids=["seven classes", "nasty names"])
def test_any_number_and_names_of_classes_work(fits, heads, classes, tmp_path):
    page = Page(write_report(fits(classes, heads=[heads["dense"]()]), tmp_path))
    assert "script" not in {tag for tag, _ in page.elements}
    for name in classes:
        assert " ".join(name.split()) in page.text
    assert "0.7944" not in page.text
    markdown = (tmp_path / "report.md").read_text()
    for line in markdown.splitlines():
        if not line.startswith("    "):  # a code block shows what it holds as it is
            assert "<script>" not in line
    tables = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.M)
    assert len(tables) > 8
    for table in tables:  # a name that broke out would make a cell of its own
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_published_figures_stand_in_their_own_table_for_the_seeds_task_only(
    report, fits, heads, tmp_path
):
    page = Page(report)
    published = (
        "Published by the original experiment: validation set, ImageNet weights, not measured here"
    )
    assert published in page.text
    after = page.text.split(published)[1][:300]
    for figure in ("0.7944", "0.8065", "0.7747", "0.7903", "1,384", "316", "383", "1,317"):
        assert figure in after
    swapped = {"negative": ["anger", "fear", "sadness"], "positive": ["happiness"]}
    other = Page(write_report(fits(swapped, heads=[heads["logistic"]()]), tmp_path / "swapped"))
    assert "0.7944" not in other.text


def test_int8_embeddings_far_from_float32_are_announced_on_top(fits, heads, tmp_path):
    [result] = fits(heads=[heads["logistic"]()])
    cosine = {"final": {"centred": {"min": 0.5, "median": 0.871}, "warns": True}}
    [made] = result.store["provenance"]["passes"]
    store = result.store | {"provenance": {"passes": [made | {"cosine": cosine}]}}
    page = Page(write_report(replace(result, store=store), tmp_path / "far"))
    assert "int8 embeddings differ from float32 ones: centred cosine 0.871" in page.text
    assert "int8 embeddings" not in Page(write_report(result, tmp_path / "near")).text


def test_random_and_tiny_backbones_are_announced_on_top(report, fits, tmp_path):
    untrained = fits(weights="random:0@keras-3.15.1", backbone="tiny")
    page = Page(write_report(untrained, tmp_path / "random"))
    before_answer = page.text.split("The ")[0] + page.text.split("classified")[0]
    assert "Random weights: the backbone was never trained" in before_answer
    assert "not an ImageNet result" in before_answer
    assert "Tiny backbone: " in before_answer
    assert "Random weights" in (tmp_path / "random" / "report.md").read_text().split("##")[0]
    assert "Random weights" not in Page(report).text


def leaking(result: Result, **leaked: int) -> Result:
    none = dict.fromkeys(result.split["leaked"], 0)
    return replace(result, split=result.split | {"leaked": none | leaked})


def test_test_images_that_a_head_may_know_are_announced_on_top(two, report, tmp_path):
    kept = [leaking(result, test_in_train=12, test_groups_in_validation=7) for result in two]
    page = Page(write_report(kept, tmp_path / "both"))
    said = (
        "Test images leak: of 120, 12 occur in training and 0 in validation too, and 0 are of a "
        "person or sequence that occurs in training and 7 in validation too. A head may know "
        "these by heart, so its test scores are too good."
    )
    assert said in page.text.split("classified")[0]
    assert said in json.loads((tmp_path / "both" / "report.json").read_text())["notices"]
    one = leaking(two[2], test_groups_in_train=3)
    page = Page(write_report([*two[:2], one], tmp_path / "one"))
    assert "Test images leak in 1 of 3 fits: of 120, 3 are of a person or" in page.text
    assert "Test images leak" not in Page(report).text


def test_labels_and_groups_are_said_with_the_data(two, tmp_path):
    labels = {
        "name": "votes.csv", "sha256": "5eed" * 16, "kind": "ferplus", "column": "",
        "min_agreement": 0.5, "labels_as": None, "map": {"contempt": "none"}, "labelled": 33000,
        "none": 2887, "lost": 2800, "changed": 11000, "changed_class": 9876, "unmatched": 5,
    }  # fmt: skip
    groups = {"count": 1234, "by": "^(S[0-9]+)_", "left_out": 17}
    other = replace(two[2], split=two[2].split | {"labels": labels, "groups": groups})
    page = Page(write_report(other, tmp_path))
    said = (
        "The labels are not the source's own but those of votes.csv (votes of FER+'s raters, at "
        f"least 50% agreeing; sha256 {'5eed' * 16}): 33,000 rows have an emotion, 2,887 none "
        "(2,800 of these have one in the source); 11,000 have another one than in the source, and "
        "9,876 are in another class"
    )
    assert said in page.text
    assert "Labels that match no row: 5." in page.text
    assert "Groups (persons or sequences), by the pattern ^(S[0-9]+)_: 1,234." in page.text
    assert "Left out, as their group is in a later split: 17." in page.text
    assert "0.7944" not in page.text  # published for other labels
    (section,) = sections([two[2], other])
    assert [group.label for group in section.groups] == [
        "logistic (labels the store's, groups none)",
        "logistic (labels votes.csv 5eed5eed agreement 0.5 contempt=none, groups ^(S[0-9]+)_)",
    ]


def test_runs_of_other_test_images_are_not_compared(two, fits, heads, tmp_path):
    elsewhere = fits(drawn=1, heads=[heads["logistic"]()])
    parts = sections([*two, *elsewhere])
    assert [len(part.groups) for part in parts] == [2, 1]
    page = Page(write_report([*two, *elsewhere], tmp_path))
    assert "Not comparable like for like: these runs have 2 different sets" in page.text
    assert answer(parts[0]) in page.text
    assert answer(parts[1]) in page.text
    assert (tmp_path / "set2-roc.png").exists()


def test_heads_that_differ_in_parameters_or_backbone_are_not_averaged(two, fits, heads):
    others = fits(heads=[heads["dense"](l2=0.5)])
    (section,) = sections([*two, *others])
    labels = [group.label for group in section.groups]
    assert labels == ["dense (l2=0.001)", "logistic", "dense (l2=0.5)"]
    rewritten = [Result(**{**vars(result), "fingerprint": "f" * 64}) for result in two]
    (section,) = sections([*two, *rewritten])
    assert [group.label for group in section.groups] == [
        "dense (backbone 5eed5eed)",
        "logistic (backbone 5eed5eed)",
        "dense (backbone ffffffff)",
        "logistic (backbone ffffffff)",
    ]
    assert [len(group.results) for group in section.groups] == [2, 1, 2, 1]


def test_a_fit_given_twice_counts_once(two):
    (section,) = sections([*two, *two])
    assert [len(group.results) for group in section.groups] == [2, 1]


def test_heads_level_at_the_shown_digit_are_called_level(two):
    twin = Result(**{**vars(two[2]), "label": "other"})
    said = answer(sections([two[2], twin])[0])
    assert "level with" in said
    assert "no evidence that they differ" in said


def test_text_of_a_store_cannot_become_markup(two, tmp_path):
    store = {**two[0].store, "name": "<img src=x onerror=alert(1)>.h5"}
    store["dataset"] = {"name": "<b>faces</b>"}
    page = Page(write_report(Result(**{**vars(two[0]), "store": store}), tmp_path))
    assert sum(tag == "img" for tag, _ in page.elements) == 8
    assert "b" not in {tag for tag, _ in page.elements}
    assert "<b>faces</b>" in page.text


def test_fits_on_other_features_of_one_store_are_told_apart_and_its_pass_is_counted_once(
    two, tmp_path
):
    store = {**two[0].store, "features": "inner", "outputs": ["final", "inner"]}
    inner = [replace(result, store=store, features="inner") for result in two[:2]]
    of_both = [replace(r, store={**store, "features": "final"}) for r in two[:2]]
    (section,) = sections([*of_both, *inner])
    labels = [group.label for group in section.groups]
    assert labels == ["dense (features final)", "dense (features inner)"]
    page = Page(write_report([*of_both, *inner], tmp_path))
    assert page.text.count("The backbone ran once over 590 distinct images") == 1


def test_where_files_of_a_network_lay_is_not_in_a_report(two, tmp_path):
    [made] = two[0].store["provenance"]["passes"]
    made = {**made, "files": {"backbone": "/home/somebody/mine.keras"}, "engine": "openvino"}
    store = {**two[0].store, "path": "/home/somebody/a.h5", "provenance": {"passes": [made]}}
    page = Page(write_report(replace(two[0], store=store), tmp_path))
    assert "openvino" in page.text
    for name in ("report.html", "report.md", "report.json", "report.csv"):
        assert "somebody" not in (tmp_path / name).read_text(encoding="utf-8")


def test_what_a_store_does_not_record_is_said_so(two, tmp_path):
    bare = {"name": "old.h5", "fingerprint": "ab"}
    page = Page(write_report(Result(**{**vars(two[0]), "store": bare}), tmp_path))
    assert "What the pass behind old.h5 cost is not recorded." in page.text


def test_settings_that_were_not_selected_are_counted_and_tabulated(two, tmp_path):
    other = {"params": {"l2": 9.0}, "scores": {"validation": two[0].scores["validation"]}}
    dropped = [Result(**{**vars(result), **other}) for result in two[:2]]
    page = Page(write_report([*two, *dropped], tmp_path))
    assert "3 settings were tried (dense 2, logistic 1; 5 fits in all)." in page.text
    assert "the other one (2 fits) never met the test images" in page.text
    tried = page.text.split("Every setting tried")[1].split("Published elsewhere")[0]
    losses = [result.scores["validation"]["log_loss"] for result in two[:2]]
    assert f"dense (l2=0.001) selected, scored on test 2 {np.mean(losses):.4f}" in tried
    assert f"dense (l2=9) 2 {losses[0]:.4f} all alike" in tried
    assert "l2=9" not in page.text.split("Settings tried")[0]
    (twice,) = sections([*two, *dropped, *two, *dropped])
    assert len(twice.unselected) == 2


def test_faces_are_shown_only_when_given_and_are_found_by_digest(two, report, faces, tmp_path):
    given = faces(two[0])
    order = np.random.default_rng(0).permutation(len(given))
    shuffled = replace_rows(given, order)
    with_faces = write_report(two[0], tmp_path / "with", faces=given)
    again = write_report(two[0], tmp_path / "again", faces=shuffled)
    assert "Most confident mistakes" in Page(with_faces).text
    assert "Most confident mistakes" not in Page(report).text
    assert not list(report.parent.glob("*faces*"))
    for name in ("faces.png", "mistakes.png"):
        assert (with_faces.parent / name).read_bytes() == (again.parent / name).read_bytes()
    with pytest.raises(RunError, match="none of the test images"):
        write_report(two, tmp_path / "strange", faces=draw_faces(40, seed=9))
    assert not (tmp_path / "strange").exists()


def replace_rows(faces: FaceDataset, order: Any) -> FaceDataset:
    fields = ("pixels", "emotion", "usage", "source", "group")
    parts = {name: getattr(faces, name)[order] for name in fields}
    shuffled = replace(faces, **parts)
    object.__setattr__(shuffled, "digest", faces.digest[order])
    return shuffled


def test_the_commands_to_repeat_it_are_the_users_and_one_a_head(two, tmp_path):
    page = Page(write_report(two, tmp_path, command="fer-compare --seeds '2 <b>'"))
    network = "--backbone InceptionResNetV2 --weights imagenet"
    assert f"fer-extract SOURCE -o cache/drawn-5eed5eed.h5 {network}" in page.text
    assert "fer-compare --seeds '2 <b>'" in page.text
    assert (
        "fer-fit-head cache/drawn-5eed5eed.h5 --head logistic --per-class all --split random "
        "--split-seed 42 --duplicates drop --seed 0"
    ) in page.text
    assert "    fer-compare --seeds '2 <b>'\n" in (tmp_path / "report.md").read_text()


def test_runs_on_two_stores_are_repeated_and_reckoned_from_both(two, tmp_path):
    made = {"seconds": 7.5, "images": 590, "images_per_second": 80.0}
    store = two[2].store | {"name": "small.h5", "provenance": {"passes": [made]}}
    store |= {"outputs": ["final", "inner"], "features": "inner+final"}
    store["options"] += " --precision int8"
    other = replace(two[2], store=store, fingerprint="f" * 64, features="inner+final")
    page = Page(write_report([*two[:2], other], tmp_path))
    network = "--backbone InceptionResNetV2 --weights imagenet"
    for said in (
        f"drawn-5eed5eed.h5 {network} ",
        f"small.h5 {network} --precision int8 --layers inner",
    ):
        assert f"fer-extract SOURCE -o cache/{said}" in page.text
    assert "fer-fit-head cache/small.h5 --features inner+final --head logistic" in page.text
    assert "at the measured 47.2 and 80.0 images a second" in page.text
    fitted = sum(result.seconds["fit"] for result in two)
    assert f"pass and fits add up to {12.5 + 7.5 + fitted:,.1f} s" in page.text


def test_a_pass_that_few_fits_do_not_repay_is_said_so(two, tmp_path):
    made = {"images": 35000, "seconds": 9000.0, "images_per_second": 47.2}
    dear = replace(two[2], store={**two[2].store, "provenance": {"passes": [made]}})
    text = Page(write_report(dear, tmp_path)).text
    assert "so few fits do not repay a pass over all images" in text
    assert "times less" not in text


def test_no_two_heads_have_the_same_name(two):
    first = two[2]
    params = {**first.params, "C": 1}
    whole, fraction = replace(first, params=params), replace(first, params={**params, "C": 1.0})
    (section,) = sections([whole, replace(fraction, seed=1)])
    assert [(group.label, group.times) for group in section.groups] == [("logistic", "2 seeds")]
    fewer = {**first.split, "sizes": {**first.split["sizes"], "train": {"a": 7, "b": 8}}}
    (section,) = sections([*two, replace(first, split=fewer)])
    assert [group.label for group in section.groups] == [
        "dense (training images 360)", "logistic (training images 360)",
        "logistic (training images 15)",
    ]  # fmt: skip
    unlike = {**first.split, "copies": {"rows": 1, "images": 1, "disagreeing": 0}}
    (section,) = sections([first, replace(first, split=unlike), *two[:2]])
    assert [group.label for group in section.groups] == ["logistic", "logistic #2", "dense"]
    assert len(section.pairs) == 3
    assert "logistic #2" in "".join(pair.first + pair.second for pair in section.pairs)


def test_the_same_images_under_other_labels_are_another_test_set(two):
    rows = two[2].predictions
    relabelled = rows.assign(emotion=rows["emotion"].replace("fear", "sadness"))
    parts = sections([*two, replace(two[2], predictions=relabelled, seed=1)])
    assert [len(part.groups) for part in parts] == [2, 1]


def test_what_a_seed_can_change_is_said(two):
    said = caution(sections(two)[0])
    assert "rows and split are the same in every fit of a head" in said
    assert "Fitted once, as a seed changes nothing there: logistic." in said
    alone = caution(sections(two[:1])[0])
    assert "Fitted with one seed: dense." in alone
    assert "Fitted" not in caution(sections(two[2:])[0])


def test_how_many_settings_were_tried_is_always_said(two, fits, heads):
    assert selection(sections(two[2:])[0]) == "One setting was tried."
    assert selection(sections(two)[0]) == "One setting of each head was tried."
    said = selection(sections([*two, *fits(heads=[heads["dense"](l2=0.5)])])[0])
    assert said.startswith("3 settings, all of them scored on test")


def test_more_data_helps_only_where_the_interval_and_several_seeds_say_so(two):
    def grown(better: float, seeds: int) -> str:
        def fit(seed: int, size: int, gain: float) -> Result:
            rows = two[0].predictions.query("split == 'validation'").copy()
            rng = np.random.default_rng([seed, size])
            p = 0.6 + gain + 0.02 * rng.standard_normal(len(rows))
            rows["p_positive"] = np.where(rows["target"] == "positive", p, 1 - p)
            rows["p_negative"] = 1 - rows["p_positive"]
            split = {**two[0].split, "sizes": {"train": {"a": size}}}
            loss = float(-np.log(p).mean())
            scores = {"validation": {"log_loss": loss}}
            return replace(two[0], seed=seed, split=split, scores=scores, predictions=rows)

        few, many = ([fit(i, n, g) for i in range(seeds)] for n, g in ((50, 0.0), (90, better)))
        return size_said(Group("dense", tuple(many), tuple(few)))

    assert grown(0.1, 1).endswith("one seed of it: no verdict.")
    assert "From 50 to 90 training images the validation log loss of dense falls by 0.1" in (
        grown(0.1, 3)
    )
    assert re.search(r"\(95% interval of the change -0\.\d{4} to -0\.\d{4}\): ", grown(0.1, 3))
    assert grown(0.1, 3).endswith("more data still helps.")
    assert grown(-0.1, 3).endswith("more data does not help.")
    assert grown(0.0, 3).endswith("no evidence that more data helps.")


def test_chance_is_named_as_what_it_is(two):
    section = sections(two)[0]
    counts = section.rows["target"].value_counts()
    assert (counts.nunique() == 1) == ("as common among them as any other" in answer(section))
    rows = section.rows
    kept = rows[rows["target"] == "positive"]
    alone = sections([replace(two[2], predictions=kept)])[0]
    assert "“positive”, their most common class, would be right 100.0%" in answer(alone)
    assert answer(alone).endswith("no head can do better.")


def test_an_emotion_that_is_never_wrong_is_not_called_wrong_most(two):
    rows = two[2].predictions
    right = rows.assign(predicted=rows["target"])
    said = emotion_said(sections([replace(two[2], predictions=right)])[0])
    assert "none is ever classified wrong" in said


def test_the_report_is_data_too(two, report):
    document = json.loads((report.parent / "report.json").read_text())
    (section,) = document["sections"]
    page = Page(report).text
    assert section["answer"] in page
    assert [head["label"] for head in section["heads"]] == ["dense", "logistic"]
    assert [head["seeds"] for head in section["heads"]] == [[0, 1], [0]]
    accuracy = section["heads"][0]["scores"]["test"]["accuracy"]
    fits = [result.scores["test"]["accuracy"] for result in two[:2]]
    assert accuracy["mean"] == pytest.approx(np.mean(fits))
    assert (accuracy["lowest"], accuracy["highest"]) == (min(fits), max(fits))
    assert f"{accuracy['low']:.4f}{NOTHING}{accuracy['high']:.4f}" in page
    (pair,) = section["pairs"]
    assert f"{pair['first']} less {pair['second']} {pair['words']}" in page
    table = pd.read_csv(report.parent / "report.csv")
    row = table.query("head == 'dense' and split == 'test' and score == 'accuracy'").iloc[0]
    assert (row["mean"], row["low"], row["high"], row["fits"]) == (
        accuracy["mean"], accuracy["low"], accuracy["high"], 2
    )  # fmt: skip
    assert bool(row["covers_seeds"]) is accuracy["covers_seeds"] is True
    assert len(table) == 2 * 2 * 10


def test_a_new_report_leaves_no_figure_of_the_old_one(two, faces, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    write_report(two, tmp_path, faces=faces(two[0]))
    assert (tmp_path / "faces.png").exists()
    write_report(two[2:], tmp_path)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert "confusion-dense.png" not in pictures
    assert not {"faces.png", "mistakes.png"} & pictures
    assert {"mine.png", "confusion.png"} <= pictures


def test_faces_of_a_source_that_lacks_a_class_are_shown(two, faces, tmp_path):
    rows = two[0].predictions.query("split == 'test'")
    given = faces(two[0])
    order = np.flatnonzero((rows["target"] == "positive").to_numpy())
    assert write_report(two[0], tmp_path, faces=replace_rows(given, order)).exists()
    assert (tmp_path / "faces.png").exists()


def test_leaked_test_images_get_a_table_with_and_without_them(two, report, tmp_path):
    assert "with and without" not in Page(report).text
    scores = {**two[2].scores["test"], "accuracy": 0.1234, "confusion": [[50, 20], [20, 10]]}
    test = {**two[2].scores["test"], "unleaked": scores}
    leaky = Result(**{**vars(two[2]), "scores": {**two[2].scores, "test": test}})
    page = Page(write_report(leaky, tmp_path / "leaky"))
    after = page.text.split("with and without the images that also occur")[1][:300]
    assert "logistic 100" in after
    found = sections([leaky])[0].groups[0].estimates["accuracy"]
    with_all = f"{found.value:.4f} {found.low:.4f}{NOTHING}{found.high:.4f}"
    assert f"{with_all} 0.1234" in after


def test_no_runs_or_an_unwritable_folder_is_a_run_error(two, tmp_path):
    with pytest.raises(RunError, match="no run, expected at least one"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(two[0], tmp_path / "file")


def test_every_colour_of_a_figure_has_a_dark_one(compared, faces):
    results = compared()
    (section,) = sections(results)
    shown = faces(next(result for result in results if "test" in result.scores))
    drawn = pictures(section, "", shown)
    assert len(drawn) >= 14
    for picture in drawn:
        colours = set(re.findall(rb"#[0-9a-f]{6}\b", picture.drawing.light))
        assert {each.decode() for each in colours} <= set(DARK), picture.file
    light = b" ".join(colour.encode() for colour in DARK)
    assert darkened(light).decode().split() == list(DARK.values())


def test_long_names_of_heads_are_told_apart_in_figures():
    names = [f"logistic (backbone e91bc6db, C={c}, class_weight={c})" for c in (1, 2)]
    cut = legends(names, 24)
    assert len(set(cut)) == 2
    assert all(len(line) <= 27 for name in cut for line in name.splitlines())
    assert legends(["_hidden"], 24) == [" _hidden"]


def test_a_report_is_written_without_tensorflow(two, tmp_path):
    folder = two[0].save(tmp_path / "run")
    script = (
        "import json, sys; from fer_features import Result, write_report; "
        "write_report(Result.load(sys.argv[1]), sys.argv[1]); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True
    )
    loaded = json.loads(done.stdout)
    assert "matplotlib" in loaded
    assert not {"tensorflow", "keras", "h5py"} & set(loaded)
    assert (folder / "report.html").exists()
