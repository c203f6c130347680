"""Figures of curves: reliability, net benefit over thresholds, risk by coverage, and maps of random weights."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.evaluation import calibration
from cxr.evaluation.plots import whisker
from cxr.evaluation.probes import MapSanity
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import DecisionCurve, Estimate, RiskCoverage
from cxr.serving.probabilities import softmax

_MARKERS = ("o", "s", "^", "D")
_NAMES = {"finding": "finding or none", "classes": "most likely class"}


def reliability(logits: ndarray, sample: Sample, temperature: float, title: str) -> Figure:
    """Accuracy by confidence before and after temperature scaling, above a histogram of the confidence after it."""
    drawn, (axes, below) = plotting.figure(4.8, 5.2, 2, 1, height_ratios=[4, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1, label="perfectly calibrated")
    for name, t, colour, marker in (("before", 1.0, plotting.GREY, "s"), ("after", temperature, plotting.BLUE, "o")):
        probabilities = softmax(logits / t)
        confidence, correct = probabilities.max(1), (probabilities.argmax(1) == sample.labels).astype(float)
        error = calibration.expected_calibration_error(confidence, correct, sample.weights[:1])[0]
        bins = calibration.reliability(confidence, correct, sample)
        at, accuracy = [bin_at for bin_at, _, _ in bins], [found for _, found, _ in bins]
        label = f"{name}: ECE {error:.3f}, T = {t:.2f}"
        axes.plot(at, [found.value for found in accuracy], marker=marker, ms=5, color=colour, lw=1.5, label=label)
        if name == "after":
            low, high = [found.low for found in accuracy], [found.high for found in accuracy]
            axes.vlines(at, low, high, color=colour, lw=2, alpha=0.35)
    count = len(sample.labels)
    axes.set(title=f"{title}, {count:,} images: calibration", ylabel="accuracy", ylim=(0, 1.02))
    axes.legend(loc="upper left")
    below.hist(confidence, bins=np.linspace(0, 1, calibration.BINS + 1), color=plotting.BLUE)
    below.set(xlabel="probability of the predicted class", ylabel="images", xlim=(0, 1))
    return drawn


def decision_curve(results: DecisionCurve, title: str) -> Figure:
    """Net benefit of the model with its band, of treating all, and of treating none."""
    drawn, axes = plotting.figure(5.6, 4.2)
    thresholds = [point.threshold for point in results.curve]
    best = max((point.treat_all.value or 0.0) for point in results.curve)
    _line(
        axes,
        thresholds,
        [point.treat_all for point in results.curve],
        plotting.GREY,
        "treat everybody",
        "--",
        band=False,
    )
    axes.axhline(0, color="black", lw=1, label="treat nobody")
    _line(axes, thresholds, [point.model for point in results.curve], plotting.BLUE, "act on the model", "-")
    for (name, point), marker in zip(results.operating_points.items(), _MARKERS, strict=False):
        if point.model.value is not None:
            label = f"{name} (p ≥ {point.threshold:.2f})"
            axes.plot(
                point.threshold, point.model.value, marker, color="black", ms=6, mfc="white", zorder=5, label=label
            )
    lowest = min((point.model.value or 0.0) for point in results.curve)
    axes.set(
        title=f"{title}: decision curve",
        xlabel="threshold on the probability of the finding",
        ylabel="net benefit",
        xlim=(0, 1),
        ylim=(max(-0.3, min(-0.06, 1.3 * lowest)), max(0.1, 1.1 * best)),
    )
    axes.legend(loc="lower left", fontsize=8)
    return drawn


def risk_coverage(results: dict[str, RiskCoverage], title: str) -> Figure:
    """Share of wrong answers by the share of images answered, with bands."""
    drawn, axes = plotting.figure(5.6, 4.2)
    for (name, curve), colour, line in zip(
        results.items(), (plotting.BLUE, plotting.VERMILION), ("-", "--"), strict=False
    ):
        area = "–" if curve.area.value is None else f"{curve.area.value:.3f}"
        coverages, risks = [at.coverage for at in curve.curve], [at.risk for at in curve.curve]
        _line(axes, coverages, risks, colour, f"{_NAMES[name]}: area {area}", line)
    axes.set(
        title=f"{title}: risk by coverage",
        xlabel="share of images answered, the most confident first",
        ylabel="share of wrong answers",
        xlim=(0, 1.01),
    )
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8)
    return drawn


def sanity(results: MapSanity) -> Figure:
    """Similarity of the maps at every stage of the cascade."""
    drawn, axes = plotting.figure(6.4, 1.0 + 0.34 * len(results.cascade))
    places = np.arange(len(results.cascade))[::-1]
    for place, stage in zip(places, results.cascade, strict=True):
        whisker(axes, stage.similarity, place, plotting.BLUE)
    axes.axvline(0, color=plotting.GREY, lw=1, ls="--")
    axes.set_yticks(places, [stage.randomised for stage in results.cascade])
    axes.set(xlabel=f"mean rank correlation and 95 % interval, {results.images} test images", xlim=(-1, 1.02))
    return drawn


def _line(
    axes: Axes, x: list[float], estimates: list[Estimate], colour: str, label: str, style: str, *, band: bool = True
) -> None:
    """A curve, and the band of its intervals."""
    value, low, high = (
        np.array([np.nan if found is None else found for found in part], dtype=float)
        for part in zip(*((e.value, e.low, e.high) for e in estimates), strict=True)
    )
    axes.plot(x, value, color=colour, ls=style, lw=1.8, label=label)
    if band:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
