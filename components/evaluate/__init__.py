"""Evaluate: every model on every annotated volume of a split; a summary, a table of cases, a report."""
