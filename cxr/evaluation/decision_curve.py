"""Decision curve: would acting on the model do more good than treating everybody, or nobody?

A. J. Vickers, E. B. Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical Decision
Making 26 (2006). Who treats at a probability of t weighs one patient treated in vain as t / (1 - t) of one treated
rightly.
"""

import numpy as np
from numpy import ndarray

from cxr.evaluation import bootstrap
from cxr.evaluation.scores import estimate
from cxr.evaluation.statistics import DecisionCurve, NetBenefit
from cxr.serving import decision

THRESHOLDS = np.round(np.arange(0.02, 0.99, 0.02), 2)


def decision_curve(truth: ndarray, score: ndarray, points: dict[str, float], weights: ndarray) -> DecisionCurve:
    """Net benefit at `THRESHOLDS` and at the thresholds `points` by name, with intervals.

    Args:
        truth: whether there is a finding, bool of shape (n,).
        score: its probability, of shape (n,).
        points: frozen thresholds by name.
        weights: of shape (R, n); row 0 is the sample itself.
    """
    thresholds = np.concatenate([THRESHOLDS, list(points.values())])
    resampled = resample(truth, score, thresholds, weights)
    found = [
        NetBenefit(threshold=float(threshold), **{name: estimate(values[:, i]) for name, values in resampled.items()})
        for i, threshold in enumerate(thresholds)
    ]
    count = len(THRESHOLDS)
    return DecisionCurve(curve=found[:count], operating_points=dict(zip(points, found[count:], strict=True)))


def resample(truth: ndarray, score: ndarray, thresholds: ndarray, weights: ndarray) -> dict[str, ndarray]:
    """Net benefit of `model` and `treat_all`, and the model's `advantage`, of shape (R, T) for thresholds (T,).

    The advantage is over the better of treating all and treating none, whose net benefit is 0.
    """
    positive = decision.is_positive(score[:, None], thresholds[None])  # (n, T)
    with np.errstate(divide="ignore"):
        exchange = thresholds / (1 - thresholds)

    def net_benefit(block: ndarray) -> dict[str, ndarray]:
        total = block.sum(1, keepdims=True)
        # Counts: whole numbers, exact in float32.
        ill, healthy = block[:, truth].sum(1, keepdims=True), block[:, ~truth].sum(1, keepdims=True)
        right = block[:, truth] @ positive[truth].astype(np.float32)
        wrong = block[:, ~truth] @ positive[~truth].astype(np.float32)
        with np.errstate(invalid="ignore"):
            model, treat_all = (right - wrong * exchange) / total, (ill - healthy * exchange) / total
        return {"model": model, "treat_all": treat_all, "advantage": model - np.maximum(treat_all, 0)}

    return bootstrap.in_blocks(net_benefit, weights)
