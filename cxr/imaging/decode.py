"""Decoding of JPEG, PNG, TIFF, BMP and DICOM files to grey `uint8`.

Training, evaluation and serving all use `cxr.imaging.reader`, which decodes with `decode_image`. Needs only numpy,
Pillow and, for DICOM files, pydicom, so that a served model runs without torch.
"""

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from cxr.errors import ImageError, in_short
from cxr.imaging import dicom
from cxr.imaging.cost import check_cost
from cxr.imaging.dicom_pool import POOL
from cxr.imaging.lookup import bands
from cxr.imaging.preprocess import InputSpec, check_size

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", *dicom.SUFFIXES)
MAX_PIXELS = 100_000_000  # 100 megapixels: far above any radiograph, far below what exhausts memory
# Pillow warns of decompression bombs, which `max_pixels` already refuses. Set once and not around each call, since
# images are decoded in threads, which share the warning filters.
warnings.filterwarnings("ignore", module=r"PIL\.")
_UPRIGHT = {  # EXIF orientation: what turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG file is decoded at a half or a quarter of its width and height, by a smaller transform of its blocks, if that
# leaves at least so many pixels for one of the raster along each side. The raster then differs from that of a full
# decode by at most 0.5 grey levels in the mean on X-rays, and by 1.2 where every pixel of the file is detail. With 1.25
# pixels or at an eighth it would be up to 2.4. The shorter side keeps at least so many pixels in all: a small raster
# would be made of too few of the file, and a network answers to small changes of it.
_REDUCED_TO = 1.5
_LEAST_SIDE = 256
_SCALES = (4, 2)
_COLOUR_SIDE = 64  # pixels; side of the thumbnail that colour is measured on


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        grey: `uint8` of shape (H, W).
        mode: colour mode of the file as Pillow names it; for DICOM, photometric interpretation and bits.
        patient: issuer and patient ID of a DICOM file; None if there is none. Never kept: see `cxr.datasets.patients`.
        colour: mean difference between the largest and the smallest channel, 0..1; 0 for grey files.
        scale: pixels of the file, along each side, for one of `grey`; 1 unless it was decoded at a reduced scale.
        excess: columns and rows of the file that the last column and row of `grey` stand for beyond its end.
    """

    grey: np.ndarray
    mode: str
    patient: str | None = field(default=None, repr=False)
    colour: float = 0.0
    scale: int = 1
    excess: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in its file, upright, pixels."""
        height, width = self.grey.shape
        return width * self.scale - self.excess[0], height * self.scale - self.excess[1]

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the image in pixels of `grey`."""
        width, height = self.size
        return width / self.scale, height / self.scale


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, spec: InputSpec | None = None, patience: float | None = None
) -> DecodedImage:
    """Decode an image and turn it upright by its EXIF orientation.

    With `spec`, for its raster alone: a JPEG file of far more pixels is decoded at a reduced scale. A DICOM file waits
    for its turn (see `cxr.imaging.dicom_pool`), with `patience` for so many seconds at most.

    Colour becomes ITU-R 601 luma, 16-bit grey is scaled linearly (65535 -> 255), and DICOM files are windowed by their
    own header (see `cxr.imaging.dicom`).

    Raises:
        ImageError: the file is damaged, truncated, larger than `max_pixels`, or cannot be converted to grey without
            guessing (CMYK, floating point, transparent pixels).
        BusyError: a DICOM file has waited for too long, or the system ended the process that decoded it.
    """
    if dicom.is_dicom(data):
        radiograph = POOL.read(data, max_pixels, patience)
        return DecodedImage(radiograph.grey, radiograph.mode, radiograph.patient)
    image = open_image(data, max_pixels)
    mode, (width, height) = image.mode, image.size
    try:
        orientation, scale = image.getexif().get(ExifTags.Base.Orientation), 1
        if spec is not None and image.format == "JPEG" and orientation not in _UPRIGHT:
            scale = _reduced(image, spec)
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation)  # that of a PNG file may stand behind its pixels
    except Exception as error:  # decoders raise many types on damaged files
        raise ImageError(f"the image is damaged ({in_short(error)})") from None
    grey, colour = _to_grey(image), _colour(image)
    if scale > 1:
        excess = image.width * scale - width, image.height * scale - height
        return DecodedImage(grey, mode, colour=colour, scale=scale, excess=excess)
    if orientation in _UPRIGHT:
        grey = np.array(Image.fromarray(grey).transpose(_UPRIGHT[orientation]))
    return DecodedImage(grey, mode, colour=colour)


def _reduced(image: Image.Image, spec: InputSpec) -> int:
    """Have a JPEG file decoded at the smallest scale that is fine enough; returns its pixels for one, along a side."""
    width, height = image.size
    most = spec.pixels_per_pixel(width, height) / _REDUCED_TO
    for scale in _SCALES if spec.interpolation != "nearest" else ():
        fine = scale <= most and min(width, height) >= scale * _LEAST_SIDE
        if fine and image.draft(None, (width // scale, height // scale)):
            return scale
    return 1


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
    check_cost(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"not an image in a known format; expected {', '.join(FORMATS)} or DICOM") from None
    except Exception as error:  # parsers raise many types on damaged files
        raise ImageError(f"the header cannot be read ({in_short(error)})") from None
    width, height = image.size
    check_size(width, height, max_pixels)
    # Not `n_frames`: TIFF files can chain frames without end.
    if getattr(image, "is_animated", False):
        raise ImageError("more than one frame; expected a single image")
    return image


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _deep_to_grey(image)
    alpha = _alpha(image)
    if alpha is not None and alpha.getextrema()[0] != 255:
        raise ImageError("transparent pixels; flatten the image to grey or RGB first")
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    if image.mode in ("1", "LA", "RGB", "RGBA", "YCbCr"):
        image = image.convert("L")
    if image.mode != "L":
        raise ImageError(f"unsupported colour mode {image.mode}; convert the image to grey, RGB or a palette first")
    return np.array(image, dtype=np.uint8)


def _alpha(image: Image.Image) -> Image.Image | None:
    """The alpha channel; None for an image without transparency."""
    if image.mode in ("LA", "PA", "RGBA"):
        return image.getchannel("A")
    # A palette or a grey level or colour that is transparent.
    transparency = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    return image.convert("RGBA").getchannel("A") if transparency else None


def _deep_to_grey(image: Image.Image) -> np.ndarray:
    """Scale grey levels of more than 8 bits linearly to 0..255."""
    tags, transparency = getattr(image, "tag_v2", {}), image.info.get("transparency", -1)
    white = 4095 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 65535
    table = ((np.minimum(np.arange(65536), white) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # Pillow inverts 8-bit levels, but not these
        table = 255 - table
    grey = np.empty((image.height, image.width), np.uint8)
    for rows in bands(grey):
        values = np.asarray(image.crop((0, rows.start, image.width, min(rows.stop, image.height))))
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"grey levels from {values.min()} to {values.max()}; expected 0 to 65535")
        if (values == transparency).any():
            raise ImageError("transparent pixels; flatten the image to grey or RGB first")
        grey[rows] = table[values]
    return grey


def _colour(image: Image.Image) -> float:
    if image.mode not in ("P", "RGB", "RGBA", "YCbCr"):
        return 0.0
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    small = rgb.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX)
    return float(np.ptp(np.asarray(small, dtype=np.int16), axis=2).mean() / 255)


def read_grey(path: str | Path) -> np.ndarray:
    """Decode the image at `path` to grey `uint8` of shape (H, W); an `ImageError` names the path."""
    try:
        return decode_grey(Path(path).read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
