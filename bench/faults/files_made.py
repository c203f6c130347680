"""Files for `bench.faults.files`: made in every format and variant that is read, and mutated."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from PIL import Image
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.cxr.imaging.test_dicom import by_gdcm, file_of

HEIGHT, WIDTH = 72, 90
_TELLING = (0, 1, 2, 3, 7, 8, 9, 15, 16, 127, 128, 254, 255)  # bytes that limits lie around
_HEADER = 700  # bytes at the start of a file that hold most of what steers its decoder


def made(rng: Generator) -> Iterator[tuple[str, str, bytes]]:
    """Format, variant and bytes of small pictures."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = 128 + 100 * np.sin(x / 9 + rng.uniform(0, 6)) * np.cos(y / 7) + rng.normal(0, 6, (HEIGHT, WIDTH))
    grey = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
    rgb = Image.merge("RGB", [grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey.point(lambda v: 255 - v)])
    opaque = Image.new("L", grey.size, 255)
    deep = Image.fromarray((smooth.clip(0, 255) * 257).astype(np.uint16))
    for name, image in {"grey": grey, "RGB": rgb, "CMYK": rgb.convert("CMYK")}.items():
        for label, options in {
            "": {},
            ", progressive": {"progressive": True},
            ", restarts": {"restart_marker_rows": 1},
        }.items():
            yield "JPEG", name + label, encoded(image, "JPEG", **options)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG", "TIFF"):
            yield kind, f"orientation {orientation}", encoded(grey, kind, exif=exif)
    transparent = Image.merge("LA", [grey, grey])
    flat = {"grey": grey, "RGB": rgb, "palette": rgb.quantize(64), "1 bit": grey.convert("1")}
    with_alpha = {"alpha": Image.merge("LA", [grey, opaque]), "RGBA": rgb.convert("RGBA"), "transparent": transparent}
    for name, image in (flat | with_alpha | {"16 bits": deep}).items():
        yield "PNG", name, encoded(image, "PNG")
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            yield "TIFF", f"{name}, {compression}", encoded(image, "TIFF", compression=compression)
    yield "PNG", "one level transparent", encoded(grey, "PNG", transparency=grey.getpixel((0, 0)))
    yield "PNG", "animated", encoded(grey, "PNG", save_all=True, append_images=[rgb.convert("L")])
    yield "TIFF", "JPEG", encoded(rgb, "TIFF", compression="jpeg")
    yield "TIFF", "fax", encoded(grey.convert("1"), "TIFF", compression="group4")
    yield "TIFF", "floating point", encoded(grey.convert("F"), "TIFF")
    yield "TIFF", "two frames", encoded(grey, "TIFF", save_all=True, append_images=[grey])
    for name, image in flat.items():
        yield "BMP", name, encoded(image, "BMP")
    yield from _dicom(np.asarray(deep) >> 4, np.asarray(rgb))


def _dicom(deep: np.ndarray, rgb: np.ndarray) -> Iterator[tuple[str, str, bytes]]:
    window = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": -100}
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless):
        yield "DICOM", syntax.name, file_of(deep, syntax, **window)
    plain, short = file_of(deep), file_of((deep >> 4).astype(np.uint8), bits=8)
    for syntax in (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        yield "DICOM", syntax.name, by_gdcm(plain, syntax)
    yield "DICOM", JPEGBaseline8Bit.name, by_gdcm(short, JPEGBaseline8Bit)
    for name, elements in {
        "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
        "padded": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 300},
        "sigmoid": {**window, "VOILUTFunction": "SIGMOID"},
        "signed": {"PixelRepresentation": 1},
        "frames": {"NumberOfFrames": 3},
    }.items():
        yield "DICOM", name, file_of(deep, **elements)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    yield "DICOM", "RGB", file_of(rgb, bits=8, **colour)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated(data: bytes, other: bytes, rng: Generator) -> tuple[str, bytes]:
    """The kind of mutation and what it makes of a file; `other` is one of the same format."""
    kind = str(rng.choice(["bits", "bytes", "header", "header", "cut", "splice", "hole", "repeat"]))
    changed = bytearray(data)
    match kind:
        case "bits":
            for place in rng.integers(0, 8 * len(data), rng.integers(1, 30)):
                changed[place // 8] ^= 1 << (place % 8)
        case "bytes":
            start, length = _span(len(data), rng)
            changed[start : start + length] = rng.bytes(length)
        case "header":
            for place in rng.integers(0, min(_HEADER, len(data)), rng.integers(1, 6)):
                wide = int(rng.choice([1, 1, 2, 4]))
                changed[place : place + wide] = _telling(wide, rng)
        case "cut":
            del changed[int(rng.integers(0, len(data))) :]
        case "splice":
            start, length = _span(len(other), rng)
            place = int(rng.integers(0, len(data)))
            changed[place : place + int(rng.choice([0, length]))] = other[start : start + length]
        case "hole":
            start, length = _span(len(data), rng)
            del changed[start : start + length]
        case "repeat":
            start, length = _span(len(data), rng)
            changed[start:start] = data[start : start + length] * int(rng.integers(1, 200))
    if data.startswith(b"\x89PNG") and rng.random() < 0.8:  # or most would be refused for their checksums
        return f"{kind}, checksums mended", _mended(bytes(changed))
    return kind, bytes(changed)


def _span(length: int, rng: Generator) -> tuple[int, int]:
    start = int(rng.integers(0, length))
    return start, int(min(rng.geometric(1 / 40), length - start))


def _telling(length: int, rng: Generator) -> bytes:
    return bytes(int(rng.choice(_TELLING)) for _ in range(length))


def _mended(data: bytes) -> bytes:
    """A PNG file whose chunks have the checksums of what they hold."""
    result, place = bytearray(data), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(result)
