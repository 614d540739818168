"""The report on evaluated runs: one HTML file, and figures for papers."""

from components.evaluate.comparison import Comparison
from components.evaluate.report.figures import draw_figures
from components.evaluate.report.render import render_report
from components.evaluate.report.scores import amount_title

REPORT, FIGURES = "report.html", "figures"

__all__ = ["FIGURES", "REPORT", "amount_title", "render_report", "report_files"]


def report_files(comparison: Comparison) -> dict[str, bytes]:
    """Path -> content of everything that a report consists of; the page needs none of the figures."""
    figures = {f"{FIGURES}/{name}": data for name, data in draw_figures(comparison).items()}
    return {**figures, REPORT: render_report(comparison).encode()}
