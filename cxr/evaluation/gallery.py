"""The mistakes that the model was surest of, with the places that spoke for its answer."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.datasets.manifest import Manifest, read_verified
from cxr.evaluation.cam import Activation
from cxr.evaluation.predictor import Predictor
from cxr.imaging.heatmap import overlay

_COLUMNS = 4


@dataclass(frozen=True)
class Mistake:
    """One image that was called something else."""

    path: str
    truth: str
    prediction: str
    probability: float
    picture: ndarray  # uint8 of shape (S, S, 3): the picture, and the map laid over it where there is one


def mistakes(
    part: Manifest, probabilities: ndarray, predictor: Predictor, activation: Activation | None, most: int
) -> list[Mistake]:
    """At most `most` wrong answers, the surest first."""
    labels, predicted = part.labels(), probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    sure = probabilities[wrong, predicted[wrong]]
    found = []
    for i in wrong[np.argsort(-sure, kind="stable")][:most]:
        raster = predictor.raster(read_verified(part, int(i)))
        picture = np.repeat(raster[..., None], 3, axis=2)
        if activation is not None:
            picture = overlay(raster, activation.maps(raster[None])[0, predicted[i]])
        found.append(Mistake(part.rows["path"].iat[i], part.classes[labels[i]], part.classes[predicted[i]],
                             float(probabilities[i, predicted[i]]), picture))  # fmt: skip
    return found


def sheet(found: list[Mistake], has_maps: bool) -> Figure:
    """All of them on one figure."""
    rows = max(1, -(-len(found) // _COLUMNS))
    drawn, axes = plotting.figure(2.4 * _COLUMNS, 2.75 * rows + 0.4, rows, _COLUMNS, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, one in zip(axes.flat, found, strict=False):
        ax.imshow(one.picture)
        ax.set_title(f"{one.truth}, called {one.prediction}\nwith {one.probability:.0%}", fontsize=9)
    words = f"The {len(found)} most confident mistakes" if found else "No mistake was made"
    drawn.suptitle(words + (", with what spoke for the answer" if has_maps and found else ""), fontsize=11)
    return drawn
