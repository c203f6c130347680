"""Pixels: bytes to grey `uint8`, grey to the network's input. Nothing else in the project touches them.

Training, evaluation and serving all go through `picture` (or `decode`, its grey levels alone), `InputSpec.to_raster`
and `InputSpec.normalise`, in that order. Only numpy, Pillow and, for DICOM files, pydicom are needed, so that a served
model can do without torch.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr.errors import ImageError, in_short
from cxr.imaging import dicom
from cxr.imaging.preprocess import MIN_SIDE

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", *dicom.SUFFIXES)
MAX_PIXELS = 100_000_000  # 100 megapixels: far above any radiograph, far below what exhausts memory
# Not around each call: pictures are decoded in threads, and filters of warnings belong to all of them. `max_pixels` is
# the limit here that a warning of Pillow's would speak of.
warnings.filterwarnings("ignore", module=r"PIL\.")
_COLOUR_SIDE = 64  # pixels of the small version whose colours are looked at


@dataclass(frozen=True)
class DecodedImage:
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


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode the bytes of one picture, upright by its EXIF orientation.

    Colour becomes ITU-R 601 luma, 16-bit grey is scaled linearly (65535 -> 255), DICOM is windowed as it says itself
    (see `cxr.imaging.dicom`). What could only be guessed (CMYK inks, floating point, partly transparent pixels) is
    refused with an `ImageError`, and so are truncated files.
    """
    if dicom.is_dicom(data):
        found = dicom.read(data, max_pixels, MIN_SIDE)
        return DecodedImage(found.grey, found.mode, found.patient)
    image = open_image(data, max_pixels)
    mode = image.mode
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # as above
        raise ImageError(f"the picture is damaged ({in_short(error)})") from None
    return DecodedImage(_to_grey(image), mode, colour=_colour(image))


def decode_grey(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The grey levels of a picture alone, `uint8` of shape (H, W); see `decode_image`."""
    return decode_image(data, max_pixels).grey


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


def read_grey(path: str | Path) -> np.ndarray:
    """Decode the picture at `path` to grey `uint8` (H, W); an `ImageError` names the path."""
    try:
        return decode_grey(Path(path).read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
