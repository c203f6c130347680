"""Augmentation of a whole batch at once, on the device the batch is on."""

import math

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


class Augment:
    """Random views of a batch: every image draws its own flip, crop, rotation, shift, gamma, contrast and brightness.

    Geometry is a single affine map, sampled bilinearly once; pixels outside the image are black, like film. Crops are
    square. Intensities stay within 0..255.
    """

    def __init__(self, settings: AugmentSettings, size: int):
        self.settings, self.size = settings, size

    def __call__(self, rasters: Tensor, generator: torch.Generator) -> Tensor:
        """`uint8` (B, R, R) to `float32` (B, S, S), both 0..255; equal to the input if nothing is drawn."""
        grey = rasters.float()
        # Drawn always and on the CPU, so that no setting or device changes the draws of another setting.
        draws = torch.rand(8, len(rasters), generator=generator)
        if self._moves or rasters.shape[-1] != self.size:
            grey = self._moved(grey, draws)
        return self._toned(grey, draws.to(grey.device))

    @property
    def _moves(self) -> bool:
        s = self.settings
        return s.flip or s.crop_scale[0] < 1 or s.rotate > 0 or s.translate > 0

    def _moved(self, grey: Tensor, draws: Tensor) -> Tensor:
        s = self.settings
        low, high = s.crop_scale
        side = (low + (high - low) * draws[0]).sqrt()  # of the crop, as a share of the side of the image
        angle = (2 * draws[1] - 1) * math.radians(s.rotate)
        mirror = torch.where(draws[2] < 0.5, -1.0, 1.0) if s.flip else torch.ones_like(side)
        room = 1 - side  # a crop stays inside the image, a translation may leave it
        shift_x = (2 * draws[3] - 1) * (room + 2 * s.translate)
        shift_y = (2 * draws[4] - 1) * (room + 2 * s.translate)
        cos, sin = side * angle.cos(), side * angle.sin()
        x_row = torch.stack([mirror * cos, -sin, shift_x]).to(grey.device)  # of the affine map, each (3, B)
        y_row = torch.stack([mirror * sin, cos, shift_y]).to(grey.device)
        grid = torch.stack([_coordinate(x_row, self.size), _coordinate(y_row, self.size)], -1)  # (B, S, S, 2)
        # Inside the image nothing is blended with the black outside: the outer half pixel belongs to the image.
        edge = 1 - 1 / grey.shape[-1]
        grid = torch.where(grid.abs() <= 1, grid.clamp(-edge, edge), grid)
        moved = functional.grid_sample(grey[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved[:, 0]

    def _toned(self, grey: Tensor, draws: Tensor) -> Tensor:
        s = self.settings
        if s.gamma:
            exponent = (1 + s.gamma) ** (2 * draws[5] - 1)
            grey = 255 * (grey / 255) ** exponent[:, None, None]
        if s.contrast:
            factor = (1 + (2 * draws[6] - 1) * s.contrast)[:, None, None]
            mean = grey.mean((1, 2), keepdim=True)
            grey = mean + (grey - mean) * factor
        if s.brightness:
            grey = grey + (255 * s.brightness * (2 * draws[7] - 1))[:, None, None]
        return grey.clamp(0, 255) if s.gamma or s.contrast or s.brightness else grey


def _coordinate(row: Tensor, size: int) -> Tensor:
    """One row (3, B) of affine maps at the centre of every pixel, (B, S, S); the image spans -1 to 1.

    Equals `affine_grid`, whose matrix product took a third of the time of augmentation on a CPU.
    """
    centres = (2 * torch.arange(size, device=row.device) + 1) / size - 1
    along, down, shift = row[..., None]  # each (B, 1)
    return (down * centres + shift)[:, :, None] + (along * centres)[:, None, :]
