"""Preprocessing: from decoded grey levels to the raster that a network sees and to its normalised input.

Training, evaluation and serving all use `InputSpec.to_raster`; `cxr.models.normalise` applies `InputSpec.affine`.
"""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from cxr.errors import CxrError, ImageError

MAX_ASPECT = 50  # longer side / shorter side; a strip, not a radiograph
MIN_SIDE = 16  # pixels; anything smaller is an icon
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["crop", "squash", "pad"]
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


class TooManyPixelsError(ImageError):
    """An image with more pixels than are accepted, not decoded yet."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `ImageError` for the size, in pixels, of an image that must not be decoded."""
    if width * height > max_pixels:
        raise TooManyPixelsError(f"{width} x {height} pixels; at most {max_pixels:,} in all are accepted")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} pixels; each side must have at least {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} pixels; one side may be at most {MAX_ASPECT} times the other")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The input that a backbone expects; saved with its weights.

    Attributes:
        size: side of the square input, pixels.
        resize: length of the shorter side before a centre crop to `size`, pixels (`resize_mode="crop"` only).
        interpolation: resampling filter, always with antialiasing.
        resize_mode: `crop` scales the shorter side to `resize` and crops the centre, as ImageNet weights were tested;
            `squash` scales both sides to `size`; `pad` scales the longer side to `size` and adds black bars.
        mean: of each channel, in units of pixel values scaled to 0..1.
        std: standard deviation of each channel, in the same units.
    """

    size: int
    resize: int
    interpolation: Interpolation = "bilinear"
    resize_mode: ResizeMode = "crop"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if self.interpolation not in _RESAMPLING:
            raise CxrError(f"interpolation: expected one of {', '.join(_RESAMPLING)}, got {self.interpolation!r}")
        if self.resize_mode not in get_args(ResizeMode):
            raise CxrError(f"resize_mode: expected one of {', '.join(get_args(ResizeMode))}, got {self.resize_mode!r}")
        if self.size < MIN_SIDE or self.resize < self.size:
            raise CxrError(f"input size {self.size}, resize {self.resize}: expected {MIN_SIDE} <= size <= resize")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CxrError(f"mean {self.mean}, std {self.std}: expected three numbers each, std above 0")

    @classmethod
    def from_dict(cls, values: dict) -> "InputSpec":
        """Build a spec from the output of `to_dict`; missing or unknown keys raise `CxrError`."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (KeyError, TypeError) as error:
            raise CxrError(f"input spec is incomplete or has unknown keys ({error})") from None

    def to_dict(self) -> dict:
        """Return plain values for JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def scaled(self, size: int) -> "InputSpec":
        """Return the spec of the same view of an image with `size` x `size` pixels."""
        resize = max(size, round(self.resize * size / self.size))
        return InputSpec(**{**asdict(self), "size": size, "resize": resize})

    def pixels_per_pixel(self, width: int, height: int) -> float:
        """Pixels of an image for one of its raster, along the side that has fewer."""
        if self.resize_mode == "squash":
            return min(width, height) / self.size
        return max(width, height) / self.size if self.resize_mode == "pad" else min(width, height) / self.resize

    def to_raster(self, grey: np.ndarray, extent: tuple[float, float] | None = None) -> np.ndarray:
        """Resize grey `uint8` of shape (H, W) to `uint8` of shape (size, size), by `resize_mode`.

        `extent` is the width and height of the image in pixels of `grey`, at most W and H: the last column and row of
        an image that was decoded at a reduced scale may lie partly outside it. None: all of `grey`.
        """
        image, size, resampling = Image.fromarray(grey), self.size, _RESAMPLING[self.interpolation]
        width, height = extent or image.size
        whole = (0.0, 0.0, float(width), float(height))
        if self.resize_mode == "squash":
            return np.array(image.resize((size, size), resampling, whole))
        if self.resize_mode == "pad":
            scale = size / max(width, height)
            across, down = max(1, round(width * scale)), max(1, round(height * scale))
            canvas = Image.new("L", (size, size))
            image = image.resize((across, down), resampling, whole)
            canvas.paste(image, ((size - across) // 2, (size - down) // 2))
            return np.array(canvas)
        # Like torchvision's Resize and CenterCrop: the longer side is truncated to whole pixels, the offset is rounded.
        # Only what the crop keeps is scaled.
        short = min(width, height)
        across, down = int(self.resize * width / short), int(self.resize * height / short)
        left, top = round((across - size) / 2), round((down - size) / 2)
        box = (
            *(left * width / across, top * height / down),
            *(min((left + size) * width / across, width), min((top + size) * height / down, height)),
        )
        return np.array(image.resize((size, size), resampling, box))

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `scale` and `shift`, `float32` (3,): the normalised input is `grey * scale + shift`, grey 0..255."""
        std = np.asarray(self.std, dtype=np.float64)
        scale = 1.0 / (255.0 * std)
        shift = -np.asarray(self.mean, dtype=np.float64) / std
        return scale.astype(np.float32), shift.astype(np.float32)
