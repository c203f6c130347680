"""Common style of all figures: colours that colour-blind readers can tell apart, light grids, no decoration."""

from itertools import cycle
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design" (2008): distinguishable with every common kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
CLASS_COLOURS = (BLUE, VERMILION, ORANGE, GREEN, PURPLE, "#56B4E9", "#000000")  # the negative class first
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "svg.fonttype": "none",
}


def class_colours(classes: tuple[str, ...]) -> dict[str, str]:
    """The colour of each class; they come again after the seventh class."""
    return dict(zip(classes, cycle(CLASS_COLOURS), strict=False))


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Create a figure in the common style, without changing global state.

    Args:
        width: width in inches.
        height: height in inches.
        rows: rows of axes.
        columns: columns of axes.
        options: passed to `Figure.subplots`.

    Returns:
        The figure and its axes, as `Figure.subplots` returns them.
    """
    with rc_context(_STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        return fig, fig.subplots(rows, columns, **options)
