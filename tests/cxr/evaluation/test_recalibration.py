"""Slope and intercepts are those of statsmodels and scikit-learn, with intervals that tell what is wrong."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxr.evaluation import bootstrap, recalibration
from cxr.evaluation.statistics import Estimate

NONE = Estimate(value=None)


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds, their probabilities, truth, and a sample with one resample."""
    rng = np.random.default_rng(7)
    odds = np.round(rng.normal(0.4, 1.5, 200), 2)
    truth = rng.random(200) < expit(0.6 * odds - 0.3)
    return odds, expit(odds), truth, np.stack([np.ones(200), rng.integers(0, 4, 200)]).astype(np.uint8)


def test_they_are_those_of_statsmodels():
    """`GLM(truth, [1, log-odds], Binomial(), freq_weights=weights)` and, with the log-odds as offset, `GLM(truth, [1])`
    of statsmodels 0.15.0."""
    _, score, truth, weights = example()
    found = recalibration.resample(truth, score, weights)
    np.testing.assert_allclose(found["slope"], [0.69612309, 0.84961048], atol=1e-7)
    np.testing.assert_allclose(found["intercept"], [-0.30728018, -0.34043144], atol=1e-7)
    np.testing.assert_allclose(found["in_the_large"], [-0.39107849, -0.37822775], atol=1e-7)


def test_every_resample_is_fitted_as_by_scikit_learn():
    odds, score, truth, _ = example()
    weights = bootstrap.patient_weights(np.arange(200) // 2, 1, 40)
    found = recalibration.resample(truth, score, weights)
    for row in (3, 39):
        model = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], truth, sample_weight=weights[row])
        assert found["slope"][row] == pytest.approx(model.coef_[0, 0], abs=1e-5)
        assert found["intercept"][row] == pytest.approx(model.intercept_[0], abs=1e-5)


@pytest.mark.parametrize("certain", [4, 8, 16])
def test_answers_however_sure_and_wrong_have_estimates(certain):
    """Where hardly any probability is between 0 and 1, plain steps of Newton's method lead to infinity."""
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.6
    odds = np.where(truth, certain, -certain) + rng.normal(0, 1.5, 400)
    odds[~truth & (rng.random(400) < 0.3)] *= -1
    weights = np.concatenate([np.ones((1, 400), np.uint8), bootstrap.patient_weights(np.arange(400), 0, 50)])
    found = recalibration.resample(truth, expit(odds), weights)
    assert all(np.isfinite(values).all() for values in found.values())
    odds = logit(np.clip(expit(odds), 1e-12, 1 - 1e-12))
    for row in (0, 50):
        large = brentq(lambda shift: (weights[row] * (truth - expit(odds + shift))).sum(), -60, 60, xtol=1e-12)  # noqa: B023
        assert found["in_the_large"][row] == pytest.approx(large, abs=1e-6)
        left = weights[row] * (truth - expit(found["intercept"][row] + found["slope"][row] * odds))
        assert [left.sum(), (left * odds).sum()] == pytest.approx([0, 0], abs=1e-4)


def test_too_extreme_probabilities_have_a_slope_below_one():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, 2000)
    truth = rng.random(2000) < expit(odds)
    weights = np.concatenate([np.ones((1, 2000), np.uint8), bootstrap.patient_weights(np.arange(2000), 0, 200)])
    right = recalibration.recalibration(truth, expit(odds), weights)
    extreme = recalibration.recalibration(truth, expit(2 * odds), weights)
    high = recalibration.recalibration(truth, expit(odds + 1), weights)
    assert right.slope.low < 1 < right.slope.high and right.in_the_large.low < 0 < right.in_the_large.high
    assert extreme.slope.high < 1 and extreme.slope.value == pytest.approx(right.slope.value / 2)
    assert high.in_the_large.high < 0 and high.in_the_large.value == pytest.approx(right.in_the_large.value - 1)


@pytest.mark.parametrize(
    "truth, score",
    [([1, 1, 1, 1], [0.1, 0.4, 0.6, 1.0]), ([0, 0, 1, 1], [0.0, 0.2, 0.6, 0.9]), ([1, 1, 0, 0], [0.0, 0.2, 0.6, 0.9])],
    ids=["one class", "separated", "separated the wrong way"],
)
def test_there_is_no_slope_where_no_fit_exists(truth, score):
    truth, score = np.array(truth, dtype=bool), np.array(score)
    weights = np.concatenate([np.ones((1, 4), np.uint8), bootstrap.patient_weights(np.arange(4), 0, 50)])
    found = recalibration.recalibration(truth, score, weights)
    assert found.slope == found.intercept == NONE
    assert np.isfinite(recalibration.resample(truth, score, weights)["in_the_large"][0]) == (not truth.all())


def test_no_interval_where_many_resamples_have_no_fit():
    """One negative among the positives: without it, which a third of the resamples are, the rest is separated."""
    truth, score = np.array([0] * 9 + [1] * 9 + [0], dtype=bool), np.append(np.linspace(0.05, 0.9, 18), 0.95)
    weights = np.concatenate([np.ones((1, 19), np.uint8), bootstrap.patient_weights(np.arange(19), 0, 200)])
    assert np.isfinite(recalibration.resample(truth, score, weights)["slope"][0])
    assert recalibration.recalibration(truth, score, weights).slope == NONE
