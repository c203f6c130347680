"""Pixels: bytes to grey `uint8`, grey to the network's input. Nothing else in the project touches them.

Training, evaluation and serving all go through `picture` (or `decode`, its grey levels alone), `InputSpec.fit_grey`
and `InputSpec.normalise`, in that order. Only numpy, Pillow and, for DICOM files, pydicom are needed, so that a served
model can do without torch.
"""

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr import dicom
from cxr.errors import CxrError, ImageError, in_short

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", *dicom.SUFFIXES)
MAX_PIXELS = 100_000_000  # 100 megapixels: far above any radiograph, far below what exhausts memory
MIN_SIDE = 16  # pixels; anything smaller is an icon
# Not around each call: pictures are decoded in threads, and filters of warnings belong to all of them. `max_pixels` is
# the limit here that a warning of Pillow's would speak of.
warnings.filterwarnings("ignore", module=r"PIL\.")
_COLOUR_SIDE = 64  # pixels of the small version whose colours are looked at

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["crop", "squash", "pad"]
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        grey: `uint8` of shape (H, W).
        mode: colour mode of the file, in Pillow's words, or of a DICOM file in its own.
        patient: digest of the patient's ID where the file knows one (DICOM), else None.
        colour: mean difference between the largest and the smallest channel, 0..1; 0 where the file is grey.
    """

    grey: np.ndarray
    mode: str
    patient: str | None = None
    colour: float = 0.0


def picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the bytes of one picture, upright by its EXIF orientation.

    Colour becomes ITU-R 601 luma, 16-bit grey is scaled linearly (65535 -> 255), DICOM is windowed as it says itself
    (see `cxr.dicom`). What could only be guessed (CMYK inks, floating point, pixels that are partly transparent) is
    refused with an `ImageError`, and so are files that end too early.
    """
    if dicom.is_dicom(data):
        found = dicom.read(data, max_pixels, MIN_SIDE)
        return Picture(found.grey, found.mode, found.patient)
    image = open_image(data, max_pixels)
    mode = image.mode
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # as above
        raise ImageError(f"the picture is damaged ({in_short(error)})") from None
    return Picture(_to_grey(image), mode, colour=_colour(image))


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The grey levels of a picture alone, `uint8` of shape (H, W); see `picture`."""
    return picture(data, max_pixels).grey


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image by its header and check that it may be read; its pixels are not decoded yet.

    Raises `ImageError` for empty, unknown, animated or oversized files.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"not a picture in a known format; {', '.join(FORMATS)} and DICOM can be read") from None
    except Exception as error:  # readers of damaged files fail in as many ways as files can be damaged
        raise ImageError(f"the header cannot be read ({in_short(error)})") from None
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels; at most {max_pixels:,} in all are read")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} pixels; each side needs at least {MIN_SIDE}")
    frames = _frames(image)
    if frames > 1:
        raise ImageError(f"{frames} frames; a single picture is needed")
    return image


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception as error:  # counting them reads on in the file
        raise ImageError(f"the header cannot be read ({in_short(error)})") from None


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"grey levels from {values.min()} to {values.max()}; 0 to 65535 can be read")
        return ((values * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "RGBA"):
        if np.asarray(image.getchannel("A")).min() < 255:
            raise ImageError("transparent pixels; flatten the picture to grey or RGB first")
        image = image.convert(image.mode[:-1])
    if image.mode in ("1", "RGB", "YCbCr"):
        image = image.convert("L")
    if image.mode != "L":
        raise ImageError(f"colour mode {image.mode}; grey, RGB and palette pictures can be read: convert it first")
    return np.array(image, dtype=np.uint8)


def _colour(image: Image.Image) -> float:
    if image.mode not in ("P", "RGB", "RGBA", "YCbCr"):
        return 0.0
    small = image.convert("RGB").resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX)
    return float(np.ptp(np.asarray(small, dtype=np.int16), axis=2).mean() / 255)


def read(path: str | Path) -> np.ndarray:
    """Decode the picture at `path` to grey `uint8` (H, W); an `ImageError` names the path."""
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a backbone wants to see; it travels with the weights.

    Attributes:
        size: side of the square input, pixels.
        resize: length of the shorter side before a centre crop to `size`, pixels (`fit="crop"` only).
        interpolation: resampling filter, always antialiased.
        fit: `crop` scales the shorter side to `resize` and takes the centre, as ImageNet weights were tested;
            `squash` scales both sides to `size`; `pad` scales the longer side to `size` and adds black bars.
        mean, std: per channel, in units of pixel values scaled to 0..1.
    """

    size: int
    resize: int
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if self.interpolation not in _RESAMPLING:
            raise CxrError(f"interpolation {self.interpolation!r}; allowed: {', '.join(_RESAMPLING)}")
        if self.fit not in get_args(Fit):
            raise CxrError(f"fit {self.fit!r}; allowed: {', '.join(get_args(Fit))}")
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

    def fit_grey(self, grey: np.ndarray) -> np.ndarray:
        """Grey `uint8` of shape (H, W) to `uint8` of shape (size, size)."""
        image, size = Image.fromarray(grey), self.size
        width, height = image.size
        filter_ = _RESAMPLING[self.interpolation]
        if self.fit == "squash":
            return np.array(_resized(image, (size, size), filter_))
        if self.fit == "pad":
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
