"""The result as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from components.evaluate.summary import unit_of
from components.model_ref import method_title

Column = tuple[str, str, float, int]
"""Metric, title, factor and digits."""


def columns_of(summary: Mapping[str, Any]) -> tuple[Column, ...]:
    """DSC and distances: in mm, but in voxels where their size is not known, and as the released code's."""
    unit = unit_of(summary)
    return (
        ("dice", "DSC [%]", 100.0, 1),
        (f"asd_{unit}", f"ASD [{unit}]", 1.0, 2),
        (f"hd95_{unit}", f"HD95 [{unit}]", 1.0, 2),
    )


def results_table(summary: Mapping[str, Any]) -> Table:
    """Class × DSC, ASD, HD95 for every method of a `summary.json`; the better value is bold."""
    methods: Mapping[str, Any] = summary["methods"]
    title = f"{summary['split'].capitalize()}, {summary['cases']} volumes"
    # Narrow, and never cut: 80 columns are all that a log or a terminal may have.
    table = Table(title=title, title_justify="left", box=box.MINIMAL, padding=0, show_edge=False)
    table.add_column("class", no_wrap=True)
    table.add_column("method", no_wrap=True)
    columns = columns_of(summary)
    titles = [title for _, title, _, _ in columns]
    for title in (titles[0], "95% interval", *titles[1:], "missing", "spurious"):
        # A line for the unit; rich takes [mm] for markup.
        table.add_column(escape(title.replace(" ", "\n")), justify="right", no_wrap=True)
    for name in (*next(iter(methods.values()))["dice"]["per_class"], None):
        table.add_section()
        for row, method in enumerate(methods):
            cells = [_cell(methods, method, name, column) for column in columns]
            cells.insert(1, _interval(methods[method]["dice"], name))
            cells += [str(count_of(methods, method, name, what)) for what in ("missing", "spurious")]
            table.add_row((name or "mean") if row == 0 else "", method_title(method), *cells)
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


def count_of(methods: Mapping[str, Any], method: str, name: str | None, what: str) -> int:
    """How often the structure `name`, or any, was `missing` or `spurious`."""
    count: int = methods[method][what] if name is None else methods[method][f"{what}_per_class"][name]
    return count


def is_best(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> bool:
    """Whether no method does better and some does worse: more is better for Dice, less for distances.

    Signed errors of volume have no best: those of opposite signs cancel out.
    """
    if metric.startswith("volume_error"):
        return False
    present = [v for v in (value_of(methods, m, metric, name) for m in methods) if v is not None]
    if not present or min(present) == max(present):
        return False
    best: Callable[[list[float]], float] = max if metric in ("dice", "surface_dice") else min
    return value_of(methods, method, metric, name) == best(present)


def _interval(dice: Mapping[str, Any], name: str | None) -> str:
    """Of the mean DSC, over patients."""
    interval = dice["interval"] if name is None else dice["per_class_interval"][name]
    return "–" if interval is None else "–".join(f"{100 * end:.1f}" for end in interval)


def _cell(methods: Mapping[str, Any], method: str, name: str | None, column: Column) -> str:
    metric, _, factor, digits = column
    value, spread = (f(methods, method, metric, name) for f in (value_of, spread_of))
    if value is None:
        return "–"
    text = f"{value * factor:.{digits}f}"
    if spread is not None:
        text += f" ± {spread * factor:.{digits}f}"
    return f"[bold]{text}[/bold]" if is_best(methods, method, metric, name) else text
