"""Bands of referral are as wide as the share, or as narrow as the risk, of validation images allows."""

import logging
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cxr.errors import CxrError
from cxr.evaluation import bands
from cxr.evaluation.bands import Bands
from cxr.serving import decision
from tests.helpers import settings_with

POINTS = {"argmax": 0.5, "youden": 0.6, "sensitive": 0.02}
# Probabilities as networks give them, one minus another, with saturated ones and ties among them.
SCORES = st.lists(
    st.one_of(st.floats(0, 1).map(lambda p: 1 - p), st.sampled_from([0.0, 1e-16, 0.02, 0.3, 0.5, 0.6, 1 - 1e-16, 1.0])),
    min_size=1,
    max_size=60,
)


@cache
def rule(**serving: object):
    """The section `serving` with one of the two rules."""
    return settings_with({f"serving.{name}": value for name, value in serving.items()}).serving


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probability of the finding, which is right as often as it says."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-rng.normal(0, 3, n)))
    return rng.random(n) < score, score


@settings(max_examples=300, deadline=None, phases=[Phase.generate])
@given(
    SCORES,
    st.one_of(st.floats(1e-16, 1), st.sampled_from([0.0, 0.5, 1.0])),
    st.integers(0, 99),
    st.integers(0, 2**32 - 1),
)
def test_at_most_the_share_is_referred_and_one_more_would_be_too_many(values, threshold, percent, seed):
    score = np.array(values)
    truth = np.random.default_rng(seed).random(len(score)) < 0.5
    band = bands.choose(truth, score, {"point": threshold}, rule(refer_share=percent / 100))["point"]
    assert 0 <= band[0] <= threshold <= band[1] <= 1
    referred = decision.in_band(score, band)
    assert 100 * referred.sum() <= percent * len(score)
    distances = decision.distance(score, threshold)
    if (~referred).any() and referred.any():  # the nearest ones are referred
        assert distances[referred].max() <= distances[~referred].min()
    left = ~referred & np.isfinite(distances)
    if not left.any() or threshold in (0, 1):
        return
    nearest = left & np.isclose(distances, distances[left].min(), rtol=1e-9, atol=1e-9)
    if score[nearest].max() < 1 - 1e-12:  # above, there may be no number between two neighbours for the end of a band
        assert 100 * (referred | nearest).sum() > percent * len(score)  # with them, it is too many


@pytest.mark.parametrize("risk", [0.0, 0.02, 0.05, 0.1])
def test_the_narrowest_band_reaches_the_risk(risk):
    truth, score = drawn()
    for name, band in bands.choose(truth, score, POINTS, rule(risk=risk)).items():
        threshold = POINTS[name]
        wrong = decision.is_positive(score, threshold) != truth

        def left(width, threshold=threshold, wrong=wrong):
            given = ~decision.in_band(score, tuple(decision.bands_around(threshold, width)))
            return wrong[given].mean() if given.any() else np.nan

        given = ~decision.in_band(score, band)
        assert given.any() and wrong[given].mean() <= risk
        referred = np.sort(decision.distance(score, threshold))[: decision.in_band(score, band).sum()]
        narrower = [left(one - 1e-9) for one in referred]  # without the farthest, the two farthest, ...
        assert not [found for found in narrower if found <= risk]


def test_a_band_that_is_not_needed_refers_nobody():
    truth = np.array([False, False, True, True])
    score = np.array([0.1, 0.49, 0.5, 0.9])
    assert bands.choose(truth, score, {"argmax": 0.5}, rule(risk=0.01)) == {"argmax": (0.5, 0.5)}
    assert bands.choose(truth, score, {"argmax": 0.5}, rule(refer_share=0)) == {"argmax": (0.5, 0.5)}


def test_errors_are_counted_outside_the_band_only():
    truth = np.array([False, True, False, True, True])
    score = np.array([0.01, 0.4, 0.55, 0.9, 0.99])  # the middle ones are wrong
    low, high = bands.choose(truth, score, {"argmax": 0.5}, rule(risk=0.1))["argmax"]
    assert 0.1 < low < 0.4 and 0.55 < high < 0.9
    found = Bands.of(truth, score, 0.5)
    assert found.referred.tolist() == [0, 1, 2, 3, 5] and found.mistakes.tolist() == [2, 1, 0, 0, 0]
    np.testing.assert_allclose(found.risk, [2 / 5, 1 / 4, 0, 0, np.nan])


