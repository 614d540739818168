"""Evaluate: every model on every annotated volume of a split; a summary, a table of cases, a report."""

from components.evaluate.step import EvaluationResult, evaluate, evaluated
from components.evaluate.table import results_table

__all__ = ["EvaluationResult", "evaluate", "evaluated", "results_table"]
