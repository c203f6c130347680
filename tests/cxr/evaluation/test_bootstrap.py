"""Intervals against library values, published definitions and known coverage."""

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from cxr.evaluation import bootstrap
from cxr.evaluation.statistics import Estimate

RNG = np.random.default_rng(0)
TRUTH = RNG.random(120) < 0.6
SCORE = np.round(np.clip(TRUTH * 0.3 + RNG.normal(0.4, 0.25, 120), 0, 1), 2)  # rounded: there are ties
LABELS = RNG.integers(0, 3, 120)
PREDICTED = np.where(RNG.random(120) < 0.7, LABELS, RNG.integers(0, 3, 120))
PATIENTS = np.array([f"p{n // 2}" for n in range(120)])
WEIGHTS = bootstrap.patient_weights(PATIENTS, 0, 300)


def test_a_patient_is_drawn_with_all_images():
    assert WEIGHTS.shape == (300, 120)
    assert (WEIGHTS[:, ::2] == WEIGHTS[:, 1::2]).all()
    assert (WEIGHTS.sum(1) == 120).all()  # every patient has two images here
    assert WEIGHTS.max() > 2


def test_blocks_change_nothing(monkeypatch):
    whole = bootstrap.in_blocks(lambda weights: {"mean": bootstrap.mean(SCORE, weights)}, WEIGHTS)["mean"]
    monkeypatch.setattr(bootstrap, "_BLOCK", 120 * 7)
    sizes = []

    def mean(weights):
        sizes.append(len(weights))
        return {"mean": bootstrap.mean(SCORE, weights)}

    np.testing.assert_allclose(bootstrap.in_blocks(mean, WEIGHTS)["mean"], whole, rtol=1e-12)
    assert set(sizes[:-1]) == {7} and sum(sizes) == 300
    np.testing.assert_array_equal(bootstrap.patient_weights(PATIENTS, 0, 300), WEIGHTS)


@pytest.mark.parametrize("row", [0, 7, 299])
def test_every_resample_scores_as_in_scikit_learn(row):
    weights = {"sample_weight": WEIGHTS[row]}
    assert bootstrap.auc(TRUTH, SCORE, WEIGHTS)[row] == pytest.approx(metrics.roc_auc_score(TRUTH, SCORE, **weights))
    assert bootstrap.average_precision(TRUTH, SCORE, WEIGHTS)[row] == pytest.approx(
        metrics.average_precision_score(TRUTH, SCORE, **weights)
    )
    np.testing.assert_allclose(
        bootstrap.confusion(LABELS, PREDICTED, 3, WEIGHTS)[row], metrics.confusion_matrix(LABELS, PREDICTED, **weights)
    )
    assert bootstrap.mean(SCORE, WEIGHTS)[row] == pytest.approx(np.average(SCORE, weights=WEIGHTS[row]))


