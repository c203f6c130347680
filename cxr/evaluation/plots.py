"""Figures of an evaluation: what was answered, and scores side by side."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from sklearn import metrics

from cxr.common import plotting
from cxr.evaluation import scores
from cxr.evaluation.probes import Robustness
from cxr.evaluation.results import Comparison, Subgroup
from cxr.evaluation.statistics import Estimate
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability

_NAMES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
_LINES = ("-", "--", "-.", ":")  # in turn; tell curves apart without colours as well
_POINT: dict[str, Any] = {"color": "black", "ms": 6, "mfc": "white", "zorder": 5}


def classification(
    labels: ndarray,
    probabilities: ndarray,
    classes: tuple[str, ...],
    title: str,
    operating_points: dict[str, float] | None = None,
    *,
    finding: str,
) -> dict[str, Figure]:
    """Confusion matrix, ROC curves and precision-recall curves by name; `title` names the images they show."""
    points = operating_points or {}
    return {
        "confusion": _confusion_matrix(labels, probabilities, classes, title),
        "roc": _roc(labels, probabilities, classes, finding, title, points),
        "precision_recall": _precision_recall(labels, probabilities, classes, finding, title, points),
    }


def _confusion_matrix(labels: ndarray, probabilities: ndarray, classes: tuple[str, ...], title: str) -> Figure:
    """Counts, and fractions of the true class."""
    counts = scores.confusion(labels, probabilities, classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    drawn, axes = plotting.figure(1.9 + 1.15 * len(classes), 1.3 + 1.0 * len(classes))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), [f"{c}\nn = {n:,}" for c, n in zip(classes, counts.sum(1), strict=True)])
    axes.set(title=f"{title}, {len(labels):,} images", xlabel="predicted", ylabel="truth")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return drawn


def _roc(
    labels: ndarray,
    probabilities: ndarray,
    classes: tuple[str, ...],
    finding: str,
    title: str,
    points: dict[str, float],
) -> Figure:
    drawn, axes = plotting.figure(4.8, 4.4)
    for name, truth, score, style in _one_against_rest(labels, probabilities, classes, finding):
        x, y, _ = metrics.roc_curve(truth, score)
        axes.plot(x, y, label=f"{name}: AUC {metrics.roc_auc_score(truth, score):.3f}", **style)
    for name, threshold, marker, truth, positive in _decisions(labels, probabilities, points):
        label = f"{name} (p ≥ {threshold:.2f})"
        axes.plot(positive[~truth].mean(), positive[truth].mean(), marker, label=label, **_POINT)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1)
    axes.set(xlabel="1 - specificity (false positive rate)", ylabel="sensitivity (true positive rate)")
    return _finished(drawn, axes, f"{title}, {len(labels):,} images", "lower right")


def _precision_recall(
    labels: ndarray,
    probabilities: ndarray,
    classes: tuple[str, ...],
    finding: str,
    title: str,
    points: dict[str, float],
) -> Figure:
    drawn, axes = plotting.figure(4.8, 4.4)
    for name, truth, score, style in _one_against_rest(labels, probabilities, classes, finding):
        precision, recall, _ = metrics.precision_recall_curve(truth, score)
        label = f"{name}: AP {metrics.average_precision_score(truth, score):.3f} (share {truth.mean():.2f})"
        axes.plot(recall, precision, label=label, **style)
    for name, threshold, marker, truth, positive in _decisions(labels, probabilities, points):
        precision = truth[positive].mean() if positive.any() else 1.0
        axes.plot(positive[truth].mean(), precision, marker, label=f"{name} (p ≥ {threshold:.2f})", **_POINT)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    return _finished(drawn, axes, f"{title}, {len(labels):,} images", "lower left")


def _one_against_rest(
    labels: ndarray, probabilities: ndarray, classes: tuple[str, ...], finding: str
) -> Iterator[tuple[str, ndarray, ndarray, dict[str, Any]]]:
    """Name, truth, score and line style of every curve that exists: each class, and the finding of any kind."""
    rankings = [(name, labels == i, probabilities[:, i]) for i, name in enumerate(classes)]
    if len(classes) > 2:
        rankings.append((finding, labels != NEGATIVE, finding_probability(probabilities)))
    colours = [*plotting.class_colours(classes).values(), plotting.GREY]
    for (name, truth, score), colour, line in zip(rankings, colours, cycle(_LINES), strict=False):
        if truth.any() and not truth.all():
            yield name, truth, score, {"color": colour, "ls": line, "lw": 1.8}


def _decisions(
    labels: ndarray, probabilities: ndarray, points: dict[str, float]
) -> Iterator[tuple[str, float, str, ndarray, ndarray]]:
    """Name, threshold and marker of every operating point, the truth and its decisions; nothing for a single kind."""
    truth, score = labels != NEGATIVE, finding_probability(probabilities)
    if truth.any() and not truth.all():
        for (name, threshold), marker in zip(points.items(), ("o", "s", "^", "D"), strict=False):
            yield name, threshold, marker, truth, decision.is_positive(score, threshold)


def _finished(drawn: Figure, axes: Axes, title: str, legend: Literal["lower left", "lower right"]) -> Figure:
    axes.set(title=f"{title}, each class against the rest", xlim=(0, 1), ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=legend)
    return drawn


def robustness(results: Robustness) -> Figure:
    """Scores under every change; the dashed line is the score of the unchanged images."""
    unchanged, shown = results.table[0], ("macro_f1", "sensitivity", "specificity")
    drawn, panels = plotting.figure(9.5, 0.9 + 0.34 * len(results.table), 1, len(shown), sharey=True)
    places = np.arange(len(results.table))[::-1]
    for axes, name in zip(panels, shown, strict=True):
        for place, row in zip(places, results.table, strict=True):
            whisker(axes, row.scores[name], place, plotting.BLUE if row is not unchanged else "black")
        if unchanged.scores[name].value is not None:
            axes.axvline(unchanged.scores[name].value, color=plotting.GREY, lw=1, ls="--")
        axes.set(title=score_name(name), xlim=(0, 1.02), xticks=(0, 0.5, 1))
    panels[0].set_yticks(places, [row.change for row in results.table])
    panels[1].set_xlabel(f"score and 95 % interval, {results.images:,} test images")
    return drawn


def subgroups(results: list[Subgroup]) -> Figure:
    """Scores of every subgroup."""
    shown = ("accuracy", "sensitivity", "specificity")
    drawn, panels = plotting.figure(9.5, 1.0 + 0.34 * max(1, len(results)), 1, len(shown), sharey=True)
    places = np.arange(len(results))[::-1]
    for axes, name in zip(panels, shown, strict=True):
        for place, subgroup in zip(places, results, strict=True):
            whisker(axes, subgroup.scores[name], place, plotting.BLUE)
        axes.set(title=name, xlim=(0, 1.02), xticks=(0, 0.5, 1))
    names = [f"{subgroup.question}: {subgroup.group}\n{subgroup.images:,} images" for subgroup in results]
    # Groups are named by users; between two dollar signs, matplotlib reads formulas.
    panels[0].set_yticks(places, [name.replace("$", r"\$") for name in names], fontsize=8)
    panels[1].set_xlabel("score and 95 % interval")
    return drawn


def differences(comparison: Comparison, other: str) -> Figure:
    """Differences of scores between this model and the one named `other`, on the same images."""
    defined = {name: value for name, value in comparison.differences.items() if value.value is not None}
    drawn, axes = plotting.figure(6.4, 0.9 + 0.36 * max(1, len(defined)))
    for place, difference in enumerate(reversed(defined.values())):
        whisker(axes, difference, place, plotting.BLUE)
    axes.axvline(0, color=plotting.GREY, lw=1)
    axes.set_yticks(range(len(defined)), [score_name(name) for name in reversed(defined)])
    axes.set(xlabel="difference and 95 % interval (paired, over patients)", title=f"This model minus {other}")
    return drawn


def score_name(score: str) -> str:
    """What figures call a score."""
    return _NAMES.get(score, score.replace("auc_", "AUC, "))


def whisker(axes: Axes, estimate: Estimate, place: float, colour: str) -> None:
    """A score and its interval on a horizontal line; a dash if it is undefined."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        axes.text(0.02, place, "–", va="center", color=plotting.GREY)
        return
    axes.plot([estimate.low, estimate.high], [place, place], color=colour, lw=2, alpha=0.6, solid_capstyle="butt")
    axes.plot(estimate.value, place, "o", color=colour, ms=5)
