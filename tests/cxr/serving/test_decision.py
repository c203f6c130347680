"""The decision follows the probability of pneumonia; one band of referral lies around whatever threshold is in use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.serving.decision import (
    ARGMAX,
    bands_around,
    distance,
    explained_class,
    in_band,
    is_positive,
    operating_points,
)
from cxr.serving.probabilities import finding_probability, softmax

THRESHOLDS = st.floats(0, 1)
WIDTHS = st.floats(0, 50)
GRID = np.linspace(0, 1, 2001)
LOGITS = st.integers(2, 3).flatmap(lambda count: st.lists(st.floats(-30, 30), min_size=count, max_size=count))
WIDE = np.log(1.5)  # 0.4 to 0.6 around 0.5


def told(pneumonia: np.ndarray, threshold: float, width: float) -> list[int]:
    """-1 normal, 0 referred, 1 pneumonia."""
    referred = in_band(pneumonia, bands_around(threshold, width))
    return np.where(referred, 0, np.where(is_positive(pneumonia, threshold), 1, -1)).tolist()


@settings(max_examples=500, deadline=None)
@given(THRESHOLDS, WIDTHS)
def test_decisions_rise_with_the_probability_and_are_referred_in_one_range_around_the_threshold(threshold, width):
    low, high = bands_around(threshold, width)
    assert 0 <= low <= threshold <= high <= 1
    points = np.unique([*GRID, low, threshold, high])
    answers = told(points, threshold, width)
    assert answers == sorted(answers)  # normal, then referred, then pneumonia
    assert answers[points.tolist().index(threshold)] == (0 if high > threshold else 1)


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-6, 1 - 1e-6), st.lists(WIDTHS, min_size=2, max_size=9))
def test_a_wider_band_contains_a_narrower_one(threshold, widths):
    ends = bands_around(threshold, np.sort(widths))
    assert (np.diff(ends[:, 0]) <= 0).all() and (np.diff(ends[:, 1]) >= 0).all()


def test_both_ends_are_as_far_from_the_threshold_in_log_odds():
    for threshold in (0.003, 0.2, 0.5, 0.9):
        np.testing.assert_allclose(distance(bands_around(threshold, WIDE), threshold), WIDE)
    np.testing.assert_allclose(bands_around(0.5, WIDE), [0.4, 0.6])
    np.testing.assert_allclose(bands_around(0.2, WIDE), [1 / 7, 3 / 11])


def test_probabilities_of_zero_and_one_are_far_from_every_threshold_between_them():
    assert distance(np.array([0.0, 1.0, 0.3]), 0.3).tolist() == [np.inf, np.inf, 0]
    assert told(np.array([0.0, 1.0]), 1 - 1e-16, 60.0) == told(np.array([0.0, 1.0]), 1e-300, 60.0) == [-1, 1]
    for threshold in (0.0, 1.0):  # nothing is near, and the probability that equals it is as near as can be
        assert distance(np.array([0.0, 0.5, 1.0]), threshold).tolist().count(np.inf) == 2
        assert bands_around(threshold, 60.0).tolist() == [threshold, threshold]


def test_without_a_width_every_image_is_decided():
    assert told(GRID, 0.3, 0.0) == [1 if p >= 0.3 else -1 for p in GRID]


@settings(max_examples=500, deadline=None)
@given(LOGITS, THRESHOLDS, WIDTHS)
def test_the_heatmap_explains_the_decision_by_the_likeliest_class_that_agrees_with_it(logits, threshold, width):
    probabilities = softmax(np.array([logits]))
    [answer] = told(finding_probability(probabilities), threshold, width)
    explained = explained_class(probabilities[0], {-1: False, 0: None, 1: True}[answer])
    agreeing = {-1: [0], 0: range(len(logits)), 1: range(1, len(logits))}[answer]
    assert explained in agreeing and probabilities[0, explained] == max(probabilities[0, i] for i in agreeing)


def test_a_probability_above_a_half_is_no_normal_because_two_classes_share_it():
    """The likeliest class is normal, the decision pneumonia, and the map shows what spoke for pneumonia."""
    probabilities = softmax(np.log([[0.36, 0.33, 0.31]]))
    threshold = operating_points({})[ARGMAX]
    assert told(finding_probability(probabilities), threshold, WIDE) == [1]
    assert probabilities[0].argmax() == 0
    assert explained_class(probabilities[0], True) == 1 and explained_class(probabilities[0], None) == 0


@pytest.mark.parametrize("threshold", [0.2, 0.02])
def test_a_low_threshold_refers_around_itself_and_nowhere_else(threshold):
    near = [threshold / 2, threshold, threshold * 1.3]
    assert told(np.array([*near, 0.5, 0.7]), threshold, WIDE) == [-1, 0, 0, 1, 1]
