from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from arco_core import __version__
from components.image import IMAGE_ENVIRONMENT
from infra.images import sbom
from infra.images.build import DOCKERFILE, ROOT, Build, build_arguments, default_tag, main
from tests.containers import Containers, docker

RUNTIME = {"torch", "ray", "kfp", "kfp-kubernetes", "pyarrow", "arco", "s3fs", "monai"}
DEVELOPMENT = {"pytest", "mypy", "ruff", "moto"}


def test_its_name_is_that_of_manifests_and_pipelines() -> None:
    program = "from components.image import IMAGE; print(IMAGE)"
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == default_tag("cpu")
    assert f"image: {default_tag('cpu')}" in (ROOT / "k8s" / "rayjob.yaml").read_text()
    assert IMAGE_ENVIRONMENT == "ARCO_IMAGE"  # which the build takes for a name, too


def test_what_docker_is_told() -> None:
    wanted = Build(
        accelerator="cuda", tag="here/arco:1", base="python:3.11.14-slim-bookworm@sha256:00", torch_index="",
        options=("--push",), epoch=1_790_000_000, revision="abc",
    )  # fmt: skip
    arguments = build_arguments(wanted)
    assert arguments[:4] == ["--file", str(DOCKERFILE), "--tag", "here/arco:1"]
    assert arguments[-1] == "--push"
    values = dict(one.split("=", 1) for one in arguments if "=" in one)
    assert values == {
        "TORCH_INDEX": "",
        "VERSION": __version__,
        "REVISION": "abc",
        "CREATED": "2026-09-21T14:13:20Z",
        "SOURCE_DATE_EPOCH": "1790000000",
        "BASE": "python:3.11.14-slim-bookworm@sha256:00",
    }


def test_the_build_knows_all_that_it_is_told() -> None:
    """Docker takes a misspelt build argument for a warning."""
    text = DOCKERFILE.read_text()
    for name in ("BASE", "TORCH_INDEX", "VERSION", "REVISION", "CREATED"):
        assert f"ARG {name}" in text


def test_without_docker_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 1
    assert capsys.readouterr().err == "error: docker is not installed, or not on the PATH\n"


def test_a_bill_of_materials_is_valid_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    document = json.dumps(sbom.bill_of_materials())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    assert document == json.dumps(sbom.bill_of_materials())
    assert "2026-09-21T14:13:20Z" in document


@pytest.mark.slow
@pytest.mark.container
@pytest.mark.timeout(3600)
class TestImage:
    """The first test builds the image: two to three minutes on two cores, most of it downloads."""

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
