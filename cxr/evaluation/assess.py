"""Everything that is said about one part of the images: scores, calibration and operating points, with intervals."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.evaluation import calibration, scores, thresholds
from cxr.evaluation.scores import Sample, estimate
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import NORMAL, softmax


def assess(sample: Sample, logits: ndarray, bundle: Bundle, prevalences: list[float]) -> dict[str, Any]:
    """Plain values for logits of shape (n, C); nothing is chosen here, temperature and thresholds are the bundle's."""
    probabilities = softmax(logits / bundle.temperature)
    points = {thresholds.ARGMAX: None, **bundle.operating_points}
    return {
        "images": len(sample.labels),
        "patients": len(np.unique(sample.patients)),
        "by_class": {name: int((sample.labels == i).sum()) for i, name in enumerate(sample.classes)},
        "scores": scores.estimates(sample, probabilities),
        "calibration": {
            "temperature": bundle.temperature,
            "before": calibration.measures(softmax(logits), sample.labels),
            "after": calibration.measures(probabilities, sample.labels),
        },
        "operating_points": [
            _at_point(sample, probabilities, name, threshold, prevalences) for name, threshold in points.items()
        ],
    }


def _at_point(
    sample: Sample, probabilities: ndarray, name: str, threshold: float | None, prevalences: list[float]
) -> dict[str, Any]:
    truth = sample.labels != NORMAL
    found = scores.decided(truth, thresholds.decide(probabilities, threshold), sample.weights)
    at = []
    for share in prevalences:
        ppv, npv = scores.predictive_values(found["sensitivity"], found["specificity"], share)
        at.append({"prevalence": share, "ppv": asdict(estimate(ppv)), "npv": asdict(estimate(npv))})
    return {
        "name": name,
        "threshold": threshold,
        "scores": {key: asdict(estimate(values)) for key, values in found.items()},
        "prevalences": at,
    }
