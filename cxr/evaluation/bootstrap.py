"""Confidence intervals: a bootstrap over patients, and DeLong's interval for areas under the ROC curve.

Images of one patient are not independent, so patients are resampled with all of their images (cluster bootstrap: A. C.
Davison, D. V. Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Every score is computed for all
resamples at once, from the weight of each image in each resample.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy import ndarray
from scipy.stats import beta, binomtest, norm, rankdata

from cxr.evaluation.statistics import Estimate

RESAMPLES = 2000
LEVEL = 0.95
FEW = 5  # patients
_BLOCK = 4_000_000  # weights at a time: memory stays flat, however many images there are


def patient_weights(patients: ndarray, seed: int, resamples: int = RESAMPLES) -> ndarray:
    """How often each image is in each resample, `uint8` of shape (resamples, n); `patients` are names, shape (n,).

    A patient is drawn once on average: 255 times does not happen.
    """
    _, patient_of_image = np.unique(patients, return_inverse=True)
    count = int(patient_of_image.max()) + 1
    rng, even = np.random.default_rng(seed), np.full(count, 1 / count)
    weights = np.empty((resamples, len(patients)), dtype=np.uint8)
    for rows in _rows(weights):
        draws = rng.multinomial(count, even, size=rows.stop - rows.start).astype(np.uint8)
        weights[rows] = draws[:, patient_of_image]
    return weights


def in_blocks(statistic: Callable[[ndarray], dict[str, ndarray]], weights: ndarray) -> dict[str, ndarray]:
    """The values by name that `statistic` gives for `weights` (R, n), of shape (R, ...), for some rows at a time."""
    parts = [statistic(weights[rows].astype(np.float32)) for rows in _rows(weights)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(weights: ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, weights.shape[1]))
    return (slice(start, min(start + step, len(weights))) for start in range(0, len(weights), step))


def percentile(value: float | None, resampled: ndarray) -> Estimate:
    """The interval between percentiles of the resampled scores; undefined ones (NaN) are left out."""
    defined = resampled[np.isfinite(resampled)]
    if value is None or not np.isfinite(value) or not len(defined):
        return Estimate(value=None)
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(value=float(value), low=float(low), high=float(high))


def of_share(value: float | None, resampled: ndarray, patients: int) -> Estimate:
    """The interval of a share of the images of so many `patients`: as `percentile`, but no narrower than an exact one.

    Resamples of a share near 0 or 1 vary too little, and those of 0 or 1 not at all: percentiles would claim certainty,
    however few images there are. With fewer than `FEW` exceptions the interval reaches at least as far as that of C. J.
    Clopper and E. S. Pearson, Biometrika 26 (1934), with the patients as trials, since images of one patient are not
    independent.
    """
    found = percentile(value, resampled)
    if found.value is None or found.low is None or found.high is None:
        return found
    yes, no, tail = found.value * patients, (1 - found.value) * patients, (1 - LEVEL) / 2
    if not patients or min(yes, no) >= FEW:
        return found
    low = float(beta.ppf(tail, yes, no + 1)) if yes else 0.0
    high = float(beta.ppf(1 - tail, yes + 1, no)) if no else 1.0
    return Estimate(value=found.value, low=min(low, found.low), high=max(high, found.high))


def of_difference(first: Estimate, second: Estimate) -> Estimate:
    """The interval of `first` - `second`, both defined and of other patients, from their intervals.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10: the distances of the ends from the values add up as the sides of a right angle.
    """
    value, low, high = _numbers(first)
    other, other_low, other_high = _numbers(second)
    below, above = math.hypot(value - low, other_high - other), math.hypot(high - value, other - other_low)
    return Estimate(value=value - other, low=value - other - below, high=value - other + above)


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        raise ValueError("expected a defined estimate")
    return estimate.value, estimate.low, estimate.high


def basic(value: float, resampled: ndarray) -> Estimate:
    """The basic interval of a distance from the truth, which is 0 at least and which resampling enlarges.

    What resamples exceed the sample by, the sample exceeds the truth by, so that the percentiles are mirrored at
    `value` (Davison and Hinkley, section 5.2). `value` itself stays in the interval. Undefined ones (NaN) are left out.
    """
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(value=None)
    low, high = 2 * value - np.percentile(defined, [50 * (1 + LEVEL), 50 * (1 - LEVEL)])
    return Estimate(value=float(value), low=float(max(0.0, low)), high=float(max(value, high)))


def mean(values: ndarray, weights: ndarray) -> ndarray:
    """Weighted mean of `values` (n,) in each resample, of shape (R,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ values / weights.sum(1, dtype=np.float32)


def confusion(labels: ndarray, predicted: ndarray, classes: int, weights: ndarray) -> ndarray:
    """Weighted counts of shape (R, C, C): true classes in rows, predicted classes in columns."""
    cells = np.zeros((len(labels), classes * classes), dtype=np.float32)
    cells[np.arange(len(labels)), labels * classes + predicted] = 1
    return (weights @ cells).reshape(len(weights), classes, classes)


def auc(truth: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    """Weighted area under the ROC curve in each resample, of shape (R,); NaN unless there are both kinds.

    Ties count half.
    """
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    positive = np.add.reduceat((weights * truth)[:, order], starts, axis=1, dtype=np.float64)
    negative = np.add.reduceat((weights * ~truth)[:, order], starts, axis=1, dtype=np.float64)
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))


def average_precision(truth: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    """Weighted average precision in each resample, as in scikit-learn, of shape (R,); NaN without positives."""
    order = np.argsort(-score, kind="stable")
    _, starts = np.unique(-score[order], return_index=True)
    positive = np.add.reduceat((weights * truth)[:, order], starts, axis=1, dtype=np.float64)
    total = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.cumsum(positive, axis=1) / np.cumsum(total, axis=1)
        return np.nansum(precision * positive, axis=1) / positive.sum(1)


def delong(truth: ndarray, score: ndarray) -> Estimate:
    """Area under the ROC curve with DeLong's interval, clipped to 0..1.

    E. R. DeLong et al., Biometrics 44 (1988), computed from mid-ranks as by X. Sun and W. Xu, IEEE Signal Processing
    Letters 21 (2014). Images are treated as independent here.
    """
    positive, negative = score[truth], score[~truth]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        return Estimate(value=None)
    ranks = rankdata(np.concatenate([positive, negative]))
    of_positive = (ranks[:m] - rankdata(positive)) / n  # share of negatives below each positive
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    value = of_positive.mean()
    spread = np.sqrt(of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n)
    half = norm.ppf(0.5 + LEVEL / 2) * spread
    return Estimate(value=float(value), low=float(max(0.0, value - half)), high=float(min(1.0, value + half)))


def mcnemar(first_right: ndarray, second_right: ndarray) -> float:
    """Exact two-sided p-value for the hypothesis that two classifiers are equally accurate.

    Q. McNemar, Psychometrika 12 (1947), in its binomial form. The arguments say which images each classifies
    correctly, bool of shape (n,).
    """
    only_first, only_second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0
