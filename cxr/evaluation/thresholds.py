"""Operating points: from which probability of pneumonia on an image is called pneumonia, chosen on validation."""

import numpy as np
from numpy import ndarray

ARGMAX = "argmax"  # the likeliest class decides; no threshold


def choose(truth: ndarray, score: ndarray, min_sensitivity: float) -> dict[str, float]:
    """Thresholds by name for truth (n,) bool and score (n,), probability of pneumonia; at or above is positive.

    `youden` has the largest sensitivity + specificity - 1 (W. J. Youden, 1950), `sensitive` the largest specificity
    among those with a sensitivity of at least `min_sensitivity`. Empty where one of the two kinds is absent.
    """
    if truth.all() or not truth.any():
        return {}
    cuts, sensitivity, specificity = _curve(truth, score)
    youden = int(np.argmax(sensitivity + specificity))
    enough = np.flatnonzero(sensitivity >= min_sensitivity - 1e-12)
    sensitive = int(enough[np.argmax(specificity[enough])])
    return {"youden": float(cuts[youden]), "sensitive": float(cuts[sensitive])}


def decide(probabilities: ndarray, threshold: float | None) -> ndarray:
    """True for pneumonia: probability of it at or above `threshold`, or no normal as the likeliest class (None)."""
    if threshold is None:
        return probabilities.argmax(1) != 0
    return 1.0 - probabilities[:, 0] >= threshold


def _curve(truth: ndarray, score: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Every threshold that separates scores (half way between neighbours), its sensitivity and specificity."""
    values = np.unique(score)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    positive, negative = np.sort(score[truth]), np.sort(score[~truth])
    sensitivity = 1 - np.searchsorted(positive, cuts, side="left") / len(positive)
    specificity = np.searchsorted(negative, cuts, side="left") / len(negative)
    return cuts, sensitivity, specificity
