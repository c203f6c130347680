"""Fit the guard of a model: what training images look like to it, and from where on a picture is too unlike them.

Training images tell the shape, validation images the thresholds; the test part is not touched.
"""

from dataclasses import replace

import numpy as np
from numpy import ndarray
from sklearn.linear_model import LogisticRegression

from cxr.errors import CxrError
from cxr.serving.ood import OODDetector, unit

DIRECTIONS = 64
INVERTED_SHARE = 0.002  # of validation images that the probe may call negatives
_PENALTY = 1.0  # inverse strength of the probe's penalty, on features of unit spread
_LEAST = 10  # training images without which nothing can be fitted


def fit(train: ndarray, negatives: ndarray, val: ndarray, ood_share: float) -> OODDetector:
    """A guard from features (n, F): of training images, of the same or others as negatives, of validation images.

    A share `ood_share` of the validation images may lie too far from training.
    """
    if len(train) < _LEAST or not len(val):
        raise CxrError(f"{len(train)} training and {len(val)} validation images; {_LEAST} and 1 are needed at least")
    learnt = unit(train)
    mean, directions, rest = _gaussian(learnt)
    draft = OODDetector(mean, directions, rest, np.float64(0), _probe(learnt, unit(negatives)), np.float64(0))
    far = np.quantile(draft.distances(val), 1 - ood_share)
    return replace(draft, far=far, inverted=np.maximum(np.quantile(draft.negatives(val), 1 - INVERTED_SHARE), 0.0))


def _gaussian(rows: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Mean, main directions over their spreads, and the variance along each of the others."""
    mean = rows.mean(0)
    _, sizes, directions = np.linalg.svd(rows - mean, full_matrices=False)
    variances = sizes**2 / len(rows)
    kept = min(DIRECTIONS, len(rows) // 4, rows.shape[1] - 1)
    rest = max(float(variances[kept:].sum()) / (rows.shape[1] - kept), 1e-12)
    return mean, directions[:kept] / np.sqrt(np.maximum(variances[:kept], rest))[:, None], np.float64(rest)


def _probe(upright: ndarray, negative: ndarray) -> ndarray:
    """Weights and bias of a logistic regression, for features as they are (not standardised)."""
    rows = np.concatenate([upright, negative])
    mean, spread = rows.mean(0), rows.std(0) + 1e-9
    model = LogisticRegression(C=_PENALTY / len(rows), max_iter=1000)
    model.fit((rows - mean) / spread, np.repeat([0, 1], [len(upright), len(negative)]))
    weights = model.coef_[0] / spread
    return np.append(weights, model.intercept_[0] - weights @ mean)
