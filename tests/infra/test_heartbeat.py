"""A process that ends when the one that it works for is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import heartbeat
from infra.heartbeat import beating, end_without
from infra.storage import Store

BEAT = "jobs/run/step.beat"
QUICK = {"beat_seconds": 0.02}

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""Of `sys.exit` in a thread, in place of `os._exit`."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals and exit codes, in place of the process's end."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(heartbeat.os, "kill", lambda process, number: codes.append(number))
    monkeypatch.setattr(heartbeat.os, "_exit", leave)
    monkeypatch.setattr(heartbeat, "_GRACE_SECONDS", 0.0)
    return codes


def test_silence_ends_the_process(store: Store, ended: list[int]) -> None:
    end_without(store, BEAT, stale_seconds=0.05, **QUICK).join(10)
    assert ended == [signal.SIGTERM, 128 + signal.SIGTERM]


def test_a_heart_that_beats_keeps_it(store: Store, ended: list[int]) -> None:
    with beating(store, BEAT, **QUICK):
        thread = end_without(store, BEAT, stale_seconds=2.0, **QUICK)
        thread.join(3.0)
        assert thread.is_alive() and not ended
    thread.join(20)
    assert ended


def test_the_module_runs_as_it_would_alone(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import sys; print(__name__, sys.argv[1:]); raise SystemExit(3)")
    line = [sys.executable, "-m", "components.attended", str(tmp_path), BEAT, "other", "--result", "a b"]
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (3, "__main__ ['--result', 'a b']\n"), done.stderr
