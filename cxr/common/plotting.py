"""One look for all figures: colours safe for colour-blind readers, light grids, no decoration."""

from matplotlib import rc_context
from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design" (2008): told apart with every common kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
CLASS_COLOURS = {"normal": BLUE, "bacteria": VERMILION, "virus": ORANGE, "pneumonia": VERMILION}
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
_STYLE = {
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


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of `width` x `height` inches and its axes, in the common style; no global state is touched."""
    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        return drawn, drawn.subplots(rows, columns, **options)
