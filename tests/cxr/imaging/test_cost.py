"""Files made to keep their decoder busy are refused at once; large ordinary ones are not."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr.errors import ImageError
from cxr.imaging import decode

SMOOTH = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(offsets: int) -> bytes:
    """A raw TIFF file of 64 x 64 zeros with so many offsets of strips."""
    elements = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    elements += [(273, 4, offsets, 8 + 2 + 8 * 12 + 4), (278, 4, 1, 1), (279, 4, 1, 64)]
    table = b"".join(struct.pack("<HHII", *element) for element in elements)
    return b"II*\0" + struct.pack("<IH", 8, len(elements)) + table + bytes(4) + bytes(4 * offsets)


JPEG, PNG, PROGRESSIVE = encoded("JPEG"), encoded("PNG"), encoded("JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rfind(b"\xff\xda") : -2]
RUNS = struct.pack("<IiiHHIIiiII", 40, 80, 64, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024) + b"\1\7" * 2_000_000
HOSTILE = {
    "comments": (JPEG[:2] + b"\xff\xfe\0\2" * 4_000_000 + JPEG[2:], "more than 1,000 segments"),
    "scans": (PROGRESSIVE[:-2] + LAST_SCAN * 10_000, "more than 32 scans"),
    "JPEG with EXIF": (
        JPEG[:2] + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * 20 + JPEG[2:], "bytes of EXIF data; at most 1,000,000"
    ),
    "PNG with EXIF": (PNG[:33] + chunk(b"eXIf", bytes(2_000_000)) + PNG[33:], "bytes of EXIF data; at most 1,000,000"),
    "chunks": (PNG[:33] + chunk(b"tEXt", b"a\0b") * 1_000_000 + PNG[33:], "more than 100,000 chunks"),
    "strips": (tiff(4_000_000), "4,000,000 values in element 273"),
    "runs": (b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + RUNS, "a run-length encoded BMP file"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), HOSTILE.values(), ids=HOSTILE)
def test_files_of_many_parts_are_refused_at_once(data, words):
    start = time.process_time()
    with pytest.raises(ImageError, match=words):
        decode.decode_grey(data)
    assert time.process_time() - start < 1


def test_no_search_takes_long():
    """Bytes that look like the start of something, over and over."""
    for data in (b"\xff\xd8" + b"\xff" * 20_000_000, b"\xff\xd8" + b"\xff\0" * 10_000_000):
        start = time.process_time()
        with pytest.raises(ImageError):
            decode.decode_grey(data)
        assert time.process_time() - start < 3


def test_an_offset_beyond_all_memory_is_refused():
    for offset in (2**63, 2**64 - 1):
        with pytest.raises(ImageError, match="the header cannot be read|not an image"):
            decode.decode_grey(b"II+\0" + struct.pack("<HHQ", 8, 0, offset) + bytes(100))


def test_ordinary_files_with_much_beside_their_pixels_are_read():
    profile = b"\xff\xda\xff\xd8" * 400_000  # looks like the start of many scans
    grey = decode.decode_grey(JPEG)
    assert (decode.decode_grey(encoded("JPEG", icc_profile=profile)) == grey).all()
    assert decode.decode_grey(encoded("JPEG", restart_marker_blocks=1)).shape == SMOOTH.shape
    assert decode.decode_grey(encoded("JPEG", progressive=True)).shape == SMOOTH.shape
    assert (decode.decode_grey(encoded("TIFF", icc_profile=profile)) == SMOOTH).all()
    assert decode.decode_grey(tiff(64)).shape == (64, 64)
