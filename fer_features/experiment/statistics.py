"""How sure a score is, and a difference of two: over other images and other seeds, as one number.

A reader wants to know how a head would do on other images *and* with another seed. The variance
of a mean over seeds has two parts, and each is measured where it can be seen:

- **Images.** Each image's influence on the seeds' mean score is computed in closed form: the
  derivative of the score by the weight of the image. The sum of their squares is the variance
  that resampling the images converges to (the infinitesimal jackknife; Efron & Tibshirani, An
  Introduction to the Bootstrap, 1993, chapter 21; for ROC AUC it is that of DeLong et al. 1988).
  It draws nothing, so an order of images or a seed of the resampling cannot matter. Images of one
  group are taken as one draw: their influences are added first.
- **Seeds.** The variance of the seeds' scores, over their number. Scores of one test set also
  scatter because each seed errs on other images; that share is in the first part already, is
  measured by the seeds' influences, and is taken out (the two-way random model, a negative rest
  is 0).

Few seeds make the second part uncertain, so its quantile is Student's t, with the degrees of
freedom of the seeds (Satterthwaite, Biometrics Bulletin 2, 1946, where two heads have some each),
and the quantiles of both parts are weighted by their variances (Cochran, Biometrics 20, 1964).
One Satterthwaite number for the sum of both, which is usual, covers less with three seeds: it is
large just where the seeds happen to agree.

Scores from 0 to 1 get Wilson's interval (JASA 22, 1927) of as many images as have that variance
(as Korn & Graubard do for surveys, 1998), which stays within 0 to 1 and is sane where nothing is
wrong. For one fit's accuracy it is Wilson's own. ``benchmarks/calibration.py`` shows what all this
covers: about 95 %.

An interval holds for this training set: what other training images would do only other splits
show. That of an ECE is about what ECE comes out, which for few images is above the classifier's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import rankdata

from fer_features.errors import OptionError
from fer_features.experiment.scores import BINS, SCORES, bin_of, confidence

LEVEL = 0.95
"""Coverage of the intervals; 1 - LEVEL is the level of the tests."""

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_DECIDED = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
"""Scores of the answers alone: an image is right or wrong, and few are wrong."""

_RANKED = ("roc_auc", "average_precision")
_LOSSES = ("log_loss", "brier", "ece")


@dataclass(frozen=True)
class Estimate:
    """A head's score, the mean over its fits, with a 95 % interval.

    Parameters
    ----------
    value : float
        In the score's unit and range; NaN where the score needs a class that has no image.
    low, high : float
        The interval, within the score's range; NaN where `value` is.
    seeds, images : int
        The fits and the test images that it rests on.
    covers_seeds : bool
        Whether the interval is about other seeds as well as other images: False where a random
        head has one fit, and then it is too narrow for a claim about the head.
    """

    value: float
    low: float
    high: float
    seeds: int
    images: int
    covers_seeds: bool


@dataclass(frozen=True)
class Difference:
    """The score of a first head less that of a second, with a 95 % interval and a p.

    Parameters
    ----------
    value, low, high : float
        In the score's unit; NaN where the score needs a class that has no image.
    p : float or None
        Two-sided, of no difference; below 0.05 just where the interval leaves out 0. None is no
        verdict: a random head has one fit, one group is all there is, or `value` is NaN.
    covers_seeds : bool
        False where either head is random and has one fit: the interval is about images only.
    """

    value: float
    low: float
    high: float
    p: float | None
    covers_seeds: bool


def estimate(
    target: npt.ArrayLike,
    p: npt.ArrayLike,
    score: str = "accuracy",
    *,
    random: bool = True,
    groups: npt.ArrayLike | None = None,
    predicted: npt.ArrayLike | None = None,
) -> Estimate:
    """Return a head's score over its seeds, with an interval for other images and seeds.

    The images' variance is the infinitesimal jackknife's (Efron & Tibshirani, "An introduction to
    the bootstrap", 1993), for ROC AUC that of DeLong et al., 1988; the seeds' is that of a two-way
    random model. The margin has Student's t of each part's degrees of freedom (Satterthwaite,
    1946), weighted by their variances (Cochran, 1964). Scores from 0 to 1 of which more is better
    have Wilson's interval, 1927.

    Parameters
    ----------
    target : int (n,)
        True classes, positions 0 to k - 1 in the task's classes, the positive one first.
    p : float (fits, n, k)
        Each fit's probabilities of the same images.
    score : str
        One of :data:`~fer_features.experiment.scores.SCORES`, computed as
        :func:`fer_features.experiment.scores.score` does.
    random : bool
        Whether a seed changes this head.
    groups : array (n,), optional
        Images of equal value are one draw: of one person, or copies of one image. By default each
        image is one.
    predicted : int (fits, n), optional
        What the classifier itself answers, positions 0 to k - 1; the most probable class
        otherwise, the first of ties.

    Returns
    -------
    Estimate
        The mean over the fits and its 95 % interval, in the score's unit; NaN where the score
        needs a class that has no image.

    Raises
    ------
    OptionError
        When the score is unknown.
    ValueError
        When shapes do not fit, there are no images or no fits, a class is outside 0 to k - 1, or a
        probability is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features.experiment.statistics import estimate
    >>> target = np.repeat([0, 1], 50)
    >>> p = np.full((1, 100, 2), 0.5)  # one fit, 100 images, two classes
    >>> p[0, :, 0] += np.where(target == 0, 0.2, -0.2)
    >>> p[0, :10] = [0.4, 0.6]  # ten mistakes
    >>> p[0, 10:, 1] = 1 - p[0, 10:, 0]
    >>> found = estimate(target, p, "accuracy", random=False)
    >>> round(found.value, 2), found.low < 0.9 < found.high, found.covers_seeds
    (0.9, True, True)
    """
    known = _measured(target, p, score, groups, predicted)
    fits, n = len(known.values), len(known.target)
    value = float(known.values.mean())
    covers = fits > 1 or not random
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, fits, n, covers)
    seeds = _seed_parts([known])
    if score in _LOSSES:
        margin = _Quantile(*_image_part(known, known.mean_influence), *seeds).of(1 - LEVEL)
        low, high = max(value - margin, 0.0), min(value + margin, known.top)
    else:
        low, high = _within_one(value, known, seeds)
    return Estimate(value, low, high, fits, n, covers)


def difference(
    target: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    score: str = "accuracy",
    *,
    random: tuple[bool, bool] = (True, True),
    groups: npt.ArrayLike | None = None,
    predicted: tuple[npt.ArrayLike | None, npt.ArrayLike | None] = (None, None),
) -> Difference:
    """Return how much higher a first head scores than a second, paired by image.

    Two sizes of training set, or two settings, are compared in the same way. The interval is made
    as that of :func:`estimate`, of each image's influence on the one head less that on the other;
    p is the level at which it just reaches 0.

    Parameters
    ----------
    target : int (n,)
        True classes, positions 0 to k - 1 in the task's classes, the positive one first.
    a, b : float (fits, n, k)
        The probabilities of each head's fits, of the same images; the two may have different
        numbers of fits. Seeds are not taken as paired.
    score : str
        One of :data:`~fer_features.experiment.scores.SCORES`; of ``log_loss``, ``brier`` and
        ``ece`` less is better.
    random : (bool, bool)
        Whether a seed changes `a`, and `b`.
    groups : array (n,), optional
        Images of equal value are one draw. By default each image is one.
    predicted : (int (fits, n), int (fits, n)), optional
        What each classifier itself answers, or None for its most probable class.

    Returns
    -------
    Difference
        The mean of `a` less that of `b`, its 95 % interval, and p.

    Raises
    ------
    OptionError
        When the score is unknown.
    ValueError
        As :func:`estimate`.

    Examples
    --------
    >>> import numpy as np
    >>> from fer_features.experiment.statistics import difference
    >>> rng = np.random.default_rng(0)
    >>> target = rng.integers(0, 2, 200)
    >>> good, bad = np.clip(target + rng.normal(0, 0.5, (2, 3, 200)) * [[[0.6]], [[1.5]]], 0, 1)
    >>> a, b = (np.stack([1 - p, p], axis=2) for p in (good, bad))  # three fits each
    >>> found = difference(target, a, b, "accuracy")
    >>> found.value > 0, found.p < 0.05
    (True, True)
    """
    sides = [
        _measured(target, each, score, groups, said)
        for each, said in zip((a, b), predicted, strict=True)
    ]
    first, second = sides
    value = float(first.values.mean() - second.values.mean())
    covers = all(len(s.values) > 1 or not r for s, r in zip(sides, random, strict=True))
    if np.isnan(value):
        return Difference(value, np.nan, np.nan, None, covers)
    images, df = _image_part(first, first.mean_influence - second.mean_influence)
    if score in _DECIDED:
        # Where no image tells two heads apart, one of the next few still may.
        images = max(images, *(float(((s.weights / s.sizes) ** 2).sum()) for s in sides))
    quantile = _Quantile(images, df, *_seed_parts(sides))
    margin = quantile.of(1 - LEVEL)
    low, high = max(value - margin, -first.top), min(value + margin, first.top)
    judged = covers and bool(np.isfinite(margin))
    return Difference(value, low, high, quantile.p(abs(value)) if judged else None, covers)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values after Holm's step-down correction, in the order given.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Parameters
    ----------
    p_values : sequence of float or None
        Each from 0 to 1. None, no verdict, stays None and is not counted among the tests.

    Returns
    -------
    list of float or None
        As many, each from 0 to 1.

    Examples
    --------
    >>> from fer_features.experiment.statistics import holm
    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = [i for i, p in enumerate(p_values) if p is not None]
    p = np.array([p_values[i] for i in known], dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    corrected: list[float | None] = [None] * len(p_values)
    for place, value in zip(order, stepped, strict=True):
        corrected[known[place]] = float(value)
    return corrected


@dataclass(frozen=True)
class _Measured:
    """One head's fits under one score.

    ``values`` (fits,) are their scores; ``influences`` (fits, n) each image's on them; ``drawn``
    (n,) which of the ``draws`` an image is of, itself or its group; ``top`` is the score's
    greatest value. ``sizes`` (parts,) are the images that a plain proportion would rest on, of
    each class that the score averages over with ``weights`` (parts,), and ``thinning`` (parts,)
    the draws to an image there.
    """

    score: str
    target: Int
    drawn: Int
    draws: int
    values: Float
    influences: Float
    top: float
    sizes: Float
    weights: Float
    thinning: Float

    @property
    def mean_influence(self) -> Float:
        """Each image's influence on the mean over the fits, (n,)."""
        mean: Float = self.influences.mean(axis=0)
        return mean

    def by_draw(self, influence: Float) -> Float:
        """Add up what the images of each draw do: (n,) to (draws,)."""
        return np.bincount(self.drawn, weights=influence, minlength=self.draws).astype(np.float64)


def _measured(
    target: npt.ArrayLike,
    p: npt.ArrayLike,
    score: str,
    groups: npt.ArrayLike | None,
    predicted: npt.ArrayLike | None,
) -> _Measured:
    """Check the arguments of :func:`estimate` and measure a head by them."""
    if score not in SCORES:
        raise OptionError(f"score: {score!r}, expected one of {', '.join(SCORES)}. Name one.")
    target, p = np.asarray(target, dtype=np.int64), np.asarray(p, dtype=np.float64)
    if p.ndim != 3 or not p.size or target.shape != p.shape[1:2]:
        raise ValueError(
            f"p: shape {p.shape} for a target of shape {target.shape}, expected (fits, n, classes) "
            "for (n,), with a fit and an image at least."
        )
    fits, n, k = p.shape
    if not np.isfinite(p).all():
        raise ValueError("p: not finite everywhere, expected probabilities.")
    said = p.argmax(axis=2) if predicted is None else np.asarray(predicted, dtype=np.int64)
    drawn = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    for name, found, shape in (("predicted", said, (fits, n)), ("groups", drawn, (n,))):
        if found.shape != shape:
            raise ValueError(f"{name}: shape {found.shape}, expected {shape}.")
    if min(target.min(), said.min()) < 0 or max(target.max(), said.max()) >= k:
        raise ValueError(f"target, predicted: classes outside 0 to {k - 1}, the positions in p.")
    present = np.bincount(target, minlength=k) > 0
    scored = [_scored(score, target, p[fit], said[fit], present) for fit in range(fits)]
    values, influences = (np.array(each) for each in zip(*scored, strict=True))
    top = {"log_loss": np.inf, "brier": 1.0 if k == 2 else 2.0}.get(score, 1.0)
    parts = _parts(score, target, said, present, drawn)
    return _Measured(score, target, drawn, int(drawn.max()) + 1, values, influences, top, *parts)


def _parts(
    score: str, target: Int, said: Int, present: Bool, drawn: Int
) -> tuple[Float, Float, Float]:
    """Return sizes, weights and thinning of the classes over which a score averages."""
    k = len(present)
    if score == "accuracy" or score in _LOSSES:
        n = len(target)
        return np.full(1, float(n)), np.ones(1), np.full(1, len(np.unique(drawn)) / n)
    classes = np.flatnonzero(present)
    weight = 1 / (len(classes) if score == "balanced_accuracy" else k)
    if k == 2 and score != "balanced_accuracy":
        weight, classes = 1.0, np.arange(2 if score == "roc_auc" else 1)
    true = np.array([(target == c).sum() for c in classes], dtype=np.float64)
    answers = np.array([(said == c).sum(axis=1).mean() for c in classes])
    sizes = {"precision": answers, "f1": (true + answers) / 2}.get(score, true)
    held = np.array([len(np.unique(drawn[target == c])) for c in classes], dtype=np.float64)
    thinning = np.maximum(held, 1) / np.maximum(true, 1)
    return np.maximum(sizes, 1), np.full(len(classes), weight), thinning


def _image_part(known: _Measured, influence: Float) -> tuple[float, float]:
    """Return the variance of what `influence` (n,) is of, and its degrees of freedom.

    The latter are Satterthwaite's over the true classes, few where a small one makes most of it.
    """
    if known.draws < 2:
        return np.inf, 1.0
    variance = float((known.by_draw(influence) ** 2).sum()) * known.draws / (known.draws - 1)
    by_class = np.bincount(known.target, weights=influence**2)
    sizes = np.bincount(known.target)
    squares = float((by_class**2 / np.maximum(sizes - 1, 1)).sum())
    df = by_class.sum() ** 2 / squares if squares else np.inf
    return variance, float(np.clip(df, 1, known.draws - 1))


def _seed_parts(sides: Sequence[_Measured]) -> tuple[float, float]:
    """Return the variance that seeds add to some heads' means, and its degrees of freedom.

    The latter are those of the seeds' scores before the images' share is taken out.
    """
    rest, whole, squares = 0.0, 0.0, 0.0
    for side in sides:
        fits = len(side.values)
        if fits < 2:
            continue
        scatter = float(side.values.var(ddof=1)) / fits
        apart = [side.by_draw(each) for each in side.influences - side.mean_influence]
        rest += scatter - float(np.square(apart).sum()) / (fits * (fits - 1))
        whole += scatter
        squares += scatter**2 / (fits - 1)
    return max(rest, 0.0), (whole**2 / squares if squares else np.inf)


@dataclass(frozen=True)
class _Quantile:
    """Two-sided margins around a value whose variance is a sum of two parts (Cochran 1964)."""

    images: float
    images_df: float
    seeds: float
    seeds_df: float

    def of(self, level: float) -> float:
        """Return the margin that is exceeded with a probability of `level`, in the value's unit."""
        variance = self.images + self.seeds
        if not 0 < variance < np.inf:
            return float(variance)
        share = self.seeds / variance
        t = (1 - share) * _t(level, self.images_df) + share * _t(level, self.seeds_df)
        return float(t * np.sqrt(variance))

    def p(self, value: float) -> float:
        """Return the level whose margin is `value`."""
        if value == 0:
            return 1.0
        least = 1e-100
        if self.of(least) <= value:
            return 0.0
        return float(np.exp(brentq(lambda log: self.of(np.exp(log)) - value, np.log(least), 0)))


def _t(level: float, df: float) -> float:
    return float(-stdtrit(min(df, 1e9), level / 2))


def _within_one(value: float, known: _Measured, seeds: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of a score from 0 to 1: Wilson's, of images as few as are as uncertain.

    ``ratio`` is the variance that images add, to that of a plain proportion. Few images show it
    badly, so an image as uncertain as a plain proportion's is added to each class, and where
    answers are counted one error's worth of a plain proportion to all; of 3,400 images that is
    nothing, of 11 that are all right it is all there is.
    """
    spread = value * (1 - value)
    plain = float((known.weights**2 / (known.sizes * known.thinning)).sum())  # 1 / draws
    if spread < 1e-12 or known.draws < 2:
        return _wilson(value, _Quantile(plain, np.inf, 0.0, np.inf))
    images, df = _image_part(known, known.mean_influence)
    n = len(known.target)
    more = float(((known.weights / known.sizes) ** 2).sum())
    ratio = (images * (1 - 1 / n) / spread + more) / (plain + more)
    if known.score != "roc_auc":  # that is of distances, and is exact long before it is perfect
        errors = spread / float((known.weights**2 / known.sizes).sum())
        ratio = (ratio * errors + 1) / (errors + 1)
    if (known.sizes * known.thinning < 2).any():
        ratio = max(ratio, 1.0)  # a class seen in one draw shows no variance of its own
    if known.draws == n and len(known.sizes) == 1 and known.score in _DECIDED:
        df = np.inf  # as for Wilson, whose variance is known where the value is
    return _wilson(value, _Quantile(ratio * plain, df, seeds[0] / spread, seeds[1]))


def _wilson(value: float, quantile: _Quantile) -> tuple[float, float]:
    """Return Wilson's interval; the quantile's variances are 1 / images."""
    q2 = quantile.of(1 - LEVEL) ** 2
    half = np.sqrt(q2 * (value * (1 - value) + q2 / 4))
    low, high = (value + q2 / 2 - half) / (1 + q2), (value + q2 / 2 + half) / (1 + q2)
    return max(float(low), 0.0), min(float(high), 1.0)


def _scored(score: str, target: Int, p: Float, said: Int, present: Bool) -> tuple[float, Float]:
    """Return one fit's score and the influence of each image (n,); these add up to 0."""
    n, k = p.shape
    right = said == target
    if score == "accuracy":
        return _mean(right.astype(np.float64))
    if score == "log_loss":
        tiny = np.finfo(np.float64).eps
        return _mean(-np.log(np.clip(p[np.arange(n), target], tiny, 1 - tiny)))
    if score == "brier":
        errors = (p - np.eye(k)[target]) ** 2
        return _mean(errors[:, 0] if k == 2 else errors.sum(axis=1))
    if score == "ece":
        sure, came = confidence(target, p)
        bins = bin_of(sure)
        gaps = np.bincount(bins, weights=sure - came, minlength=BINS)
        # Of a bin that is exactly right the sign would be that of rounding, by the images' order.
        return _mean(np.sign(np.round(gaps, 9))[bins] * (sure - came))
    if score in _RANKED and not present.all():
        return np.nan, np.zeros(n)
    classes = np.flatnonzero(present) if score == "balanced_accuracy" else np.arange(k)
    classes = classes[:1] if k == 2 and score != "balanced_accuracy" else classes
    found = [_of_class(score, target == c, said == c, p[:, c]) for c in classes]
    return float(np.mean([v for v, _ in found])), np.mean([u for _, u in found], axis=0)


def _of_class(score: str, true: Bool, said: Bool, p: Float) -> tuple[float, Float]:
    """Return what :func:`_scored` does, of one class against the rest."""
    if score in _RANKED:
        return _roc_auc(true, p) if score == "roc_auc" else _average_precision(true, p)
    # Each is a ratio of two sums over the images.
    hit = (true & said).astype(np.float64)
    below = {"precision": 1.0 * said, "f1": (1.0 * true + said) / 2}.get(score, 1.0 * true)
    total = float(below.sum())
    value = float(hit.sum()) / total if total else 0.0
    return value, (hit - value * below) / (total or 1.0)


def _mean(values: Float) -> tuple[float, Float]:
    return float(values.mean()), (values - values.mean()) / len(values)


def _roc_auc(true: Bool, p: Float) -> tuple[float, Float]:
    """Return the area under the ROC curve, ties counted half, by the ranks (DeLong et al. 1988)."""
    hits, others = int(true.sum()), int((~true).sum())
    beaten = rankdata(p)
    beaten[true] = (beaten[true] - rankdata(p[true])) / others
    beaten[~true] = 1 - (beaten[~true] - rankdata(p[~true])) / hits
    value = float(beaten[true].mean())
    return value, (beaten - value) / np.where(true, hits, others)


def _average_precision(true: Bool, p: Float) -> tuple[float, Float]:
    """Return the mean over the true images of the precision at their probability."""
    order = np.argsort(-p, kind="stable")
    _, step = np.unique(-p[order], return_inverse=True)
    hit = true[order].astype(np.float64)
    on_step = np.bincount(step, weights=hit)  # true images on each step, the highest first
    found, seen = np.cumsum(on_step), np.cumsum(np.bincount(step)).astype(np.float64)
    precision = found / seen
    value = float((on_step * precision).sum() / hit.sum())
    # one image more on a step is seen, and if true found, on every step from there down
    gain = np.cumsum((on_step / seen)[::-1])[::-1]
    loss = np.cumsum((on_step * precision / seen)[::-1])[::-1]
    influence = np.empty(len(p))
    influence[order] = (hit * (precision[step] - value + gain[step]) - loss[step]) / hit.sum()
    return value, influence
