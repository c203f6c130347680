"""What is no plausible X-ray is seen at first sight, what is unlike training by its features."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.packaging import fit_ood
from cxr.serving.ood import QUANTILES, OODDetector, unit

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def features():
    """Features that vary in few directions; the negatives are shifted along one more."""
    basis = RNG.normal(size=(5, 40))

    def draw(count, shift=0.0):
        rows = 10 + RNG.normal(size=(count, 5)) @ basis + 0.1 * RNG.normal(size=(count, 40))
        rows[:, 0] += shift
        return rows

    return draw


def test_thresholds_come_from_validation_and_strangers_are_found(features):
    val = features(1000)
    guard = fit_ood.fit_detector(features(400), features(400, 5), val, ood_share=0.02)
    assert np.mean(guard.distances(val) > guard.far) == pytest.approx(0.02, abs=0.002)
    assert np.mean(guard.inversion_scores(val) > guard.inverted) <= 0.003
    assert np.mean([bool(reasons) for reasons in guard.reasons(features(500))]) < 0.05
    others = RNG.normal(10, 3, (200, 40))
    assert all("unlike the training images" in "; ".join(reasons) for reasons in guard.reasons(others))
    assert np.mean(["inverted polarity" in "; ".join(r) for r in guard.reasons(features(200, 5))]) > 0.95
    assert guard.reasons(np.full((1, 40), np.nan))[0]


def test_distance_is_that_of_the_gaussian_written_out(features):
    rows, asked = features(300), unit(features(7))
    guard = fit_ood.fit_detector(rows, features(50, 5), features(50), ood_share=0.02)
    mean, directions, rest = guard.mean, guard.directions, guard.rest
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    axes = directions / lengths
    covariance = axes.T @ np.diag(1 / lengths[:, 0] ** 2) @ axes + rest * (np.eye(40) - axes.T @ axes)
    z = asked - mean
    plain = np.sum(z @ np.linalg.inv(covariance) * z, 1) / 40
    np.testing.assert_allclose(guard.distances(asked), plain, rtol=1e-6)


def test_a_guard_survives_its_file(features, tmp_path):
    guard = fit_ood.fit_detector(features(300), features(300, 5), features(100), ood_share=0.02)
    (tmp_path / "g.npz").write_bytes(guard.save())
    asked = features(20)
    np.testing.assert_allclose(OODDetector.load(tmp_path / "g.npz").distances(asked), guard.distances(asked), rtol=1e-3)
    (tmp_path / "g.npz").write_bytes(guard.save()[:100])
    with pytest.raises(CxrError, match="cannot be read"):
        OODDetector.load(tmp_path / "g.npz")


def test_distances_of_validation_are_kept_and_models_without_them_still_load(features, tmp_path):
    val = features(100)
    guard = fit_ood.fit_detector(features(300), features(300, 5), val, ood_share=0.02)
    np.testing.assert_allclose(guard.validation, np.quantile(guard.distances(val), np.linspace(0, 1, QUANTILES)))
    (tmp_path / "new.npz").write_bytes(guard.save())
    np.testing.assert_allclose(OODDetector.load(tmp_path / "new.npz").validation, guard.validation, rtol=1e-3)
    (tmp_path / "old.npz").write_bytes(replace(guard, validation=None).save())
    old = OODDetector.load(tmp_path / "old.npz")
    assert old.validation is None
    np.testing.assert_array_equal(old.distances(val), OODDetector.load(tmp_path / "new.npz").distances(val))


def test_too_few_images(features):
    with pytest.raises(CxrError, match="5 training and 9 validation images; at least 10 and 1 are required"):
        fit_ood.fit_detector(features(5), features(5), features(9), 0.02)
