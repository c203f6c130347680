"""The report of a validation as one self-contained HTML file."""

from matplotlib.figure import Figure

from cxr.evaluation.validation_results import ValidationReport
from cxr.report import validation_words
from cxr.report.page import render


def page(report: ValidationReport, figures: dict[str, Figure]) -> str:
    """The whole page; `figures` are the figures by name."""
    return render("validation_page.html.j2", report=report, figures=figures, words=validation_words)
