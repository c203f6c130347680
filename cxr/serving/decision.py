"""The one rule between the finding and the negative class, for evaluation and service, with numpy alone.

An image is positive, that is, called pneumonia or whatever the finding is, if its probability of the finding is at or
above the threshold of the operating point. In a band around that threshold the model refers the image to a person
instead.
"""

import numpy as np
from numpy import ndarray

from cxr.serving.probabilities import NEGATIVE

ARGMAX = "argmax"  # the operating point that every model has: the likelier of the finding and the negative class
_EVEN = 0.5


def operating_points(chosen: dict[str, float]) -> dict[str, float]:
    """Every threshold by name: that of `argmax`, and those that were chosen on validation."""
    return {ARGMAX: _EVEN, **chosen}


def is_positive(probability: ndarray | float, threshold: ndarray | float) -> ndarray:
    """Whether images with these probabilities of the finding are called positive."""
    return np.asarray(probability >= threshold)


def band_around(threshold: float, abstain: tuple[float, float]) -> tuple[float, float]:
    """The probabilities of the finding between which the model refers, ends included.

    `abstain` is the band around a threshold of 0.5. Around another threshold it has the same ends in log-odds from the
    threshold, so that it is as hard to leave there: [0.4, 0.6] becomes [0.14, 0.27] around 0.2.
    """
    low, high = (_shifted(end, threshold) for end in abstain)
    return min(low, threshold), max(high, threshold)  # whatever the rounding, the threshold is in its band


def _shifted(end: float, threshold: float) -> float:
    if end in (0.0, 1.0):
        return end
    return threshold * end / (threshold * end + (1 - threshold) * (1 - end))


def in_band(probability: ndarray | float, band: tuple[float, float]) -> ndarray:
    """Whether probabilities of the finding lie within a band, ends included."""
    return np.asarray((probability >= band[0]) & (probability <= band[1]))


def label_index(probabilities: ndarray, decided: bool | None) -> int:
    """Index of the label of an image with probabilities of shape (C,).

    It is the likeliest class; after a decision, for the finding (`decided` true) or the negative class, the likeliest
    of those that agree with it. At a threshold other than 0.5, the likeliest class of all may not.
    """
    if decided is None:
        return int(probabilities.argmax())
    return NEGATIVE + 1 + int(probabilities[NEGATIVE + 1 :].argmax()) if decided else NEGATIVE
