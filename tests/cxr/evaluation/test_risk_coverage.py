"""The area under the curve of risk by coverage is that of its definition, with ties and in every resample."""

from itertools import permutations

import numpy as np
import pytest

from cxr.evaluation import bootstrap, risk_coverage
from cxr.evaluation.scores import Sample
from tests.helpers import CLASSES


def by_definition(wrong: np.ndarray) -> float:
    """Mean share of wrong answers among the k first, over all k; `wrong` in the order of falling confidence."""
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def test_a_worked_example():
    """Wrong answers at places 2 and 4 of 4: risks 0, 1/2, 1/3, 1/2."""
    confidence, wrong = np.array([0.6, 0.9, 0.7, 0.8]), np.array([True, False, False, True])
    found = risk_coverage.resample(confidence, wrong, np.ones((1, 4), np.uint8))
    assert found["area"] == pytest.approx([(0 + 1 / 2 + 1 / 3 + 1 / 2) / 4])
    assert found["risk"][0, [4, 9, 14, 19]] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_equal_confidences_count_in_every_order():
    confidence, wrong = np.array([0.9, 0.8, 0.8, 0.8, 0.7]), np.array([False, True, False, False, True])
    orders = [by_definition(wrong[[0, *middle, 4]]) for middle in permutations([1, 2, 3])]
    found = risk_coverage.resample(confidence, wrong, np.ones((1, 5), np.uint8))["area"]
    assert found == pytest.approx([np.mean(orders)])


@pytest.mark.parametrize("row", [0, 1, 5])
def test_every_resample_has_the_area_of_a_sample_made_of_its_images(row):
    rng = np.random.default_rng(0)
    confidence, wrong = rng.random(50), rng.random(50) < 0.3
    weights = np.concatenate([np.ones((1, 50), np.uint8), bootstrap.patient_weights(np.arange(50) // 2, 0, 6)])
    again = np.repeat(np.arange(50), weights[row])
    again = again[np.argsort(-confidence[again], kind="stable")]
    found = risk_coverage.resample(confidence, wrong, weights)
    assert found["area"][row] == pytest.approx(by_definition(wrong[again]))
    assert found["risk"][row, -1] == pytest.approx(wrong[again].mean())


def test_the_finding_and_all_classes_have_curves_of_their_own():
    """Bacteria called virus is wrong among all classes, and right as a finding."""
    labels = np.array([0, 1, 2, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.3, 0.6, 0.1]])
    sample = Sample.from_labels(labels, np.arange(4).astype(str), CLASSES, 0)
    found = risk_coverage.curves(sample, probabilities)
    assert found["finding"].area.value == 0
    assert found["classes"].curve[-1].risk.value == pytest.approx(1 / 4)
    two = Sample.from_labels(np.minimum(labels, 1), np.arange(4).astype(str), ("normal", "pneumonia"), 0)
    assert set(risk_coverage.curves(two, np.stack([probabilities[:, 0], 1 - probabilities[:, 0]], 1))) == {"finding"}


def test_what_is_referred_is_not_counted_as_answered():
    referred, wrong = np.array([True, True, False, False, False]), np.array([True, False, True, False, False])
    sample = Sample.from_labels(np.zeros(5, int), np.arange(5).astype(str), CLASSES, 0)
    found = risk_coverage.answered(referred, wrong, sample)
    assert found.coverage.value == pytest.approx(0.6)
    assert found.risk.value == pytest.approx(1 / 3)
    assert found.risk_of_all.value == pytest.approx(0.4)
    assert risk_coverage.answered(np.ones(5, bool), wrong, sample).risk.value is None
