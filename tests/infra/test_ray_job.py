"""Steps as jobs on a running Ray cluster that wants a token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from arco_core.config import dumps, load
from components.model_ref import ModelRef
from infra.checkpoints import CheckpointStore
from infra.storage import Store
from tests.conftest import TINY_SETTINGS

pytestmark = [pytest.mark.dist, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


START_HEAD = """
import signal, sys, ray
ray.init(
    address="local", include_dashboard=True, dashboard_port=int(sys.argv[1]), _temp_dir=sys.argv[2],
    num_cpus=4, object_store_memory=200_000_000,
)
print("ready", flush=True)
signal.pause()
"""


@dataclass(frozen=True)
class Head:
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=300
        )

    def ray_job_submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        options = ["job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return self.run(*RAY, *options, "--", *command)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of one node with a dashboard, in processes of its own."""
    # `python` in a job is the first one on the cluster's path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_worker_prestart": "0"}
    port = free_port()
    folder = tempfile.mkdtemp(prefix="arco-ray-")  # short: Ray puts sockets there
    log = tmp_path_factory.mktemp("head") / "log"
    command = [sys.executable, "-c", START_HEAD, str(port), folder]
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        head = Head(f"http://127.0.0.1:{port}", environment)
        try:
            wait_until(lambda: process.poll() is not None or "ready" in log.read_text())
            assert process.poll() is None, log.read_text()
            wait_until(lambda: head.ray_job_submit("true").returncode == 0)  # the agent takes its time
            yield head
        finally:
            process.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def wait_until(happened: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A file with everything."""
    file = tmp_path / "config.toml"
    file.write_text(dumps(load(preset="generic", overrides=[*TINY_SETTINGS, "run.workers=2"])))
    return str(file)


def url_in(output: str) -> str:
    """What a step prints last."""
    lines = [line for line in output.splitlines() if line.startswith("/")]
    return lines[-1]


def test_every_step_runs_as_a_job(head: Head, config: str, tiny_raw: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "runs/a")

    def step(name: str, *arguments: str) -> str:
        done = head.ray_job_submit("python", "-m", f"components.{name}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    made = step("prepare", "--config", config, "--data", str(tiny_raw), "--store", str(tmp_path))
    assert "6 patients" in made
    dataset = url_in(made)
    common = ["--config", config, "--dataset", dataset, "--run", run, "--labeled", "2"]
    first = step("pretrain", *common)
    assert "pretrain, seed 0  4/4 steps" in first  # the log is streamed
    alone = ["--set", "run.workers=1", "--backend", "in-process"]
    refs = [
        ModelRef(
            method="arco-sg", seed=0, checkpoint=url_in(step("finetune", *common, "--init", url_in(first)))
        ),
        ModelRef(method="supervised", seed=0, checkpoint=url_in(step("supervised", *common, *alone))),
    ]
    models = [part for ref in refs for part in ("--model", ref.method, "0", ref.checkpoint)]
    step("evaluate", "--dataset", dataset, "--run", run, *models)
    assert (Path(run) / "summary.json").exists()


def arco_submit(head: Head, *command: str) -> list[str]:
    program = "from components.cli import main; main()"
    return [sys.executable, "-c", program, "submit", "--address", head.dashboard, "--", *command]


def test_exit_codes(head: Head, config: str, tiny_dataset: str, tmp_path: Path) -> None:
    wrong = ["--config", config, "--dataset", tiny_dataset, "--run", str(tmp_path), "--labeled", "7"]
    command = ["python", "-m", "components.pretrain", *wrong]
    by_ray = head.ray_job_submit(*command)
    assert by_ray.returncode == 1  # Ray tells success and failure apart, no more
    assert "error: labeled = 7 asks for 7 patients" in by_ray.stdout, by_ray.stderr
    by_arco = head.run(*arco_submit(head, *command))
    assert by_arco.returncode == 2
    assert "error: labeled = 7 asks for 7 patients" in by_arco.stdout, by_arco.stderr
    assert head.run(*arco_submit(head, "python", "-c", "raise ValueError('no')")).returncode == 1
    assert head.run(*arco_submit(head, "python", "-c", "print('yes')")).returncode == 0
    stranger = head.environment | {"RAY_AUTH_TOKEN": "wrong" * 8}
    refused = subprocess.run(arco_submit(head, "true"), cwd=REPOSITORY, env=stranger, capture_output=True)
    assert refused.returncode == 2


def test_ctrl_c_stops_the_job_which_saves_first(
    head: Head, config: str, tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ["--set", "pretrain.steps=2000", "--set", "run.checkpoint_every=2000"]
    long += ["--set", "run.validate_every=0"]
    arguments = ["--config", config, "--dataset", tiny_dataset, "--run", str(tmp_path), *long]
    command = arco_submit(head, "python", "-m", "components.pretrain", *arguments)
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=REPOSITORY, env=head.environment, stdout=out, stderr=out) as submitted,
    ):
        wait_until(lambda: "/2000 steps  loss" in log.read_text())
        start = time.monotonic()
        submitted.send_signal(signal.SIGINT)
        assert submitted.wait(120) == 130, log.read_text()
    assert time.monotonic() - start < 60
    assert "SIGINT: stopping the job" in log.read_text()
    (folder,) = tmp_path.glob("pretrain-*")
    steps = CheckpointStore(Store(str(tmp_path)), f"{folder.name}/checkpoints").steps()
    assert len(steps) == 1 and 100 <= steps[0] < 2000
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, head.environment[name])
    jobs = JobSubmissionClient(head.dashboard).list_jobs()
    assert [job.status for job in jobs if "steps=2000" in (job.entrypoint or "")] == ["STOPPED"]
    wait_until(lambda: not training_workers(head.environment["RAY_AUTH_TOKEN"]))


def training_workers(token: str) -> Sequence[str]:
    """Command lines of the cluster's training workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended meanwhile
    return [line for line in found if "RayTrainWorker" in line]
