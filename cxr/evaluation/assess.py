"""Results on one split: scores with intervals, calibration and operating points."""

import numpy as np
from numpy import ndarray

from cxr.evaluation import calibration, scores, thresholds
from cxr.evaluation.results import Calibration, OperatingPoint, PredictiveValues, SplitResult
from cxr.evaluation.scores import Sample, estimate
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import ARGMAX, NORMAL, softmax


def assess(sample: Sample, logits: ndarray, bundle: Bundle, prevalences: list[float]) -> SplitResult:
    """Score logits of shape (n, C) with the temperature and thresholds of the bundle; nothing is chosen here."""
    probabilities = softmax(logits / bundle.temperature)
    thresholds_by_name: dict[str, float | None] = {ARGMAX: None, **bundle.operating_points}
    return SplitResult(
        images=len(sample.labels),
        patients=len(np.unique(sample.patients)),
        by_class={name: int((sample.labels == i).sum()) for i, name in enumerate(sample.classes)},
        scores=scores.estimates(sample, probabilities),
        calibration=Calibration(
            temperature=bundle.temperature,
            before=calibration.errors(softmax(logits), sample.labels),
            after=calibration.errors(probabilities, sample.labels),
        ),
        operating_points=[
            _operating_point(sample, probabilities, name, threshold, prevalences)
            for name, threshold in thresholds_by_name.items()
        ],
    )


def _operating_point(
    sample: Sample, probabilities: ndarray, name: str, threshold: float | None, prevalences: list[float]
) -> OperatingPoint:
    positive = thresholds.decide(probabilities, threshold)
    resampled = scores.decided(sample.labels != NORMAL, positive, sample.weights)
    predictive_values = []
    for prevalence in prevalences:
        ppv, npv = scores.predictive_values(resampled["sensitivity"], resampled["specificity"], prevalence)
        predictive_values.append(PredictiveValues(prevalence=prevalence, ppv=estimate(ppv), npv=estimate(npv)))
    return OperatingPoint(
        name=name,
        threshold=threshold,
        scores={score: estimate(values) for score, values in resampled.items()},
        prevalences=predictive_values,
    )
