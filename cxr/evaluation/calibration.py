"""Calibration: temperature scaling fitted on the validation split, and measures of calibration with their intervals.

Temperature scaling and expected calibration error: C. Guo et al., "On calibration of modern neural networks" (ICML
2017). Slope and intercept are in `cxr.evaluation.recalibration`.

Measures are computed for all rows of `weights` at once, of shape (R, n), as `cxr.evaluation.scores` does.
"""

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize_scalar

from cxr.evaluation import bootstrap
from cxr.evaluation.scores import Sample, estimate, summarised
from cxr.evaluation.statistics import CalibrationErrors, Estimate
from cxr.serving.probabilities import softmax

BINS = 15
_LOG_RANGE = (np.log(0.05), np.log(20.0))  # of temperatures; far wider than any network needs that makes mistakes


def fit_temperature(logits: ndarray, labels: ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of `softmax(logits / T)`.

    Logits are of shape (n, C), labels class indices of shape (n,). Where every answer is right, the likelihood grows
    without end as T falls: then T is at least 1, so that no confidence is added that nothing speaks for.
    """
    lowest = 0.0 if (logits.argmax(1) == labels).all() else _LOG_RANGE[0]
    minimum = minimize_scalar(
        lambda t: negative_log_likelihood(softmax(logits / np.exp(t)), labels),
        bounds=(lowest, _LOG_RANGE[1]),
        method="bounded",
    )
    return float(np.exp(minimum.x))


def negative_log_likelihood(probabilities: ndarray, labels: ndarray) -> float:
    """Mean negative log-likelihood of the true class, in nats."""
    return float(_surprise(probabilities, labels).mean())


def _surprise(probabilities: ndarray, labels: ndarray) -> ndarray:
    """Negative log-likelihood of the true class of each image, of shape (n,)."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1))


def _squares(probabilities: ndarray, labels: ndarray) -> ndarray:
    """Squared error of the probabilities of each image, summed over the classes, of shape (n,)."""
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


def brier(probabilities: ndarray, labels: ndarray) -> float:
    """Mean squared error of the probabilities, summed over the classes: 0 (perfect) to 2 (G. W. Brier, 1950)."""
    return float(_squares(probabilities, labels).mean())


def expected_calibration_error(confidence: ndarray, correct: ndarray, weights: ndarray) -> ndarray:
    """Mean gap between confidence and accuracy over 15 bins of equal width, of shape (R,)."""
    of_bin = np.eye(BINS)[_bin_of(confidence)] * (confidence - correct)[:, None]  # (n, BINS)
    return np.abs(weights @ of_bin).sum(1) / weights.sum(1)


def adaptive_calibration_error(confidence: ndarray, correct: ndarray, weights: ndarray) -> ndarray:
    """As `expected_calibration_error`, over 15 bins of equal count, which each resample has of its own."""
    order = np.argsort(confidence, kind="stable")
    ordered = weights[:, order].astype(np.float64)
    start = np.zeros((len(weights), 1))
    counts = np.hstack([start, ordered.cumsum(1)])  # (R, 1 + n)
    gaps = np.hstack([start, (ordered * (confidence - correct)[order]).cumsum(1)])
    errors = np.empty(len(weights))
    for row, (count, gap) in enumerate(zip(counts, gaps, strict=True)):
        size, larger = divmod(int(count[-1]), BINS)  # as np.array_split: the first bins have one image more
        number = np.arange(BINS + 1)
        ends = number * size + np.minimum(number, larger)
        errors[row] = np.abs(np.diff(np.interp(ends, count, gap))).sum() / count[-1]
    return errors


def reliability(confidence: ndarray, correct: ndarray, sample: Sample) -> list[tuple[float, Estimate, int]]:
    """Mean confidence, accuracy and count of every non-empty bin of equal width, of the images of a sample."""
    bin_of = _bin_of(confidence)
    found = []
    for number in np.unique(bin_of):
        rows = bin_of == number
        part = sample.subset(rows)
        accuracy = summarised(part, {"accuracy": bootstrap.mean(correct[rows], part.weights)})["accuracy"]
        found.append((float(confidence[rows].mean()), accuracy, int(rows.sum())))
    return found


def _bin_of(confidence: ndarray) -> ndarray:
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def errors(probabilities: ndarray, labels: ndarray, weights: ndarray) -> CalibrationErrors:
    """All calibration errors of probabilities of shape (n, C), with intervals.

    Noise makes the gaps of a sample larger than those of the truth, and those of a resample larger still, so that the
    interval of the binned errors is the basic one.
    """
    confidence, correct = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
    squares, surprise = _squares(probabilities, labels), _surprise(probabilities, labels)
    binned = bootstrap.in_blocks(
        lambda block: {
            "ece": expected_calibration_error(confidence, correct, block),
            "adaptive_ece": adaptive_calibration_error(confidence, correct, block),
        },
        weights,
    )
    means = bootstrap.in_blocks(
        lambda block: {"brier": bootstrap.mean(squares, block), "nll": bootstrap.mean(surprise, block)}, weights
    )
    return CalibrationErrors(
        **{name: bootstrap.basic(values[0], values[1:]) for name, values in binned.items()},
        **{name: estimate(values) for name, values in means.items()},
    )
