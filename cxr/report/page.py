"""The report as one HTML file that needs nothing beside it: no address outside, pictures inside."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from cxr.report import formatting

_HERE = Path(__file__).parent
_RASTER = {"gallery"}  # made of pixels: as JPEG; all others are lines, and stay so


def page(facts: dict[str, Any], figures: dict[str, Figure]) -> str:
    """The whole page for the facts of `report.json` and the figures by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": _number, "signed": formatting.signed}
    drawn = {name: picture(name, figure) for name, figure in figures.items()}
    return environment.get_template("page.html.j2").render(facts=facts, pictures=drawn, words=formatting)


def _number(estimate: dict[str, float | None] | None) -> Markup:
    """A score, and its interval where a line may break."""
    value, _, interval = formatting.number(estimate).partition(" (")
    return Markup('{} <span class="ci">({}</span>').format(value, interval) if interval else Markup(value)  # noqa: S704


def picture(name: str, figure: Figure) -> str:
    """An `img` source: SVG, or JPEG for what is made of pixels."""
    buffer = io.BytesIO()
    if name in _RASTER:
        figure.savefig(buffer, format="png", dpi=110)
        small = io.BytesIO()
        Image.open(buffer).convert("RGB").save(small, "JPEG", quality=82, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(small.getvalue()).decode()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
