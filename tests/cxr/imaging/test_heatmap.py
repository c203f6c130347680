"""A map over a picture: hot where it speaks for the class, the picture itself where not."""

import numpy as np
import pytest
from matplotlib import colormaps

from cxr.imaging import heatmap


def test_a_map_is_enlarged_to_the_picture_and_its_maximum_is_one():
    own = np.zeros((7, 7), np.float32)
    own[1, 5] = 3.0
    large = heatmap.heat(own, 70)
    assert large.shape == (70, 70) and large.max() == pytest.approx(1)
    assert large[15, 55] == pytest.approx(1, abs=0.02) and large[50, 20] == 0
    assert not heatmap.heat(-own, 70).any()


def test_where_nothing_speaks_for_the_class_the_picture_stays():
    raster = np.random.default_rng(0).integers(0, 256, (70, 70), dtype=np.uint8)
    assert (heatmap.overlay(raster, np.zeros((7, 7))) == raster[..., None]).all()
    own = np.zeros((7, 7))
    own[0, 0] = 1
    hot = heatmap.overlay(raster, own)
    assert (hot[40:, 40:] == raster[40:, 40:, None]).all() and (hot[:5, :5] != raster[:5, :5, None]).any()


def test_colours_are_those_of_inferno():
    ours = np.stack([np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(heatmap._INFERNO)), heatmap._INFERNO[:, c])
                     for c in range(3)], 1)  # fmt: skip
    theirs = colormaps["inferno"](np.arange(256))[:, :3] * 255
    assert np.abs(ours - theirs).max() < 8
