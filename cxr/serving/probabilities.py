"""From logits to the probabilities of an answer, with numpy alone."""

from math import floor, log10

import numpy as np
from numpy import ndarray

NEGATIVE = 0  # index of the negative class, such as "normal"; all others are kinds of the finding


def softmax(logits: ndarray) -> ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def finding_probability(probabilities: ndarray) -> ndarray:
    """Probability of the finding, of any kind, of shape (n,), for probabilities (n, C): one minus the negative's."""
    return 1.0 - probabilities[:, NEGATIVE]


def in_digits(probability: float) -> str:
    """A probability in three digits of it, or of one minus it where that is less: 0.0271, 0.6, 0.99987."""
    rest = 1.0 - probability
    if rest >= probability or rest <= 0:
        return f"{probability:.3g}"
    return f"{probability:.{2 - floor(log10(rest))}f}".rstrip("0")
