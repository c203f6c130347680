"""Compare two models on the same images: differences of their scores, and whether they could be due to chance."""

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap, scores
from cxr.evaluation.results import Comparison
from cxr.evaluation.scores import HIGHER_IS_BETTER, Sample

COMPARED = ("loss", *HIGHER_IS_BETTER)


def compare(sample: Sample, ours: ndarray, theirs: ndarray) -> Comparison:
    """Differences (ours - theirs) of scores, with intervals from a paired bootstrap over patients.

    Both arguments are probabilities of shape (n, C) for the images of `sample`, in its order.
    """
    our_scores, their_scores = scores.resampled(sample, ours), scores.resampled(sample, theirs)
    names = [scores.named(name, sample.finding) for name in COMPARED]
    our_right, their_right = (probabilities.argmax(1) == sample.labels for probabilities in (ours, theirs))
    return Comparison(
        images=len(sample.labels),
        differences={name: scores.estimate(our_scores[name] - their_scores[name]) for name in names},
        other={name: None if np.isnan(their_scores[name][0]) else float(their_scores[name][0]) for name in names},
        only_ours_right=int((our_right & ~their_right).sum()),
        only_theirs_right=int((their_right & ~our_right).sum()),
        mcnemar_p=bootstrap.mcnemar(our_right, their_right),
    )
