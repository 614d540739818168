"""The image, and the compiled pipeline in it, by Kubeflow's runner for Docker.

In one file, so that one process of the tests builds the image, once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from arco_core import __version__
from arco_core.model_package import load_package
from infra.datasets.synthetic import write_cohort
from infra.images.build import ROOT
from tests.conftest import TINY_SETTINGS
from tests.containers import Containers, docker
from tests.pipelines.compiled import GOLDEN

COMPILED = GOLDEN / "arco_full.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.container, pytest.mark.timeout(3600)]

RUNTIME = {"torch", "ray", "kfp", "kfp-kubernetes", "pyarrow", "arco", "s3fs", "monai"}
DEVELOPMENT = {"pytest", "mypy", "ruff", "moto"}


class TestImage:
    """What is in it; the first test builds it."""

    def test_it_is_labelled(self, containers: Containers) -> None:
        inspected = docker(containers.environment, "image", "inspect", containers.image).stdout
        config = json.loads(inspected)[0]["Config"]
        labels = {key.removeprefix("org.opencontainers.image."): v for key, v in config["Labels"].items()}
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        assert labels["version"] == __version__
        assert len(labels["revision"].removesuffix("-modified")) == len(head)
        assert labels["base.name"].startswith("python:3.11")
        assert labels["licenses"] == "Apache-2.0"
        assert config["User"] == "1000:1000"

    def test_it_is_another_user_than_root_who_can_write_nowhere_else(self, containers: Containers) -> None:
        """By permissions alone: the root file system is writable here, as on a cluster it would not be."""
        program = "id -u; id -g; find / -xdev -writable ! -type l 2>/dev/null | grep -v ^/proc; true"
        told = docker(
            containers.environment, "run", "--rm", "--network=none", containers.image, "sh", "-c", program
        )
        user, group, *writable = told.stdout.split()
        assert (user, group) == ("1000", "1000")
        allowed = ("/tmp", "/var/tmp", "/run/lock", "/dev/")
        assert [path for path in writable if not path.startswith(allowed)] == []

    def test_it_has_no_compilers_and_no_tests(self, containers: Containers) -> None:
        program = (
            "command -v gcc cc g++ make git curl wget; ls -d /opt/arco/lib/python3*/site-packages/*/tests"
        )
        assert containers.run("sh", "-c", program).stdout == ""

    def test_the_bill_of_materials_names_what_is_in_it(self, containers: Containers) -> None:
        text = containers.bill.read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        found = {one["name"]: one["version"] for one in json.loads(text)["components"]}
        assert found.keys() >= RUNTIME | {"python", "libc6", "dpkg", "bash"}
        assert found.keys() & DEVELOPMENT == set()
        pins = dict(
            line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
        )
        pinned = {name: version.removesuffix("+cpu") for name, version in found.items() if name in pins}
        assert pinned == {name: pins[name] for name in pinned}
        assert len(pinned) > 80

    def test_every_step_starts(self, containers: Containers) -> None:
        program = (
            "import components.cli, pipelines.arco_full, pipelines.arco_retrain, infra.kuberay, ray.tune"
        )
        told = containers.run("python3", "-c", program)
        assert told.returncode == 0, told.stderr
        assert "arco" in containers.run("arco", "--help").stdout

    def test_kuberay_can_start_a_cluster_in_it(self, containers: Containers) -> None:
        """As its pods do: by `bash -c`, `ray` and `python` from the PATH, and a job by the job server."""
        head = "ray start --head --num-cpus=1 --include-dashboard=true --disable-usage-stats >/dev/null"
        job = "ray job submit --address http://127.0.0.1:8265 -- python -m components.finetune --help"
        told = containers.run("/bin/bash", "-c", f"{head} && {job}")
        assert told.returncode == 0, told.stdout + told.stderr
        assert "--labeled" in told.stdout


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
    containers: Containers,
    folder: Path,
    cohort: Path,
    *,
    compiled: Path = COMPILED,
    overrides: tuple[str, ...] = (),
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
    command = [sys.executable, "-c", RUN, str(compiled), str(folder), str(cohort), json.dumps(arguments)]
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
    hasty = folder / "hasty.yaml"  # tries again at once, not after a minute and then two
    hasty.write_text(COMPILED.read_text().replace("backoffDuration: 60s", "backoffDuration: 0s"))
    finished = run(containers, folder, cohort, compiled=hasty, overrides=("pretrain.steps=-1",))
    assert finished.returncode != 0
    assert "pretrain.steps" in finished.stdout
    assert not (folder / "store/runs/demo/summary.json").exists()
    assert os.listdir(cohort)  # which was read-only
