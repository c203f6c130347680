"""Scores of a served model on another set of images, and beside those on its own test split.

Nothing is chosen here: probabilities, thresholds and referral are those of the served model.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap, calibration, recalibration, risk_coverage, scores
from cxr.evaluation.assess import operating_point
from cxr.evaluation.comparison import COMPARED
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Answered, Estimate, Scores
from cxr.evaluation.validation_results import ImageScores, SideBySide
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability

_OF_ALL_CLASSES = ("macro_f1", "balanced_accuracy")  # means over the classes


@dataclass(frozen=True)
class Thresholds:
    """Frozen operating points of a model, and the prevalences that predictive values are given for.

    Attributes:
        points: threshold on the probability of the finding by name, `argmax` included.
        prevalences: shares of images with the finding.
    """

    points: dict[str, float]
    prevalences: list[float]


def image_scores(sample: Sample, probabilities: ndarray, thresholds: Thresholds) -> ImageScores:
    """Score probabilities of shape (n, C) for the images of `sample`; those that lack a class define fewer scores."""
    with np.errstate(invalid="ignore", divide="ignore"):  # of few images, a resample may have none: NaN, left out
        return _image_scores(sample, probabilities, thresholds)


def defined_scores(sample: Sample, probabilities: ndarray) -> Scores:
    """Scores of probabilities (n, C) with intervals; undefined where the images lack a class that a score needs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _defined(sample, scores.estimates(sample, probabilities))


def _image_scores(sample: Sample, probabilities: ndarray, thresholds: Thresholds) -> ImageScores:
    estimates = defined_scores(sample, probabilities)
    return ImageScores(
        images=len(sample.labels),
        patients=len(np.unique(sample.patients)),
        by_class=_by_class(sample),
        scores=estimates,
        operating_points=[
            point.model_copy(update={"scores": _defined(sample, point.scores)})
            for point in (
                operating_point(sample, probabilities, name, threshold, thresholds.prevalences)
                for name, threshold in thresholds.points.items()
            )
        ],
        calibration=calibration.errors(probabilities, sample.labels, sample.weights),
        finding=recalibration.recalibration(*_finding(sample, probabilities), sample.weights),
        undefined=[name for name, score in estimates.items() if score.value is None],
    )


def coverage(sample: Sample, probabilities: ndarray, threshold: float, answered: ndarray) -> Answered:
    """How many images are `answered` (bool, of shape (n,)), and how often decisions at a threshold are wrong."""
    truth, score = _finding(sample, probabilities)
    wrong = decision.is_positive(score, threshold) != truth
    return risk_coverage.answered(~answered, wrong, sample)


def side_by_side(
    internal: tuple[Sample, ndarray], external: tuple[Sample, ndarray], seed: int
) -> dict[str, SideBySide]:
    """Scores on two sets of other images, with intervals of their differences from independent bootstraps.

    Args:
        internal: the sample of the model's own test split, and probabilities of shape (n, C).
        external: the same of the set, with the same classes.
        seed: pairs the resamples of the two at random: drawn from one seed, they may be alike.
    """
    there, here = _compared(*internal), _compared(*external)
    count = min(len(sample.weights) for sample, _ in (internal, external)) - 1
    pairing = 1 + np.random.default_rng([seed, 1]).permutation(len(internal[0].weights) - 1)[:count]
    pairing = np.concatenate([[0], pairing])
    shown_there, shown_here = _shown(internal[0], there), _shown(external[0], here)
    rows = {}
    for name in there:
        difference = Estimate(value=None)
        if shown_there[name].value is not None and shown_here[name].value is not None:
            difference = scores.estimate(here[name][: count + 1] - there[name][pairing])
            sets = (shown_there, there), (shown_here, here)
            if any(scores.is_widened(shown[name], resampled[name]) for shown, resampled in sets):
                difference = bootstrap.of_difference(shown_here[name], shown_there[name])
        rows[name] = SideBySide(internal=shown_there[name], external=shown_here[name], difference=difference)
    return rows


def _shown(sample: Sample, values: dict[str, ndarray]) -> Scores:
    """Estimates of what is compared; calibration that many resamples do not define is undefined, as elsewhere."""
    found = scores.summarised(sample, values)
    for name, resampled in values.items():
        if name.startswith("calibration_") and np.isnan(resampled[1:]).mean() > (1 - bootstrap.LEVEL) / 2:
            found[name] = Estimate(value=None)
    return _defined(sample, found)


def _compared(sample: Sample, probabilities: ndarray) -> dict[str, ndarray]:
    """What is compared between sets: scores and calibration by name, each of shape (1 + resamples,)."""
    values = scores.resampled(sample, probabilities)
    of_finding = recalibration.resample(*_finding(sample, probabilities), sample.weights)
    return {name: values[name] for name in (scores.named(name, sample.finding) for name in COMPARED)} | {
        f"calibration_{name}": of_finding[name] for name in ("in_the_large", "slope")
    }


def _finding(sample: Sample, probabilities: ndarray) -> tuple[ndarray, ndarray]:
    """Whether there is a finding, and its probability, both of shape (n,)."""
    return sample.labels != NEGATIVE, finding_probability(probabilities)


def _by_class(sample: Sample) -> dict[str, int]:
    return {name: int((sample.labels == i).sum()) for i, name in enumerate(sample.classes)}


def _defined(sample: Sample, estimates: Scores) -> Scores:
    """The scores, undefined where the images lack a class without which they would mislead."""
    present = {name for name, count in _by_class(sample).items() if count}
    absent = set(sample.classes) - present
    finding = sample.labels != NEGATIVE
    missing = set(_OF_ALL_CLASSES) if absent else set()
    if finding.all() or not finding.any():
        missing |= {"ppv", "npv", f"average_precision_{sample.finding}"}
        missing |= {f"auc_{sample.finding}", f"auc_{sample.finding}_delong"}
    for name in absent | (present if len(present) == 1 else set()):
        missing |= {f"{score}_{name}" for score in ("precision", "recall", "f1", "auc", "average_precision")}
    missing -= {f"recall_{name}" for name in present}
    return {name: Estimate(value=None) if name in missing else value for name, value in estimates.items()}
