"""Outputs of the served network for the images of a split."""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from cxr.loading.rasters import RasterDataset, in_order, read_batches
from cxr.serving.service import BATCH
from cxr.serving.session import Session


@dataclass(frozen=True)
class Outputs:
    """Outputs of the served network for n images.

    Attributes:
        logits: `float64` of shape (n, C).
        features: `float32` of shape (n, F).
        negatives: features of the images with black and white exchanged, of shape (n, F), or (0, F) if not computed.
        implausible: whether each image is implausible at first sight, `bool` of shape (n,).
        brightness: mean grey level of each raster, 0 to 255, of shape (n,).
    """

    logits: ndarray
    features: ndarray
    negatives: ndarray
    implausible: ndarray
    brightness: ndarray


def run(session: Session, dataset: RasterDataset, index: ndarray, *, negatives: bool = False) -> Outputs:
    """Send the images of `index` through the served network, in batches as a server does."""
    batches = [index[rows] for rows in in_order(len(index), BATCH)]
    logits: list[ndarray] = []
    features: list[ndarray] = []
    inverted: list[ndarray] = []
    implausible: list[ndarray] = []
    brightness: list[ndarray] = []
    for records in read_batches(dataset.records, batches):
        batch_logits, batch_features, _ = session.run(records["raster"])
        logits.append(batch_logits.astype(np.float64))
        features.append(batch_features)
        implausible.append(records["implausible"])
        brightness.append(records["raster"].mean((1, 2)))
        if negatives:
            inverted.append(session.run(255 - records["raster"])[1])
    return Outputs(
        np.concatenate(logits),
        np.concatenate(features),
        np.concatenate(inverted) if negatives else np.empty((0, features[0].shape[1])),
        np.concatenate(implausible),
        np.concatenate(brightness),
    )
