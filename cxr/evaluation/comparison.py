"""Two models on the same images: by how much do they differ, and could that be chance?"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap, scores
from cxr.evaluation.scores import HIGHER_IS_BETTER, Sample

COMPARED = ("loss", *HIGHER_IS_BETTER)


def compare(sample: Sample, ours: ndarray, theirs: ndarray) -> dict[str, Any]:
    """Differences (ours - theirs) of scores, each with the interval of a paired bootstrap over patients.

    Both probabilities are of shape (n, C), for the same images in the same order. `mcnemar_p` tests whether both
    predict the right class equally often.
    """
    one, other = scores.resampled(sample, ours), scores.resampled(sample, theirs)
    right = [p.argmax(1) == sample.labels for p in (ours, theirs)]
    return {
        "differences": {name: asdict(scores.estimate(one[name] - other[name])) for name in COMPARED},
        "other": {name: None if np.isnan(other[name][0]) else float(other[name][0]) for name in COMPARED},
        "only_ours_right": int((right[0] & ~right[1]).sum()),
        "only_theirs_right": int((right[1] & ~right[0]).sum()),
        "mcnemar_p": bootstrap.mcnemar(*right),
    }
