"""The decision follows the probability of pneumonia; one band of referral lies around whatever threshold is in use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.serving.decision import ARGMAX, band_around, in_band, is_positive, label_index, operating_points
from cxr.serving.probabilities import finding_probability, softmax

THRESHOLDS = st.floats(0, 1)
BANDS = st.tuples(st.floats(0, 0.5), st.floats(0.5, 1))
GRID = np.linspace(0, 1, 2001)
LOGITS = st.integers(2, 3).flatmap(lambda count: st.lists(st.floats(-30, 30), min_size=count, max_size=count))


def told(pneumonia: np.ndarray, threshold: float, abstain: tuple[float, float]) -> list[int]:
    """-1 normal, 0 referred, 1 pneumonia."""
    referred = in_band(pneumonia, band_around(threshold, abstain))
    return np.where(referred, 0, np.where(is_positive(pneumonia, threshold), 1, -1)).tolist()


@settings(max_examples=500, deadline=None)
@given(THRESHOLDS, BANDS)
def test_decisions_rise_with_the_probability_and_are_referred_in_one_range_around_the_threshold(threshold, abstain):
    low, high = band_around(threshold, abstain)
    assert 0 <= low <= threshold <= high <= 1
    points = np.unique([*GRID, low, threshold, high])
    answers = told(points, threshold, abstain)
    assert answers == sorted(answers)  # normal, then referred, then pneumonia
    assert answers[points.tolist().index(threshold)] == 0


@settings(max_examples=500, deadline=None)
@given(LOGITS, THRESHOLDS, BANDS)
def test_label_and_decision_never_contradict(logits, threshold, abstain):
    probabilities = softmax(np.array([logits]))
    [answer] = told(finding_probability(probabilities), threshold, abstain)
    label = label_index(probabilities[0], {-1: False, 0: None, 1: True}[answer])
    if answer == 0:
        assert label == probabilities[0].argmax()
    else:
        assert (label == 0) == (answer == -1)
        agreeing = [0] if answer == -1 else range(1, len(logits))
        assert probabilities[0, label] == max(probabilities[0, i] for i in agreeing)


@pytest.mark.parametrize("abstain", [(0.4, 0.6), (0.1, 0.7), (0.0, 1.0), (0.5, 0.5)])
def test_the_band_is_the_setting_at_one_half_and_as_wide_in_log_odds_elsewhere(abstain):
    assert band_around(0.5, abstain) == abstain

    def log_odds(p: float) -> float:
        return float(np.log(p) - np.log1p(-p))

    if 0 < abstain[0] < abstain[1] < 1:
        for threshold in (0.003, 0.2, 0.9):
            for end, at in zip(abstain, band_around(threshold, abstain), strict=True):
                assert log_odds(at) - log_odds(threshold) == pytest.approx(log_odds(end))


def test_a_probability_above_a_half_is_no_normal_because_two_classes_share_it():
    probabilities = softmax(np.log([[0.36, 0.33, 0.31]]))
    threshold = operating_points({})[ARGMAX]
    assert told(finding_probability(probabilities), threshold, (0.4, 0.6)) == [1]
    assert label_index(probabilities[0], True) == 1 and label_index(probabilities[0], None) == 0


def test_a_low_threshold_refers_around_itself_and_nowhere_else():
    assert told(np.array([0.1, 0.2, 0.3, 0.5, 0.7]), 0.2, (0.4, 0.6)) == [-1, 0, 1, 1, 1]
