"""Results on one split: scores with intervals, calibration and operating points."""

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap, calibration, scores
from cxr.evaluation.decision_curve import decision_curve
from cxr.evaluation.recalibration import recalibration
from cxr.evaluation.results import OperatingPoint, PredictiveValues, SplitResult
from cxr.evaluation.risk_coverage import curves
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Calibration, Estimate, Scores
from cxr.models.bundle import Bundle
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability, softmax


def assess(sample: Sample, logits: ndarray, bundle: Bundle, prevalences: list[float]) -> SplitResult:
    """Score logits of shape (n, C) with the temperature and thresholds of the bundle; nothing is chosen here."""
    probabilities = softmax(logits / bundle.temperature)
    truth, score = sample.labels != NEGATIVE, finding_probability(probabilities)
    points = decision.operating_points(bundle.operating_points)
    return SplitResult(
        images=len(sample.labels),
        patients=len(np.unique(sample.patients)),
        by_class={name: int((sample.labels == i).sum()) for i, name in enumerate(sample.classes)},
        scores=scores.estimates(sample, probabilities),
        calibration=Calibration(
            temperature=bundle.temperature,
            before=calibration.errors(softmax(logits), sample.labels, sample.weights),
            after=calibration.errors(probabilities, sample.labels, sample.weights),
            finding=recalibration(truth, score, sample.weights),
        ),
        operating_points=[
            operating_point(sample, probabilities, name, threshold, prevalences) for name, threshold in points.items()
        ],
        decision_curve=decision_curve(truth, score, points, sample.weights),
        risk_coverage=curves(sample, probabilities),
    )


def operating_point(
    sample: Sample, probabilities: ndarray, name: str, threshold: float, prevalences: list[float]
) -> OperatingPoint:
    """How decisions at a threshold on the probability of the finding do, here and at other prevalences."""
    positive = decision.is_positive(finding_probability(probabilities), threshold)
    truth = sample.labels != NEGATIVE
    resampled = bootstrap.in_blocks(lambda block: scores.decided(truth, positive, block), sample.weights)
    found = scores.summarised(sample, resampled, {"ppv": positive, "npv": ~positive})
    return OperatingPoint(
        name=name,
        threshold=threshold,
        scores=found,
        prevalences=[_at_prevalence(prevalence, resampled, found) for prevalence in prevalences],
    )


def _at_prevalence(prevalence: float, resampled: dict[str, ndarray], found: Scores) -> PredictiveValues:
    """Predictive values, which rise with sensitivity and with specificity.

    Where one of these has an interval wider than its resamples, theirs reach as far as its ends say.
    """
    both = resampled["sensitivity"], resampled["specificity"]
    sensitivity, specificity = found["sensitivity"], found["specificity"]
    ppv, npv = map(scores.estimate, scores.predictive_values(*both, prevalence))
    if any(map(scores.is_widened, (sensitivity, specificity), both)):
        ends = np.array([[one.low, one.high] for one in (sensitivity, specificity)], float)
        ppv, npv = map(_wider, (ppv, npv), scores.predictive_values(ends[0], ends[1], prevalence))
    return PredictiveValues(prevalence=prevalence, ppv=ppv, npv=npv)


def _wider(estimate: Estimate, ends: ndarray) -> Estimate:
    if estimate.low is None or estimate.high is None or np.isnan(ends).any():
        return estimate
    return Estimate(value=estimate.value, low=min(estimate.low, ends[0]), high=max(estimate.high, ends[1]))
