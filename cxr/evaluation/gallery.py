"""Galleries: the most confident mistakes, with the regions that spoke for the answer, and doubtful labels."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.datasets.manifest import Manifest
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.results import Mistake
from cxr.imaging.heatmap import overlay
from cxr.loading.rasters import RasterDataset

_COLUMNS = 4


@dataclass(frozen=True)
class Tile:
    """A mistake and its image.

    Attributes:
        mistake: what was misclassified, and as what.
        image: `uint8` of shape (S, S, 3), under its class activation map if there is one.
    """

    mistake: Mistake
    image: ndarray


def mistakes(
    split: Manifest, dataset: RasterDataset, probabilities: ndarray, activation: ClassActivationMap | None, most: int
) -> list[Tile]:
    """At most `most` misclassified images of a split, the most confident first; `dataset` has their rasters."""
    return tiles(split, dataset, probabilities, activation, most_confident(split.labels(), probabilities, most))


def most_confident(labels: ndarray, probabilities: ndarray, most: int) -> ndarray:
    """Rows of at most `most` misclassified images, the most confident first, of probabilities (n, C)."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    return wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:most]


def tiles(
    split: Manifest,
    dataset: RasterDataset,
    probabilities: ndarray,
    activation: ClassActivationMap | None,
    rows: ndarray,
) -> list[Tile]:
    """The images of `rows`, in that order, which differ in label and prediction; `dataset` has their rasters."""
    labels, predicted = split.labels(), probabilities.argmax(1)
    made = []
    for i in rows:
        raster = dataset.rasters(np.array([i]))[0]
        image = np.repeat(raster[..., None], 3, axis=2)
        if activation is not None:
            image = overlay(raster, activation.maps(raster[None])[0, predicted[i]])
        made.append(Tile(mistake(split.rows["path"].iat[i], split.classes, labels[i], probabilities[i]), image))
    return made


def mistake(path: str, classes: tuple[str, ...], label: int, probabilities: ndarray) -> Mistake:
    """The mistake that probabilities (C,) make for an image with this label."""
    predicted = int(probabilities.argmax())
    return Mistake(
        path=path, truth=classes[label], prediction=classes[predicted], probability=float(probabilities[predicted])
    )


def sheet(tiles: list[Tile], *, has_maps: bool, what: str = "most confident mistakes") -> Figure:
    """All tiles on one figure; `what` they are is its title."""
    rows = max(1, -(-len(tiles) // _COLUMNS))
    drawn, axes = plotting.figure(2.4 * _COLUMNS, 2.75 * rows + 0.4, rows, _COLUMNS, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, tile in zip(axes.flat, tiles, strict=False):
        ax.imshow(tile.image)
        shown = tile.mistake
        ax.set_title(f"{shown.truth}, predicted {shown.prediction}\nwith {shown.probability:.0%}", fontsize=9)
    title = f"The {len(tiles)} {what}" if tiles else "No mistakes"
    drawn.suptitle(title + (", with class activation maps" if has_maps and tiles else ""), fontsize=11)
    return drawn
