"""The same pictures, a little worse: does the model read lungs, or sharpness, exposure, compression and markers?"""

import io
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image, ImageFilter

from cxr.datasets.manifest import Manifest, read_verified
from cxr.evaluation import scores
from cxr.evaluation.cam import Activation, share_inside
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.serving.probabilities import softmax

SHOWN = ("macro_f1", "accuracy", "auc_pneumonia", "sensitivity", "specificity")
BORDER, CORNER = 0.1, 0.2  # shares of the side that are blackened


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


# What is done to a raster of shape (S, S), by the words that the report uses.
CHANGES: dict[str, Callable[[ndarray], ndarray]] = {
    "as it is": lambda grey: grey,
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
    predictor: Predictor, activation: Activation | None, part: Manifest, seed: int, most: int | None, batch_size: int
) -> dict[str, Any]:
    """Scores under every change, with intervals, on at most `most` images (whole patients, drawn by `seed`).

    `changed` is the share of images whose predicted class changed. `inside` is the mean share of activation for the
    predicted class in the central region, of the unchanged pictures; None where the network has no exact map.
    """
    rows = _chosen(part, seed, most)
    rasters = np.stack([predictor.raster(read_verified(part, int(i))) for i in rows])
    sample = Sample.of(part, seed).subset(rows)
    table, before, inside = [], None, None
    for name, change in CHANGES.items():
        seen = np.stack([change(raster) for raster in rasters])
        batches = [seen[i : i + batch_size] for i in range(0, len(seen), batch_size)]
        probabilities = softmax(np.concatenate([predictor.logits(b) for b in batches]) / predictor.temperature)
        predicted = probabilities.argmax(1)
        if before is None:
            before = predicted
            inside = _inside(activation, batches, predicted) if activation is not None else None
        found = scores.resampled(sample, probabilities)
        table.append({
            "change": name, "changed": float((predicted != before).mean()),
            "scores": {key: asdict(scores.estimate(found[key])) for key in SHOWN},
        })  # fmt: skip
    return {"images": len(rows), "table": table, "inside": inside}


def _inside(activation: Activation, batches: list[ndarray], predicted: ndarray) -> float:
    maps = np.concatenate([activation.maps(batch) for batch in batches])
    return float(np.mean([share_inside(own[c]) for own, c in zip(maps, predicted, strict=True)]))


def _chosen(part: Manifest, seed: int, most: int | None) -> ndarray:
    """Rows of whole patients, at most `most` in all but for the first patient; all where `most` is None."""
    if most is None or len(part) <= most:
        return np.arange(len(part))
    patients = part.rows["patient"].to_numpy()
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    sizes = part.rows.groupby("patient").size().loc[order].cumsum().to_numpy()
    kept = order[: max(1, int((sizes <= most).sum()))]
    return np.flatnonzero(np.isin(patients, kept))
