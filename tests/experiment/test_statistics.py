"""Estimates and differences: against scikit-learn, resampling and hand-made cases."""

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fer_features.errors import OptionError
from fer_features.experiment.scores import SCORES, score
from fer_features.experiment.statistics import Estimate, difference, estimate, holm

CLASSES = {2: ("b", "a"), 4: ("one", "two", "three", "four")}
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def drawn(k: int, n: int, fits: int = 3, seed: int = 0, skill: float = 1.5) -> tuple[Any, Any]:
    """Return targets (n,) and probabilities (fits, n, k), with ties, that share their images."""
    rng = np.random.default_rng(5)
    target, shared = rng.integers(0, k, n), rng.standard_normal((n, k))
    own = np.random.default_rng(seed).standard_normal((fits, n, k))
    p = np.exp(shared + 0.5 * own + skill * np.eye(k)[target])
    p = np.round(p / p.sum(axis=2, keepdims=True), 2) + 1e-3
    return target, p / p.sum(axis=2, keepdims=True)


def answered(right: Any) -> tuple[Any, Any]:
    """Return targets and probabilities of two classes in turn, right (fits, n) where it says so."""
    right = np.atleast_2d(right)
    target = np.arange(right.shape[1]) % 2
    first = np.where((target == 0) == right, 0.9, 0.1)
    return target, np.stack([first, 1 - first], axis=2)


def scored(target: Any, p: Any, name: str, predicted: Any = None) -> Any:
    """Return scikit-learn's score of one fit."""
    classes = CLASSES[p.shape[1]]
    names = None if predicted is None else [classes[i] for i in predicted]
    return score([classes[i] for i in target], p, classes, names)[name]


