"""Figure of what referring undecided images costs and saves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cxr.common import plotting
from cxr.evaluation.statistics import OperatingBand, Referral
from cxr.serving.probabilities import in_digits

_COLOURS = {"validation": plotting.SPLIT_COLOURS["val"], "test": plotting.SPLIT_COLOURS["test"]}
_LINES = {"validation": "--"}


def referral(points: dict[str, OperatingBand]) -> Figure:
    """Wrong decisions among the answered by the share referred, for each operating point; the band in use is marked."""
    drawn, axes = plotting.figure(0.7 + 3.1 * len(points), 3.7, 1, len(points), sharey=True, squeeze=False)
    for at, (name, band) in zip(axes[0], points.items(), strict=True):
        for word, found in band.on.items():
            _curve(at, word, found)
        at.set(title=f"{name} (p ≥ {in_digits(band.threshold)})", xlabel="referred as undecided", xlim=(-0.01, 0.5))
        at.set_xticks(np.arange(0, 0.45, 0.1))
        at.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        at.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    first = axes[0, 0]
    first.set_ylabel("wrong among the answered")
    first.set_ylim(bottom=0)
    first.plot([], [], "o", color="black", mfc="white", label="the band in use")
    handles, labels = first.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return drawn


def _curve(axes: Axes, word: str, found: Referral) -> None:
    """The curve of one set of images, with its band of intervals, and the mark of the band in use."""
    colour = _COLOURS.get(word, plotting.BLUE)
    points = [(1 - at.coverage, at.risk) for at in found.curve]
    if found.share.value is not None:
        points.append((found.share.value, found.risk))  # so that the curve goes through the mark
    points.sort(key=lambda point: point[0])
    shares = [share for share, _ in points]
    value, low, high = (
        np.array([np.nan if end is None else end for end in ends], dtype=float)
        for ends in zip(*((risk.value, risk.low, risk.high) for _, risk in points), strict=True)
    )
    axes.plot(shares, value, color=colour, lw=1.8, ls=_LINES.get(word, "-"), label=word)
    axes.fill_between(shares, low, high, color=colour, alpha=0.13, lw=0)
    if found.share.value is not None and found.risk.value is not None:
        axes.plot(found.share.value, found.risk.value, "o", color=colour, mfc="white", mew=1.8, ms=7, zorder=5)
