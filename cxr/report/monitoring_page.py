"""The report of a monitoring as one self-contained HTML file."""

from matplotlib.figure import Figure

from cxr.monitoring.results import MonitoringReport
from cxr.report import monitoring_words
from cxr.report.page import render


def page(report: MonitoringReport, figures: dict[str, Figure]) -> str:
    """The whole page; `figures` are the figures by name."""
    return render("monitoring_page.html.j2", report=report, figures=figures, words=monitoring_words)
