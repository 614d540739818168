"""Tables of numbers in the terminal, of which no column may fold."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_UNBOUNDED = 10_000


def print_table(table: Table) -> None:
    """Print `table` whole: where it is wider than the terminal or the log, its lines are; no value is cut."""
    console = Console()
    needed = console.measure(table, options=console.options.update_width(_UNBOUNDED)).maximum
    console.width = max(console.width, needed)
    console.print(table)
