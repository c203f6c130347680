"""Temperature scaling recovers a known temperature, and calibration errors match their definitions."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from cxr.evaluation import bootstrap, calibration
from cxr.evaluation.scores import Sample
from cxr.serving.probabilities import softmax
from tests.helpers import CLASSES

RNG = np.random.default_rng(0)


def overconfident(temperature: float, count: int = 6000):
    """Logits of a network that is over-confident by `temperature`, and labels drawn from the true probabilities."""
    logits = RNG.normal(0, 2, (count, 3))
    labels = np.array([RNG.choice(3, p=p) for p in softmax(logits)])
    return logits * temperature, labels


def weights(count: int, resamples: int) -> np.ndarray:
    """Of a sample, one image a patient, and its resamples."""
    return np.concatenate([np.ones((1, count), np.uint8), bootstrap.patient_weights(np.arange(count), 0, resamples)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    logits, labels = overconfident(temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_it_makes_probabilities_better_and_changes_no_label():
    logits, labels = overconfident(2.5)
    before, after = softmax(logits), softmax(logits / calibration.fit_temperature(logits, labels))
    once = weights(len(labels), 2)
    errors_before, errors_after = calibration.errors(before, labels, once), calibration.errors(after, labels, once)
    assert (before.argmax(1) == after.argmax(1)).all()
    assert all(error.value < dict(errors_before)[name].value for name, error in errors_after)
    assert errors_after.ece.value < 0.02


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
    once = np.ones((1, 6))
    error = calibration.expected_calibration_error(confidence, correct, once)
    assert error == pytest.approx([4 / 6 * 0.2 + 2 / 6 * 0.05])
    sample = Sample.from_labels(np.zeros(6, int), np.arange(6).astype(str), CLASSES, 0)
    (_, below, two), (_, above, four) = calibration.reliability(confidence, correct, sample)
    assert (two, four) == (2, 4) and (below.value, above.value) == (0.5, 0.75)
    (_, sure, _) = calibration.reliability(confidence[:3], correct[:3], sample.subset(np.arange(3)))[0]
    assert sure.low == pytest.approx(0.025 ** (1 / 3))  # three patients, all right


@pytest.mark.parametrize("row", [0, 1, 4])
def test_every_resample_has_the_errors_of_a_sample_made_of_its_images(row):
    """Each image as often as it is drawn; of equal confidences, the order does not matter here: there are none."""
    confidence, correct, drawn = RNG.random(47), (RNG.random(47) < 0.6).astype(float), weights(47, 5)
    again = np.repeat(np.arange(47), drawn[row])
    again = again[np.argsort(confidence[again], kind="stable")]
    gaps = (confidence - correct)[again]
    adaptive = sum(abs(part.sum()) for part in np.array_split(gaps, calibration.BINS)) / len(again)
    fixed = sum(abs(gaps[(confidence[again] * 15).astype(int) == b].sum()) for b in range(15)) / len(again)
    assert calibration.adaptive_calibration_error(confidence, correct, drawn)[row] == pytest.approx(adaptive)
    assert calibration.expected_calibration_error(confidence, correct, drawn)[row] == pytest.approx(fixed)


def test_every_error_has_an_interval():
    logits, labels = overconfident(1.0, 200)
    for _, error in calibration.errors(softmax(logits), labels, weights(200, 300)):
        assert 0 <= error.low < error.value <= error.high


def test_binned_errors_of_perfect_probabilities_are_not_told_from_zero():
    """A sample's error is above zero by noise alone, and a resample's even more: the interval must not hide that."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 300)
    labels = np.array([rng.choice(3, p=p) for p in probabilities])
    drawn = weights(300, 400)
    found = calibration.errors(probabilities, labels, drawn)
    confidence, correct = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
    resampled = calibration.expected_calibration_error(confidence, correct, drawn)
    assert np.percentile(resampled[1:], 2.5) > 0.02 and found.ece.low < 0.02 and found.ece.value > 0.02


def test_answers_that_are_all_right_are_made_no_more_certain():
    """Their likelihood grows for ever with the certainty; one mistake among them gives a temperature."""
    labels = np.arange(30) % 3
    logits = np.eye(3)[labels] * 2
    assert calibration.fit_temperature(logits, labels) == pytest.approx(1, abs=1e-3)
    assert calibration.fit_temperature(logits * 20, labels) >= 1
    assert calibration.fit_temperature(logits, np.array([1, *labels[1:]])) < 1


def test_one_image_and_certain_answers():
    assert calibration.errors(np.array([[1.0, 0.0]]), np.array([1]), weights(1, 3)).ece.value == 1.0
    assert 0.05 <= calibration.fit_temperature(np.array([[9.0, 0.0]]), np.array([0])) <= 20
