"""Do the intervals cover, and does "evidence" mean something? Simulated, where the truth is known.

    python benchmarks/calibration.py [--tests 1000] [--quick]

The model. A test set has n images of two classes, drawn at random. Fit s of head h gives image j

    z = d + sqrt(0.8) u_j + sqrt(0.1) v_hj + sqrt(0.1) e_hsj,    d = Phi^-1(accuracy of the fit)

in favour of its true class; u (the image's own difficulty), v and e are standard normal. So two
heads correlate by 0.8 over the images, and two seeds of one head by 0.9. The fit's probability of
the true class is 1 / (1 + exp(-2 d z)), so it is right where z > 0. A seed moves the fit's
accuracy: it is normal around the head's, the seed spread its standard deviation, cut to between
0.01 % and 99.99 %. A deterministic head has one fit and no spread. In groups of 20 each of u, v
and e is shared in part, so that two images of a group correlate by 0.3.

The truth is the score expected over test sets of this size *and* over seeds: from the normal
distribution where there is a formula, else the mean of 4,000 test sets of their own. Every test
set and every seed is drawn anew. A coverage of 95 % of 1,000 test sets has a standard error of 0.7
points; the power is of four times as many.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from results import machine, table, write_section
from scipy.special import expit, ndtr, ndtri

from fer_features.experiment.statistics import Difference, Estimate, difference, estimate

COMMON, OWN = 0.8, 0.1
GROUP, WITHIN = 20, 0.3
FITS = ((1, 1), (3, 1), (3, 3), (10, 1), (10, 3), (10, 10))
"""Fits of the two heads; a head of one fit is deterministic."""

ACCURACIES = (0.6, 0.8, 0.9, 0.98)
SPREADS = (0.0, 0.005, 0.01, 0.015)
SMALL = (11, 15, 20, 25, 35, 50)

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation: two heads of the same kind, tested on the same images.

    ``positives`` of the ``images`` are of the first class, half of them if None; ``ahead`` is how
    much more accurate the first head is. With ``one_seed`` a head of one fit is random.
    """

    accuracy: float = 0.8
    spread: float = 0.0
    fits: tuple[int, int] = (3, 3)
    score: str = "accuracy"
    images: int = 3400
    positives: int | None = None
    grouped: bool = False
    told: bool = True
    ahead: float = 0.0
    one_seed: bool = False

    def target(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw the true classes; two positives at least."""
        share = 0.5 if self.positives is None else self.positives / self.images
        drawn = (rng.random(self.images) >= share).astype(np.int64)
        return drawn if (drawn == 0).sum() > 1 else self.target(rng)

    @property
    def random(self) -> tuple[bool, bool]:
        a, b = self.fits
        return a > 1 or self.one_seed, b > 1 or self.one_seed


@dataclass(frozen=True)
class Found:
    """Shares of the simulated test sets, 0 to 1, and the mean width of the estimate's interval."""

    covered: float
    difference_covered: float
    evidence: float
    silent: float
    width: float


def normal(cell: Cell, rng: np.random.Generator, fits: int = 1) -> Float:
    """Draw standard normals (fits, images), correlated within groups where there are any."""
    z = rng.standard_normal((fits, cell.images))
    if not cell.grouped:
        return z
    shared = rng.standard_normal((fits, cell.images // GROUP)).repeat(GROUP, axis=1)
    return np.sqrt(WITHIN) * shared + np.sqrt(1 - WITHIN) * z


def accuracies(
    accuracy: float, spread: float, random: bool, shape: int, rng: np.random.Generator
) -> Float:
    """Draw the accuracies of a head's fits."""
    moved = accuracy + (spread * rng.standard_normal(shape) if random else np.zeros(shape))
    return np.clip(moved, 1e-4, 1 - 1e-4)


def fitted(
    cell: Cell,
    which: int,
    target: npt.NDArray[np.int64],
    difficulty: Float,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Draw one head's probabilities, float64 (fits, images, 2)."""
    fits, random = cell.fits[which], cell.random[which]
    accuracy = cell.accuracy + (cell.ahead if which == 0 else 0.0)
    d = ndtri(accuracies(accuracy, cell.spread, random, fits, rng))[:, None]
    own, by_seed = normal(cell, rng), normal(cell, rng, fits)
    z = np.sqrt(COMMON) * difficulty + np.sqrt(OWN) * own + np.sqrt(1 - COMMON - OWN) * by_seed
    p_true = expit(2 * d * (d + z))
    p_first = np.where(target == 0, p_true, 1 - p_true)
    return np.stack([p_first, 1 - p_first], axis=2)


def once(cell: Cell, rng: np.random.Generator) -> tuple[Estimate, Difference]:
    """Draw a test set and two heads, and judge them."""
    target, difficulty = cell.target(rng), normal(cell, rng)
    a, b = (fitted(cell, which, target, difficulty, rng) for which in (0, 1))
    groups = np.arange(cell.images) // GROUP if cell.grouped and cell.told else None
    return (
        estimate(target, a, cell.score, random=cell.random[0], groups=groups),
        difference(target, a, b, cell.score, random=cell.random, groups=groups),
    )


@cache
def truth(cell: Cell, which: int) -> float:
    """Return a head's score expected over images and seeds."""
    rng = np.random.default_rng(987)
    accuracy = cell.accuracy + (cell.ahead if which == 0 else 0.0)
    moved = accuracies(accuracy, cell.spread, cell.random[which], 200_000, rng)
    if cell.score in ("accuracy", "balanced_accuracy", "recall"):
        return float(moved.mean())
    if cell.score == "roc_auc":
        return float(ndtr(np.sqrt(2) * ndtri(moved)).mean())
    values = []
    lone = replace(cell, fits=(1, 1), one_seed=cell.random[which], grouped=False)
    for _ in range(4000):
        target = lone.target(rng)
        p = fitted(lone, which, target, normal(lone, rng), rng)
        values.append(estimate(target, p, cell.score).value)
    return float(np.mean(values))


def simulate(cell: Cell, tests: int) -> Found:
    """Judge many test sets of one setting."""
    rng = np.random.default_rng(list(repr(cell).encode()))
    first, apart = truth(cell, 0), truth(cell, 0) - truth(cell, 1)
    rows = []
    for _ in range(tests):
        one, two = once(cell, rng)
        apart_from_0 = not two.low <= 0 <= two.high
        if two.p is not None and (two.p < 0.05) != apart_from_0:
            raise AssertionError(f"p {two.p} and interval {two.low} to {two.high} disagree")
        rows.append(
            (
                one.low <= first <= one.high,
                two.low <= apart <= two.high,
                two.p is not None and apart_from_0,
                two.p is None,
                one.high - one.low,
            )
        )
    return Found(*(float(each) for each in np.mean(rows, axis=0)))


def settings(fits: Iterable[tuple[int, int]] = FITS) -> list[Cell]:
    """Return the cells of equal heads by accuracy; without seeds there is no spread to vary."""
    return [
        Cell(accuracy, spread, each)
        for accuracy in ACCURACIES
        for each in fits
        for spread in (SPREADS if max(each) > 1 else SPREADS[:1])
    ]


POWER = [Cell(each, 0.005, (3, 3), ahead=0.015) for each in (0.75, 0.8, 0.85, 0.9)]
ONE_SEED = [Cell(0.8, each, (1, 3), one_seed=True) for each in SPREADS]
SMALL_CLASSES = [
    Cell(accuracy, 0.005, fits, images=n)
    for accuracy in ACCURACIES
    for fits in ((1, 1), (3, 3), (10, 10))
    for n in SMALL
]
GROUPS = [
    Cell(accuracy, 0.005, fits, grouped=True, told=told)
    for accuracy in ACCURACIES
    for fits in ((1, 1), (3, 1), (3, 3), (10, 10))
    for told in (True, False)
]
OTHERS = [
    Cell(0.8, spread, fits, score)
    for score in ("balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss", "brier")
    for fits in ((1, 1), (3, 1), (3, 3), (10, 10))
    for spread in ((0.0, 0.01) if max(fits) > 1 else (0.0,))
]
RARE = [
    Cell(accuracy, 0.005, fits, score, positives=n)
    for score in ("balanced_accuracy", "f1", "roc_auc", "average_precision")
    for accuracy in (0.8, 0.9, 0.98)
    for fits in ((1, 1), (3, 3))
    for n in (11, 50)
]
QUICK = {
    "equal": [
        *(Cell(0.8, 0.01, fits) for fits in ((3, 1), (3, 3), (10, 10))),
        Cell(0.8, 0.0, (1, 1)),
        Cell(0.98, 0.005, (3, 3)),
        Cell(0.6, 0.0, (3, 3)),
        *(Cell(0.8, 0.01, (3, 3), score) for score in ("f1", "roc_auc", "log_loss")),
        Cell(0.8, 0.005, (3, 3), grouped=True),
    ],
    "small": [
        Cell(accuracy, 0.005, fits, images=n)
        for accuracy in (0.8, 0.98)
        for fits in ((1, 1), (3, 3))
        for n in (11, 50)
    ],
    "power": POWER[1:3],
    "told nothing": [Cell(0.8, 0.005, (1, 1), grouped=True, told=False)],
    "one seed": ONE_SEED[2:3],
}
"""The small version, by what is asked of it."""


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def shown(cells: Iterable[Cell], tests: int, across: str) -> str:
    """Return a table: a row for what cells have in common but for one field, which goes across.

    Each entry is "estimate covers / difference covers / false evidence", in percent.
    """
    names = {
        "score": "score",
        "accuracy": "accuracy",
        "fits": "fits",
        "spread": "seed spread, points",
        "images": "images",
        "positives": "positives",
        "told": "groups told",
    }
    cells = list(cells)
    fields = [
        field
        for field in names
        if field != across and (field == "fits" or len({getattr(c, field) for c in cells}) > 1)
    ]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        print(cell, file=sys.stderr)
        found = simulate(cell, tests)
        row = rows.setdefault(tuple(spelt(cell, field) for field in fields), {})
        each = (found.covered, found.difference_covered, found.evidence)
        row[spelt(cell, across)] = " / ".join(map(percent, each))
    columns = list(dict.fromkeys(spelt(cell, across) for cell in cells))
    header = [names[field] for field in fields] + [f"{names[across]} {each}" for each in columns]
    return table(
        header, [[*key, *(row.get(each, "") for each in columns)] for key, row in rows.items()]
    )


def spelt(cell: Cell, field: str) -> str:
    """Write a field of a setting for people."""
    value = getattr(cell, field)
    if field == "fits":
        return " and ".join("1 (deterministic)" if each == 1 else str(each) for each in value)
    if field == "spread":
        return f"{100 * value:g}"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def power(tests: int) -> str:
    """Return the table of what a true difference of 1.5 points looks like."""
    rows = []
    for cell in POWER:
        found = simulate(cell, tests)
        rows.append(
            (f"{cell.accuracy}", percent(found.evidence), percent(found.difference_covered))
        )
    return table(("accuracy", "seen", "difference covers"), rows)


def one_seed(tests: int) -> str:
    """Return the table of a random head that has one seed."""
    rows = []
    for cell in ONE_SEED:
        found = simulate(cell, tests)
        rows.append((spelt(cell, "spread"), percent(found.covered), percent(found.silent)))
    return table(("seed spread, points", "estimate covers", "no verdict"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=1000, help="test sets for each setting")
    parser.add_argument("--quick", action="store_true", help="a few settings, nothing written")
    options = parser.parse_args()
    if options.quick:
        for name, cells in QUICK.items():
            for cell in cells:
                print(name, cell, simulate(cell, min(options.tests, 400)))
        return
    tests = options.tests
    parts = [
        f"{machine()}\n\n{tests:,} simulated test sets for each entry ({tests // 2:,} for other "
        "scores than accuracy), 3,400 images unless said otherwise, two heads that correlate by "
        "0.8 over the images. Entries, in percent: the 95 % interval of an estimate covers the "
        "truth / that of a difference does / two heads that are equal are said to differ.",
        "Accuracy:\n\n" + shown(settings(), tests, "spread"),
        "A true difference of 1.5 points, seed spread 0.5, 3 fits of either:\n\n"
        + power(4 * tests),
        "One seed of a random head, accuracy 0.8: the interval is about images only, says so, and "
        "there is no verdict:\n\n" + one_seed(tests),
        "Few images, as a class has them, seed spread 0.5:\n\n"
        + shown(SMALL_CLASSES, tests, "images"),
        "Groups of 20 images that correlate by 0.3, seed spread 0.5:\n\n"
        + shown(GROUPS, tests, "told"),
        "Other scores, accuracy 0.8:\n\n" + shown(OTHERS, tests // 2, "spread"),
        "Other scores of a rare class, seed spread 0.5:\n\n" + shown(RARE, tests // 2, "positives"),
    ]
    text = "\n\n".join(parts)
    print(text)
    write_section("Statistics", text)


if __name__ == "__main__":
    main()
