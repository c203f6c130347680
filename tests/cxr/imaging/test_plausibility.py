"""Images that are not plausible chest X-rays are recognised, with the reasons."""

import numpy as np
import pytest

from cxr.imaging.decode import DecodedImage, decode_image
from cxr.imaging.plausibility import implausible
from tests.helpers import png

RNG = np.random.default_rng(0)
GREY = np.clip(RNG.normal(110, 45, (300, 260)), 0, 255).astype(np.uint8)
HUES = np.stack([GREY // 2 + np.linspace(0, end, 260).astype(np.uint8) for end in (0, 60, 120)], -1)


@pytest.mark.parametrize(
    ("image", "reasons"),
    [
        (DecodedImage(GREY, "L"), ""),
        (
            DecodedImage(GREY[:60], "L"),
            "too small (260 x 60 pixels, at least 64 x 64 expected); extreme aspect ratio (260 x 60 pixels)",
        ),
        (DecodedImage(np.tile(GREY[:70], (1, 2)), "L"), "extreme aspect ratio (520 x 70 pixels)"),
        (DecodedImage(np.full((300, 300), 90, np.uint8), "L"), "blank"),
        (DecodedImage(np.where(GREY > 60, 255, GREY), "L"), "mostly white, like a page"),
        (decode_image(png(HUES)), "a colour image"),
        (decode_image(png(np.repeat(GREY[..., None], 3, 2))), ""),
    ],
    ids=["plausible", "small", "wide", "blank", "page", "colour", "grey in RGB"],
)
def test_reasons_for_implausible_images(image, reasons):
    assert "; ".join(implausible(image)) == reasons
