"""No other threshold is better than the chosen operating points."""

import numpy as np
import pytest

from cxr.evaluation import thresholds

RNG = np.random.default_rng(0)
TRUTH = RNG.random(300) < 0.6
SCORE = np.clip(TRUTH * 0.35 + RNG.normal(0.35, 0.2, 300), 0, 1)


def rates(threshold):
    positive = threshold <= SCORE
    return positive[TRUTH].mean(), (~positive)[~TRUTH].mean()


def test_no_threshold_is_better():
    points = thresholds.choose(TRUTH, SCORE, 0.95)
    every = [rates(cut) for cut in np.linspace(-0.1, 1.1, 5000)]
    assert sum(rates(points["youden"])) == pytest.approx(max(map(sum, every)))
    sensitivity, specificity = rates(points["sensitive"])
    assert sensitivity >= 0.95
    assert specificity == pytest.approx(max(s for se, s in every if se >= 0.95))


def test_without_both_kinds_there_are_no_points():
    assert thresholds.choose(np.ones(3, dtype=bool), np.arange(3.0), 0.95) == {}


def test_ties_and_perfect_separation():
    points = thresholds.choose(np.array([False, False, True, True]), np.array([0.1, 0.1, 0.9, 0.9]), 0.95)
    assert points["youden"] == points["sensitive"] == pytest.approx(0.5)
