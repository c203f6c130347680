"""Robustness: scores under blur, contrast changes, compression, rotation and masks, and by the border alone."""

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.cam import ClassActivationMap, share_inside
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.results import Robustness, RobustnessRow, Scores
from cxr.evaluation.scores import Sample
from cxr.loading.changes import CHANGES, Change, border_alone, whole_patients
from cxr.loading.rasters import RasterDataset
from cxr.serving.probabilities import softmax


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
    rows = whole_patients(split, seed, most)
    rasters = dataset.rasters(rows)
    sample = Sample.of(split, seed).subset(rows)

    def scored(batches: list[ndarray]) -> tuple[ndarray, Scores]:
        probabilities = softmax(np.concatenate([predictor.logits(batch) for batch in batches]) / temperature)
        resampled = scores.resampled(sample, probabilities)
        names = [scores.named(score, sample.finding) for score in scores.SUMMARY]
        return probabilities.argmax(1), {name: scores.estimate(resampled[name]) for name in names}

    def batches(change: Change) -> list[ndarray]:
        changed = np.stack([change(raster) for raster in rasters])
        return [changed[i : i + batch_size] for i in range(0, len(changed), batch_size)]

    table, unchanged, inside = [], None, None
    for name, change in CHANGES.items():
        images = batches(change)
        predicted, found = scored(images)
        if unchanged is None:
            unchanged = predicted
            inside = _inside(activation, images, predicted) if activation is not None else None
        table.append(RobustnessRow(change=name, changed=float((predicted != unchanged).mean()), scores=found))
    _, alone = scored(batches(border_alone))
    return Robustness(images=len(rows), table=table, border_alone=alone, inside=inside)


def _inside(activation: ClassActivationMap, batches: list[ndarray], predicted: ndarray) -> float:
    maps = np.concatenate([activation.maps(batch) for batch in batches])
    return float(np.mean([share_inside(maps_of[c]) for maps_of, c in zip(maps, predicted, strict=True)]))
