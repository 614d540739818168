"""Jobs whose dashboard fails for a while, or for good."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from arco_core.errors import TrainingError
from infra import ray_job

LINES = [f"line {number}\n" for number in range(6)]


class Dashboard:
    """A client whose answers are scripted: exceptions are raised, all else is returned."""

    def __init__(self, *answers: Any, streams: list[list[Any]]) -> None:
        self.answers, self.streams = list(answers), streams

    def get_address(self) -> str:
        return "http://head:8265"

    def submit_job(self, **settings: Any) -> str:
        return "job-1"

    def get_job_info(self, job: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status=answer, driver_exit_code=3, message="")

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for part in self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]:
            if isinstance(part, Exception):
                raise part
            yield part


def run(monkeypatch: pytest.MonkeyPatch, dashboard: Dashboard) -> tuple[int, str]:
    """Exit code and output of a job."""
    monkeypatch.setattr(ray_job, "JobSubmissionClient", lambda address: dashboard)
    monkeypatch.setattr(ray_job, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(ray_job, "_END_SECONDS", 0.2)
    monkeypatch.setattr(ray_job, "PATIENCE_SECONDS", 0.1)
    out = io.StringIO()
    return ray_job.run_job(["true"], address=None, working_dir=".", out=out), out.getvalue()


AWAY = ConnectionError("connection refused")


def test_a_request_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [JobStatus.RUNNING, AWAY, RuntimeError("status code 500"), JobStatus.RUNNING, JobStatus.FAILED]
    code, told = run(monkeypatch, Dashboard(*answers, streams=[LINES]))
    assert code == 3
    assert told == "job job-1 on http://head:8265\n" + "".join(LINES)


@pytest.mark.parametrize(
    "end", [AWAY, RuntimeError("closed unexpectedly"), None], ids=["error", "close", "end"]
)
def test_a_log_that_breaks_off_is_opened_again_where_it_stood(
    monkeypatch: pytest.MonkeyPatch, end: Exception | None
) -> None:
    """Streams begin at the start of the log, in parts of any size."""
    broken = [LINES[0], LINES[1], *([end] if end else [])]
    whole = ["".join(LINES[:3]), *LINES[3:]]
    answers = [JobStatus.RUNNING] * 60 + [JobStatus.SUCCEEDED]
    code, told = run(monkeypatch, Dashboard(*answers, streams=[broken, [AWAY], whole]))
    assert code == 0
    assert told.partition("\n")[2] == "".join(LINES)


def test_a_dashboard_that_is_gone_for_good_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"does not answer any more: .*refused.*: ray job status job-1"):
        run(monkeypatch, Dashboard(JobStatus.RUNNING, AWAY, streams=[[AWAY]]))


def test_a_log_that_stays_away_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = run(monkeypatch, Dashboard(JobStatus.RUNNING, JobStatus.SUCCEEDED, streams=[[AWAY]]))
    assert code == 0
    assert "the end of the log is missing here: ray job logs job-1" in capsys.readouterr().err
