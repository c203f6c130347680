"""Decoding of JPEG, PNG, TIFF, BMP and DICOM files to grey `uint8`.

Training, evaluation and serving all use `cxr.imaging.reader`, which decodes with `decode_image`. Needs only numpy,
Pillow and, for DICOM files, pydicom, so that a served model runs without torch.
"""

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr.errors import ImageError, in_short
from cxr.imaging import dicom
from cxr.imaging.preprocess import check_size

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", *dicom.SUFFIXES)
MAX_PIXELS = 100_000_000  # 100 megapixels: far above any radiograph, far below what exhausts memory
# Pillow warns of decompression bombs, which `max_pixels` already refuses. Set once and not around each call, since
# images are decoded in threads, which share the warning filters.
warnings.filterwarnings("ignore", module=r"PIL\.")
_COLOUR_SIDE = 64  # pixels; side of the thumbnail that colour is measured on


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        grey: `uint8` of shape (H, W).
        mode: colour mode of the file as Pillow names it; for DICOM, photometric interpretation and bits.
        patient: issuer and patient ID of a DICOM file; None if there is none. Never kept: see `cxr.datasets.patients`.
        colour: mean difference between the largest and the smallest channel, 0..1; 0 for grey files.
    """

    grey: np.ndarray
    mode: str
    patient: str | None = field(default=None, repr=False)
    colour: float = 0.0


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image and turn it upright by its EXIF orientation.

    Colour becomes ITU-R 601 luma, 16-bit grey is scaled linearly (65535 -> 255), and DICOM files are windowed by their
    own header (see `cxr.imaging.dicom`).

    Raises:
        ImageError: the file is damaged, truncated, larger than `max_pixels`, or cannot be converted to grey without
            guessing (CMYK, floating point, transparent pixels).
    """
    if dicom.is_dicom(data):
        radiograph = dicom.read(data, max_pixels)
        return DecodedImage(radiograph.grey, radiograph.mode, radiograph.patient)
    image = open_image(data, max_pixels)
    mode = image.mode
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise many types on damaged files
        raise ImageError(f"the image is damaged ({in_short(error)})") from None
    return DecodedImage(_to_grey(image), mode, colour=_colour(image))


def decode_grey(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image to its grey levels, `uint8` of shape (H, W); see `decode_image`."""
    return decode_image(data, max_pixels).grey


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image and check its header; pixels are not decoded yet.

    Raises:
        ImageError: the file is empty, of an unknown format, too large, too small, or has several frames.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"not an image in a known format; expected {', '.join(FORMATS)} or DICOM") from None
    except Exception as error:  # parsers raise many types on damaged files
        raise ImageError(f"the header cannot be read ({in_short(error)})") from None
    width, height = image.size
    check_size(width, height, max_pixels)
    frames = _frames(image)
    if frames > 1:
        raise ImageError(f"{frames} frames; expected a single image")
    return image


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception as error:  # counting frames reads further into the file
        raise ImageError(f"the header cannot be read ({in_short(error)})") from None


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"grey levels from {values.min()} to {values.max()}; expected 0 to 65535")
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "RGBA"):
        if np.asarray(image.getchannel("A")).min() < 255:
            raise ImageError("transparent pixels; flatten the image to grey or RGB first")
        image = image.convert(image.mode[:-1])
    if image.mode in ("1", "RGB", "YCbCr"):
        image = image.convert("L")
    if image.mode != "L":
        raise ImageError(f"unsupported colour mode {image.mode}; convert the image to grey, RGB or a palette first")
    return np.array(image, dtype=np.uint8)


def _colour(image: Image.Image) -> float:
    if image.mode not in ("P", "RGB", "RGBA", "YCbCr"):
        return 0.0
    small = image.convert("RGB").resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX)
    return float(np.ptp(np.asarray(small, dtype=np.int16), axis=2).mean() / 255)


def read_grey(path: str | Path) -> np.ndarray:
    """Decode the image at `path` to grey `uint8` of shape (H, W); an `ImageError` names the path."""
    try:
        return decode_grey(Path(path).read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
