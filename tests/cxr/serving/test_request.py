"""However a picture is handed over, its bytes come out; what is too large or no picture does not."""

import base64

import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.serving.request import image_bytes
from tests.cxr.imaging.test_dicom import NOISE, file_of
from tests.helpers import png

PICTURE = png(np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8))
MOST = 100_000


@pytest.mark.parametrize("data", [PICTURE, file_of(NOISE)], ids=["PNG", "DICOM"])
def test_bytes_and_base64_in_every_dress(data):
    text = base64.b64encode(data)
    for value in (data, bytearray(data), memoryview(data), text, text.decode(), base64.encodebytes(data).decode(),
                  np.array(text.decode()), np.bytes_(text)):  # fmt: skip
        assert image_bytes(value, MOST) == data


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no image; send its bytes in base64"),
        (float("nan"), "no image"),
        (3.5, "got a float"),
        ([1, 2], "got a list"),
        ("not base64!", "neither an image nor standard base64"),
        ("data:image/png;base64,AAAA", "neither an image"),
        ("_-_-", "neither an image"),
        (b"\xff\xd8" + bytes(MOST), "100,002 bytes; at most 100,000 are accepted"),
        ("A" * 4 * MOST, "more than 100,000 bytes"),
        (base64.b64encode(bytes(MOST + 1)).decode(), "100,001 bytes; at most 100,000"),
    ],
)
def test_what_is_refused(value, words):
    with pytest.raises(ImageError, match=words):
        image_bytes(value, MOST)
