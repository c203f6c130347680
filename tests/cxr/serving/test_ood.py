"""What is no plausible X-ray is seen at first sight, what is unlike training by its features."""

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.imaging.decode import DecodedImage, decode_image
from cxr.packaging import fit_ood
from cxr.serving.ood import OODDetector, implausible, unit
from tests.helpers import png

RNG = np.random.default_rng(0)
GREY = np.clip(RNG.normal(110, 45, (300, 260)), 0, 255).astype(np.uint8)
HUES = np.stack([GREY // 2 + np.linspace(0, end, 260).astype(np.uint8) for end in (0, 60, 120)], -1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (DecodedImage(GREY, "L"), None),
        (
            DecodedImage(GREY[:60], "L"),
            "too small (260 x 60 pixels, each side needs 64); extreme shape (260 x 60 pixels)",
        ),
        (DecodedImage(np.tile(GREY[:70], (1, 2)), "L"), "extreme shape (520 x 70 pixels)"),
        (DecodedImage(np.full((300, 300), 90, np.uint8), "L"), "blank"),
        (DecodedImage(np.where(GREY > 60, 255, GREY), "L"), "mostly white, like a page"),
        (decode_image(png(HUES)), "a colour picture"),
        (decode_image(png(np.repeat(GREY[..., None], 3, 2))), None),
    ],
    ids=["plausible", "small", "wide", "blank", "page", "colour", "grey in RGB"],
)
def test_first_sight(given, words):
    assert "; ".join(implausible(given)) == (words or "")


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
    guard = fit_ood.fit(features(400), features(400, 5), val, ood_share=0.02)
    assert np.mean(guard.distances(val) > guard.far) == pytest.approx(0.02, abs=0.002)
    assert np.mean(guard.negatives(val) > guard.inverted) <= 0.003
    assert np.mean([bool(reasons) for reasons in guard.strange(features(500))]) < 0.05
    others = RNG.normal(10, 3, (200, 40))
    assert all("unlike the training images" in "; ".join(reasons) for reasons in guard.strange(others))
    assert np.mean(["inverted polarity" in "; ".join(r) for r in guard.strange(features(200, 5))]) > 0.95
    assert guard.strange(np.full((1, 40), np.nan))[0]


def test_distance_is_that_of_the_gaussian_written_out(features):
    rows, asked = features(300), unit(features(7))
    guard = fit_ood.fit(rows, features(50, 5), features(50), ood_share=0.02)
    mean, directions, rest = guard.mean, guard.directions, guard.rest
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    axes = directions / lengths
    covariance = axes.T @ np.diag(1 / lengths[:, 0] ** 2) @ axes + rest * (np.eye(40) - axes.T @ axes)
    z = asked - mean
    plain = np.sum(z @ np.linalg.inv(covariance) * z, 1) / 40
    np.testing.assert_allclose(guard.distances(asked), plain, rtol=1e-6)


def test_a_guard_survives_its_file(features, tmp_path):
    guard = fit_ood.fit(features(300), features(300, 5), features(100), ood_share=0.02)
    (tmp_path / "g.npz").write_bytes(guard.save())
    asked = features(20)
    np.testing.assert_allclose(OODDetector.load(tmp_path / "g.npz").distances(asked), guard.distances(asked), rtol=1e-3)
    (tmp_path / "g.npz").write_bytes(guard.save()[:100])
    with pytest.raises(CxrError, match="cannot be read"):
        OODDetector.load(tmp_path / "g.npz")


def test_too_few_images(features):
    with pytest.raises(CxrError, match="5 training and 9 validation images; 10 and 1 are needed"):
        fit_ood.fit(features(5), features(5), features(9), 0.02)
