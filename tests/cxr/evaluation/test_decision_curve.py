"""Net benefit is that of the definition and of a library, and its advantage is over the better of all and none."""

import numpy as np
import pytest
from scipy.special import expit

from cxr.evaluation import bootstrap, decision_curve


def test_it_is_that_of_the_authors_package():
    """Of `dca` of dcurves 1.1.7, which the authors of the method maintain, for the same data."""
    rng = np.random.default_rng(7)
    odds = np.round(rng.normal(0.4, 1.5, 200), 2)
    truth = rng.random(200) < expit(0.6 * odds - 0.3)
    thresholds = np.array([0.1, 0.2, 0.4, 0.5, 0.76])
    found = decision_curve.resample(truth, expit(odds), thresholds, np.ones((1, 200), np.uint8))
    np.testing.assert_allclose(found["model"][0], [0.405, 0.34375, 0.185, 0.09, -0.046667], atol=1e-6)
    np.testing.assert_allclose(found["treat_all"][0], [0.405556, 0.33125, 0.108333, -0.07, -1.229167], atol=1e-6)


def test_a_worked_example():
    """Ten images, four ill; at 0.2 the model finds three of them and two others: 3/10 - 2/10 * 0.2/0.8."""
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    score = np.array([0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.1, 0.0])
    weights = np.concatenate([np.ones((1, 10), np.uint8), bootstrap.patient_weights(np.arange(10), 0, 100)])
    at = decision_curve.decision_curve(truth, score, {"youden": 0.2}, weights).operating_points["youden"]
    assert at.model.value == pytest.approx(0.25)
    assert at.treat_all.value == pytest.approx(0.4 - 0.6 * 0.25)
    assert at.advantage.value == pytest.approx(0.0)
    assert at.advantage.low < 0 < at.advantage.high


def test_every_resample_counts_its_own_images():
    rng = np.random.default_rng(1)
    truth, score = rng.random(60) < 0.4, rng.random(60)
    weights = bootstrap.patient_weights(np.arange(60) // 3, 0, 20)
    found = decision_curve.resample(truth, score, np.array([0.3]), weights)
    again = np.repeat(np.arange(60), weights[7])
    alone = decision_curve.resample(truth[again], score[again], np.array([0.3]), np.ones((1, len(again))))
    for name, values in found.items():
        assert values[7] == pytest.approx(alone[name][0], abs=1e-6)


def test_the_curve_rises_over_thresholds_and_none_is_better_than_a_useless_model():
    truth, score = np.arange(40) % 2 == 0, np.full(40, 0.99)
    weights = np.concatenate([np.ones((1, 40), np.uint8), bootstrap.patient_weights(np.arange(40), 0, 50)])
    curve = decision_curve.decision_curve(truth, score, {}, weights).curve
    assert [at.threshold for at in curve] == sorted(at.threshold for at in curve) and len(curve) == 49
    assert curve[0].advantage.value == pytest.approx(0)  # everybody is treated, which is the better at 0.02
    assert curve[-1].advantage.value < -1
