"""Phantoms are reproducible, in the layout of the Kermany dataset, and show disease inside the lungs only."""

import numpy as np
import pytest

from cxr.datasets import layouts, phantom
from cxr.imaging import decode


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.draw(folder, 60, seed=1)
    return folder


@pytest.mark.slow
def test_the_seed_determines_all_bytes(drawn, tmp_path):
    phantom.draw(tmp_path / "same", 60, seed=1)
    phantom.draw(tmp_path / "other", 60, seed=2)
    files = sorted(f.relative_to(drawn) for f in drawn.rglob("*.jpeg"))
    assert files == sorted(f.relative_to(tmp_path / "same") for f in (tmp_path / "same").rglob("*.jpeg"))
    assert all((drawn / f).read_bytes() == (tmp_path / "same" / f).read_bytes() for f in files)
    assert {f.read_bytes() for f in drawn.rglob("*.jpeg")}.isdisjoint(
        f.read_bytes() for f in (tmp_path / "other").rglob("*.jpeg")
    )


def test_phantoms_are_listed_like_real_data(drawn):
    images = layouts.scan(drawn)
    assert len(images) == 60
    assert {image.official_split for image in images} == {"train", "test"}
    patients = {(image.official_split, image.patient) for image in images}
    assert len(patients) < len(images)  # some patients have several images
    assert len({patient for _, patient in patients}) == len(patients)


def test_phantoms_use_the_range_of_grey_levels(drawn):
    for file in drawn.rglob("*.jpeg"):
        grey = decode.decode_grey(file.read_bytes())
        assert min(grey.shape) >= 224
        assert 20 < grey.std() < 90
        assert np.percentile(grey, 99) - np.percentile(grey, 1) > 90


@pytest.mark.parametrize("label", ["bacteria", "virus"])
def test_disease_is_drawn_inside_the_lungs(label):
    rng = np.random.default_rng(3)
    x, y = phantom._coordinates(300, 320, rng)
    left, right = phantom._lungs(x, y, phantom._body(rng))
    opacity = np.abs(phantom._disease(label, x, y, left, right, rng))
    inside = np.maximum(left, right) > 0.05
    assert opacity[inside].max() > 0.1
    assert opacity[~inside].max() < 0.05
    assert not phantom._disease("normal", x, y, left, right, rng).any()


def test_an_example_is_an_image_and_reproducible():
    assert phantom.example("virus") == phantom.example("virus") != phantom.example("normal")
    assert min(decode.decode_grey(phantom.example("virus")).shape) >= 250
