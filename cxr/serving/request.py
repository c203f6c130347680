"""From a cell of a request to the bytes of a picture, within limits."""

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cxr.errors import ImageError
from cxr.imaging import dicom

COLUMN = "image"  # of a request, with a picture in each cell
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"II*\x00", b"MM\x00*", b"BM")  # JPEG, PNG, TIFF twice, BMP


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: bytes and pixels of each picture, pictures of a request."""

    max_bytes: int
    max_pixels: int
    max_images: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def image_bytes(value: Any, max_bytes: int) -> bytes:
    """The bytes of a picture, however MLflow hands them over: bytes, base64 text, or base64 text as bytes."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        raise ImageError("no picture; send its bytes in base64")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bytes | bytearray | memoryview | np.bytes_):
        data = bytes(value)
        if not data or data.startswith(_MAGIC) or dicom.is_dicom(data):
            return _measured(data, max_bytes)
        try:
            value = data.decode("ascii")
        except UnicodeDecodeError:
            return _measured(data, max_bytes)  # no base64; the decoder says what is wrong with it
    if not isinstance(value, str):
        raise ImageError(f"a {type(value).__name__} is no picture; send its bytes in base64")
    if len(value) > 2 * max_bytes:  # before it is decoded; base64 is 4/3 as long, with line ends a little more
        raise ImageError(f"more than {max_bytes:,} bytes; send a smaller file")
    try:
        return _measured(base64.b64decode("".join(value.split()), validate=True), max_bytes)
    except (binascii.Error, ValueError):
        raise ImageError("neither a picture nor standard base64 (no data: address, no URL-safe alphabet)") from None


def _measured(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise ImageError(f"{len(data):,} bytes; at most {max_bytes:,} are read")
    return data
