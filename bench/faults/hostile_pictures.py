"""Pictures that are meant to hurt: truncated, damaged, larger than they look."""

import io
import struct
import zlib
from functools import cache

from numpy.random import Generator
from PIL import Image

from cxr.datasets import phantom


@cache
def xray() -> bytes:
    """A drawn X-ray as JPEG."""
    return phantom.example("virus")


@cache
def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(xray())).convert("L").save(buffer, kind)
    return buffer.getvalue()


def _any(rng: Generator) -> bytes:
    return [xray(), _saved("PNG"), _saved("TIFF"), _saved("BMP")][rng.integers(4)]


def truncated(rng: Generator) -> bytes:
    """The beginning of a file."""
    data = _any(rng)
    return data[: rng.integers(len(data))]


def damaged(rng: Generator) -> bytes:
    """A file with a few bytes replaced, half of the time in its head."""
    data = bytearray(_any(rng))
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(600 if rng.random() < 0.5 else len(data))] = rng.integers(256)
    return bytes(data)


def dimension_bomb(rng: Generator) -> bytes:
    """A small file whose header announces far more pixels."""
    side = int(rng.choice([20_000, 65_500, 2**31 - 1]))
    short = min(side, 65_500)
    bmp, jpeg = bytearray(_saved("BMP")), bytearray(xray())
    bmp[18:26] = struct.pack("<ii", side, side)
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))  # the frame header
    jpeg[at + 5 : at + 9] = struct.pack(">HH", short, short)
    return [_png(side, side, _zeros(1000)), _png(side, 1, _zeros(1000)), bytes(bmp), bytes(jpeg)][rng.integers(4)]


def zlib_bomb(rng: Generator) -> bytes:
    """As many pixels as the limits allow, more pixels than there is room for, or a bomb beside the pixels."""
    side, kind = int(rng.choice([3000, 7000])), int(rng.integers(4))
    if kind == 0:
        return _png(side, side, _zeros((side + 1) * side))
    if kind == 1:
        return _png(64, 64, _zeros(200_000_000))
    return _png(64, 64, _zeros(65 * 64), (b"zTXt" if kind == 2 else b"iCCP", b"a\0\0" + _zeros(200_000_000)))


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def _png(width: int, height: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), *more, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
