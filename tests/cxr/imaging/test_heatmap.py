"""A heatmap colours the image where there is evidence for the class, and leaves the rest unchanged."""

import numpy as np
import pytest
from matplotlib import colormaps

from cxr.imaging import heatmap


def test_a_map_is_scaled_to_the_raster_with_maximum_one():
    class_map = np.zeros((7, 7), np.float32)
    class_map[1, 5] = 3.0
    large = heatmap.heat(class_map, 70)
    assert large.shape == (70, 70) and large.max() == pytest.approx(1)
    assert large[15, 55] == pytest.approx(1, abs=0.02) and large[50, 20] == 0
    assert not heatmap.heat(-class_map, 70).any()


def test_the_image_is_unchanged_without_evidence_for_the_class():
    raster = np.random.default_rng(0).integers(0, 256, (70, 70), dtype=np.uint8)
    assert (heatmap.overlay(raster, np.zeros((7, 7))) == raster[..., None]).all()
    class_map = np.zeros((7, 7))
    class_map[0, 0] = 1
    hot = heatmap.overlay(raster, class_map)
    assert (hot[40:, 40:] == raster[40:, 40:, None]).all() and (hot[:5, :5] != raster[:5, :5, None]).any()


def test_colours_are_those_of_the_inferno_colour_map():
    at, known = np.linspace(0, 1, 256), np.linspace(0, 1, len(heatmap._INFERNO))
    colours = np.stack([np.interp(at, known, heatmap._INFERNO[:, channel]) for channel in range(3)], 1)
    expected = colormaps["inferno"](np.arange(256))[:, :3] * 255
    assert np.abs(colours - expected).max() < 8
