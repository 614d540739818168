"""Ray jobs from here: submitted, followed, stopped by Ctrl-C; their exit code is that of their command."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from arco_core.errors import TrainingError
from infra.signals import SignalNote

STOP_SECONDS = 60
"""Time that a stopped job has to save, before Ray kills it; Ray's own default is 3."""
_POLL_SECONDS = 0.5
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
        TrainingError: no cluster takes jobs there.
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
        status = asyncio.run(_follow(client, job, note, out))
    if note.number is not None:
        return 128 + note.number
    if status is JobStatus.SUCCEEDED:
        return 0
    info = client.get_job_info(job)
    code = info.driver_exit_code
    if code is None:
        print(info.message, file=sys.stderr)
        return _FAILED
    return code if code > 0 else 128 - code


def _environment(working_dir: str) -> dict[str, Any]:
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"}
    return {"working_dir": working_dir, "env_vars": variables}


async def _follow(client: JobSubmissionClient, job: str, note: SignalNote, out: TextIO) -> JobStatus:
    """Print the job's output until it has ended, and stop it once a signal is noted."""
    printing = asyncio.create_task(_print(client, job, out))
    asked = False
    while not (status := client.get_job_status(job)).is_terminal():
        if note.number is not None and not asked:
            asked = True
            print(f"{signal.Signals(note.number).name}: stopping the job", file=out, flush=True)
            client.stop_job(job)
        await asyncio.sleep(_POLL_SECONDS)
    await asyncio.wait([printing], timeout=10)
    printing.cancel()
    return status


async def _print(client: JobSubmissionClient, job: str, out: TextIO) -> None:
    async for lines in client.tail_job_logs(job):
        out.write(lines)
        out.flush()
