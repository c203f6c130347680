"""What referring undecided images costs and saves: the share referred against errors among the answered.

Selective classification: Y. Geifman, R. El-Yaniv (see `cxr.evaluation.risk_coverage`), with the distance from the
threshold of the operating point, in log-odds, as confidence. The bands are those of `cxr.evaluation.bands`, or of a
registered version.
"""

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap, risk_coverage
from cxr.evaluation.scores import Sample, decided, summarised
from cxr.evaluation.statistics import ChosenBands, OperatingBand, Referral
from cxr.serving import decision
from cxr.serving.decision import Band
from cxr.serving.probabilities import NEGATIVE, finding_probability

VALIDATION, TEST = "validation", "test"
COVERAGES = np.round(np.arange(0.5, 1.001, 0.02), 2)  # nobody runs a model that refers more than a half


def on_sets(
    points: dict[str, float], bands: dict[str, Band], sets: dict[str, tuple[Sample, ndarray]]
) -> dict[str, OperatingBand]:
    """Bands by operating point, with their results on `sets` of images, each with probabilities of shape (n, C)."""
    return {
        name: OperatingBand(
            threshold=threshold,
            low=bands[name][0],
            high=bands[name][1],
            on={word: referral(*images, threshold, bands[name]) for word, images in sets.items()},
        )
        for name, threshold in points.items()
    }


def referral(sample: Sample, probabilities: ndarray, threshold: float, band: Band) -> Referral:
    """What a band around a threshold costs and saves on images with probabilities (n, C)."""
    score, truth = finding_probability(probabilities), sample.labels != NEGATIVE
    positive, referred = decision.is_positive(score, threshold), decision.in_band(score, band)
    wrong, given = positive != truth, ~referred
    found = risk_coverage.answered(referred, wrong, sample)
    among = bootstrap.in_blocks(lambda block: decided(truth[given], positive[given], block), sample.weights[:, given])
    of_answered = summarised(sample.subset(given), among)
    share = bootstrap.in_blocks(lambda block: {"share": bootstrap.mean(referred.astype(float), block)}, sample.weights)
    confidence = decision.distance(score, threshold)
    return Referral(
        images=int(referred.sum()),
        **summarised(sample, share, {"share": np.ones_like(given)}),
        risk=found.risk,
        risk_of_all=found.risk_of_all,
        sensitivity=of_answered["sensitivity"],
        specificity=of_answered["specificity"],
        curve=risk_coverage.risk_coverage(confidence, wrong, sample, COVERAGES).curve,
    )


def metrics(chosen: ChosenBands) -> dict[str, float]:
    """Ends of the bands, and what they cost and save on validation and test, by the names of MLflow metrics."""
    values: dict[str, float | None] = {}
    for name, band in chosen.points.items():
        values |= {f"band_low_{name}": band.low, f"band_high_{name}": band.high}
        for word, prefix in ((VALIDATION, "val"), (TEST, "test")):
            found = band.on[word]
            values |= {f"{prefix}_undecided_{name}": found.share.value, f"{prefix}_risk_{name}": found.risk.value}
    return {name: value for name, value in values.items() if value is not None}
