"""Every kind of file is read correctly or refused, never read wrongly."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import v2

from cxr.errors import CxrError, ImageError
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 56), dtype=np.uint8)
SPEC = InputSpec(size=32, resize=36)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_levels_are_read_unchanged(kind):
    decoded = decode.decode_grey(encoded(Image.fromarray(GREY), kind))
    assert decoded.dtype == np.uint8
    assert (decoded == GREY).all()


def test_colour_is_converted_to_luma():
    rgb = Image.fromarray(RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(decode.decode_grey(encoded(rgb)) - np.asarray(rgb) @ weights).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = (GREY.astype(np.uint16) << 8) | GREY  # 257 x grey: 65535 is white
    assert (decode.decode_grey(encoded(Image.fromarray(deep))) == GREY).all()


@pytest.mark.parametrize(
    ("bits", "zero_is_white", "levels", "expected"),
    [
        (16, False, struct.pack("<4H", 0, 65535, 32896, 257), [0, 255, 128, 1]),
        (16, True, struct.pack("<4H", 0, 65535, 32896, 257), [255, 0, 127, 254]),
        (12, False, bytes((0x00, 0x0F, 0xFF, 0x80, 0x80, 0x10)), [0, 255, 128, 1]),  # 0, 4095, 2056, 16
        (8, True, bytes((0, 255, 128, 1)), [255, 0, 127, 254]),
    ],
)
def test_grey_levels_of_tiff_files_are_read_as_they_are_meant(bits, zero_is_white, levels, expected):
    """16-bit levels of which 0 is white, and 12-bit levels, of which 4095 is."""
    data = levels * (16 * 16 // 4)
    elements = [(256, 16), (257, 16), (258, bits), (259, 1), (262, 0 if zero_is_white else 1)]
    elements += [(273, 8 + 2 + 8 * 12 + 4), (278, 16), (279, len(data))]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in elements)
    file = b"II*\0" + struct.pack("<IH", 8, len(elements)) + table + bytes(4) + data
    assert decode.decode_grey(file).ravel()[:4].tolist() == expected


def test_palette_indices_are_looked_up():
    palette = Image.fromarray(GREY).convert("P")
    palette.putpalette([255 - i // 3 for i in range(768)])  # index 0 is white
    assert (decode.decode_grey(encoded(palette)) == 255 - GREY).all()


def test_one_bit_images_are_black_and_white():
    bits = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8)).convert("1")
    assert (decode.decode_grey(encoded(bits)) == np.where(GREY > 127, 255, 0)).all()


def test_opaque_alpha_is_dropped_and_transparency_refused():
    opaque = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (56, 40), 255)])
    assert (decode.decode_grey(encoded(opaque)) == GREY).all()
    opaque.putpixel((3, 3), (0, 10))
    with pytest.raises(ImageError, match="transparent pixels; flatten"):
        decode.decode_grey(encoded(opaque))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "1"])
def test_a_level_or_colour_that_is_transparent_is_refused_if_it_occurs(mode):
    dark = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8))
    picture = Image.fromarray(np.asarray(dark).astype(np.uint16) * 257) if mode == "I;16" else dark.convert(mode)
    white, other = {"RGB": ((255,) * 3, (7,) * 3), "I;16": (65535, 7)}.get(mode, (255, 7))
    if mode == "P":
        white = picture.getpixel(tuple(int(i) for i in np.argwhere(GREY.T > 127)[0]))
    with pytest.raises(ImageError, match="transparent pixels; flatten"):
        decode.decode_grey(encoded(picture, transparency=white))
    if mode != "1":
        assert (decode.decode_grey(encoded(picture, transparency=other)) == np.asarray(dark)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(GREY), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == ((40, 56) if orientation in range(5, 9) else (56, 40))
    assert (decode.decode_grey(data) == np.asarray(upright)).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not an image"),
        (encoded(Image.fromarray(GREY), "GIF"), "not an image in a known format"),
        (encoded(Image.new("CMYK", (40, 40)), "JPEG"), "colour mode CMYK"),
        (encoded(Image.fromarray(GREY), "JPEG")[:-200], "damaged"),
        (encoded(Image.fromarray(GREY))[:-60], "damaged"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "colour mode F"),
        (encoded(Image.fromarray(GREY[:8, :8])), "must have at least 16"),
        (
            encoded(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
            "more than one frame; expected a single image",
        ),
    ],
    ids=["0-byte", "text", "gif", "cmyk", "truncated jpeg", "truncated png", "float", "icon", "frames"],
)
def test_what_cannot_be_read_correctly_is_refused(data, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode.decode_grey(data)
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(ImageError, match="at most 1,000 in all"):
        decode.decode_grey(encoded(Image.fromarray(GREY)), max_pixels=1000)


def test_an_extremely_long_image_is_refused_by_its_header():
    with pytest.raises(ImageError, match="16 x 1,?000 pixels; one side may be at most 50 times the other"):
        decode.decode_grey(encoded(Image.new("L", (16, 1000))))


def test_crop_equals_that_of_torchvision():
    """Pretrained weights were tested with torchvision's Resize and CenterCrop."""
    for shape in ((40, 56), (57, 41), (300, 201)):
        grey = RNG.integers(0, 256, shape, dtype=np.uint8)
        expected = v2.CenterCrop(32)(v2.Resize(36)(Image.fromarray(grey)))
        # Pillow keeps the corners of the kept part in single precision.
        assert np.abs(SPEC.to_raster(grey).astype(int) - np.asarray(expected)).max() <= 1


def test_squash_fills_the_raster_and_pad_keeps_the_aspect_ratio():
    wide = np.full((40, 80), 200, np.uint8)
    assert (InputSpec(size=32, resize=32, resize_mode="squash").to_raster(wide) == 200).all()
    padded = InputSpec(size=32, resize=32, resize_mode="pad").to_raster(wide)
    assert (padded[:8] == 0).all()
    assert (padded[8:24] == 200).all()
    assert (padded[24:] == 0).all()


def test_a_spec_can_be_saved_and_refuses_invalid_values():
    assert InputSpec.from_dict(SPEC.to_dict()) == SPEC
    assert SPEC.scaled(64) == InputSpec(size=64, resize=72)
    with pytest.raises(CxrError, match="incomplete or has unknown keys"):
        InputSpec.from_dict({**SPEC.to_dict(), "colour": 1})
    with pytest.raises(CxrError, match="expected 16 <= size <= resize"):
        InputSpec(size=64, resize=32)
