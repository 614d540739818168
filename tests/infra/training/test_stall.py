"""Trainings that stand still: this process ends and says where, a worker on Ray is killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from arco_core.training import Request
from infra.checkpoints import read_checkpoint
from infra.training import run_stage
from infra.training.recorder import checkpoints_of
from infra.training.watch import Contact, Pulse
from infra.training.worker import run_worker
from tests.infra.training.jobs import make_job

HANGS = """
import time
from infra.training.stall import StallWatch

def a_file_system_that_never_answers():
    time.sleep(60)

with StallWatch("finetune, seed 0", 0.5) as stall:
    for step in range(3):
        stall.beat(step)
        time.sleep(0.2)
    a_file_system_that_never_answers()
"""


def test_this_process_ends_and_says_where_it_stood() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "error: finetune, seed 0: no step for 0.00833 minutes" in done.stderr
    assert "worker 0 1 s ago after step 2" in done.stderr
    assert "in a_file_system_that_never_answers" in done.stderr


def test_a_pulse_is_felt_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("infra.training.watch.time.monotonic", lambda: now[0])
    told: list[int] = []
    pulse = Pulse(told.append, 7)
    for seconds in (0.0, 0.5, 0.6, 2.0):
        now[0] = seconds
        pulse.step()
    now[0] = 4.0
    pulse.beat()
    assert told == [8, 11, 11]


def test_a_worker_is_heard_of_before_anything_may_hang(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    contact = Contact(
        report=lambda step, metrics: None,
        warn=print,
        alive=told.append,
        request=lambda: Request.GO_ON,
    )

    def hangs(*arguments: object) -> None:
        assert told == [0]
        raise TimeoutError

    monkeypatch.setattr("infra.training.worker.Recorder", hangs)
    job = make_job(tiny_dataset, tmp_path, "supervised")
    with pytest.raises(TimeoutError):
        run_worker(job, rank=0, world=1, device=torch.device("cpu"), contact=contact)


@pytest.mark.dist
@pytest.mark.slow
def test_a_worker_that_stands_still_is_killed_and_training_goes_on(
    ray_address: str, tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "supervised.steps=60",
        "run.checkpoint_every=20",
        "run.validate_every=0",
        "run.stall_minutes=0.2",
    ]
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    stopped: list[int] = []

    def stop_the_worker() -> None:
        while not checkpoints_of(job).steps():
            time.sleep(0.05)
        for pid in worker_processes():
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    thread = threading.Thread(target=stop_the_worker)
    thread.start()
    result = run_stage(job, "ray")
    thread.join()
    assert len(stopped) == 1
    told = capsys.readouterr().out
    assert "warning: supervised, seed 0: no step for 0.2 minutes" in told
    state = read_checkpoint(result.checkpoint_url)
    assert state["step"] == 60 and state["attempt"] >= 2  # more on a machine too busy for a step in 12 s


def worker_processes() -> list[int]:
    """Ray Train's workers among the descendants of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if command.startswith("ray::") and "TrainWorker" in command and _is_ours(int(entry.name)):
                found.append(int(entry.name))
    return found


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