def test_a_risk_that_no_band_reaches_is_told_with_the_least_there_is():
    """The surest answers of all are wrong."""
    truth, score = np.array([False, True, False, True]), np.array([1.0, 0.0, 0.2, 0.4])
    with pytest.raises(CxrError) as error:
        bands.choose(truth, score, {"argmax": 0.5}, rule(risk=0.3))
    assert str(error.value) == (
        "serving.risk=0.3: no band around the threshold of argmax leaves so few wrong on validation; the least is "
        "0.667, with 25.0% of the images referred. Give a larger serving.risk, or serving.refer_share instead"
    )


def test_images_at_the_same_distance_are_referred_together_or_not_at_all():
    score = np.array([0.4, 0.6, 0.4, 0.6, *np.linspace(0.7, 0.99, 6)])
    truth = score > 0.5
    for share, referred in ((0.1, 0), (0.39, 0), (0.4, 4), (0.49, 4), (0.5, 5)):
        band = bands.choose(truth, score, {"argmax": 0.5}, rule(refer_share=share))["argmax"]
        assert decision.in_band(score, band).sum() == referred


@pytest.mark.parametrize("last_bit", [-1, 0, 1])
def test_distances_that_differ_by_rounding_are_one_distance(monkeypatch, last_bit):
    distance = decision.distance

    def on_another_cpu(score, threshold):
        found = distance(score, threshold)
        return np.where(score > threshold, found + last_bit * np.spacing(found), found)

    monkeypatch.setattr(decision, "distance", on_another_cpu)
    score = np.array([0.01, 0.4, 0.6, 0.99])
    assert Bands.of(score > 0.5, score, 0.5).referred.tolist() == [0, 2, 4]


def test_all_saturated_probabilities_are_decided():
    score = np.array([0.0, 1.0] * 50)
    for point in (0.5, 0.0, 1.0):
        band = bands.choose(score > 0.5, score, {"point": point}, rule(refer_share=0.9))["point"]
        assert band[0] <= point <= band[1] and not decision.in_band(score, band).any()


def test_few_validation_images_are_told_not_to_fill_the_share(caplog):
    truth, score = drawn(33)
    with caplog.at_level(logging.INFO, logger="cxr.evaluation.bands"):
        assert bands.choose(truth, score, POINTS, rule())["argmax"] == (0.5, 0.5)
    assert "serving.refer_share=0.03 of 33 validation images is less than one image" in caplog.text
    caplog.clear()
    truth, score = drawn(34)
    low, high = bands.choose(truth, score, POINTS, rule())["argmax"]
    assert low < 0.5 < high and decision.in_band(score, (low, high)).sum() == 1
    assert "less than one image" not in caplog.text


def test_the_bands_are_logged_with_what_they_cost_and_save(caplog):
    truth, score = drawn(1000)
    with caplog.at_level(logging.INFO, logger="cxr.evaluation.bands"):
        low, high = bands.choose(truth, score, {"argmax": 0.5}, rule())["argmax"]
    wrong, given = (score >= 0.5) != truth, ~decision.in_band(score, (low, high))
    words = (
        f"argmax {low:.3g} to {high:.3g} refers 3.0% and leaves {wrong[given].mean():.1%} wrong of {wrong.mean():.1%}"
    )
    assert words in caplog.text and "on 1000 validation images" in caplog.text
    assert wrong[given].mean() < wrong.mean()


@pytest.mark.parametrize("share", [0.29, 0.03, 0.57])
def test_a_share_of_a_whole_number_of_images_is_not_rounded_down(share):
    score = np.linspace(0.001, 0.999, 100)
    band = bands.choose(score > 0.5, score, {"argmax": 0.4321}, rule(refer_share=share))["argmax"]
    assert decision.in_band(score, band).sum() == round(100 * share)
