"""The sample: the same bytes for the same seed, in the layout of the real set, and told apart by what is drawn."""

import numpy as np
import pytest

from cxr.datasets import layouts, phantom
from cxr.imaging import decode


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.draw(folder, 60, seed=1)
    return folder


def test_the_seed_decides_the_bytes(drawn, tmp_path):
    phantom.draw(tmp_path / "same", 60, seed=1)
    phantom.draw(tmp_path / "other", 60, seed=2)
    files = sorted(f.relative_to(drawn) for f in drawn.rglob("*.jpeg"))
    assert files == sorted(f.relative_to(tmp_path / "same") for f in (tmp_path / "same").rglob("*.jpeg"))
    assert all((drawn / f).read_bytes() == (tmp_path / "same" / f).read_bytes() for f in files)
    assert {f.read_bytes() for f in drawn.rglob("*.jpeg")}.isdisjoint(
        f.read_bytes() for f in (tmp_path / "other").rglob("*.jpeg")
    )


def test_the_sample_takes_the_way_of_real_data(drawn):
    found = layouts.scan(drawn)
    assert len(found) == 60
    assert {item.part for item in found} == {"train", "test"}
    patients = {(item.part, item.patient) for item in found}
    assert len(patients) < len(found)  # several images of some
    assert len({patient for _, patient in patients}) == len(patients)


def test_the_pictures_are_grey_and_use_the_range(drawn):
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
    drawn = np.abs(phantom._disease(label, x, y, left, right, rng))
    inside = np.maximum(left, right) > 0.05
    assert drawn[inside].max() > 0.1
    assert drawn[~inside].max() < 0.05
    assert not phantom._disease("normal", x, y, left, right, rng).any()


def test_an_example_is_a_picture_and_always_the_same():
    assert phantom.example("virus") == phantom.example("virus") != phantom.example("normal")
    assert min(decode.decode_grey(phantom.example("virus")).shape) >= 250
