"""Ray jobs from here: submitted, followed, stopped by Ctrl-C; their exit code is that of their command."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO, TypeVar

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from arco_core.errors import TrainingError
from infra.signals import SignalNote

T = TypeVar("T")

STOP_SECONDS = 60
"""Time that a stopped job has to save, before Ray kills it; Ray's own default is 3."""
PATIENCE_SECONDS = 300.0
"""How long the dashboard may not answer, as while its head starts again, before a job counts as lost."""
_POLL_SECONDS = 0.5
_END_SECONDS = 10.0
"""How long the end of the log may take after that of the job."""
_LONGEST_PAUSE = 10.0
_FAILED = 1
"""Exit code where the job failed without one of its own."""


def run_job(
    command: Sequence[str], *, address: str | None, working_dir: str, out: TextIO = sys.stdout
) -> int:
    """Run `command` as a job on a running Ray cluster, and return its exit code.

    What the job prints appears on `out`. A signal that asks this process to end stops the job, which then
    saves; the exit code is 128 + the signal's number.

    Args:
        command: program and arguments.
        address: of the cluster's dashboard; none takes `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`.
        working_dir: folder that the job runs in a copy of, without what its `.gitignore` names.
        out: where to print.

    Raises:
        TrainingError: no cluster takes jobs there, or it has not answered for `PATIENCE_SECONDS`.
    """
    with SignalNote() as note:
        try:
            client = JobSubmissionClient(address)
            job = client.submit_job(entrypoint=shlex.join(command), runtime_env=_environment(working_dir))
        except (OSError, RuntimeError, AuthenticationError) as error:
            raise TrainingError(
                f"no Ray cluster takes the job at {address or 'RAY_ADDRESS'}: {error}; "
                "give the address of its dashboard, as http://head:8265, and its token (RAY_AUTH_MODE=token)"
            ) from error
        note.begin()
        print(f"job {job} on {client.get_address()}", file=out, flush=True)
        info = asyncio.run(_follow(client, job, note, out))
    if note.number is not None:
        return 128 + note.number
    if info.status is JobStatus.SUCCEEDED:
        return 0
    code = info.driver_exit_code
    if code is None:
        print(info.message, file=sys.stderr)
        return _FAILED
    return code if code > 0 else 128 - code


def _environment(working_dir: str) -> dict[str, Any]:
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"}
    return {"working_dir": working_dir, "env_vars": variables}


async def _follow(client: JobSubmissionClient, job: str, note: SignalNote, out: TextIO) -> JobDetails:
    """Print the job's output until it has ended, and stop it once a signal is noted."""
    ended = asyncio.Event()
    printing = asyncio.create_task(_print(client, job, out, ended))
    asked = False
    while not (info := await _ask(client, job, lambda: client.get_job_info(job))).status.is_terminal():
        if note.number is not None and not asked:
            asked = True
            print(f"{signal.Signals(note.number).name}: stopping the job", file=out, flush=True)
            await _ask(client, job, lambda: client.stop_job(job))
        await asyncio.sleep(_POLL_SECONDS)
    ended.set()
    done, _ = await asyncio.wait([printing], timeout=_END_SECONDS)
    if not done:
        print(f"the end of the log is missing here: ray job logs {job}", file=sys.stderr)
        printing.cancel()
    for task in done:
        task.result()
    return info


async def _ask(client: JobSubmissionClient, job: str, question: Callable[[], T]) -> T:
    """What the dashboard answers, which is asked again while it does not.

    Raises `TrainingError` when it has not answered for `PATIENCE_SECONDS`.
    """
    start = time.monotonic()
    while True:
        try:
            return question()
        except (OSError, RuntimeError, AuthenticationError) as error:
            if time.monotonic() - start > PATIENCE_SECONDS:
                raise TrainingError(
                    f"the Ray cluster at {client.get_address()} does not answer any more: {error}; the job "
                    f"may run on: ray job status {job}"
                ) from error
        await asyncio.sleep(_POLL_SECONDS)


async def _print(client: JobSubmissionClient, job: str, out: TextIO, ended: asyncio.Event) -> None:
    """Print the log; where its stream breaks, open another one, which begins with what was printed."""
    printed, pause = 0, _POLL_SECONDS
    while True:
        seen, before = 0, printed
        try:
            async for lines in client.tail_job_logs(job):
                out.write(lines[max(printed - seen, 0) :])
                out.flush()
                seen += len(lines)
                printed = max(printed, seen)
            # So it ends with the job, of which `_follow` learns a moment later; or with a head that goes.
            await asyncio.wait_for(ended.wait(), _END_SECONDS)
            return
        except (ClientError, OSError, RuntimeError, TimeoutError):
            pause = _POLL_SECONDS if printed > before else min(2 * pause, _LONGEST_PAUSE)
        await asyncio.sleep(pause)
