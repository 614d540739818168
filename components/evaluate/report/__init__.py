"""The report on evaluated runs: one HTML file, and figures for papers."""

from components.evaluate.report.render import render_report
from components.evaluate.report.scores import amount_title

__all__ = ["amount_title", "render_report"]
