"""Temperature scaling recovers a known temperature, and calibration errors match their definitions."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from cxr.evaluation import calibration
from cxr.serving.probabilities import softmax

RNG = np.random.default_rng(0)


def overconfident(temperature: float, count: int = 6000):
    """Logits of a network that is over-confident by `temperature`, and labels drawn from the true probabilities."""
    logits = RNG.normal(0, 2, (count, 3))
    labels = np.array([RNG.choice(3, p=p) for p in softmax(logits)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    logits, labels = overconfident(temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_it_makes_probabilities_better_and_changes_no_label():
    logits, labels = overconfident(2.5)
    before, after = softmax(logits), softmax(logits / calibration.fit_temperature(logits, labels))
    errors_before, errors_after = calibration.errors(before, labels), calibration.errors(after, labels)
    assert (before.argmax(1) == after.argmax(1)).all()
    assert all(error < dict(errors_before)[name] for name, error in errors_after)
    assert errors_after.ece < 0.02


def test_errors_are_those_of_scikit_learn():
    logits, labels = overconfident(1.3, 300)
    probabilities = softmax(logits)
    assert calibration.negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    binary = np.stack([1 - probabilities[:, 0], probabilities[:, 0]], 1)
    truth = (labels == 0).astype(int)
    assert calibration.brier(binary, truth) == pytest.approx(2 * brier_score_loss(truth, probabilities[:, 0]))


def test_the_calibration_error_of_a_worked_example():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([1, 1, 1, 0, 1, 0.0])
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.05)
    assert [count for _, _, count in calibration.reliability(confidence, correct)] == [2, 4]


def test_one_image_and_certain_answers():
    assert calibration.errors(np.array([[1.0, 0.0]]), np.array([1])).ece == 1.0
    assert 0.05 <= calibration.fit_temperature(np.array([[9.0, 0.0]]), np.array([0])) <= 20
