"""The one rule between the finding and the negative class, for evaluation and service, with numpy alone.

An image is positive, that is, called pneumonia or whatever the finding is, if its probability of the finding is at or
above the threshold of the operating point. In a band around that threshold the model refers the image to a person
instead: below the band it is negative, from the upper end of the band on positive. That is the reject option of C. K.
Chow, "On optimum recognition error and reject tradeoff" (IEEE Transactions on Information Theory 16, 1970).

Nearness is measured in log-odds, in which the ends of a band are equally far from its threshold. How wide a band is,
is chosen on validation (see `cxr.evaluation.bands`).
"""

import numpy as np
from numpy import ndarray

from cxr.serving.probabilities import NEGATIVE

ARGMAX = "argmax"  # the operating point that every model has: the likelier of the finding and the negative class
_EVEN = 0.5
Band = tuple[float, float]  # probabilities of the finding: the least that is referred, and the least that no longer is


def operating_points(chosen: dict[str, float]) -> dict[str, float]:
    """Every threshold by name: that of `argmax`, and those that were chosen on validation."""
    return {ARGMAX: _EVEN, **chosen}


def is_positive(probability: ndarray | float, threshold: ndarray | float) -> ndarray:
    """Whether images with these probabilities of the finding are called positive."""
    return np.asarray(probability >= threshold)


def distance(probability: ndarray, threshold: float) -> ndarray:
    """How far probabilities (n,) are from a threshold, in log-odds, of shape (n,).

    A probability of exactly 0 or 1 is infinitely far from every threshold between them.
    """
    if threshold in (0.0, 1.0):
        return np.where(probability == threshold, 0.0, np.inf)
    with np.errstate(divide="ignore"):
        log_odds = np.log(probability) - np.log1p(-probability)
    return np.abs(log_odds - (np.log(threshold) - np.log1p(-threshold)))


def bands_around(threshold: float, widths: ndarray) -> ndarray:
    """Bands whose ends are `widths` (K,) from the threshold, in log-odds, of shape (K, 2).

    A width of log(1.5) gives 0.4 to 0.6 around 0.5, and 0.14 to 0.27 around 0.2. With a width of 0, and around a
    threshold of 0 or 1, both ends are the threshold, and nothing is referred.
    """
    with np.errstate(over="ignore"):  # infinite odds give the right ends
        odds = np.exp(np.asarray(widths, np.float64))
    low = np.maximum(threshold / (threshold + (1 - threshold) * odds), np.nextafter(0.0, threshold))
    high = threshold / (threshold + (1 - threshold) / odds)
    # Whatever the rounding, the threshold is in its band.
    return np.stack([np.minimum(low, threshold), np.maximum(high, threshold)], axis=-1)


def in_band(probability: ndarray | float, band: Band) -> ndarray:
    """Whether images with these probabilities of the finding are referred: the lower end is, the upper end is not."""
    return np.asarray((probability >= band[0]) & (probability < band[1]))


def explained_class(probabilities: ndarray, decided: bool | None) -> int:
    """Index of the class whose evidence the heatmap of an image shows, for its probabilities (C,).

    It is the likeliest class that agrees with the decision: the finding (`decided` true) or the negative class. At a
    threshold other than 0.5, and among several kinds of the finding, that may not be the likeliest class of all, whose
    map would show what spoke against the decision. Without a decision (None), it is the likeliest class of all.
    """
    if decided is None:
        return int(probabilities.argmax())
    return NEGATIVE + 1 + int(probabilities[NEGATIVE + 1 :].argmax()) if decided else NEGATIVE
