from __future__ import annotations

import sys

import pytest

from arco_core.config import ConfigError
from components.local_session import check_paths


def test_a_path_that_kubeflow_would_change_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'/data/python3-scans' contains 'python3'"):
        check_paths(["/data/scans", "/data/python3-scans"])
    check_paths(["/data/scans"])


def test_an_interpreter_that_kubeflow_cannot_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/me/my projects/.venv/bin/python")
    with pytest.raises(ConfigError, match="my projects"):
        check_paths([])
