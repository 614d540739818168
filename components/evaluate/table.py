"""The result as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from components.model_ref import method_title

COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("dice", "DSC [%]", 100.0, 1),
    ("asd_mm", "ASD [mm]", 1.0, 2),
    ("hd95_mm", "HD95 [mm]", 1.0, 2),
)
"""Metric, title, factor and digits of each column."""


def results_table(summary: Mapping[str, Any]) -> Table:
    """Class × DSC, ASD, HD95 for every method of a `summary.json`; the better value is bold."""
    methods: Mapping[str, Any] = summary["methods"]
    table = Table(title=f"{summary['split'].capitalize()}, {summary['cases']} volumes", title_justify="left")
    table.add_column("class")
    table.add_column("method")
    if summary.get("spacing_known") is False:
        table.caption = "The scans do not say how large a voxel is: figures in mm are in voxels."
    for _, title, _, _ in COLUMNS:
        table.add_column(escape(title), justify="right")  # rich takes [mm] for markup
    table.add_column("missing", justify="right")
    for name in (*next(iter(methods.values()))["dice"]["per_class"], None):
        table.add_section()
        for row, method in enumerate(methods):
            cells = [_cell(methods, method, name, column) for column in COLUMNS]
            missing = missing_of(methods, method, name)
            table.add_row((name or "mean") if row == 0 else "", method_title(method), *cells, str(missing))
    return table


def value_of(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> float | None:
    """A method's mean, of the structure `name` or of all."""
    score = methods[method][metric]
    value: float | None = score["mean"] if name is None else score["per_class"].get(name)
    return value


def spread_of(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> float | None:
    """A method's standard deviation over seeds, of the structure `name` or of all."""
    score = methods[method][metric]
    value: float | None = score["sd"] if name is None else score["per_class_sd"].get(name)
    return value


def missing_of(methods: Mapping[str, Any], method: str, name: str | None) -> int:
    """How often a method did not find the structure `name`, or any."""
    count: int = methods[method]["missing"] if name is None else methods[method]["missing_per_class"][name]
    return count


def is_best(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> bool:
    """Whether no method does better and some does worse: more is better for Dice, less for distances."""
    present = [v for v in (value_of(methods, m, metric, name) for m in methods) if v is not None]
    if not present or min(present) == max(present):
        return False
    best: Callable[[list[float]], float] = max if metric in ("dice", "surface_dice") else min
    return value_of(methods, method, metric, name) == best(present)


def _cell(
    methods: Mapping[str, Any], method: str, name: str | None, column: tuple[str, str, float, int]
) -> str:
    metric, _, factor, digits = column
    value, spread = (f(methods, method, metric, name) for f in (value_of, spread_of))
    if value is None:
        return "–"
    text = f"{value * factor:.{digits}f}"
    if spread is not None:
        text += f" ± {spread * factor:.{digits}f}"
    return f"[bold]{text}[/bold]" if is_best(methods, method, metric, name) else text