def width(found: Any) -> float:
    return found.high - found.low


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("k", CLASSES)
def test_values_are_the_means_of_scikit_learns(k, name):
    target, p = drawn(k, 150)
    found = estimate(target, p, name)
    assert found.value == pytest.approx(np.mean([scored(target, q, name) for q in p]), abs=1e-12)
    assert found.low < found.value < found.high
    assert (found.seeds, found.images, found.covers_seeds) == (3, 150, True)
    apart = difference(target, p[:2], p[2:], name, random=(True, False))
    halves = [np.mean([scored(target, q, name) for q in each]) for each in (p[:2], p[2:])]
    assert apart.value == pytest.approx(halves[0] - halves[1], abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_what_the_classifier_answers_decides_and_its_probabilities_rank(name):
    target, p = drawn(4, 120, fits=1)
    answers = np.roll(p.argmax(axis=2), 1, axis=1)
    found = estimate(target, p, name, predicted=answers)
    assert found.value == pytest.approx(scored(target, p[0], name, answers[0]), abs=1e-12)
    by_decision = name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
    assert (found != estimate(target, p, name)) == by_decision
    apart = difference(target, p, p, name, predicted=(answers, None), random=(False, False))
    assert (apart.value != 0) == by_decision


# A resampled calibration error is folded at 0: it scatters less than it is uncertain.
@pytest.mark.parametrize("name", [name for name in SCORES if name != "ece"])
@pytest.mark.parametrize("k", CLASSES)
def test_the_width_is_that_of_resampling_the_images(k, name):
    """Of one deterministic fit: half the width over 1.96 is near the bootstrap's deviation."""
    target, p = drawn(k, 600, fits=1)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(250):
        rows = rng.integers(0, 600, 600)
        values.append(estimate(target[rows], p[:, rows], name, random=False).value)
    found = width(estimate(target, p, name, random=False)) / 2 / 1.96
    assert found == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize("name", SCORES)
def test_groups_are_resampled_together(name):
    target, p = drawn(4, 100, fits=2)
    p, q = p[:1], p[1:]
    fixed: dict[str, Any] = {"random": False}
    alone = estimate(target, p, name, **fixed)
    labels = np.array([f"g{i}" for i in range(100)])
    singly = estimate(target, p, name, groups=labels, **fixed)
    assert vars(singly) == pytest.approx(vars(alone), rel=1e-9)
    # Each image in four copies, spread over the rows: known copies tell no more than one does.
    order = np.random.default_rng(0).permutation(400)
    copied, labels = np.tile(target, 4)[order], np.tile(labels, 4)[order]
    copies, others = (np.tile(each, (1, 4, 1))[:, order] for each in (p, q))
    known = estimate(copied, copies, name, groups=labels, **fixed)
    assert known.value == pytest.approx(alone.value)
    assert width(known) == pytest.approx(width(alone), rel=0.06)
    assert width(estimate(copied, copies, name, **fixed)) < 0.6 * width(alone)
    fixed["random"] = (False, False)
    apart = difference(target, p, q, name, **fixed)
    assert width(difference(copied, copies, others, name, groups=labels, **fixed)) == pytest.approx(
        width(apart), rel=0.06
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_images_and_of_seeds_does_not_matter(name):
    target, p = drawn(4, 150)
    _, q = drawn(4, 150, seed=1, skill=1.2)
    groups = np.arange(150) // 3
    order, seeds = np.random.default_rng(0).permutation(150), [2, 0, 1]
    turned = target[order], p[seeds][:, order]
    for given, again in ((groups, groups[order]), (None, None)):
        one, other = estimate(target, p, name, groups=given), estimate(*turned, name, groups=again)
        assert vars(one) == pytest.approx(vars(other), rel=1e-9)
        one = difference(target, p, q, name, groups=given)
        other = difference(*turned, q[:, order], name, groups=again)
        assert vars(one) == pytest.approx(vars(other), rel=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_swapping_two_heads_negates_the_difference_and_keeps_p(name):
    target, p = drawn(2, 200, fits=3)
    _, q = drawn(2, 200, fits=1, seed=1, skill=1.0)
    one = difference(target, p, q, name, random=(True, False))
    other = difference(target, q, p, name, random=(False, True))
    assert (other.value, other.low, other.high) == (-one.value, -one.high, -one.low)
    assert other.p == one.p


@pytest.mark.parametrize("name", SCORES)
def test_the_same_numbers_come_out_each_time_and_global_random_state_is_left_alone(name):
    target, p = drawn(4, 100)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert estimate(target, p, name) == estimate(target, p, name)
    assert difference(target, p, p[:2], name) == difference(target, p, p[:2], name)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_p_is_below_a_twentieth_just_where_the_interval_leaves_out_0():
    verdicts = []
    for skill in np.linspace(1.0, 2.0, 41):
        target, p = drawn(2, 300)
        _, q = drawn(2, 300, fits=2, seed=1, skill=skill)
        found = difference(target, p, q)
        verdicts.append(found.p < 0.05)
        assert verdicts[-1] == (not found.low <= 0 <= found.high)
    assert 0 < sum(verdicts) < len(verdicts)


def test_more_images_and_more_seeds_narrow_an_interval():
    by_images = [width(estimate(*drawn(2, n))) for n in (100, 400, 1600, 6400)]
    assert all(fewer > 1.5 * more for fewer, more in pairwise(by_images))
    rng = np.random.default_rng(0)
    moves = np.array([-0.03, 0.03, -0.01, 0.01, 0.02, -0.02, 0.0, 0.025, -0.025, 0.0])
    p = answered(rng.random((10, 4000)) < (0.8 + moves)[:, None])
    by_seeds = [width(estimate(p[0], p[1][:fits])) for fits in (2, 4, 10)]
    assert by_seeds[0] > by_seeds[1] > by_seeds[2]


def test_an_interval_is_never_narrower_than_what_few_seeds_leave_open():
    """Without any luck of images it is the t interval of the seeds' own scores."""
    n = 200_000
    right = np.arange(n) < (n * np.array([0.78, 0.80, 0.82]))[:, None]
    found = estimate(*answered(right))
    expected = 2 * stats.t.ppf(0.975, 2) * np.std([0.78, 0.8, 0.82], ddof=1) / np.sqrt(3)
    assert width(found) == pytest.approx(expected, rel=0.1)
    apart = difference(*answered(right), answered(right[:1])[1], random=(True, False))
    assert apart.p == pytest.approx(stats.ttest_1samp([0.78, 0.8, 0.82], 0.78).pvalue, abs=0.02)


def test_one_fit_of_a_random_head_covers_images_only_and_gets_no_verdict():
    target, p = drawn(2, 300)
    _, q = drawn(2, 300, seed=1, skill=6.0)
    assert not estimate(target, p[:1]).covers_seeds
    assert estimate(target, p[:1], random=False).covers_seeds
    for fits, others in ((p[:1], q), (p, q[:1]), (p[:1], q[:1])):
        found = difference(target, fits, others)
        assert found.p is None
        assert not found.covers_seeds
        assert found.high < 0  # of these images it is quite sure
    assert difference(target, p[:1], q, random=(False, True)).p < 0.05


@pytest.mark.parametrize(("right", "n"), [(98, 100), (100, 100), (0, 25), (7, 11), (3399, 3400)])
def test_one_fits_accuracy_has_wilsons_interval(right, n):
    found = estimate(*answered(np.arange(n) < right), random=False)
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_all_right_or_all_wrong_is_not_certainty_and_stays_in_range():
    for fits in (1, 3):
        for right in (True, False):
            target, p = answered(np.full((fits, 30), right))
            for name in SCORES:
                found = estimate(target, p, name)
                assert 0 <= found.low <= found.value <= found.high
                assert found.high <= 1 or name == "log_loss"
            for name in ("accuracy", "balanced_accuracy", "recall", "f1", "roc_auc"):
                assert 0.05 < width(estimate(target, p, name)) < 0.7
    same = difference(target, p, p)
    assert (same.value, same.p) == (0, 1)
    assert same.low < 0 < same.high


def test_intervals_stay_in_range_with_few_images_and_wild_seeds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(2, 12))
        p = rng.dirichlet(np.ones(3), (3, n))
        q = rng.dirichlet(np.ones(3), (2, n))
        target = rng.integers(0, 3, n)
        for name in SCORES:
            found, apart = estimate(target, p, name), difference(target, p, q, name)
            if np.isnan(found.value):
                assert len(set(target)) < 3
                continue
            top = {"brier": 2, "log_loss": np.inf}.get(name, 1)
            assert 0 <= found.low <= found.value <= found.high <= top
            assert -top <= apart.low <= apart.value <= apart.high <= top
            assert 0 <= apart.p <= 1


@pytest.mark.parametrize("groups", [None, [7] * 40])
def test_one_image_or_one_group_shows_next_to_nothing(groups):
    target, p = answered(np.ones((3, 1 if groups is None else 40), dtype=bool))
    found = estimate(target, p, groups=groups)
    assert found.value == 1
    assert found.low < 0.25
    assert estimate(target, p, "log_loss", groups=groups).high == np.inf
    apart = difference(target, p, p[:2, :, ::-1], groups=groups)
    assert (apart.low, apart.high, apart.p) == (-1, 1, None)


def test_a_class_without_images_leaves_only_what_does_not_need_it():
    p = drawn(4, 60)[1]
    target = np.arange(60) % 3
    for name in ("roc_auc", "average_precision"):
        found = estimate(target, p, name)
        assert np.isnan([found.value, found.low, found.high]).all()
        assert difference(target, p, p, name).p is None
    for name in set(SCORES) - {"roc_auc", "average_precision"}:
        assert estimate(target, p, name).value == pytest.approx(
            np.mean([scored(target, q, name) for q in p])
        )


def test_a_class_of_few_images_is_as_uncertain_as_it_is_in_the_mean_over_classes():
    n, few = 2000, 12
    target = (np.arange(n) >= few).astype(int)
    right = np.arange(n) % 6 > 0
    first = np.where((target == 0) == right, 0.9, 0.1)
    p = np.stack([first, 1 - first], axis=1)[None]
    rare = estimate(target[:few], p[:, :few], random=False)
    both = estimate(target, p, "balanced_accuracy", random=False)
    assert width(both) == pytest.approx(width(rare) / 2, rel=0.25)


def test_what_does_not_fit_is_refused():
    target, p = drawn(2, 20)
    with pytest.raises(OptionError, match="score: 'f2', expected one of accuracy, "):
        estimate(target, p, "f2")
    for bad in (p[0], p[:, :0], p[:0], p[:, :10]):
        with pytest.raises(ValueError, match=r"p: shape .*, expected \(fits, n, classes\)"):
            estimate(target, bad)
    with pytest.raises(ValueError, match=r"groups: shape \(3,\), expected \(20,\)"):
        estimate(target, p, groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"predicted: shape \(20,\), expected \(3, 20\)"):
        difference(target, p, p, predicted=(None, target))
    with pytest.raises(ValueError, match="classes outside 0 to 1"):
        estimate(target + 1, p)
    with pytest.raises(ValueError, match="not finite"):
        estimate(target, np.where(p > 0.9, np.nan, p))


def test_holm_gives_the_values_computed_by_hand():
    # Ranked .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04, not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    # A pair without a verdict is no test, so it costs the others nothing.
    assert holm([0.02, None, 0.03]) == [pytest.approx(0.04), None, pytest.approx(0.04)]


def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load benchmarks/calibration.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("calibration", BENCHMARKS / "calibration.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "calibration", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_intervals_cover_and_evidence_is_rarely_false(monkeypatch):
    """Bounds of the issue, with 2.6 standard errors of 400 simulated test sets around them."""
    calibration, tests = simulation(monkeypatch), 400

    def slack(share: float) -> float:
        return 2.6 * np.sqrt(share * (1 - share) / tests)

    found = {
        name: {cell: calibration.simulate(cell, tests) for cell in cells}
        for name, cells in calibration.QUICK.items()
    }
    for cell, each in found["equal"].items():
        for covered in (each.covered, each.difference_covered):
            assert 0.93 - slack(0.93) <= covered <= 0.97 + slack(0.97), cell
        assert each.evidence <= 0.08, cell
        assert each.silent == 0, cell
    for cell, each in found["small"].items():
        assert each.covered >= 0.92 - slack(0.92), cell
        assert each.evidence <= 0.08 + slack(0.08), cell
    for cell, each in found["power"].items():
        assert each.evidence >= 0.5 - slack(0.5), cell
    for each in found["told nothing"].values():
        assert each.covered < 0.8
    for each in found["one seed"].values():
        assert (each.silent, each.evidence) == (1, 0)


def test_an_estimate_is_plain_data():
    found = estimate(*drawn(2, 50))
    assert isinstance(found, Estimate)
    assert {type(each) for each in vars(found).values()} == {float, int, bool}


def test_the_order_of_images_does_not_matter_to_an_ece_of_bins_that_are_exactly_right() -> None:
    shares = (0.1, 0.3, 0.7)
    p = np.repeat(shares, 50)
    right = np.concatenate([np.arange(50) < round(50 * share) for share in shares])
    target, p = np.where(right, 0, 1), np.stack([p, 1 - p], axis=1)[None]
    groups = np.tile(np.arange(50), 3)  # of an image in each bin, whose signs decide what cancels
    found = estimate(target, p, "ece", random=False, groups=groups)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(150)
        other = estimate(target[order], p[:, order], "ece", random=False, groups=groups[order])
        assert (other.low, other.high) == pytest.approx((found.low, found.high), abs=1e-12)
