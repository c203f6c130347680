"""Calibration slope and intercept of the probability of the finding, by logistic recalibration.

The log-odds of the probability are the one predictor of the truth in a logistic regression. D. R. Cox, "Two further
applications of a model for binary regression", Biometrika 45 (1958); B. Van Calster et al., "Calibration: the Achilles
heel of predictive analytics", BMC Medicine 17 (2019).
"""

import numpy as np
from numpy import ndarray
from scipy.special import expit, logit

from cxr.evaluation import bootstrap
from cxr.evaluation.scores import estimate
from cxr.evaluation.statistics import Estimate, Recalibration

_CERTAIN = 1e-12  # probabilities closer to 0 or 1 count as this one: their log-odds would be infinite
_STEPS, _PRECISE = 200, 1e-8
_MOST_UNDEFINED = 0.025  # share of resamples without a fit; with more, an end of the interval would be infinite


def recalibration(truth: ndarray, score: ndarray, weights: ndarray) -> Recalibration:
    """Slope and intercepts with their intervals.

    Args:
        truth: whether there is a finding, bool of shape (n,).
        score: its probability, of shape (n,).
        weights: of shape (R, n); row 0 is the sample itself.
    """
    resampled = resample(truth, score, weights)
    return Recalibration(**{name: _estimate(values) for name, values in resampled.items()})


def resample(truth: ndarray, score: ndarray, weights: ndarray) -> dict[str, ndarray]:
    """`in_the_large`, `intercept` and `slope` for every row of the weights, of shape (R,).

    NaN where no finite estimate exists: without both kinds of images, and, for a free slope, where a threshold tells
    them apart without a mistake.
    """
    odds = logit(np.clip(score, _CERTAIN, 1 - _CERTAIN))
    of_all = np.ones((1, len(truth)))
    start = {free: _fitted(odds, truth, of_all, np.array([0.0, 0.0 if free else 1.0]), free) for free in (False, True)}

    def fitted(block: ndarray) -> dict[str, ndarray]:
        large = _fitted(odds, truth, block, start[False][0], False)
        both = _fitted(odds, truth, block, start[True][0], True)
        return {"in_the_large": large[:, 0], "intercept": both[:, 0], "slope": both[:, 1]}

    return bootstrap.in_blocks(fitted, weights)


def _fitted(odds: ndarray, truth: ndarray, weights: ndarray, start: ndarray, free: bool) -> ndarray:
    """Intercept and slope of every row, of shape (R, 2), by Newton's method from `start`; a fixed slope stays.

    Where probabilities are near 0 and 1, whole steps lead ever further away, so that long ones are shortened: by the
    rule of T. Sun and Q. Tran-Dinh, "Generalized self-concordant functions" (Mathematical Programming 178, 2019), none
    increases the loss, and the last ones are whole.

    A start of NaN, from a sample that has no estimate, leaves all rows without one.
    """
    found = np.full((len(weights), 2), np.nan)
    powers = np.stack([np.ones_like(odds), odds, odds**2], 1)  # (n, 3)
    rows = np.flatnonzero(_estimable(odds, truth, weights, free))
    now, ends = np.tile(start, (len(rows), 1)), np.array([odds.min(), odds.max()])
    for _ in range(_STEPS):
        if not len(rows):
            break
        chance = expit(now @ powers[:, :2].T)
        some = weights[rows]
        gradient = (some * (truth - chance)) @ powers[:, :2]  # (rows, 2)
        curvature = (some * chance * (1 - chance)) @ powers  # (rows, 3): the two diagonal terms around the mixed one
        step = _newton(gradient, curvature, free)
        reach = np.abs(step[:, :1] + step[:, 1:] * ends).max(1)[:, None]  # of the log-odds of any image
        with np.errstate(invalid="ignore", divide="ignore"):
            now = now + step * np.where(reach > 0, np.log1p(reach) / reach, 1)
        done = np.abs(step).max(1) < _PRECISE
        found[rows[done]] = now[done]
        going = ~done & np.isfinite(step).all(1)
        rows, now = rows[going], now[going]
    return found


def _newton(gradient: ndarray, curvature: ndarray, free: bool) -> ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        if not free:
            return np.stack([gradient[:, 0] / curvature[:, 0], np.zeros(len(gradient))], 1)
        first, mixed, second = curvature.T
        step = np.stack(
            [second * gradient[:, 0] - mixed * gradient[:, 1], first * gradient[:, 1] - mixed * gradient[:, 0]], 1
        )
        return step / (first * second - mixed**2)[:, None]


def _estimable(odds: ndarray, truth: ndarray, weights: ndarray, free: bool) -> ndarray:
    """Whether each row has both kinds of images and, for a free slope, log-odds of both kinds that overlap."""
    ends = []
    for kind in (truth, ~truth):
        drawn, of_kind = weights[:, kind] > 0, odds[kind]
        ends.append((np.where(drawn, of_kind, np.inf).min(1, initial=np.inf),
                     np.where(drawn, of_kind, -np.inf).max(1, initial=-np.inf)))  # fmt: skip
    (low, high), (low_other, high_other) = ends
    both = (low <= high) & (low_other <= high_other)
    return both & (low < high_other) & (low_other < high) if free else both


def _estimate(values: ndarray) -> Estimate:
    if np.isnan(values[1:]).mean() > _MOST_UNDEFINED:
        return Estimate(value=None)
    return estimate(values)
