"""Augmentation: drawn for all images of an epoch, applied to a whole batch on the device the batch is on."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from cxr.imaging.preprocess import InputSpec
from cxr.loading import degrade
from cxr.settings.augment import AugmentSettings

MAX_FINER = 2.0  # times finer than the input a raster may be; smaller crops are scaled up
MULTIPLE = 32  # pixels; rasters are whole multiples of it
_NUMBERS = 24  # random numbers of each image; more than are used, so that a new change moves no other's draws
_STANDARD = 224  # pixels; the side for which `blur` is given
_NO_JPEG = 100  # quality that stands for no compression


def raster_spec(spec: InputSpec, settings: AugmentSettings) -> InputSpec:
    """The spec of the rasters that views are cut from: that of the input, or finer if crops need more pixels."""
    if settings.crop_scale[0] == 1.0:
        return spec
    finer = min(MAX_FINER, 1 / math.sqrt(settings.crop_scale[0]))
    return spec.scaled(math.ceil(spec.size * finer / MULTIPLE) * MULTIPLE)


@dataclass(frozen=True)
class Draws:
    """What augmentation does to each of n images, all on the CPU; strengths are those of `cxr.loading.degrade`.

    Attributes:
        affine: maps from the view to the image, both from -1 to 1, of shape (n, 2, 3).
        gamma: exponents of grey levels between 0 and 1, of shape (n,).
        contrast: factors of the distance from the mean grey level, of shape (n,).
        brightness: what is added to grey levels between 0 and 255, of shape (n,).
        blur: standard deviations as shares of the side, of shape (n,).
        noise: standard deviations in grey levels, of shape (n,).
        noise_place: where the noise is cut from, 0..1, of shape (n, 2).
        jpeg: qualities, 0 for none, of shape (n,).
        erase: sides of the erased squares as shares of the side, of shape (n,).
        erase_place: where they are, 0..1, of shape (n, 2).
        erase_level: their grey levels, of shape (n,).
        border: widths of the masked frames as shares of the side, of shape (n,).
        corners: sides of the masked corners as shares of the side, of shape (n,).
    """

    affine: Tensor
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor
    blur: Tensor
    noise: Tensor
    noise_place: Tensor
    jpeg: Tensor
    erase: Tensor
    erase_place: Tensor
    erase_level: Tensor
    border: Tensor
    corners: Tensor

    def of(self, index: Tensor) -> "Draws":
        """Those of some images, by their numbers `int64` of shape (B,)."""
        return Draws(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Augment:
    """Random views: every image draws its own geometry, tone, degradation and masks.

    Geometry (flip, crop, rotation, shear, shift) is a single affine map, sampled bilinearly once; pixels outside the
    image are black, like film. Intensities stay within 0..255.
    """

    def __init__(self, settings: AugmentSettings, size: int):
        self.settings, self.size = settings, size
        # Twice the side leaves room for a million places to cut noise from.
        self._tile = torch.randn(2 * size, 2 * size, generator=torch.Generator().manual_seed(size))

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draw for `count` images at once, so that what an image gets does not depend on the batch it comes in."""
        s = self.settings
        # All of them always, so that no setting changes the draws of another one.
        u = torch.rand(_NUMBERS, count, generator=generator, dtype=torch.float64)
        quality = torch.where(u[14] < 0.5, 0.0, s.jpeg + (_NO_JPEG - s.jpeg) * (2 - 2 * u[14]))
        values = {
            "affine": _affine(s, u),
            "gamma": (1 + s.gamma) ** _signed(u[5]),
            "contrast": 1 + _signed(u[6]) * s.contrast,
            "brightness": 255 * s.brightness * _signed(u[7]),
            "blur": s.blur / _STANDARD * in_half(u[10]),
            "noise": 255 * s.noise * in_half(u[11]),
            "noise_place": u[12:14].T,
            "jpeg": quality if s.jpeg < _NO_JPEG else torch.zeros_like(quality),
            "erase": (s.erase * in_half(u[15])).sqrt(),
            "erase_place": u[16:18].T,
            "erase_level": 255 * u[18],
            "border": s.border * in_half(u[19]),
            "corners": s.corners * in_half(u[20]),
        }
        spared = u[21] < s.clean
        for name in ("blur", "noise", "jpeg", "erase", "border", "corners"):
            values[name] = torch.where(spared, 0.0, values[name])
        return Draws(**{name: value.float() for name, value in values.items()})

    def __call__(self, rasters: Tensor, draws: Draws) -> Tensor:
        """`uint8` (B, R, R) to `float32` (B, S, S), both 0..255; equal to the input if every setting is off."""
        grey, draws = rasters.float(), draws.to(rasters.device)
        if self._moves or rasters.shape[-1] != self.size:
            grey = self._moved(grey, draws.affine)
        return self._masked(self._degraded(self._toned(grey, draws), draws), draws)

    @property
    def _moves(self) -> bool:
        s = self.settings
        return s.flip or s.crop_scale[0] < 1 or any((s.aspect, s.rotate, s.shear, s.translate))

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
            grey = 255 * (grey / 255) ** draws.gamma[:, None, None]
        if s.contrast:
            mean = grey.mean((1, 2), keepdim=True)
            grey = mean + (grey - mean) * draws.contrast[:, None, None]
        if s.brightness:
            grey = grey + draws.brightness[:, None, None]
        return grey.clamp(0, 255) if s.gamma or s.contrast or s.brightness else grey

    def _degraded(self, grey: Tensor, draws: Draws) -> Tensor:
        s = self.settings
        if s.blur:
            grey = degrade.blur(grey, draws.blur * self.size, s.blur / _STANDARD * self.size)
        if s.noise:
            self._tile = self._tile.to(grey.device)
            grey = degrade.noise(grey, draws.noise, draws.noise_place, self._tile).clamp(0, 255)
        return degrade.jpeg(grey, draws.jpeg) if s.jpeg < _NO_JPEG else grey

    def _masked(self, grey: Tensor, draws: Draws) -> Tensor:
        s = self.settings
        if s.erase:
            grey = degrade.erase(grey, draws.erase, draws.erase_place, draws.erase_level)
        if s.border:
            grey = degrade.mask_border(grey, draws.border)
        return degrade.mask_corners(grey, draws.corners) if s.corners else grey


