from __future__ import annotations

import pytest
from rich.table import Table

from components.console import print_table


@pytest.mark.parametrize("width", ["40", "200"])
def test_no_value_is_cut_however_narrow_the_terminal(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    values = [f"{number}.5 ± 1.5" for number in range(10, 20)]
    table = Table(*values)
    table.add_row(*values)
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert all(value in line for line in (lines[1], lines[3]) for value in values)
    assert len({len(line) for line in lines}) == 1  # every line is whole
