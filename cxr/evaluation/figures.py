"""Pictures of an evaluation: confusion matrix, ROC and precision-recall curves with the operating points."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray
from sklearn import metrics

from cxr.common import plotting
from cxr.evaluation.metrics import confusion
from cxr.serving.probabilities import pneumonia_probability

_LINES = ("-", "--", "-.", ":")  # so that curves can be told apart without colours as well


def figures(
    labels: ndarray, probabilities: ndarray, classes: tuple[str, ...], part: str, points: dict[str, float] | None = None
) -> dict[str, Figure]:
    """All figures by name; `part` says in their titles which images they are about, `points` are thresholds."""
    return {
        "confusion": confusion_matrix(labels, probabilities, classes, part),
        "roc": _curves(labels, probabilities, classes, part, "roc", points or {}),
        "precision_recall": _curves(labels, probabilities, classes, part, "pr", points or {}),
    }


def confusion_matrix(labels: ndarray, probabilities: ndarray, classes: tuple[str, ...], part: str) -> Figure:
    """Counts and shares of the true class; a perfect model fills the diagonal."""
    counts = confusion(labels, probabilities, classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    drawn, axes = plotting.figure(1.9 + 1.15 * len(classes), 1.3 + 1.0 * len(classes))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    ticks = range(len(classes))
    axes.set(
        title=f"{part}, {len(labels):,} images", xlabel="predicted", ylabel="truth", xticks=ticks, yticks=ticks,
        xticklabels=classes, yticklabels=[f"{c}\nn = {n:,}" for c, n in zip(classes, counts.sum(1), strict=True)],
    )  # fmt: skip
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return drawn


def _curves(
    labels: ndarray, probabilities: ndarray, classes: tuple[str, ...], part: str, kind: str, points: dict[str, float]
) -> Figure:
    drawn, axes = plotting.figure(4.8, 4.4)
    questions = [(name, labels == i, probabilities[:, i]) for i, name in enumerate(classes)]
    if len(classes) > 2:
        questions.append(("pneumonia", labels != 0, pneumonia_probability(probabilities)))
    colours = [*(plotting.CLASS_COLOURS[name] for name in classes), plotting.GREY]
    for (name, truth, score), colour, line in zip(questions, colours, _LINES, strict=False):
        if truth.all() or not truth.any():
            continue  # no curve exists where only one kind is present
        if kind == "roc":
            x, y, _ = metrics.roc_curve(truth, score)
            label = f"{name}: AUC {metrics.roc_auc_score(truth, score):.3f}"
        else:
            y, x, _ = metrics.precision_recall_curve(truth, score)
            label = f"{name}: AP {metrics.average_precision_score(truth, score):.3f} (share {truth.mean():.2f})"
        axes.plot(x, y, color=colour, ls=line, lw=1.8, label=label)
    _mark(axes, labels != 0, pneumonia_probability(probabilities), points, kind)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1)
        axes.set(xlabel="1 - specificity (false positive rate)", ylabel="sensitivity (true positive rate)")
    else:
        axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    axes.set(title=f"{part}, {len(labels):,} images, each class against the rest", xlim=(0, 1), ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right" if kind == "roc" else "lower left")
    return drawn


def _mark(axes, truth: ndarray, score: ndarray, points: dict[str, float], kind: str) -> None:
    """The operating points on the curve of pneumonia against normal."""
    if truth.all() or not truth.any():
        return
    for (name, threshold), marker in zip(points.items(), ("o", "s", "^", "D"), strict=False):
        positive = score >= threshold
        found, false = positive[truth].mean(), positive[~truth].mean()
        x, y = (false, found) if kind == "roc" else (found, truth[positive].mean() if positive.any() else 1.0)
        axes.plot(x, y, marker, color="black", ms=6, mfc="white", label=f"{name} (p ≥ {threshold:.2f})", zorder=5)
