"""Calibration: one temperature for all logits, fitted on validation, and how far probabilities are from the truth.

Temperature scaling: C. Guo et al., "On calibration of modern neural networks" (ICML 2017).
"""

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize_scalar

from cxr.serving.probabilities import softmax

BINS = 15
_LOG_RANGE = (np.log(0.05), np.log(20.0))  # temperatures that a sane network could need


def fit_temperature(logits: ndarray, labels: ndarray) -> float:
    """The temperature that makes `softmax(logits / T)` likeliest for `labels`; logits (n, C), labels (n,)."""
    found = minimize_scalar(
        lambda t: negative_log_likelihood(softmax(logits / np.exp(t)), labels), bounds=_LOG_RANGE, method="bounded"
    )
    return float(np.exp(found.x))


def negative_log_likelihood(probabilities: ndarray, labels: ndarray) -> float:
    """Mean negative log probability of the truth, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def brier(probabilities: ndarray, labels: ndarray) -> float:
    """Mean squared distance to the truth, summed over classes: 0 (perfect) to 2 (G. W. Brier, 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def expected_calibration_error(confidence: ndarray, correct: ndarray, *, adaptive: bool = False) -> float:
    """Mean distance of confidence and accuracy over 15 bins of equal width, or of equal count (`adaptive`)."""
    bins = _binned(confidence, correct, adaptive)
    return float(sum(len(part) * abs(part.mean() - own.mean()) for part, own in bins) / len(confidence))


def reliability(confidence: ndarray, correct: ndarray) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each bin of equal width that has any."""
    return [(float(c.mean()), float(t.mean()), len(c)) for c, t in _binned(confidence, correct, adaptive=False)]


def measures(probabilities: ndarray, labels: ndarray) -> dict[str, float]:
    """All of the above for the predicted class, by name."""
    confidence, correct = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
    return {
        "ece": expected_calibration_error(confidence, correct),
        "adaptive_ece": expected_calibration_error(confidence, correct, adaptive=True),
        "brier": brier(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
    }


def _binned(confidence: ndarray, correct: ndarray, adaptive: bool) -> list[tuple[ndarray, ndarray]]:
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        groups = [part for part in np.array_split(order, BINS) if len(part)]
    else:
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        groups = [np.flatnonzero(place == number) for number in np.unique(place)]
    return [(confidence[group], correct[group]) for group in groups]
