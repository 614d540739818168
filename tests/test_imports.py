"""The import rules of pyproject.toml, which keep the method free of engines, hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports


def test_the_import_rules_hold(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[1] / "pyproject.toml"
    broken = lint_imports(config_filename=str(config), no_cache=True)
    assert not broken, capsys.readouterr().out
