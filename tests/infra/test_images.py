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
