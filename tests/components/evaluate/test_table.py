"""The result in the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from components.evaluate import results_table
from components.evaluate.summary import summarize_methods
from tests.components.evaluate.test_summary import SCORES


def test_terminal_table_sets_methods_side_by_side() -> None:
    summary = {"methods": summarize_methods(SCORES), "split": "validation", "cases": 2}
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(results_table(summary | {"spacing_known": False}))
    lines = [line.split("│") for line in console.export_text(clear=False).splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert "figures in mm are in voxels" in console.export_text(clear=False)
    assert cells[0][:3] == ["a", "Supervised", "70.0 ± 14.1"]
    assert cells[-2][:3] == ["mean", "Supervised", "55.0 ± 21.2"]
    assert cells[-1] == ["", "ARCO-SG", "56.7 ± 40.7", "–", "–", "0"]
