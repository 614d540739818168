"""The compiled pipeline in its image, by Kubeflow's runner for Docker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arco_core.model_package import load_package
from infra.datasets.synthetic import write_cohort
from tests.conftest import TINY_SETTINGS
from tests.containers import Containers
from tests.pipelines.compiled import GOLDEN

COMPILED = GOLDEN / "arco_full.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.container, pytest.mark.timeout(3600)]

# What a pod of the cluster has, too: no root, no capabilities, a root file system that cannot be written.
RUN = """
import json, sys
import docker
from kfp import components, local

compiled, root, data, arguments = sys.argv[1:]
runner = local.DockerRunner(
    mounts=[docker.types.Mount("/data", data, type="bind", read_only=True)],
    network_mode="none", read_only=True, tmpfs={"/tmp": "exec,mode=1777,size=1g"}, shm_size="512m",
    cap_drop=["ALL"], security_opt=["no-new-privileges"], mem_limit="6g",
)
local.init(runner, pipeline_root=root)
components.load_component_from_file(compiled)(**json.loads(arguments))
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scans: six patients, four of them annotated."""
    return write_cohort(tmp_path_factory.mktemp("raw") / "demo", patients=6, labeled=4)


def run(
    containers: Containers, folder: Path, cohort: Path, overrides: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `arco_full` on `cohort`; the store is below `folder`, which is all that the steps may write to."""
    arguments: dict[str, Any] = {
        "data": "/data",
        "store": f"{folder}/store",
        "run": f"{folder}/store/runs/demo",
        "preset": "demo",
        "overrides": [*TINY_SETTINGS, *overrides],
        "labeled": 2.0,
        "seeds": [0],
        "backend": "in-process",
    }
    command = [sys.executable, "-c", RUN, str(COMPILED), str(folder), str(cohort), json.dumps(arguments)]
    return subprocess.run(
        command,
        env=containers.environment,
        umask=0,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    made.chmod(0o777)  # the steps are another user
    return made


def test_from_scans_to_a_published_model(containers: Containers, folder: Path, cohort: Path) -> None:
    finished = run(containers, folder, cohort)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    made = folder / "store/runs/demo"
    values = json.loads((made / "summary.json").read_text())
    assert set(values["methods"]) == {"arco-sg", "supervised"}
    assert "data:image/png" in (made / "report.html").read_text()
    assert load_package(made / "model")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in made.rglob("*") if path.is_file()}
    assert owners == {(1000, 1000)}


def test_a_step_that_fails_fails_the_run_and_says_why(
    containers: Containers, folder: Path, cohort: Path
) -> None:
    finished = run(containers, folder, cohort, overrides=("pretrain.steps=-1",))
    assert finished.returncode != 0
    assert "pretrain.steps" in finished.stdout
    assert not (folder / "store/runs/demo/summary.json").exists()
    assert os.listdir(cohort)  # which was read-only
