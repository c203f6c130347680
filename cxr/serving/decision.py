"""The one rule between pneumonia and normal, for evaluation and service, with numpy alone.

An image is called pneumonia if its probability of pneumonia is at or above the threshold of the operating point. In a
band around that threshold the model refers the image to a person instead.
"""

import numpy as np
from numpy import ndarray

from cxr.serving.probabilities import NORMAL

ARGMAX = "argmax"  # the operating point that every model has: the likelier of normal and pneumonia
_EVEN = 0.5


def operating_points(chosen: dict[str, float]) -> dict[str, float]:
    """Every threshold by name: that of `argmax`, and those that were chosen on validation."""
    return {ARGMAX: _EVEN, **chosen}


def is_pneumonia(pneumonia: ndarray | float, threshold: float) -> ndarray:
    """Whether images with these probabilities of pneumonia are called pneumonia."""
    return np.asarray(pneumonia >= threshold)


def band_around(threshold: float, abstain: tuple[float, float]) -> tuple[float, float]:
    """The probabilities of pneumonia between which the model refers, ends included.

    `abstain` is the band around a threshold of 0.5. Around another threshold it has the same ends in log-odds from the
    threshold, so that it is as hard to leave there: [0.4, 0.6] becomes [0.14, 0.27] around 0.2.
    """
    low, high = (_shifted(end, threshold) for end in abstain)
    return min(low, threshold), max(high, threshold)  # whatever the rounding, the threshold is in its band


def _shifted(end: float, threshold: float) -> float:
    if end in (0.0, 1.0):
        return end
    return threshold * end / (threshold * end + (1 - threshold) * (1 - end))


def in_band(pneumonia: ndarray | float, band: tuple[float, float]) -> ndarray:
    """Whether probabilities of pneumonia lie within a band, ends included."""
    return np.asarray((pneumonia >= band[0]) & (pneumonia <= band[1]))


def label_index(probabilities: ndarray, decided: bool | None) -> int:
    """Index of the label of an image with probabilities of shape (C,).

    It is the likeliest class; after a decision, for pneumonia (`decided` true) or for normal, the likeliest of those
    that agree with it. At a threshold other than 0.5, the likeliest class of all may not.
    """
    if decided is None:
        return int(probabilities.argmax())
    return NORMAL + 1 + int(probabilities[NORMAL + 1 :].argmax()) if decided else NORMAL
