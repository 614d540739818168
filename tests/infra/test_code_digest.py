from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.code_digest import code_digest


def test_it_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested_package"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part" / "__init__.py").write_text("x = 1\n")
    (package / "notes.txt").write_text("not code\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def digest() -> str:
        code_digest.cache_clear()
        return code_digest("digested_package")

    before = digest()
    (package / "notes.txt").write_text("still not code\n")
    assert digest() == before
    (package / "part" / "__init__.py").write_text("x = 2\n")
    assert digest() != before


def test_a_package_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        code_digest("no_such_package")
