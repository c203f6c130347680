"""Operating points: thresholds on the probability of the finding, chosen on the validation split."""

import numpy as np
from numpy import ndarray


def choose(truth: ndarray, score: ndarray, min_sensitivity: float) -> dict[str, float]:
    """Thresholds by name, for `truth` (bool) and `score`, the probability of the finding, both of shape (n,).

    They decide by the rule in `cxr.serving.decision`. `youden` maximises sensitivity + specificity - 1
    (W. J. Youden, 1950); `sensitive` maximises specificity among thresholds with a sensitivity of at least
    `min_sensitivity`. The result is empty if all images are positive or all are negative.
    """
    if truth.all() or not truth.any():
        return {}
    cuts, sensitivity, specificity = _curve(truth, score)
    youden = int(np.argmax(sensitivity + specificity))
    enough = np.flatnonzero(sensitivity >= min_sensitivity - 1e-12)
    sensitive = int(enough[np.argmax(specificity[enough])])
    return {"youden": float(cuts[youden]), "sensitive": float(cuts[sensitive])}


def _curve(truth: ndarray, score: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """All thresholds that separate scores, halfway between neighbours, with their sensitivity and specificity."""
    values = np.unique(score)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    positive, negative = np.sort(score[truth]), np.sort(score[~truth])
    sensitivity = 1 - np.searchsorted(positive, cuts, side="left") / len(positive)
    specificity = np.searchsorted(negative, cuts, side="left") / len(negative)
    return cuts, sensitivity, specificity
