"""A large JPEG file is decoded at a reduced scale, which its raster hardly shows."""

import io

import numpy as np
import pytest
from PIL import Image

from cxr.common import code
from cxr.datasets import phantom
from cxr.imaging import decode
from cxr.imaging.plausibility import implausible
from cxr.imaging.preprocess import InputSpec
from cxr.imaging.reader import ImageReader

CROP = InputSpec(size=224, resize=256)
SPECS = [CROP, *(InputSpec(size=224, resize=224, resize_mode=mode) for mode in ("squash", "pad"))]
ON_XRAYS, ON_DETAIL = 0.5, 1.2  # grey levels, mean of a raster


def jpeg(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def enlarged(picture: Image.Image, width: int, height: int) -> np.ndarray:
    """An X-ray of many pixels, with the grain of film."""
    large = picture.convert("L").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large, float) + np.random.default_rng(0).normal(0, 3, (height, width))


def difference(data: bytes, spec: InputSpec) -> float:
    """Mean difference in grey levels between the raster and that of a full decode."""
    full = spec.to_raster(decode.decode_grey(data)).astype(float)
    return float(np.abs(ImageReader(spec).raster(data) - full).mean())


def scale(data: bytes, spec: InputSpec = CROP) -> int:
    return decode.decode_image(data, spec=spec).scale


@pytest.fixture(scope="module")
def phantoms() -> list[Image.Image]:
    return [Image.open(io.BytesIO(phantom.example(label))) for label in ("normal", "bacteria", "virus")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.resize_mode)
@pytest.mark.parametrize(("width", "height", "expected"), [(771, 801, 2), (1001, 1403, 2), (1537, 2049, 4)])
def test_the_raster_of_a_phantom_stays_the_same(phantoms, spec, width, height, expected):
    for picture in phantoms:
        data = jpeg(enlarged(picture, width, height))
        assert scale(data, spec) in (expected, 2 * expected)
        assert difference(data, spec) < ON_XRAYS


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_raster_of_an_xray_stays_the_same(real_data, interpolation):
    """Of few pixels for one of the raster, where the difference is largest, at low and high quality."""
    spec = InputSpec(size=224, resize=224, interpolation=interpolation)
    for file in sorted(real_data.glob("train/*/*"))[::700]:
        with Image.open(file) as picture:
            grey = np.asarray(picture.convert("L").resize((224, 224)), float)
            detail = np.tile(np.block([[grey, grey[:, ::-1]], [grey[::-1], grey[::-1, ::-1]]]), (3, 3))
            for wanted in decode._SCALES:
                side = round(224 * wanted * decode._REDUCED_TO)
                for quality in (60, 95):
                    data = jpeg(enlarged(picture, side, side), quality=quality)
                    assert scale(data, spec) == wanted and difference(data, spec) < ON_XRAYS
                assert difference(jpeg(detail[:side, :side]), spec) < ON_DETAIL


def test_the_geometry_is_that_of_a_full_decode():
    """Sides that are no multiples of the scale: nothing is shifted or stretched."""
    rows, columns = np.mgrid[:1103, :805]
    for pixels in (rows * 255 / 1102, columns * 255 / 804):
        for spec in SPECS:
            data = jpeg(pixels, quality=98)
            full = spec.to_raster(decode.decode_grey(data)).astype(int)
            assert scale(data, spec) >= 2
            assert np.abs(ImageReader(spec).raster(data) - full).max() <= 1


def test_small_turned_and_lossless_pictures_are_decoded_in_full(phantoms):
    turned = Image.Exif()
    turned[0x0112] = 6
    large, nearest = enlarged(phantoms[0], 1200, 1100), InputSpec(size=224, resize=256, interpolation="nearest")
    assert scale(jpeg(large)) == 2
    assert scale(jpeg(large), nearest) == 1
    assert scale(jpeg(large[:767])) == 1
    assert scale(jpeg(large), InputSpec(size=384, resize=384)) == 1
    tiny = InputSpec(size=64, resize=64)  # however small the raster is, the picture keeps a side of 256 pixels
    assert [scale(jpeg(large[:side]), tiny) for side in (511, 512, 1023, 1024)] == [1, 2, 2, 4]
    assert scale(jpeg(large, exif=turned)) == 1 and difference(jpeg(large, exif=turned), CROP) == 0
    buffer = io.BytesIO()
    Image.fromarray(np.clip(large, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    assert scale(buffer.getvalue()) == 1


def test_colour_and_size_are_those_of_the_file(phantoms):
    grey = enlarged(phantoms[0], 1000, 900)
    photograph = np.stack([grey, grey * 0.6, grey * 0.3], -1)
    for pixels, reasons in ((np.stack([grey] * 3, -1), []), (photograph, ["a colour image"])):
        data = jpeg(pixels)
        image = decode.decode_image(data, spec=CROP)
        assert image.scale == 2 and image.size == (1000, 900) and image.mode == "RGB"
        assert image.colour == pytest.approx(decode.decode_image(data).colour, abs=0.01)
        assert implausible(image) == reasons and difference(data, CROP) < ON_XRAYS
    long = jpeg(enlarged(phantoms[0], 3301, 801))
    assert scale(long) == 2
    assert implausible(decode.decode_image(long, spec=CROP)) == ["extreme aspect ratio (3301 x 801 pixels)"]


@pytest.mark.parametrize("module", ["cxr.imaging.reader", "cxr.loading.feature_cache"])
def test_the_keys_of_caches_know_how_images_are_decoded(module):
    assert {"decode.py", "preprocess.py"} <= {file.name for file in code.sources(module)}
