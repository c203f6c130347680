"""What a scanner, an archive or a sender does to an image, on a batch of grey levels: blur, noise, JPEG, masks.

Every function takes `float32` (B, S, S) with values 0..255 and one strength per image, (B,); a strength of 0 leaves an
image as it is. No result depends on the other images of the batch.
"""

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cxr.models.device import widest_float

BLOCK = 8  # pixels; side of the blocks that JPEG compresses

# Table K.1 of the JPEG standard (ITU-T T.81, annex K), which libjpeg scales by the quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


_Change = Callable[..., Tensor]


def _of_few(change: _Change) -> _Change:
    """A costly change that a CPU makes of those images alone whose strength, the second argument, is not 0.

    A GPU changes all of them: how many there are it would have to tell before it could go on.
    """

    @wraps(change)
    def sparing(grey: Tensor, strength: Tensor, *more: Any) -> Tensor:
        if grey.device.type != "cpu":
            return torch.where(strength[:, None, None] > 0, change(grey, strength, *more), grey)
        rows = strength.nonzero()[:, 0]
        return grey.index_copy(0, rows, change(grey[rows], strength[rows], *more)) if len(rows) else grey

    return sparing


@_of_few
def blur(grey: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur; `sigma` in pixels, at most `largest`, which sets the size of the kernel for all."""
    radius = math.ceil(3 * largest)
    at = torch.arange(-radius, radius + 1, device=grey.device)
    weights = torch.exp(-0.5 * (at / sigma.clamp_min(1e-3)[:, None]) ** 2)  # (B, taps)
    weights = weights / weights.sum(1, keepdim=True)
    padded = functional.pad(grey[:, None], [radius] * 4, mode="replicate")[:, 0]
    side = grey.shape[-1]
    # Sums of shifted images: a convolution with one kernel per image may round by the size of the batch.
    rows = torch.zeros_like(padded[:, :side])
    for tap in range(2 * radius + 1):
        rows = rows + weights[:, tap, None, None] * padded[:, tap : tap + side]
    both = torch.zeros_like(grey)
    for tap in range(2 * radius + 1):
        both = both + weights[:, tap, None, None] * rows[:, :, tap : tap + side]
    return both


def noise(grey: Tensor, deviation: Tensor, place: Tensor, tile: Tensor) -> Tensor:
    """White noise; `deviation` in grey levels.

    The noise is cut from `tile`, standard normal of shape (T, T) with T > S, at `place` (B, 2), both 0..1: a generator
    per image would cost more than the training step.
    """
    side, room = grey.shape[-1], len(tile) - grey.shape[-1]
    top, left = (place * room).long().T
    # Every window of the tile, as views of it: numbers read on the CPU would wait for a GPU in every batch.
    cut = tile.unfold(0, side, 1).unfold(1, side, 1)[top, left]
    return grey + deviation[:, None, None] * cut


@_of_few
def jpeg(grey: Tensor, quality: Tensor) -> Tensor:
    """What is left after JPEG compression as libjpeg's grey images; `quality` 1 to 100, 0 for none."""
    side = grey.shape[-1]
    missing = -side % BLOCK
    dtype = widest_float(grey.device)
    whole = functional.pad(grey[:, None], (0, missing, 0, missing), mode="replicate")[:, 0].to(dtype) - 128
    count = len(whole[0]) // BLOCK
    blocks = whole.reshape(len(grey), count, BLOCK, count, BLOCK).transpose(2, 3)
    q = quality.to(dtype).clamp(1, 100)
    scale = torch.where(q < 50, 5000 / q, 200 - 2 * q)[:, None, None]
    table, dct = _jpeg_tables(grey.device)
    table = ((table * scale + 50) / 100).floor().clamp(1, 255)[:, None, None]
    kept = (dct @ blocks @ dct.T / table).round() * table
    left = (dct.T @ kept @ dct).transpose(2, 3).reshape(whole.shape)[:, :side, :side] + 128
    return left.round().clamp(0, 255).float()


@_of_few
def mask_border(grey: Tensor, share: Tensor) -> Tensor:
    """Black out a frame; `share` of the side, on each of the four sides."""
    centres = _centres(grey)
    inside = (centres >= share[:, None]) & (centres <= 1 - share[:, None])  # (B, S)
    return grey * (inside[:, :, None] & inside[:, None, :])


@_of_few
def mask_corners(grey: Tensor, share: Tensor) -> Tensor:
    """Black out a square in each of the four corners; `share` of the side."""
    centres = _centres(grey)
    near = (centres < share[:, None]) | (centres > 1 - share[:, None])
    return grey * ~(near[:, :, None] & near[:, None, :])


def erase(grey: Tensor, side: Tensor, place: Tensor, level: Tensor) -> Tensor:
    """Replace a square by one grey level (random erasing, Zhong et al. 2020).

    `side` is a share of the side of the image, `place` (B, 2) moves the square from one end to the other, both 0..1;
    `level` is 0..255.
    """
    top, left = (place * (1 - side[:, None])).T
    return torch.where(inside_box(grey, left, top, left + side, top + side), level[:, None, None], grey)


def inside_box(grey: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """Which pixels (B, S, S) are in the box of each image, whose edges (B,) are shares of the side."""
    centres = _centres(grey)
    columns = (centres >= left[:, None]) & (centres < right[:, None])
    rows = (centres >= top[:, None]) & (centres < bottom[:, None])
    return rows[:, :, None] & columns[:, None, :]


def _centres(grey: Tensor) -> Tensor:
    """Centres of rows or columns as shares of the side, (1, S)."""
    side = grey.shape[-1]
    return ((torch.arange(side, device=grey.device) + 0.5) / side)[None]


@cache
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """The quantisation table and the orthonormal DCT-II of 8 values, both of shape (8, 8), as wide as on `device`."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    dtype = widest_float(device)
    return torch.tensor(_LUMINANCE, dtype=dtype, device=device), basis.to(device, dtype)
