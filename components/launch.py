"""Where a heavy step runs: in this process and its Ray, or on a Ray cluster of its own on Kubernetes.

The backend `rayjob` makes a KubeRay RayJob that runs the same step by its command line, with the backend
`ray`, and waits for it. What the step made comes back as a small object in the store, and not by the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arco_core.config import ConfigError
from arco_core.errors import TrainingError
from components.image import IMAGE
from infra.attempts import claim_attempt
from infra.heartbeat import beating
from infra.kuberay import (
    RayClusterSettings,
    RayJobSpec,
    delete_run_jobs,
    load_cluster_settings,
    run_ray_job,
)
from infra.storage import NotFound, Store

RAYJOB = "rayjob"
"""The backend."""
HEAVY_STEPS = ("prepare", "pretrain", "finetune", "supervised", "sweep", "evaluate", "retrain")
STEP_SECONDS = 4 * 86400
"""Time limit that Kubernetes keeps for the pod of a step that waits for its job."""
CLUSTERS_ENVIRONMENT = "ARCO_CLUSTERS"
"""Path of clusters.toml."""
RUN_ENVIRONMENT = "ARCO_RUN_ID"
"""Kubeflow's id of the run."""
NAMESPACE_ENVIRONMENT = "ARCO_NAMESPACE"
"""Namespace of the step's pod."""


@dataclass(frozen=True, kw_only=True)
class StepCommand:
    """A step as its command line knows it."""

    step: str
    """Name of its module in `components`."""
    arguments: tuple[str, ...]
    home: str
    """URL of the folder that keeps the attempts' numbers and the result."""
    cluster: tuple[str, ...] = ()
    """Settings of the Ray cluster over those of the installation, see `infra.kuberay.settings`."""


def run_step(command: StepCommand, backend: str, here: Callable[[], str]) -> str:
    """What the step made: by `here`, or, with the backend `rayjob`, as `run_as_ray_job` does."""
    return run_as_ray_job(command) if backend == RAYJOB else here()


def run_as_ray_job(command: StepCommand) -> str:
    """Run a step as a RayJob, and return the URL that it made.

    A step that is started again within a pipeline run finds its job, or what the job made. A job that no step
    waits for any more ends by itself, see `infra.heartbeat`.

    Raises:
        ConfigError: this is no pod of a pipeline, or an impossible cluster.
        RayJobError: the job failed; the message has its reason and the last lines of its log.
        TrainingError: it ended well and left no result.
        StoreError: the store cannot be read or written.
    """
    run_id = _environment(RUN_ENVIRONMENT)
    settings = cluster_settings(command.step, command.cluster)
    home = Store(command.home)
    digest = hashlib.sha256(json.dumps(command.arguments).encode()).hexdigest()[:8]
    path = f"jobs/{run_id}/{command.step}-{digest}.json"
    if (made := _result(home, path)) is not None:
        return made
    beat = f"jobs/{run_id}/{command.step}-{digest}.beat"
    attended = (sys.executable, "-m", "components.attended", home.url, beat)
    spec = RayJobSpec(
        run_id=run_id,
        step=command.step,
        command=(*attended, f"components.{command.step}", *command.arguments, "--result", home.join(path)),
        image=IMAGE,
        cluster=settings,
    )
    with beating(home, beat):
        run_ray_job(
            spec,
            namespace=_namespace(settings),
            claim_attempt=lambda: claim_attempt(home, f"attempts/{command.step}"),
            show=_show,
        )
    made = _result(home, path)
    if made is None:
        raise TrainingError(f"the job of {command.step} ended well, but left no {home.join(path)}")
    return made


def repeated(option: str, values: Sequence[str]) -> tuple[str, ...]:
    """`option` and a value, for each of `values`."""
    return tuple(text for value in values for text in (option, value))


def write_result(url: str | None, made: str) -> None:
    """Leave the URL that a step made in the object `url`, if one is given, for `run_as_ray_job`."""
    if url is None:
        return
    folder, _, name = url.rpartition("/")
    Store(folder).write_bytes(name, json.dumps({"url": made}).encode())


def check_clusters(cluster: Sequence[str]) -> None:
    """Raise `ConfigError` unless every heavy step would get a possible cluster."""
    _environment(RUN_ENVIRONMENT)
    for step in HEAVY_STEPS:
        settings = cluster_settings(step, cluster)
        _namespace(settings)
        seconds = settings.deadlines.queue + settings.deadlines.active
        if seconds > STEP_SECONDS:
            raise ConfigError(
                f"{step}: deadlines.queue + deadlines.active = {seconds}: must be at most {STEP_SECONDS}, "
                "after which Kubernetes ends the step that waits for the job"
            )


def remove_ray_jobs(cluster: Sequence[str]) -> list[str]:
    """Remove the RayJobs of this pipeline run that are left, and return their names. Raises as they do."""
    run_id = _environment(RUN_ENVIRONMENT)
    namespaces = {_namespace(cluster_settings(step, cluster)) for step in HEAVY_STEPS}
    return [name for one in sorted(namespaces) for name in delete_run_jobs(run_id, namespace=one)]


def cluster_settings(step: str, cluster: Sequence[str]) -> RayClusterSettings:
    """The cluster that `step` gets. Raises `ConfigError` for an impossible one."""
    return load_cluster_settings(_environment(CLUSTERS_ENVIRONMENT), step, cluster)


def _result(home: Store, path: str) -> str | None:
    try:
        return str(json.loads(home.read_bytes(path))["url"])
    except NotFound:
        return None


def _namespace(settings: RayClusterSettings) -> str:
    return settings.namespace or _environment(NAMESPACE_ENVIRONMENT)


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(
            f"the environment variable {name} is not set: the backend {RAYJOB} is for steps that Kubeflow "
            "starts; elsewhere, use ray or in-process"
        )
    return value


def _show(line: str) -> None:
    print(line, flush=True)
