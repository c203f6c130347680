"""Figures of a validation on another set."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.evaluation import calibration
from cxr.evaluation.plots import score_name, whisker
from cxr.evaluation.scores import Sample
from cxr.evaluation.validation_results import Distances, Internal
from cxr.serving.probabilities import NEGATIVE

_BINS = (12, 40)  # fewest and most bins of the histogram


def distances(values: ndarray, facts: Distances) -> Figure:
    """Histogram of the distances `values` of the images, and that of the model's validation images if it is known."""
    drawn, axes = plotting.figure(6.4, 3.4)
    validation = None if facts.validation is None else np.array(facts.validation)
    low = min(float(values.min()), facts.limit, *([] if validation is None else [float(validation[0])]))
    high = min(np.quantile(values, 0.99), 4 * facts.limit)  # a few images far away would leave no room for the others
    bins = int(np.clip(2 * np.sqrt(len(values)), *_BINS))
    edges = np.linspace(low, max(high, 1.2 * facts.limit), bins + 1)
    shares = np.histogram(np.minimum(values, edges[-1]), edges)[0] / len(values)
    axes.stairs(shares, edges, fill=True, color=plotting.BLUE, alpha=0.45, label=f"this set, {len(values):,} images")
    if validation is not None:
        share_below = np.interp(edges, validation, np.linspace(0, 1, len(validation)), left=0.0)
        label = "validation images of the model"
        axes.stairs(np.diff(share_below), edges, color=plotting.ORANGE, lw=1.8, label=label)
    axes.axvline(facts.limit, color=plotting.VERMILION, lw=1.4, ls="--", label="limit of the model")
    axes.set(xlabel="distance from the training images (the last bin has all beyond)", ylabel="share of the images")
    axes.set_title("How far the images lie from training")
    axes.legend(loc="upper right")
    return drawn


def reliability(score: ndarray, sample: Sample, finding: str) -> Figure:
    """Share of images with the finding by its probability `score` (n,), above a histogram of the probability."""
    drawn, (axes, below) = plotting.figure(4.8, 5.2, 2, 1, height_ratios=[4, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1, label="perfectly calibrated")
    bins = calibration.reliability(score, (sample.labels != NEGATIVE).astype(float), sample)
    at, shares = [place for place, _, _ in bins], [share for _, share, _ in bins]
    axes.vlines(
        at, [share.low for share in shares], [share.high for share in shares], color=plotting.BLUE, lw=2, alpha=0.35
    )
    axes.plot(at, [share.value for share in shares], marker="o", ms=5, color=plotting.BLUE, lw=1.5, label="this set")
    axes.set(ylabel=f"share with {finding}", ylim=(0, 1.02))
    axes.legend(loc="upper left")
    below.hist(score, bins=np.linspace(0, 1, calibration.BINS + 1), color=plotting.BLUE)
    below.set(xlabel=f"probability of {finding}", ylabel="images", xlim=(0, 1))
    return drawn


def side_by_side(facts: Internal) -> Figure:
    """Scores on the model's own test split and on the set, and their differences."""
    rows = {name: row for name, row in facts.scores.items() if name != "loss" and not name.startswith("calibration_")}
    drawn, (axes, beside) = plotting.figure(9.0, 1.3 + 0.42 * len(rows), 1, 2, sharey=True, width_ratios=[1.3, 1])
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows.values(), strict=True):
        whisker(axes, row.internal, place + 0.13, plotting.GREY)
        whisker(axes, row.external, place - 0.13, plotting.BLUE)
        whisker(beside, row.difference, place, plotting.BLUE)
    axes.plot([], [], "o", color=plotting.GREY, label="own test split")
    axes.plot([], [], "o", color=plotting.BLUE, label="this set")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    axes.set(xlim=(0, 1.02), xlabel="score and 95 % interval")
    axes.set_yticks(places, [score_name(name) for name in rows])
    beside.axvline(0, color=plotting.GREY, lw=1)
    beside.set(xlabel="this set minus own test split")
    return drawn
