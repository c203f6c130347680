"""Heatmaps: a class activation map drawn over its image, with numpy and Pillow alone."""

import numpy as np
from numpy import ndarray
from PIL import Image

_WEIGHT = 0.45  # opacity of the map at its maximum
# Seventeen evenly spaced colours of the colour map "inferno" by S. van der Walt and N. Smith (matplotlib, CC0).
_INFERNO = np.array([
    (0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110),
    (138, 34, 106), (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29),
    (249, 142, 9), (252, 172, 17), (249, 203, 53), (242, 234, 105), (252, 255, 164),
], dtype=np.float64)  # fmt: skip


def heat(class_map: ndarray, size: int) -> ndarray:
    """Resize the positive part of a class activation map (h, w) to `float32` (size, size) and scale it to maximum 1."""
    positive = Image.fromarray(np.maximum(class_map, 0).astype(np.float32))
    large = np.asarray(positive.resize((size, size), Image.Resampling.BILINEAR))
    return large / max(float(large.max()), 1e-9)


def overlay(raster: ndarray, class_map: ndarray) -> ndarray:
    """Draw a class activation map (h, w) over a raster, `uint8` (S, S); returns `uint8` RGB of shape (S, S, 3)."""
    hot = heat(class_map, len(raster))
    steps = np.linspace(0, 1, len(_INFERNO))
    colour = np.stack([np.interp(hot, steps, _INFERNO[:, channel]) for channel in range(3)], -1)
    weight = (_WEIGHT * hot)[..., None]
    return (raster[..., None] * (1 - weight) + colour * weight).round().astype(np.uint8)
