"""Risk by coverage: how often answers are wrong if only the most confident ones are given, and the rest referred.

Y. Geifman, R. El-Yaniv, "Selective classification for deep neural networks" (NeurIPS 2017). The area under the curve
(AURC) is the mean, over k = 1 to n, of the share of wrong answers among the k most confident ones. Among answers of the
same confidence, every order is equally likely.
"""

import math

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap
from cxr.evaluation.scores import Sample, estimate, summarised
from cxr.evaluation.statistics import Answered, RiskAtCoverage, RiskCoverage
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability

COVERAGES = np.round(np.arange(0.05, 1.01, 0.05), 2)


def curves(sample: Sample, probabilities: ndarray) -> dict[str, RiskCoverage]:
    """The curve of the `finding`, and of all `classes` where there are more than two, of probabilities (n, C)."""
    score = finding_probability(probabilities)
    threshold = decision.operating_points({})[decision.ARGMAX]
    wrong = decision.is_positive(score, threshold) != (sample.labels != NEGATIVE)
    found = {"finding": risk_coverage(np.maximum(score, 1 - score), wrong, sample)}
    if probabilities.shape[1] > 2:
        wrong = probabilities.argmax(1) != sample.labels
        found["classes"] = risk_coverage(probabilities.max(1), wrong, sample)
    return found


def risk_coverage(confidence: ndarray, wrong: ndarray, sample: Sample, coverages: ndarray = COVERAGES) -> RiskCoverage:
    """The curve and its area, with intervals.

    Args:
        confidence: of each answer, of shape (n,); larger is more confident.
        wrong: whether each answer is wrong, bool of shape (n,).
        sample: the images.
        coverages: of the curve, in rising order.
    """
    found = resample(confidence, wrong, sample.weights, coverages)
    surest_first = sample.patients[np.argsort(-confidence, kind="stable")]
    curve = []
    for coverage, risk in zip(coverages, found["risk"].T, strict=True):
        patients = len(np.unique(surest_first[: math.ceil(coverage * len(surest_first))]))
        estimated = bootstrap.of_share(float(risk[0]), risk[1:], patients)
        curve.append(RiskAtCoverage(coverage=float(coverage), risk=estimated))
    return RiskCoverage(area=estimate(found["area"]), curve=curve)


def resample(
    confidence: ndarray, wrong: ndarray, weights: ndarray, coverages: ndarray = COVERAGES
) -> dict[str, ndarray]:
    """`area` of shape (R,), and `risk` at `coverages` (K,) of shape (R, K)."""
    order = np.argsort(-confidence, kind="stable")
    _, starts = np.unique(-confidence[order], return_index=True)  # of the groups of equal confidence
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(weights.sum(1).max()) + 1))])

    def of_rows(block: ndarray) -> dict[str, ndarray]:
        start = np.zeros((len(block), 1))
        ordered = block[:, order]
        answered = np.hstack([start, np.add.reduceat(ordered, starts, axis=1, dtype=np.float64).cumsum(1)])
        mistakes = np.hstack(
            [start, np.add.reduceat(ordered * wrong[order], starts, axis=1, dtype=np.float64).cumsum(1)]
        )
        return {
            "area": _area(answered, mistakes, harmonic),
            "risk": np.stack([_risks(*row, coverages) for row in zip(answered, mistakes, strict=True)]),
        }

    return bootstrap.in_blocks(of_rows, weights)


def _area(answered: ndarray, mistakes: ndarray, harmonic: ndarray) -> ndarray:
    """Area, of shape (R,), from numbers of answers and mistakes (R, 1 + G) up to the end of each group.

    With A answers and M mistakes before a group of risk r, the risk after its jth answer is (M + j r) / (A + j), that
    is r + (M - r A) / (A + j); the sum over j follows from harmonic numbers.
    """
    before, among = answered[:, :-1], np.diff(answered, axis=1)
    risk = np.diff(mistakes, axis=1) / np.maximum(among, 1)
    places = harmonic[answered.astype(int)]
    return (risk * among + (mistakes[:, :-1] - risk * before) * np.diff(places, axis=1)).sum(1) / answered[:, -1]


def _risks(answered: ndarray, mistakes: ndarray, coverages: ndarray) -> ndarray:
    given = coverages * answered[-1]
    return np.interp(given, answered, mistakes) / given


def answered(referred: ndarray, wrong: ndarray, sample: Sample) -> Answered:
    """Coverage and risk of the images of a sample that are not `referred`, where both are bool of shape (n,)."""
    given = ~referred

    def of_rows(block: ndarray) -> dict[str, ndarray]:
        return {
            "coverage": bootstrap.mean(given.astype(float), block),
            "risk": bootstrap.mean(wrong[given].astype(float), block[:, given]),
            "risk_of_all": bootstrap.mean(wrong.astype(float), block),
        }

    every = np.ones_like(given)
    among = {"coverage": every, "risk": given, "risk_of_all": every}
    return Answered(**summarised(sample, bootstrap.in_blocks(of_rows, sample.weights), among))
