"""Augmentation: drawn for all images of an epoch, applied to a whole batch on the device the batch is on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cxr.imaging.preprocess import InputSpec
from cxr.settings.schema import AugmentSettings

MAX_FINER = 2.0  # times finer than the input a raster may be; smaller crops are scaled up
MULTIPLE = 32  # pixels; rasters are whole multiples of it


def raster_spec(spec: InputSpec, settings: AugmentSettings) -> InputSpec:
    """The spec of the rasters that views are cut from: that of the input, or finer if crops need more pixels."""
    if settings.crop_scale[0] == 1.0:
        return spec
    finer = min(MAX_FINER, 1 / math.sqrt(settings.crop_scale[0]))
    return spec.scaled(math.ceil(spec.size * finer / MULTIPLE) * MULTIPLE)


@dataclass(frozen=True)
class Draws:
    """What augmentation does to each of n images, all on the CPU.

    Attributes:
        affine: maps from the view to the image, both from -1 to 1, of shape (n, 2, 3).
        gamma: exponents of grey levels between 0 and 1, of shape (n,).
        contrast: factors of the distance from the mean grey level, of shape (n,).
        brightness: what is added to grey levels between 0 and 255, of shape (n,).
    """

    affine: Tensor
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor

    def of(self, index: Tensor) -> "Draws":
        """Those of some images, by their numbers `int64` of shape (B,)."""
        return Draws(self.affine[index], self.gamma[index], self.contrast[index], self.brightness[index])


class Augment:
    """Random views: every image draws its own flip, crop, rotation, shift, gamma, contrast and brightness.

    Geometry is a single affine map, sampled bilinearly once; pixels outside the image are black, like film. Crops are
    square. Intensities stay within 0..255.
    """

    def __init__(self, settings: AugmentSettings, size: int):
        self.settings, self.size = settings, size

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draw for `count` images at once, so that what an image gets does not depend on the batch it comes in."""
        s = self.settings
        # Drawn always, so that no setting changes the draws of another one.
        draws = torch.rand(8, count, generator=generator, dtype=torch.float64)
        low, high = s.crop_scale
        side = (low + (high - low) * draws[0]).sqrt()  # of the crop, as a share of the side of the image
        angle = (2 * draws[1] - 1) * math.radians(s.rotate)
        mirror = torch.where(draws[2] < 0.5, -1.0, 1.0) if s.flip else torch.ones_like(side)
        room = 1 - side  # a crop stays inside the image, a translation may leave it
        shift_x = (2 * draws[3] - 1) * (room + 2 * s.translate)
        shift_y = (2 * draws[4] - 1) * (room + 2 * s.translate)
        cos, sin = side * angle.cos(), side * angle.sin()
        rows = [torch.stack([mirror * cos, -sin, shift_x], 1), torch.stack([mirror * sin, cos, shift_y], 1)]
        return Draws(
            affine=torch.stack(rows, 1).float(),
            gamma=((1 + s.gamma) ** (2 * draws[5] - 1)).float(),
            contrast=(1 + (2 * draws[6] - 1) * s.contrast).float(),
            brightness=(255 * s.brightness * (2 * draws[7] - 1)).float(),
        )

    def __call__(self, rasters: Tensor, draws: Draws) -> Tensor:
        """`uint8` (B, R, R) to `float32` (B, S, S), both 0..255; equal to the input if every setting is off."""
        grey = rasters.float()
        if self._moves or rasters.shape[-1] != self.size:
            grey = self._moved(grey, draws.affine.to(grey.device))
        return self._toned(grey, draws)

    @property
    def _moves(self) -> bool:
        s = self.settings
        return s.flip or s.crop_scale[0] < 1 or s.rotate > 0 or s.translate > 0

    def _moved(self, grey: Tensor, affine: Tensor) -> Tensor:
        grid = torch.stack([_coordinate(affine[:, row], self.size) for row in (0, 1)], -1)  # (B, S, S, 2)
        # Inside the image nothing is blended with the black outside: the outer half pixel belongs to the image.
        edge = 1 - 1 / grey.shape[-1]
        grid = torch.where(grid.abs() <= 1, grid.clamp(-edge, edge), grid)
        moved = functional.grid_sample(grey[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved[:, 0]

    def _toned(self, grey: Tensor, draws: Draws) -> Tensor:
        s = self.settings
        if s.gamma:
            grey = 255 * (grey / 255) ** _each(draws.gamma, grey)
        if s.contrast:
            mean = grey.mean((1, 2), keepdim=True)
            grey = mean + (grey - mean) * _each(draws.contrast, grey)
        if s.brightness:
            grey = grey + _each(draws.brightness, grey)
        return grey.clamp(0, 255) if s.gamma or s.contrast or s.brightness else grey


def _each(values: Tensor, images: Tensor) -> Tensor:
    """One value for all pixels of each image, (B,) to (B, 1, 1)."""
    return values.to(images.device)[:, None, None]


def _coordinate(row: Tensor, size: int) -> Tensor:
    """One row (B, 3) of affine maps at the centre of every pixel, (B, S, S); the image spans -1 to 1.

    Equals `affine_grid`, whose matrix product took a third of the time of augmentation on a CPU.
    """
    centres = (2 * torch.arange(size, device=row.device) + 1) / size - 1
    along, down, shift = row.T[..., None]  # each (B, 1)
    return (down * centres + shift)[:, :, None] + (along * centres)[:, None, :]
