"""Preprocessing: decoded grey levels to the raster that a network sees, and the raster to its normalised input.

Training, evaluation and serving all go through `InputSpec.to_raster` and `InputSpec.normalise`, in that order.
"""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from cxr.errors import CxrError

MIN_SIDE = 16  # pixels; anything smaller is an icon
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["crop", "squash", "pad"]
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a backbone wants to see; it travels with the weights.

    Attributes:
        size: side of the square input, pixels.
        resize: length of the shorter side before a centre crop to `size`, pixels (`resize_mode="crop"` only).
        interpolation: resampling filter, always antialiased.
        resize_mode: `crop` scales the shorter side to `resize` and takes the centre, as ImageNet weights were tested;
            `squash` scales both sides to `size`; `pad` scales the longer side to `size` and adds black bars.
        mean, std: per channel, in units of pixel values scaled to 0..1.
    """

    size: int
    resize: int
    interpolation: Interpolation = "bilinear"
    resize_mode: ResizeMode = "crop"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if self.interpolation not in _RESAMPLING:
            raise CxrError(f"interpolation {self.interpolation!r}; allowed: {', '.join(_RESAMPLING)}")
        if self.resize_mode not in get_args(ResizeMode):
            raise CxrError(f"resize_mode {self.resize_mode!r}; allowed: {', '.join(get_args(ResizeMode))}")
        if self.size < MIN_SIDE or self.resize < self.size:
            raise CxrError(f"input size {self.size}, resize {self.resize}; needed: {MIN_SIDE} <= size <= resize")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CxrError(f"mean {self.mean}, std {self.std}; needed: three numbers each, std above 0")

    @classmethod
    def from_dict(cls, values: dict) -> "InputSpec":
        """The inverse of `to_dict`; raises `CxrError` for missing or unknown keys."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (KeyError, TypeError) as error:
            raise CxrError(f"input spec is incomplete or has unknown keys ({error})") from None

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def scaled(self, size: int) -> "InputSpec":
        """The same view of the picture on a raster of `size` x `size` pixels."""
        resize = max(size, round(self.resize * size / self.size))
        return InputSpec(**{**asdict(self), "size": size, "resize": resize})

    def to_raster(self, grey: np.ndarray) -> np.ndarray:
        """Grey `uint8` of shape (H, W) to `uint8` of shape (size, size)."""
        image, size = Image.fromarray(grey), self.size
        width, height = image.size
        filter_ = _RESAMPLING[self.interpolation]
        if self.resize_mode == "squash":
            return np.array(_resized(image, (size, size), filter_))
        if self.resize_mode == "pad":
            scale = size / max(width, height)
            image = _resized(image, (max(1, round(width * scale)), max(1, round(height * scale))), filter_)
            canvas = Image.new("L", (size, size))
            canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
            return np.array(canvas)
        # As torchvision's Resize and CenterCrop: the longer side is cut to whole pixels, the offset rounded.
        short = min(width, height)
        image = _resized(image, (int(self.resize * width / short), int(self.resize * height / short)), filter_)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        return np.array(image.crop((left, top, left + size, top + size)))

    def normalise(self, grey: np.ndarray) -> np.ndarray:
        """`uint8` of shape (B, S, S) to `float32` of shape (B, 3, S, S): 0..1, then (x - mean) / std."""
        scale, shift = self.affine()
        return grey[:, None].astype(np.float32) * scale[:, None, None] + shift[:, None, None]

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """`scale` and `shift` of shape (3,), `float32`, with `input = grey * scale + shift` for grey in 0..255."""
        std = np.asarray(self.std, dtype=np.float64)
        scale = 1.0 / (255.0 * std)
        shift = -np.asarray(self.mean, dtype=np.float64) / std
        return scale.astype(np.float32), shift.astype(np.float32)


def _resized(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, resampling)
