"""Comparison of two models: a model does not differ from itself, and a better model comes out better."""

import numpy as np
import pytest

from cxr.evaluation.comparison import COMPARED, compare
from cxr.evaluation.results import Estimate
from cxr.evaluation.scores import Sample, named
from tests.helpers import CLASSES

LABELS = np.random.default_rng(0).integers(0, 3, 300)
NAMES = [named(score, "pneumonia") for score in COMPARED]
SAMPLE = Sample.from_labels(LABELS, np.arange(300).astype(str), CLASSES, seed=0)


def predictions(accuracy: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(300) < accuracy, LABELS, (LABELS + 1) % 3)
    return 0.7 * np.eye(3)[predicted] + 0.1


def test_a_model_against_itself():
    comparison = compare(SAMPLE, predictions(0.8, 1), predictions(0.8, 1))
    assert comparison.differences == dict.fromkeys(NAMES, Estimate(value=0.0, low=0.0, high=0.0))
    assert comparison.mcnemar_p == 1.0


def test_a_much_better_model():
    comparison = compare(SAMPLE, predictions(0.9, 1), predictions(0.6, 2))
    assert comparison.differences["macro_f1"].low > 0.1
    assert comparison.differences["loss"].high < 0
    assert comparison.mcnemar_p < 1e-6
    assert comparison.only_ours_right > comparison.only_theirs_right


def test_swapping_the_models_changes_only_the_sign():
    first, second = predictions(0.8, 1), predictions(0.7, 2)
    forth, back = compare(SAMPLE, first, second).differences, compare(SAMPLE, second, first).differences
    for name in NAMES:
        assert forth[name].value == pytest.approx(-back[name].value)
        assert forth[name].low == pytest.approx(-back[name].high)
