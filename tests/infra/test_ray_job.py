"""Steps as jobs on a running Ray cluster that wants a token."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arco_core.config import dumps, load
from components.model_ref import ModelRef
from infra.checkpoints import CheckpointStore
from infra.storage import Store
from tests.conftest import TINY_SETTINGS
from tests.infra.ray_cluster import RAY, REPOSITORY, RayCluster, wait_until

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.cluster]


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


def test_every_step_runs_as_a_job(cluster: RayCluster, config: str, tiny_raw: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "runs/a")

    def step(name: str, *arguments: str) -> str:
        done = cluster.ray_job_submit("python", "-m", f"components.{name}", *arguments)
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
    grid = tmp_path / "sweep.toml"
    table = "[sweep]\npreset = 'generic'\nmethods = ['supervised']\nlabeled = [2]\nseeds = [0]\n"
    grid.write_text(f"{Path(config).read_text()}\n{table}")
    swept = str(tmp_path / "runs/b")
    told = step("sweep", "--config", str(grid), "--dataset", dataset, "--run", swept)
    assert "supervised" in told and (Path(swept) / "sweep.json").exists()


def arco_submit(cluster: RayCluster, *command: str) -> list[str]:
    program = "from components.cli import main; main()"
    return [sys.executable, "-c", program, "submit", "--address", cluster.dashboard, "--", *command]


def test_exit_codes(cluster: RayCluster, config: str, tiny_dataset: str, tmp_path: Path) -> None:
    wrong = ["--config", config, "--dataset", tiny_dataset, "--run", str(tmp_path), "--labeled", "7"]
    command = ["python", "-m", "components.pretrain", *wrong]
    by_ray = cluster.ray_job_submit(*command)
    assert by_ray.returncode == 1  # Ray tells success and failure apart, no more
    assert "error: labeled = 7 asks for 7 patients" in by_ray.stdout, by_ray.stderr
    by_arco = cluster.run(*arco_submit(cluster, *command))
    assert by_arco.returncode == 2
    assert "error: labeled = 7 asks for 7 patients" in by_arco.stdout, by_arco.stderr
    assert cluster.run(*arco_submit(cluster, "python", "-c", "raise ValueError('no')")).returncode == 1
    assert cluster.run(*arco_submit(cluster, "python", "-c", "print('yes')")).returncode == 0
    stranger = cluster.environment | {"RAY_AUTH_TOKEN": "wrong" * 8}
    refused = subprocess.run(arco_submit(cluster, "true"), cwd=REPOSITORY, env=stranger, capture_output=True)
    assert refused.returncode == 2


def test_ctrl_c_stops_the_job_which_saves_first(
    cluster: RayCluster, config: str, tiny_dataset: str, tmp_path: Path
) -> None:
    long = ["--set", "pretrain.steps=2000", "--set", "run.checkpoint_every=2000"]
    long += ["--set", "run.validate_every=0"]
    arguments = ["--config", config, "--dataset", tiny_dataset, "--run", str(tmp_path), *long]
    command = arco_submit(cluster, "python", "-m", "components.pretrain", *arguments)
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=cluster.environment, stdout=out, stderr=out
        ) as submitted,
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
    (job,) = set(re.findall(r"raysubmit_\w+", log.read_text()))
    status = cluster.run(*RAY, "job", "status", "--address", cluster.dashboard, job)
    assert "stopped" in status.stdout, status.stdout + status.stderr
    wait_until(lambda: not cluster.training_workers())
