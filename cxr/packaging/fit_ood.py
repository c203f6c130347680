"""Fits the out-of-distribution detector of a model.

Training images give its shape, validation images its thresholds; the test split is not used.
"""

from dataclasses import replace

import numpy as np
from numpy import ndarray
from sklearn.linear_model import LogisticRegression

from cxr.errors import CxrError
from cxr.serving.ood import QUANTILES, OODDetector, unit

DIRECTIONS = 64
INVERTED_SHARE = 0.002  # share of validation images that the probe may call negatives
_PENALTY = 1.0  # inverse strength of the penalty of the probe, on features of unit variance
_LEAST = 10  # training images below which nothing can be fitted


def fit_detector(train: ndarray, negatives: ndarray, val: ndarray, ood_share: float) -> OODDetector:
    """Fit a detector to features of shape (n, F).

    Args:
        train: of training images.
        negatives: of training images with black and white exchanged.
        val: of validation images.
        ood_share: share of the validation images that may count as out of distribution.

    Raises:
        CxrError: there are too few images.
    """
    if len(train) < _LEAST or not len(val):
        raise CxrError(f"{len(train)} training and {len(val)} validation images; at least {_LEAST} and 1 are required")
    learnt = unit(train)
    mean, directions, rest = _gaussian(learnt)
    draft = OODDetector(mean, directions, rest, np.array(0.0), _probe(learnt, unit(negatives)), np.array(0.0))
    distances = draft.distances(val)
    far = np.quantile(distances, 1 - ood_share)
    inverted = np.maximum(np.quantile(draft.inversion_scores(val), 1 - INVERTED_SHARE), 0.0)
    kept = np.quantile(distances, np.linspace(0, 1, QUANTILES))
    return replace(draft, far=np.asarray(far), inverted=inverted, validation=kept)


def _gaussian(rows: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Mean, main directions divided by the spread along each, and the variance along each of the others."""
    mean = rows.mean(0)
    _, sizes, directions = np.linalg.svd(rows - mean, full_matrices=False)
    variances = sizes**2 / len(rows)
    kept = min(DIRECTIONS, len(rows) // 4, rows.shape[1] - 1)
    rest = max(float(variances[kept:].sum()) / (rows.shape[1] - kept), 1e-12)
    return mean, directions[:kept] / np.sqrt(np.maximum(variances[:kept], rest))[:, None], np.array(rest)


def _probe(upright: ndarray, negative: ndarray) -> ndarray:
    """Weights and bias of a logistic regression, for features as they are (not standardised)."""
    rows = np.concatenate([upright, negative])
    mean, spread = rows.mean(0), rows.std(0) + 1e-9
    model = LogisticRegression(C=_PENALTY / len(rows), max_iter=1000)
    model.fit((rows - mean) / spread, np.repeat([0, 1], [len(upright), len(negative)]))
    weights = model.coef_[0] / spread
    return np.append(weights, model.intercept_[0] - weights @ mean)
