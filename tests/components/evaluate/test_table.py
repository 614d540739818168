"""The result in the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from components.evaluate.summary import summarize_methods
from components.evaluate.table import results_table
from tests.components.evaluate.test_summary import SCORES

SUMMARY: dict[str, Any] = {
    "methods": summarize_methods(SCORES), "split": "validation", "cases": 2,
    "spacing_known": True, "convention": "arco",
}  # fmt: skip


def printed(summary: dict[str, Any]) -> tuple[str, list[list[str]]]:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(results_table(summary))
    text = console.export_text()
    lines = [line.split("│") for line in text.splitlines() if "│" in line]
    assert "…" not in text
    return text, [[cell.strip() for cell in line] for line in lines]


def test_methods_are_side_by_side() -> None:
    _, cells = printed(SUMMARY)
    assert cells[0] == ["", "", "DSC", "95%", "ASD", "HD95", "", ""]
    assert cells[1][2:6] == ["[%]", "interval", "[mm]", "[mm]"]
    assert cells[2][:4] == ["a", "Supervised", "70.0 ± 14.1", "65.0–75.0"]
    assert cells[-2][:3] == ["mean", "Supervised", "55.0 ± 21.2"]
    assert cells[-1] == ["", "ARCO-SG", "56.7 ± 40.7", "56.7–56.7", "–", "–", "0", "0"]


@pytest.mark.parametrize("changes", [{"spacing_known": False}, {"convention": "released"}])
def test_in_voxels_where_there_are_no_millimetres_and_as_released(changes: dict[str, Any]) -> None:
    text, cells = printed(SUMMARY | changes)
    assert cells[1][4:6] == ["[voxel]", "[voxel]"] and "mm" not in text
