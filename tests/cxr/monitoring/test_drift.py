"""Distances between samples: their values, and how often chance alone exceeds what is said of it."""

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp

from cxr.monitoring import drift


def compared(rng, reference: int, images: int, chance: float, shift: float = 0.0) -> tuple[bool, bool]:
    """Whether PSI and KS of two samples of a normal distribution exceed what chance makes of them."""
    known, values = np.sort(rng.normal(size=reference)), np.sort(rng.normal(shift, size=images))
    ends = drift.edges(known, reference)
    expected = drift.counts(known, ends)
    psi = drift.psi(expected, drift.counts(values, ends))
    ks = drift.ks(known, values)
    return (
        psi > drift.psi_by_chance(expected, images, chance),
        ks > drift.ks_by_chance(reference, images, chance),
    )


@pytest.mark.parametrize(("reference", "images"), [(350, 350), (350, 30), (60, 60), (12, 200)])
def test_chance_exceeds_its_bound_as_rarely_as_said(reference, images):
    rng, rounds, chance = np.random.default_rng([reference, images]), 600, 0.01
    found = np.mean([compared(rng, reference, images, chance) for _ in range(rounds)], axis=0)
    three = 3 * np.sqrt(chance * (1 - chance) / rounds)
    assert 0 < found[0] <= chance + three and found[1] <= chance + three


def test_a_shift_is_beyond_chance():
    rng = np.random.default_rng(0)
    assert np.mean([compared(rng, 350, 350, 0.001, shift=0.5) for _ in range(50)], axis=0).min() > 0.95


def test_for_large_bins_chance_is_the_known_chi_square():
    """Yurdakul and Naranjo (2020)."""
    reference, images = np.full(10, 500), 5000
    for chance in (0.01, 0.001, 1e-5):
        known = chi2.isf(chance, 9) * (1 / 5000 + 1 / images)
        assert drift.psi_by_chance(reference, images, chance) == pytest.approx(known, rel=0.12)


def test_the_index_is_its_formula_and_the_distance_that_of_scipy():
    reference, counted = np.array([10, 20, 70]), np.array([5, 5, 10])
    r, s = (reference + 0.5) / 101.5, (counted + 0.5) / 21.5
    assert drift.psi(reference, counted) == pytest.approx(((s - r) * np.log(s / r)).sum())
    rng = np.random.default_rng(1)
    a, b = np.sort(rng.normal(size=80)), np.sort(rng.normal(0.3, size=50).round(1))
    assert drift.ks(a, b) == pytest.approx(ks_2samp(a, b).statistic)


def test_a_value_that_many_share_has_a_bin_of_its_own():
    constant = np.full(100, 224.0)
    ends = drift.edges(constant, 100)
    assert drift.counts(np.array([223.0, 224, 224, 225]), ends).tolist() == [1, 2, 1]
    assert drift.psi(drift.counts(constant, ends), drift.counts(constant, ends)) == 0
    half = np.sort(np.concatenate([np.zeros(50), np.arange(1, 51)]))
    ends = drift.edges(half, 100)
    assert drift.counts(half, ends).sum() == 100 and drift.counts(np.zeros(3), ends).max() == 3


def test_small_references_have_fewer_bins():
    for size, bins in ((10, 2), (40, 5), (350, 12), (700, 14)):
        ends = drift.edges(np.arange(size, dtype=float), size)
        assert len(ends) + 1 == bins and drift.counts(np.arange(size, dtype=float), ends).min() >= drift.LEAST


def test_images_of_one_patient_count_less():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    alone, three = np.arange(1200), np.repeat(np.arange(400), 3)
    repeated = np.repeat(np.digitize(values, [-1, 0, 1]), 3)  # three images of each patient, all alike
    assert drift.design_effect(repeated, three) == pytest.approx(3, rel=0.01)
    assert drift.design_effect(repeated, alone) == pytest.approx(1, abs=0.01)
    assert drift.design_effect(np.zeros(5, int), np.arange(5)) == 1


def test_a_share_of_referred_images_is_judged_by_its_number():
    """Two in a hundred are expected; five of thirty can still be chance at this level, thirty of three hundred not."""
    assert drift.share_by_chance(7, 350, 30, 1e-4) > 5 / 30
    assert drift.share_by_chance(7, 350, 300, 1e-4) < 30 / 300
    rng, over = np.random.default_rng(0), []
    for _ in range(2000):
        known, count = rng.binomial(350, 0.02), rng.binomial(100, 0.02)
        over.append(count / 100 > drift.share_by_chance(known, 350, 100, 0.01))
    assert np.mean(over) <= 0.017
