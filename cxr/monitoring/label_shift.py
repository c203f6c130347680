"""Shares of the true classes, estimated from answers without truths: black-box shift estimation.

If only the shares of the classes have changed and images of each class look as before, shares of predicted classes mu
and shares of true classes q are tied by the confusion matrix of validation, mu = M q with M[i, j] the share of images
of class j that are called i: q = M^-1 mu (Z. Lipton, Y. Wang, A. Smola, "Detecting and correcting for label shift with
black box predictors", ICML 2018). The condition number of M says how much the inverse enlarges errors.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap
from cxr.evaluation.statistics import Estimate
from cxr.monitoring import drift

RESAMPLES = 1000
WORST = 30.0  # condition number above which nothing is estimated: errors of one percent would become those of thirty
_SMALLEST = 1e-6  # determinant of a resampled matrix below which it is left out


@dataclass(frozen=True)
class Shares:
    """Estimated shares of the classes.

    Attributes:
        values: each with its 95 % interval, in the order of the classes; empty if there is no estimate.
        condition: condition number of the confusion matrix; None if a class has no validation images.
        why_not: why there is no estimate.
    """

    values: list[Estimate]
    condition: float | None
    why_not: str = ""


def condition(confusion: ndarray) -> float | None:
    """Condition number of the shares called each class among the images of each class; None if a class has none."""
    return float(np.linalg.cond(_called(confusion))) if confusion.sum(1).all() else None


def estimate(confusion: ndarray, predicted: ndarray, effect: float, seed: int) -> Shares:
    """Estimate the shares of the true classes.

    Args:
        confusion: number of validation images by true class (rows) and predicted class, of shape (C, C).
        predicted: number of images by predicted class, of shape (C,).
        effect: design effect by which numbers of images are divided in both (see `cxr.monitoring.drift`).
        seed: of the resamples behind the intervals, which draw from both.
    """
    worth = condition(confusion)
    if worth is None:
        return Shares([], None, "a class has no validation images")
    if worth > WORST:
        why_not = f"the condition number {worth:.1f} of the confusion matrix is above {WORST:g}"
        return Shares([], worth, f"{why_not}: the model hardly tells the classes apart")
    classes, rng = len(predicted), np.random.default_rng(seed)
    found = _inverse(_called(confusion), predicted / predicted.sum())
    sizes = [max(1, int(counts.sum() / effect)) for counts in (confusion, predicted)]
    matrices = rng.multinomial(sizes[0], confusion.ravel() / confusion.sum(), RESAMPLES).reshape(-1, classes, classes)
    calls = rng.multinomial(sizes[1], predicted / predicted.sum(), RESAMPLES) / sizes[1]
    usable = matrices.sum(2).all(1)
    usable[usable] &= np.abs(np.linalg.det(_called(matrices[usable]))) > _SMALLEST
    matrices, calls = matrices[usable], calls[usable]
    if len(matrices) < RESAMPLES / 2:
        return Shares([], worth, "there are too few validation images of a class")
    drawn = _inverse(_called(matrices), calls)
    values = [bootstrap.percentile(float(found[i]), drawn[:, i]) for i in range(classes)]
    return Shares(values, worth)


def change_by_chance(confusion: ndarray, images: float, effect: float, chance: float) -> ndarray:
    """The change of each estimated share that images from the source of the reference exceed with this probability.

    Of shape (C,). Simulated, since shares that end at 0 and 1 have no Gaussian error, and not from the answers
    themselves, which show the less of it the farther they are off. Without a change, the matrix of validation turns the
    shares called each class in validation into its shares of true classes, however poorly it is known.

    Args:
        confusion: as for `estimate`, which must be possible.
        images: number of images.
        effect: as for `estimate`.
        chance: from above 0 to 0.01 (see `drift.continued`).
    """
    counted = tuple(map(tuple, confusion.tolist()))
    return drift.continued(_quantiles(counted, effect, drift.simulated(images / effect)), chance)


@lru_cache(maxsize=1024)
def _quantiles(confusion: tuple[tuple[int, ...], ...], effect: float, images: int) -> ndarray:
    """Upper quantiles `drift.TAIL` of the changes under no change, of shape (2, C)."""
    known = np.array(confusion)
    rng = np.random.default_rng([images, len(known)])
    calls = rng.multinomial(images, rng.dirichlet(known.sum(0) / effect + drift.SMOOTHING, drift.DRAWS)) / images
    changes = np.abs(_inverse(_called(known), calls) - known.sum(1) / known.sum())
    return np.quantile(changes, 1 - np.array(drift.TAIL), axis=0)


def _called(confusion: ndarray) -> ndarray:
    """Share called each class (rows) among the images of each class (columns), of shape (..., C, C)."""
    return np.swapaxes(confusion / confusion.sum(-1, keepdims=True), -1, -2)


def _inverse(called: ndarray, calls: ndarray) -> ndarray:
    """Shares of the true classes, of shape (..., C); below 0 they become 0, and the rest is scaled to a sum of 1."""
    shares = np.clip(np.linalg.solve(called, calls[..., None])[..., 0], 0, None)
    return shares / shares.sum(-1, keepdims=True)
