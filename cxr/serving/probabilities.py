"""From logits to the probabilities of an answer, with numpy alone."""

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
