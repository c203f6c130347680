"""Choice of the bands of referral in `evaluate`, on validation, with what they cost and save there and on test."""

from typing import TYPE_CHECKING

from numpy import ndarray

from cxr.evaluation import bands, referral
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import ChosenBands
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability
from steps.runtime.context import Context

if TYPE_CHECKING:
    from steps.work.evaluate import Subject

_SETS = {"val": referral.VALIDATION, "test": referral.TEST}


def choose(
    context: Context, subject: "Subject", samples: dict[str, Sample], probabilities: dict[str, ndarray]
) -> ChosenBands | None:
    """The bands of referral, chosen on validation, and what they cost and save; their ends become metrics.

    None without validation images, and for a bundle of another split, which may have seen them. Of an ensemble of
    folds, all answers out of fold are validation.
    """
    if "val" not in samples or subject.seen is not None:
        context.log.warning("no validation images of the bundle's own split: no band of referral is chosen")
        return None
    points, settings = decision.operating_points(subject.bundle.operating_points), context.settings.serving
    truth, score = samples["val"].labels != NEGATIVE, finding_probability(probabilities["val"])
    chosen = bands.choose(truth, score, points, settings)
    sets = {word: (samples[split], probabilities[split]) for split, word in _SETS.items()}
    (rule, limit), images = settings.rule, len(score)
    found = ChosenBands(rule=rule, limit=limit, images=images, points=referral.on_sets(points, chosen, sets))
    context.metrics(referral.metrics(found))
    return found
