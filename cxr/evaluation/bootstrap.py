"""Intervals for scores: a bootstrap over patients, and DeLong's for areas under the ROC curve.

Images of one child are not independent, so patients are drawn, with all of their images (cluster bootstrap: A. C.
Davison, D. V. Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Every score is computed for all
resamples at once, from the weight that each image has in each of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy.stats import norm, rankdata

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A score and its interval; all None where the score does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


def patient_weights(patients: ndarray, seed: int, resamples: int = RESAMPLES) -> ndarray:
    """How often each image is in each resample, `float32` of shape (resamples, n); `patients` (n,) are their names."""
    _, of = np.unique(patients, return_inverse=True)
    count = int(of.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, of].astype(np.float32)


def percentile(value: float | None, resampled: ndarray) -> Estimate:
    """The interval between the percentiles of the resampled scores; those that do not exist (NaN) are left out."""
    known = resampled[np.isfinite(resampled)]
    if value is None or not np.isfinite(value) or not len(known):
        return Estimate(None)
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(value), float(low), float(high))


def mean(values: ndarray, weights: ndarray) -> ndarray:
    """Weighted mean of (n,) in each resample, of shape (R,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ values / weights.sum(1)


def confusion(labels: ndarray, predicted: ndarray, classes: int, weights: ndarray) -> ndarray:
    """Weighted counts of shape (R, C, C): truth in rows, predicted in columns."""
    cells = np.zeros((len(labels), classes * classes), dtype=np.float32)
    cells[np.arange(len(labels)), labels * classes + predicted] = 1
    return (weights @ cells).reshape(len(weights), classes, classes)


def auc(truth: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    """Weighted area under the ROC curve in each resample, ties counted half, of shape (R,); NaN without both kinds."""
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    positive = np.add.reduceat((weights * truth)[:, order], starts, axis=1, dtype=np.float64)
    negative = np.add.reduceat((weights * ~truth)[:, order], starts, axis=1, dtype=np.float64)
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))


def average_precision(truth: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    """Weighted average precision in each resample, as scikit-learn's, of shape (R,); NaN without positives."""
    order = np.argsort(-score, kind="stable")
    _, starts = np.unique(-score[order], return_index=True)
    positive = np.add.reduceat((weights * truth)[:, order], starts, axis=1, dtype=np.float64)
    every = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.cumsum(positive, axis=1) / np.cumsum(every, axis=1)
        return np.nansum(precision * positive, axis=1) / positive.sum(1)


def delong(truth: ndarray, score: ndarray) -> Estimate:
    """Area under the ROC curve with DeLong's interval, cut to 0..1.

    E. R. DeLong et al., Biometrics 44 (1988), by the mid-ranks of X. Sun and W. Xu, IEEE Signal Processing Letters 21
    (2014). Images count as independent here.
    """
    positive, negative = score[truth], score[~truth]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        return Estimate(None)
    ranks = rankdata(np.concatenate([positive, negative]))
    of_positive = (ranks[:m] - rankdata(positive)) / n  # share of negatives below each positive
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    value = of_positive.mean()
    spread = np.sqrt(of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n)
    half = norm.ppf(0.5 + LEVEL / 2) * spread
    return Estimate(float(value), float(max(0.0, value - half)), float(min(1.0, value + half)))


def mcnemar(one: ndarray, other: ndarray) -> float:
    """Exact two-sided p value that two classifiers are right equally often; arguments: right or wrong, bool (n,).

    Q. McNemar, Psychometrika 12 (1947), in its binomial form.
    """
    from scipy.stats import binomtest

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0
