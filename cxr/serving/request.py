"""From a cell of a request to the bytes of an image, within limits."""

import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np
import pybase64  # holds Python's global lock for a sixth of the time that base64 does

from cxr.errors import ImageError
from cxr.imaging import dicom

COLUMN = "image"  # of a request, with an image in each cell
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"II*\x00", b"MM\x00*", b"BM")  # JPEG, PNG, TIFF twice, BMP


@dataclass(frozen=True)
class Limits:
    """Limits of one request: bytes and pixels of each image, images and bytes of the request."""

    max_bytes: int
    max_pixels: int
    max_images: int
    max_request_bytes: int

    def check(self, images: int) -> None:
        """Raise `ImageError` if a request has that many images and may not."""
        if images > self.max_images:
            raise ImageError(f"{images} images in one request; at most {self.max_images} are accepted")


@dataclass(frozen=True)
class Picture:
    """A cell that is a picture as it is, and never base64."""

    data: bytes


def image_bytes(value: Any, max_bytes: int) -> bytes:
    """The bytes of an image however they are passed: a picture, bytes, base64 text, or base64 text encoded as bytes."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        raise ImageError("no image; send its bytes in base64")
    if isinstance(value, Picture):
        return _checked(value.data, max_bytes)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bytes | bytearray | memoryview | np.bytes_):
        data = bytes(value)
        if not data or data.startswith(_MAGIC) or dicom.is_dicom(data):
            return _checked(data, max_bytes)
        try:
            value = data.decode("ascii")
        except UnicodeDecodeError:
            return _checked(data, max_bytes)  # not base64; the decoder says what is wrong with it
    if not isinstance(value, str):
        raise ImageError(f"expected an image in base64, got a {type(value).__name__}")
    if len(value) > 2 * max_bytes:  # before it is decoded: base64 is 4/3 as long, line ends aside
        raise ImageError(f"more than {max_bytes:,} bytes; send a smaller file")
    try:
        return _checked(pybase64.b64decode("".join(value.split()), validate=True), max_bytes)
    except (binascii.Error, ValueError):
        raise ImageError(
            "neither an image nor standard base64 (data: URLs and the URL-safe alphabet are refused)"
        ) from None


def _checked(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise ImageError(f"{len(data):,} bytes; at most {max_bytes:,} are accepted")
    return data
