"""Figures of a monitoring."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import plotting
from cxr.evaluation.plots import score_name
from cxr.evaluation.statistics import Estimate
from cxr.monitoring.judge import ANY, UNREADABLE
from cxr.monitoring.reference import Reference
from cxr.monitoring.results import Judged, MonitoringReport, Part

_ACROSS = 3  # panels beside each other
_BINS = 24
_AREA: dict[str, Any] = {"fill": True, "color": plotting.BLUE, "alpha": 0.45}
_LINE: dict[str, Any] = {"color": plotting.ORANGE, "lw": 1.8}
SCORES = ("sensitivity", "specificity", "balanced_accuracy")
_Parts = list[tuple[float, Part]]  # by the beginning of the window, as matplotlib counts days


def figures(report: MonitoringReport, reference: Reference, columns: dict[str, ndarray]) -> dict[str, Figure]:
    """Every figure of the report by name; `columns` are the values of all answers by column."""
    parts = [(float(date2num(window.begin)), window.part) for window in report.windows if window.part is not None]
    compared = [(at, part) for at, part in parts if part.columns]  # of the others, too few images were read
    drawn = {"distributions": distributions(reference, columns)} if report.whole.columns else {}
    if compared:
        drawn["drift"] = drift(compared)
    if parts:
        drawn["referred"] = referred(parts)
    if any(part.label_shift.classes for _, part in parts):
        drawn["class_shares"] = class_shares(parts)
    if any(part.scores is not None for _, part in parts):
        drawn["scores"] = scores(parts, [f"auc_{report.model.finding}", *SCORES])
    return drawn


def distributions(reference: Reference, columns: dict[str, ndarray]) -> Figure:
    """Histogram of each column of the answers, and the reference as a line."""
    drawn, panels = _panels(len(columns), 2.1)
    for axes, (name, values) in zip(panels, columns.items(), strict=False):
        known = np.array(reference.columns[name].quantiles)
        both = np.concatenate([known, values])
        low, high = np.quantile(both, (0.002, 0.998))
        ends = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        for sample, style in ((values, _AREA), (known, _LINE)):
            inside = np.clip(sample, ends[0], ends[-1])  # the outer bins have all beyond
            axes.stairs(np.histogram(inside, ends)[0] / len(sample), ends, **style)
        axes.set_title(_words(name), fontsize=9)
    panels[0].stairs([0], [0, 0], label="answers", **_AREA)
    panels[0].stairs([0], [0, 0], label="reference", **_LINE)
    drawn.legend(loc="outside upper left", ncols=2, fontsize=9)
    return drawn


def drift(parts: _Parts) -> Figure:
    """Population stability index of each column by window, and the smallest one that raises an alarm."""
    names = list(parts[0][1].columns)
    drawn, panels = _panels(len(names) + 1, 1.9, sharey=True)
    for axes, name in zip(panels, [*names, "label"], strict=False):
        judged = [(at, part.label_psi if name == "label" else part.columns[name].psi) for at, part in parts]
        _by_window(axes, [(at, found) for at, found in judged if found is not None])
        axes.set_title("likeliest class" if name == "label" else _words(name), fontsize=9)
    for axes in panels[::_ACROSS]:
        axes.set_ylabel("PSI")
    panels[0].set_ylim(0, None)
    _legend(drawn, panels[0])
    return drawn


def referred(parts: _Parts) -> Figure:
    """Share of referred images by window and kind of reason, with the share expected."""
    names = max((list(part.referred) for _, part in parts), key=len)  # of some, only unreadable images are known
    drawn, panels = _panels(len(names), 1.9)
    for axes, name in zip(panels, names, strict=False):
        found = [(at, part.referred[name]) for at, part in parts if name in part.referred]
        shifted = [
            (
                at,
                Judged(
                    value=share.share,
                    limit=None if share.rise.limit is None else share.expected + share.rise.limit,
                    chance=share.expected + share.rise.chance,
                ),
            )
            for at, share in found
        ]
        _by_window(axes, shifted)
        axes.plot([at for at, _ in found], [share.expected for _, share in found], color=plotting.ORANGE, lw=1.5)
        axes.set_title({ANY: "referred, for any reason", UNREADABLE: "unreadable"}.get(name, name), fontsize=9)
        axes.set_ylim(0, None)
    for axes in panels[::_ACROSS]:
        axes.set_ylabel("share of images")
    panels[0].plot([], [], color=plotting.ORANGE, lw=1.5, label="expected")
    _legend(drawn, panels[0])
    return drawn


def class_shares(parts: _Parts) -> Figure:
    """Estimated share of each class by window with its interval, and the share in validation."""
    known = [(at, part.label_shift.classes) for at, part in parts if part.label_shift.classes]
    names = list(known[0][1])
    drawn, panels = _panels(len(names), 2.2, sharey=True)
    for axes, name in zip(panels, names, strict=False):
        _intervals(axes, [(at, classes[name].share) for at, classes in known])
        axes.axhline(known[0][1][name].expected, color=plotting.ORANGE, lw=1.5)
        axes.set_title(name, fontsize=9)
    panels[0].set(ylim=(0, 1.02), ylabel="estimated share")
    return drawn


def scores(parts: _Parts, names: list[str]) -> Figure:
    """Scores by window with their intervals, where truths are known."""
    drawn, panels = _panels(len(names), 2.2, sharey=True)
    for axes, name in zip(panels, names, strict=False):
        _intervals(axes, [(at, part.scores.scores[name]) for at, part in parts if part.scores is not None])
        axes.set_title(score_name(name), fontsize=9)
    panels[0].set(ylim=(0, 1.02), ylabel="score, 95 % interval")
    return drawn


def _panels(count: int, height: float, **options: bool) -> tuple[Figure, list[Axes]]:
    """That many axes in rows; those left over are hidden."""
    rows = -(-count // _ACROSS)
    drawn, axes = plotting.figure(9.0, 0.5 + height * rows, rows, _ACROSS, squeeze=False, **options)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return drawn, list(axes.flat)


def _by_window(axes: Axes, judged: list[tuple[float, Judged]]) -> None:
    times, values = [at for at, _ in judged], [found.value for _, found in judged]
    most = [np.nan if found.limit is None else max(found.limit, found.chance) for _, found in judged]
    axes.plot(times, most, color=plotting.VERMILION, lw=1.2, ls="--")
    axes.plot(times, values, color=plotting.BLUE, lw=1.2, marker="o", ms=3.5)
    alarms = [(at, found.value) for at, found in judged if found.alarm]
    axes.plot([at for at, _ in alarms], [value for _, value in alarms], "o", color=plotting.VERMILION, ms=6)
    _dates(axes)


def _intervals(axes: Axes, estimates: list[tuple[float, Estimate]]) -> None:
    defined = [
        (at, found.value, found.low, found.high)
        for at, found in estimates
        if found.value is not None and found.low is not None and found.high is not None
    ]
    for at, value, low, high in defined:
        axes.plot([at, at], [low, high], color=plotting.BLUE, lw=2, alpha=0.5, solid_capstyle="butt")
        axes.plot(at, value, "o", color=plotting.BLUE, ms=4)
    _dates(axes)


def _dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(labelsize=8)


def _legend(drawn: Figure, axes: Axes) -> None:
    axes.plot([], [], color=plotting.BLUE, lw=1.2, marker="o", ms=3.5, label="answers")
    axes.plot([], [], color=plotting.VERMILION, lw=1.2, ls="--", label="an alarm above this")
    axes.plot([], [], "o", color=plotting.VERMILION, ms=6, label="alarm")
    drawn.legend(loc="outside upper left", ncols=4, fontsize=9)


def _words(name: str) -> str:
    """A column in words; between two dollar signs, matplotlib would read a formula."""
    units = {"distance": "distance from training", "width": "width, pixels", "height": "height, pixels"}
    return units.get(name, name.replace("probability_", "probability of ")).replace("$", r"\$")
