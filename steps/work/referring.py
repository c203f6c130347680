"""Choice of the bands of referral in `evaluate`, on validation, with what they cost and save there and on test."""

from typing import TYPE_CHECKING

from numpy import ndarray

from cxr.errors import CxrError
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

    None without validation images, for a bundle of another split, which may have seen them, and if no version is to be
    registered and no band reaches the risk in the settings. Of an ensemble of folds, all answers out of fold are
    validation.

    Raises:
        CxrError: a version is to be registered, and no band reaches the risk.
    """
    if "val" not in samples or subject.seen is not None:
        context.log.warning("no validation images of the bundle's own split: no band of referral is chosen")
        return None
    points, settings = decision.operating_points(subject.bundle.operating_points), context.settings.serving
    truth, score = samples["val"].labels != NEGATIVE, finding_probability(probabilities["val"])
    try:
        chosen = bands.choose(truth, score, points, settings)
    except CxrError as error:
        if context.settings.registry.register_model:
            raise
        context.log.warning("%s. No band of referral is chosen", error)
        return None
    sets = {word: (samples[split], probabilities[split]) for split, word in _SETS.items()}
    (rule, limit), images = settings.rule, len(score)
    found = ChosenBands(rule=rule, limit=limit, images=images, points=referral.on_sets(points, chosen, sets))
    context.metrics(referral.metrics(found))
    return found