def test_the_bootstrap_is_scipys_where_every_patient_has_one_image():
    weights = bootstrap.patient_weights(np.arange(120), 0, 4000)
    correct = (LABELS == PREDICTED).astype(float)
    ours = bootstrap.percentile(correct.mean(), bootstrap.mean(correct, weights))
    theirs = stats.bootstrap((correct,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_intervals_over_patients_are_wider_where_images_of_a_child_agree():
    values = np.repeat(RNG.random(40), 6)
    per_patient = bootstrap.mean(values, bootstrap.patient_weights(np.repeat(np.arange(40), 6), 0))
    per_image = bootstrap.mean(values, bootstrap.patient_weights(np.arange(240), 0))
    assert per_patient.std() > 2 * per_image.std()


def test_delong_is_its_definition():
    """The variance from all pairs of positive and negative, as the paper writes it."""
    positive, negative = SCORE[TRUTH], SCORE[~TRUTH]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = pairs.mean(1).var(ddof=1) / len(positive) + pairs.mean(0).var(ddof=1) / len(negative)
    estimate = bootstrap.delong(TRUTH, SCORE)
    assert estimate.value == pytest.approx(metrics.roc_auc_score(TRUTH, SCORE))
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


def test_delong_has_its_nominal_coverage():
    rng = np.random.default_rng(1)
    true_auc, inside = 0.7602, 0  # of two normals one standard deviation apart: Phi(1 / sqrt 2)
    for _ in range(400):
        truth = np.arange(160) < 80
        estimate = bootstrap.delong(truth, rng.normal(size=160) + truth)
        inside += estimate.low <= true_auc <= estimate.high
    assert 0.92 < inside / 400 < 0.98


def test_an_undefined_score_has_no_interval():
    one_kind = np.ones(5, dtype=bool)
    weights = bootstrap.patient_weights(np.arange(5), 0, 50)
    assert np.isnan(bootstrap.auc(one_kind, np.arange(5.0), weights)).all()
    assert bootstrap.delong(one_kind, np.arange(5.0)).value is None
    assert bootstrap.percentile(None, np.ones(3)).low is None


def test_mcnemar_is_the_binomial_test():
    first, second = np.arange(20) < 12, np.arange(20) < 4  # 8 against 0
    assert bootstrap.mcnemar(first, second) == pytest.approx(2 * 0.5**8)
    assert bootstrap.mcnemar(first, first) == 1.0


def test_scores_of_2000_resamples_take_seconds():
    started = time.process_time()
    truth, score = RNG.random(624) < 0.6, RNG.random(624)
    weights = bootstrap.patient_weights(np.arange(624) // 2, 0)
    for _ in range(4):
        bootstrap.auc(truth, score, weights)
        bootstrap.average_precision(truth, score, weights)
    assert time.process_time() - started < 5


def test_a_basic_interval_leaves_undefined_resamples_out():
    """As those of very few images, of which a resample may have none: NaN would end the interval at 0 and the value."""
    resampled = np.linspace(0.05, 0.15, 101)
    with_gaps = np.insert(resampled, 7, np.nan)
    assert bootstrap.basic(0.08, with_gaps) == bootstrap.basic(0.08, resampled)
    assert bootstrap.basic(0.08, np.array([np.nan])).value is None


@pytest.mark.parametrize("right", [0, 1, 4, 8, 11, 12])
def test_a_share_near_0_or_1_has_at_least_the_exact_interval(right):
    """12 patients are no proof of a sensitivity of 1, though all resamples agree on it."""
    found = bootstrap.of_share(right / 12, np.full(300, right / 12), 12)
    exact = stats.binomtest(right, 12).proportion_ci(bootstrap.LEVEL, method="exact")
    assert (found.value, found.low, found.high) == pytest.approx((right / 12, exact.low, exact.high))


def test_one_mistake_never_looks_surer_than_none():
    for patients in (12, 40, 125):
        lows = []
        for mistakes in range(4):
            right = np.arange(patients) >= mistakes
            resampled = bootstrap.mean(right, bootstrap.patient_weights(np.arange(patients), 0))
            lows.append(bootstrap.of_share(right.mean(), resampled, patients).low)
        assert lows == sorted(lows, reverse=True) and lows[0] < 1


def test_any_other_share_has_the_interval_of_its_resamples():
    resampled = bootstrap.mean((LABELS == PREDICTED).astype(float), WEIGHTS)
    found = bootstrap.of_share(resampled[0], resampled[1:], 60)
    assert found == bootstrap.percentile(resampled[0], resampled[1:])
    assert bootstrap.of_share(None, np.full(300, np.nan), 12).value is None


def test_a_difference_from_two_intervals_is_newcombes():
    """His first example: 56 of 70 and 48 of 80, with Wilson's intervals; 0.0524 to 0.3339."""
    first, second = (
        (n / of, *stats.binomtest(n, of).proportion_ci(0.95, method="wilson")) for n, of in ((56, 70), (48, 80))
    )
    names = "value", "low", "high"
    made = (Estimate(**dict(zip(names, one, strict=True))) for one in (first, second))
    found = bootstrap.of_difference(*made)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
