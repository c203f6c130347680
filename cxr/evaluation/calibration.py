"""Calibration: temperature scaling fitted on the validation split, and measures of calibration error.

Temperature scaling: C. Guo et al., "On calibration of modern neural networks" (ICML 2017).
"""

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize_scalar

from cxr.evaluation.results import CalibrationErrors
from cxr.serving.probabilities import softmax

BINS = 15
_LOG_RANGE = (np.log(0.05), np.log(20.0))  # of temperatures; far wider than any trained network needs


def fit_temperature(logits: ndarray, labels: ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of `softmax(logits / T)`.

    Logits are of shape (n, C), labels class indices of shape (n,).
    """
    minimum = minimize_scalar(
        lambda t: negative_log_likelihood(softmax(logits / np.exp(t)), labels), bounds=_LOG_RANGE, method="bounded"
    )
    return float(np.exp(minimum.x))


def negative_log_likelihood(probabilities: ndarray, labels: ndarray) -> float:
    """Mean negative log-likelihood of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def brier(probabilities: ndarray, labels: ndarray) -> float:
    """Mean squared error of the probabilities, summed over the classes: 0 (perfect) to 2 (G. W. Brier, 1950)."""
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - one_hot) ** 2).sum(1).mean())


def expected_calibration_error(confidence: ndarray, correct: ndarray, *, adaptive: bool = False) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width, or of equal count (`adaptive`)."""
    bins = _binned(confidence, correct, adaptive=adaptive)
    return float(sum(len(conf) * abs(conf.mean() - right.mean()) for conf, right in bins) / len(confidence))


def reliability(confidence: ndarray, correct: ndarray) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of every non-empty bin of equal width."""
    bins = _binned(confidence, correct, adaptive=False)
    return [(float(conf.mean()), float(right.mean()), len(conf)) for conf, right in bins]


def errors(probabilities: ndarray, labels: ndarray) -> CalibrationErrors:
    """All calibration errors of probabilities of shape (n, C)."""
    confidence, correct = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
    return CalibrationErrors(
        ece=expected_calibration_error(confidence, correct),
        adaptive_ece=expected_calibration_error(confidence, correct, adaptive=True),
        brier=brier(probabilities, labels),
        nll=negative_log_likelihood(probabilities, labels),
    )


def _binned(confidence: ndarray, correct: ndarray, *, adaptive: bool) -> list[tuple[ndarray, ndarray]]:
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        groups = [group for group in np.array_split(order, BINS) if len(group)]
    else:
        bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
        groups = [np.flatnonzero(bin_of == number) for number in np.unique(bin_of)]
    return [(confidence[group], correct[group]) for group in groups]
