"""The schedule in k8s/ is what `ray_cron_job` makes. `python -m tests.k8s.test_schedule` writes it anew."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from arco_core import __version__
from arco_core.config import ConfigError
from infra.kuberay import RayClusterSettings, RayJobSpec, load_cluster_settings
from infra.kuberay.cron import require_cron, require_time_zone
from infra.kuberay.schedule import ray_cron_job
from tests.infra.kuberay.crd import REPOSITORY, crd_schemas
from tests.k8s.rules import broken_rules

FILE = REPOSITORY / "k8s/components/schedule/raycronjob.yaml"
HEADER = """\
# Retraining every night on a Ray cluster of its own, for clusters without Kubeflow. Written by
# `python -m tests.k8s.test_schedule` from k8s/rayjob.yaml and k8s/base/clusters.toml: change those, or patch.
"""
SPEC = RayJobSpec(
    run_id="scheduled",
    step="nightly",
    command=(
        "/opt/arco/bin/python", "-m", "pipelines.arco_retrain",
        "run", "--raw", "s3://arco/raw", "--store", "s3://arco/store", "--name", "arco",
    ),
    image=f"arco:{__version__}-python",
    cluster=load_cluster_settings(REPOSITORY / "k8s/base/clusters.toml"),
)  # fmt: skip


def expected() -> dict[str, Any]:
    return ray_cron_job(SPEC, schedule="0 2 * * *", time_zone="Etc/UTC")


def write(file: Path) -> None:
    file.write_text(HEADER + yaml.safe_dump(expected(), sort_keys=False, width=100))


def test_the_file_is_up_to_date() -> None:
    assert yaml.safe_load(FILE.read_text()) == expected(), "run python -m tests.k8s.test_schedule"


def test_it_is_valid_by_the_crd(needs_schemas: None) -> None:
    schemas = crd_schemas()
    assert schemas is not None
    assert schemas.errors(expected()) == []


def test_it_keeps_the_rules() -> None:
    assert broken_rules(expected()) == []


@pytest.mark.slow
def test_its_command_exists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, option, module, *arguments = SPEC.command
    assert option == "-m"
    monkeypatch.setattr(sys, "argv", [module, *arguments, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(argument in shown for argument in arguments if argument.startswith("--"))


@pytest.mark.parametrize(
    "line", ["0 2 * * *", "*/5 0-6 1,15 jan-mar MON-FRI", "59 23 31 12 6", "0 0 ? * sun", "1-9/2 * * * *"]
)
def test_cron_lines(line: str) -> None:
    require_cron("schedule", line)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0 2 * *", "must be five fields"),
        ("0 0 2 * * *", "must be five fields"),
        ("@daily", "must be five fields"),
        ("60 2 * * *", r"field '60' must be of a minute, in \[0, 59\]"),
        ("0 24 * * *", "field '24' must be of a hour"),
        ("0 2 0 * *", "field '0' must be of a day of month"),
        ("0 2 * 13 *", "field '13' must be of a month"),
        ("0 2 * * 7", "field '7' must be of a day of week"),
        ("5-1 2 * * *", "field '5-1'"),
        ("*/0 2 * * *", r"field '\*/0'"),
        ("TZ=UTC 2 * * *", "field 'TZ=UTC'"),
        ("0 2 * * *,", r"field '\*,'"),
    ],
)
def test_bad_cron_lines(line: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        require_cron("schedule", line)


def test_what_cannot_be_scheduled_is_named() -> None:
    with pytest.raises(ConfigError, match="time_zone = 'Europe/Atlantis': must be the name of a time zone"):
        require_time_zone("time_zone", "Europe/Atlantis")
    queued = replace(SPEC, cluster=RayClusterSettings(queue="arco"))
    with pytest.raises(ConfigError, match="queue = 'arco': scheduled jobs have no label for Kueue"):
        ray_cron_job(queued, schedule="0 2 * * *", time_zone="Etc/UTC")


if __name__ == "__main__":
    write(FILE)