def _affine(s: AugmentSettings, u: Tensor) -> Tensor:
    """Maps from the view to the image, (n, 2, 3), from the random numbers (numbers, n)."""
    low, high = s.crop_scale
    side = (low + (high - low) * u[0]).sqrt()  # of the crop, as a share of the side of the image
    stretch = (1 + s.aspect) ** (_signed(u[8]) / 2)
    wide, tall = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    angle, shear = _signed(u[1]) * math.radians(s.rotate), (_signed(u[9]) * math.radians(s.shear)).tan()
    mirror = torch.where(u[2] < 0.5, -1.0, 1.0) if s.flip else torch.ones_like(side)
    # A crop stays inside the image, a translation may leave it.
    shift_x = _signed(u[3]) * (1 - wide + 2 * s.translate)
    shift_y = _signed(u[4]) * (1 - tall + 2 * s.translate)
    cos, sin = angle.cos(), angle.sin()
    x_row = [mirror * wide * cos, wide * (shear * cos - sin), shift_x]
    y_row = [mirror * tall * sin, tall * (shear * sin + cos), shift_y]
    return torch.stack([torch.stack(x_row, 1), torch.stack(y_row, 1)], 1)


def _signed(u: Tensor) -> Tensor:
    """From 0..1 to -1..1."""
    return 2 * u - 1


def in_half(u: Tensor) -> Tensor:
    """0 for half of the images, 0..1 for the others: what is seldom in real images is not in all of training."""
    return _signed(u).clamp_min(0)


def _coordinate(row: Tensor, size: int) -> Tensor:
    """One row (B, 3) of affine maps at the centre of every pixel, (B, S, S); the image spans -1 to 1.

    Equals `affine_grid`, whose matrix product took a third of the time of augmentation on a CPU.
    """
    centres = (2 * torch.arange(size, device=row.device) + 1) / size - 1
    along, down, shift = row.T[..., None]  # each (B, 1)
    return (down * centres + shift)[:, :, None] + (along * centres)[:, None, :]
