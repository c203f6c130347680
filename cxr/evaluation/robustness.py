"""Robustness: scores under blur, contrast changes, compression, rotation and masked borders and corners."""

import io
from collections.abc import Callable

import numpy as np
from numpy import ndarray
from PIL import Image, ImageFilter

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.cam import ClassActivationMap, share_inside
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.results import Robustness, RobustnessRow
from cxr.evaluation.scores import Sample
from cxr.loading.rasters import RasterDataset
from cxr.serving.probabilities import softmax

BORDER, CORNER = 0.1, 0.2  # fractions of the side that are set to black


def _blur(grey: ndarray) -> ndarray:
    return np.array(Image.fromarray(grey).filter(ImageFilter.GaussianBlur(len(grey) / 112)))


def _contrast(factor: float) -> Callable[[ndarray], ndarray]:
    return lambda grey: np.clip(grey.mean() + (grey - grey.mean()) * factor, 0, 255).round().astype(np.uint8)


def _jpeg(grey: ndarray) -> ndarray:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=20)
    return np.array(Image.open(buffer))


def _rotated(degrees: float) -> Callable[[ndarray], ndarray]:
    return lambda grey: np.array(Image.fromarray(grey).rotate(degrees, Image.Resampling.BILINEAR))


def _border(grey: ndarray) -> ndarray:
    margin = round(len(grey) * BORDER)
    masked = np.zeros_like(grey)
    masked[margin:-margin, margin:-margin] = grey[margin:-margin, margin:-margin]
    return masked


def _corners(grey: ndarray) -> ndarray:
    masked, side = grey.copy(), round(len(grey) * CORNER)
    for rows in (slice(0, side), slice(-side, None)):
        for columns in (slice(0, side), slice(-side, None)):
            masked[rows, columns] = 0
    return masked


# Changes of a raster of shape (S, S), by the names that the report shows.
CHANGES: dict[str, Callable[[ndarray], ndarray]] = {
    "unchanged": lambda grey: grey,
    "blurred (2 px of 224)": _blur,
    "contrast x 0.6": _contrast(0.6),
    "contrast x 1.4": _contrast(1.4),
    "JPEG quality 20": _jpeg,
    "rotated 5° left": _rotated(5),
    "rotated 5° right": _rotated(-5),
    "border masked (10 %)": _border,
    "corners masked (20 %)": _corners,
}


def robustness(
    predictor: Predictor,
    activation: ClassActivationMap | None,
    split: Manifest,
    dataset: RasterDataset,
    *,
    temperature: float,
    seed: int,
    most: int | None,
    batch_size: int,
) -> Robustness:
    """Scores under every change, on at most `most` images of whole patients, drawn by `seed`.

    `dataset` has the rasters of `split`; logits are divided by `temperature`.
    """
    rows = _chosen(split, seed, most)
    rasters = dataset.rasters(rows)
    sample = Sample.of(split, seed).subset(rows)
    table, unchanged, inside = [], None, None
    for name, change in CHANGES.items():
        changed = np.stack([change(raster) for raster in rasters])
        batches = [changed[i : i + batch_size] for i in range(0, len(changed), batch_size)]
        probabilities = softmax(np.concatenate([predictor.logits(b) for b in batches]) / temperature)
        predicted = probabilities.argmax(1)
        if unchanged is None:
            unchanged = predicted
            inside = _inside(activation, batches, predicted) if activation is not None else None
        resampled = scores.resampled(sample, probabilities)
        table.append(
            RobustnessRow(
                change=name,
                changed=float((predicted != unchanged).mean()),
                scores={score: scores.estimate(resampled[score]) for score in scores.SUMMARY},
            )
        )
    return Robustness(images=len(rows), table=table, inside=inside)


def _inside(activation: ClassActivationMap, batches: list[ndarray], predicted: ndarray) -> float:
    maps = np.concatenate([activation.maps(batch) for batch in batches])
    return float(np.mean([share_inside(maps_of[c]) for maps_of, c in zip(maps, predicted, strict=True)]))


def _chosen(split: Manifest, seed: int, most: int | None) -> ndarray:
    """Rows of whole patients: at most `most`, but at least one patient; all rows if `most` is None."""
    if most is None or len(split) <= most:
        return np.arange(len(split))
    patients = split.rows["patient"].to_numpy()
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    sizes = split.rows.groupby("patient").size().loc[order].cumsum().to_numpy()
    kept = order[: max(1, int((sizes <= most).sum()))]
    return np.flatnonzero(np.isin(patients, kept))
