"""What a scanner, an archive or a sender may have done to an image: the changes that a network should withstand.

Evaluation scores under each of them, and training may choose its best epoch by them (`train.select`).
"""

import io
from collections.abc import Callable

import numpy as np
from numpy import ndarray
from PIL import Image, ImageFilter

from cxr.datasets.manifest import Manifest
from cxr.loading.rasters import RasterDataset

Change = Callable[[ndarray], ndarray]
UNCHANGED = "unchanged"
BORDER, CORNER = 0.1, 0.2  # fractions of the side that are set to black
BORDER_MASKED = "border masked (10 %)"
HEAVY_BLUR = 1 / 8  # standard deviation as a fraction of the side: the width of half a lung of a child


def _blur(grey: ndarray) -> ndarray:
    return np.array(Image.fromarray(grey).filter(ImageFilter.GaussianBlur(len(grey) / 112)))


def _contrast(factor: float) -> Change:
    return lambda grey: np.clip(grey.mean() + (grey - grey.mean()) * factor, 0, 255).round().astype(np.uint8)


def _jpeg(grey: ndarray) -> ndarray:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=20)
    return np.array(Image.open(buffer))


def _rotated(degrees: float) -> Change:
    return lambda grey: np.array(Image.fromarray(grey).rotate(degrees, Image.Resampling.BILINEAR))


def _border(grey: ndarray) -> ndarray:
    margin = round(len(grey) * BORDER)
    masked = np.zeros_like(grey)
    masked[margin:-margin, margin:-margin] = grey[margin:-margin, margin:-margin]
    return masked


def border_alone(grey: ndarray) -> ndarray:
    """The border of a raster (S, S), all else black: what it tells of the class is no disease."""
    return grey - _border(grey)


def lungs_blurred(grey: ndarray) -> ndarray:
    """A raster (S, S) whose inside is blurred until only the shade of large regions is left; its border is kept."""
    margin = round(len(grey) * BORDER)
    inside = Image.fromarray(grey[margin:-margin, margin:-margin])
    blurred = grey.copy()
    blurred[margin:-margin, margin:-margin] = inside.filter(ImageFilter.GaussianBlur(len(grey) * HEAVY_BLUR))
    return blurred


def _corners(grey: ndarray) -> ndarray:
    masked, side = grey.copy(), round(len(grey) * CORNER)
    for rows in (slice(0, side), slice(-side, None)):
        for columns in (slice(0, side), slice(-side, None)):
            masked[rows, columns] = 0
    return masked


# Changes of a raster of shape (S, S), by the names that the report shows.
CHANGES: dict[str, Change] = {
    UNCHANGED: lambda grey: grey,
    "blurred (2 px of 224)": _blur,
    "contrast x 0.6": _contrast(0.6),
    "contrast x 1.4": _contrast(1.4),
    "JPEG quality 20": _jpeg,
    "rotated 5° left": _rotated(5),
    "rotated 5° right": _rotated(-5),
    BORDER_MASKED: _border,
    "corners masked (20 %)": _corners,
}


class ChangedDataset:
    """Some images of a dataset, each changed whenever it is read.

    Nothing is kept: a change takes less than a millisecond of a raster of 224 pixels, a network 10 to 30 on one core.
    """

    def __init__(self, dataset: RasterDataset, rows: ndarray, change: Change):
        self.labels, self.sizes = dataset.labels[rows], dataset.sizes[rows]
        self._dataset, self._rows, self._change = dataset, rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def rasters(self, index: ndarray) -> ndarray:
        """Changed rasters, `uint8` of shape (B, R, R)."""
        return np.stack([self._change(raster) for raster in self._dataset.rasters(self._rows[index])])

    def records(self, index: ndarray) -> ndarray:
        """Records of `record_dtype`, of shape (B,); whether an image is implausible is told of the unchanged one."""
        records = self._dataset.records(self._rows[index])
        records["raster"] = [self._change(raster) for raster in records["raster"]]
        return records


def whole_patients(split: Manifest, seed: int, most: int | None) -> ndarray:
    """Rows of whole patients, drawn by `seed`: at most `most`, but at least one patient; all rows for None."""
    if most is None or len(split) <= most:
        return np.arange(len(split))
    patients = split.rows["patient"].to_numpy()
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    sizes = split.rows.groupby("patient").size().loc[order].cumsum().to_numpy()
    kept = order[: max(1, int((sizes <= most).sum()))]
    return np.flatnonzero(split.rows["patient"].isin(kept))
