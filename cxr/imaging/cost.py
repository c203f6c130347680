"""Files that take their decoder far longer than their pixels do, recognised before it opens them.

Pillow reads the parts of a file in Python, a few microseconds each. Twenty megabytes hold millions of empty parts: half
a minute in which no other thread runs.
"""

import re
import struct

from cxr.errors import ImageError

SEGMENTS = 1000  # of a JPEG file; a colour profile takes up to 255, each scan a few
FILLING_BYTES = 100_000  # of a JPEG file between two segments; encoders leave none
SCANS = 32  # of a JPEG file; encoders make some 15 at most, and each of them is a pass over all pixels
CHUNKS = 100_000  # of a PNG file
EXIF_BYTES = 1_000_000
VALUES = 100_000  # of an element of a TIFF file, such as the offsets of its strips
RUN_LENGTH_BYTES = 2_000_000  # of a BMP file that is run-length encoded, which Pillow decodes in Python
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a segment; others stand amid image data
_SCAN, _END = 0xDA, 0xD9  # second byte of a marker
_BULK = (1, 2, 7)  # types of TIFF elements that are read as a whole: bytes, text and undefined


def check_cost(data: bytes) -> None:
    """Raise `ImageError` for a JPEG, PNG, TIFF or BMP file that must not be opened; others pass."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        _check_png(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)
    elif data.startswith(b"BM") and len(data) > RUN_LENGTH_BYTES and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise ImageError(f"a run-length encoded BMP file of {len(data):,} bytes; save it as PNG")


def _check_jpeg(data: bytes) -> None:
    segments, scans, exif, place = 0, 0, 0, 2
    while (marker := _MARKER.search(data, place)) and data[marker.end() - 1] != _END:
        scans += data[marker.end() - 1] == _SCAN
        if not scans and marker.start() - place > FILLING_BYTES:
            break
        length = max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
        exif += length if data[marker.end() + 2 : marker.end() + 6] == b"Exif" else 0
        segments, place = segments + 1, marker.end() + length
        if scans > SCANS:
            raise ImageError(f"a JPEG file in more than {SCANS} scans; save it as a baseline JPEG file or as PNG")
        if segments > SEGMENTS:
            raise ImageError(f"a JPEG file with more than {SEGMENTS:,} segments; save it without metadata")
    if not scans and len(data) - place > FILLING_BYTES:
        raise ImageError("the JPEG file is damaged (its image data cannot be found)")
    _check_exif(exif)


def _check_png(data: bytes) -> None:
    place, chunks, exif = 8, 0, 0
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        exif += length if data[place + 4 : place + 8] == b"eXIf" else 0
        place, chunks = place + 12 + length, chunks + 1
        if chunks > CHUNKS:
            raise ImageError(f"a PNG file with more than {CHUNKS:,} chunks; save it anew")
    _check_exif(exif)


def _check_exif(length: int) -> None:
    if length > EXIF_BYTES:
        raise ImageError(f"{length:,} bytes of EXIF data; at most {EXIF_BYTES:,} are accepted")


def _check_tiff(data: bytes) -> None:
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    count, entry = ("Q", "HHQ8x") if big else ("H", "HHI4x")
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        place = min(place, len(data))
        (entries,) = struct.unpack_from(order + count, data, place)
        place, size = place + struct.calcsize(order + count), struct.calcsize(order + entry)
        for number in range(min(entries, (len(data) - place) // size)):
            tag, kind, values = struct.unpack_from(order + entry, data, place + number * size)
            if values > VALUES and kind not in _BULK:
                raise ImageError(f"a TIFF file with {values:,} values in element {tag}; save it anew, or as PNG")
    except struct.error:  # truncated, as the decoder will say
        return
