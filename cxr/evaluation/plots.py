"""Pictures of what an evaluation found beside its curves: calibration, robustness, subgroups, the champion."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.evaluation import calibration
from cxr.serving.probabilities import softmax

_NAMES = {"macro_f1": "macro-F1", "auc_pneumonia": "AUC, pneumonia", "balanced_accuracy": "balanced accuracy"}


def reliability(logits: ndarray, labels: ndarray, temperature: float, part: str) -> Figure:
    """How often the predicted class is right, by how sure the model was, before and after the temperature."""
    drawn, (axes, below) = plotting.figure(4.8, 5.2, 2, 1, height_ratios=[4, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1, label="as sure as right")
    for name, t, colour, marker in (("before", 1.0, plotting.GREY, "s"), ("after", temperature, plotting.BLUE, "o")):
        probabilities = softmax(logits / t)
        confidence, correct = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
        bins = np.array(calibration.reliability(confidence, correct))
        error = calibration.expected_calibration_error(confidence, correct)
        axes.plot(bins[:, 0], bins[:, 1], marker=marker, ms=5, color=colour, lw=1.5,
                  label=f"{name}: ECE {error:.3f}, T = {t:.2f}")  # fmt: skip
    axes.set(title=f"{part}, {len(labels):,} images: calibration", ylabel="share that is right",
             ylim=(0, 1.02))  # fmt: skip
    axes.legend(loc="upper left")
    below.hist(confidence, bins=np.linspace(0, 1, calibration.BINS + 1), color=plotting.BLUE)
    below.set(xlabel="probability of the predicted class", ylabel="images", xlim=(0, 1))
    return drawn


def robustness(found: dict[str, Any]) -> Figure:
    """Scores under every change; the line is the score of the unchanged pictures."""
    table = found["table"]
    shown = ("macro_f1", "sensitivity", "specificity")
    drawn, panels = plotting.figure(9.5, 0.9 + 0.34 * len(table), 1, len(shown), sharey=True)
    places = np.arange(len(table))[::-1]
    for axes, name in zip(panels, shown, strict=True):
        for place, row in zip(places, table, strict=True):
            _whisker(axes, row["scores"][name], place, plotting.BLUE if row is not table[0] else "black")
        if table[0]["scores"][name]["value"] is not None:
            axes.axvline(table[0]["scores"][name]["value"], color=plotting.GREY, lw=1, ls="--")
        axes.set(title=_NAMES.get(name, name), xlim=(0, 1.02))
    panels[0].set_yticks(places, [row["change"] for row in table])
    panels[1].set_xlabel(f"score and 95 % interval, {found['images']:,} test images")
    return drawn


def subgroups(found: list[dict[str, Any]]) -> Figure:
    """Scores of each group that the files tell apart."""
    shown = ("accuracy", "sensitivity", "specificity")
    drawn, panels = plotting.figure(9.5, 1.0 + 0.34 * max(1, len(found)), 1, len(shown), sharey=True)
    places = np.arange(len(found))[::-1]
    for axes, name in zip(panels, shown, strict=True):
        for place, row in zip(places, found, strict=True):
            _whisker(axes, row["scores"][name], place, plotting.BLUE)
        axes.set(title=name, xlim=(0, 1.02))
    names = [f"{row['question']}: {row['group']}\n{row['images']:,} images" for row in found]
    panels[0].set_yticks(places, names, fontsize=8)
    panels[1].set_xlabel("score and 95 % interval")
    return drawn


def differences(comparison: dict[str, Any], other: str) -> Figure:
    """Differences of scores to another model on the same images."""
    found = {k: v for k, v in comparison["differences"].items() if v["value"] is not None}
    drawn, axes = plotting.figure(6.4, 0.9 + 0.36 * max(1, len(found)))
    for place, values in enumerate(reversed(found.values())):
        _whisker(axes, values, place, plotting.BLUE)
    axes.axvline(0, color=plotting.GREY, lw=1)
    axes.set_yticks(range(len(found)), [_NAMES.get(name, name) for name in reversed(found)])
    axes.set(xlabel="difference and 95 % interval (paired, over patients)", title=f"This model less {other}")
    return drawn


def _whisker(axes, estimate: dict[str, float | None], place: float, colour: str) -> None:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        axes.text(0.02, place, "–", va="center", color=plotting.GREY)
        return
    axes.plot([low, high], [place, place], color=colour, lw=2, alpha=0.6, solid_capstyle="butt")
    axes.plot(value, place, "o", color=colour, ms=5)
