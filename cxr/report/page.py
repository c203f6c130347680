"""The report as one self-contained HTML file: no external resources, figures embedded."""

import base64
import io
from pathlib import Path
from types import ModuleType

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from cxr.evaluation.facts import ReportModel
from cxr.evaluation.results import Estimate, EvaluationReport
from cxr.report import formatting, referral_words

_HERE = Path(__file__).parent
_RASTER = {"gallery", "label_audit"}  # embedded as JPEG; all other figures are line art, embedded as SVG


def page(report: EvaluationReport, figures: dict[str, Figure]) -> str:
    """The whole page; `figures` are the figures by name."""
    return render("page.html.j2", report=report, figures=figures)


def render(template: str, *, report: ReportModel, figures: dict[str, Figure], words: ModuleType = formatting) -> str:
    """The page of a template in this folder.

    It sees `report`, `sources` (the figures by name), `words` and, as `referral`, `cxr.report.referral_words`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": formatting.signed}
    sources = {name: image_source(name, figure) for name, figure in figures.items()}
    return environment.get_template(template).render(
        report=report, sources=sources, words=words, referral=referral_words
    )


def _number(estimate: Estimate) -> Markup:
    """A score, and its interval in an element that a line break can precede."""
    value, _, interval = formatting.number(estimate).partition(" (")
    if not interval:
        return Markup.escape(value)
    return Markup('{} <span class="ci">({}</span>').format(value, interval)


def image_source(name: str, figure: Figure) -> str:
    """The figure as a data URL, for the `src` of an `img` element."""
    buffer = io.BytesIO()
    if name in _RASTER:
        figure.savefig(buffer, format="png", dpi=110)
        jpeg = io.BytesIO()
        Image.open(buffer).convert("RGB").save(jpeg, "JPEG", quality=82, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
