"""Results on one split: scores with intervals, calibration and operating points."""

import numpy as np
from numpy import ndarray

from cxr.evaluation import calibration, scores
from cxr.evaluation.results import Calibration, OperatingPoint, PredictiveValues, SplitResult
from cxr.evaluation.scores import Sample, estimate
from cxr.models.bundle import Bundle
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability, softmax


def assess(sample: Sample, logits: ndarray, bundle: Bundle, prevalences: list[float]) -> SplitResult:
    """Score logits of shape (n, C) with the temperature and thresholds of the bundle; nothing is chosen here."""
    probabilities = softmax(logits / bundle.temperature)
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
            for name, threshold in decision.operating_points(bundle.operating_points).items()
        ],
    )


def _operating_point(
    sample: Sample, probabilities: ndarray, name: str, threshold: float, prevalences: list[float]
) -> OperatingPoint:
    positive = decision.is_positive(finding_probability(probabilities), threshold)
    resampled = scores.decided(sample.labels != NEGATIVE, positive, sample.weights)
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
