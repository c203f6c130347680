"""Reading of images for training, evaluation and serving: from bytes to the raster that a network sees."""

from dataclasses import dataclass

import numpy as np

from cxr.imaging.decode import MAX_PIXELS, decode_image
from cxr.imaging.plausibility import implausible
from cxr.imaging.preprocess import InputSpec


@dataclass(frozen=True)
class ReadImage:
    """An image ready for the network.

    Attributes:
        raster: `uint8` of shape (S, S).
        implausible: reasons why it is not a plausible chest X-ray; empty if it may be one.
        width: of the image in its file, upright, pixels.
        height: the same.
    """

    raster: np.ndarray
    implausible: tuple[str, ...]
    width: int
    height: int

    @property
    def brightness(self) -> float:
        """Mean grey level of the raster, 0 to 255."""
        return float(self.raster.mean())


@dataclass(frozen=True)
class ImageReader:
    """Decodes images and resizes them to the input of a network. Thread-safe; Pillow releases the GIL while decoding.

    A JPEG file of far more pixels than its raster is decoded at a reduced scale (see `cxr.imaging.decode`).

    Attributes:
        spec: the input of the network.
        max_pixels: larger images are refused before they are decoded.
        patience: seconds that a DICOM file waits for its turn; None for as long as it takes.
    """

    spec: InputSpec
    max_pixels: int = MAX_PIXELS
    patience: float | None = None

    def read(self, data: bytes) -> ReadImage:
        """Decode an image and check its plausibility; raises `ImageError` if it cannot be decoded."""
        image = decode_image(data, self.max_pixels, self.spec, self.patience)
        return ReadImage(self.spec.to_raster(image.grey, image.extent), tuple(implausible(image)), *image.size)

    def raster(self, data: bytes) -> np.ndarray:
        """Decode an image to its raster alone, `uint8` of shape (S, S); raises `ImageError` if it cannot be decoded."""
        image = decode_image(data, self.max_pixels, self.spec, self.patience)
        return self.spec.to_raster(image.grey, image.extent)
