"""From logits to the probabilities that are told, with numpy alone."""

import numpy as np
from numpy import ndarray

NORMAL = 0  # index of the class "normal", with three classes and with two


def softmax(logits: ndarray) -> ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def pneumonia_probability(probabilities: ndarray) -> ndarray:
    """Probability of any pneumonia, of shape (n,): what is left beside normal."""
    return 1.0 - probabilities[:, NORMAL]


def undecided(pneumonia: ndarray | float, band: tuple[float, float]) -> ndarray | bool:
    """Whether probabilities of pneumonia lie in the band, ends included, in which nothing is decided."""
    return (pneumonia >= band[0]) & (pneumonia <= band[1])
