"""The RayJob resource of a `RayJobSpec`: the template `k8s/rayjob.yaml`, filled in."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from importlib import metadata, resources
from typing import Any

import yaml

from infra.attempts import JOB_ATTEMPT_ENVIRONMENT
from infra.kuberay.spec import GPU, Place, PodSize, RayClusterSettings, RayJobSpec

Resource = dict[str, Any]
"""A Kubernetes object as the API server sends it."""

ATTEMPT_ANNOTATION = "arco/attempt"
DIGEST_ANNOTATION = "arco/spec-sha256"
RUN_LABEL = "app.kubernetes.io/instance"

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_MAX_NAME = 47
"""KubeRay appends to it for the cluster's and its services' names (`MaxRayJobNameLength`)."""


def job_name(spec: RayJobSpec) -> str:
    """The job's name: the same for the same run and the same spec, and only then."""
    digest = spec_digest(spec)[:8]
    room = _MAX_NAME - len(spec.step) - len(digest) - 2
    run = re.sub(r"[^a-z0-9]+", "-", spec.run_id.lower())[:room].strip("-")
    return "-".join(part for part in (spec.step, run, digest) if part)


def spec_digest(spec: RayJobSpec) -> str:
    """sha256 (hex) of everything in the resource but its name and attempt."""
    text = json.dumps(job_template(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def ray_job(spec: RayJobSpec, attempt: int) -> Resource:
    """The resource to create for attempt number `attempt` at `spec`."""
    job = job_template(spec)
    job["metadata"]["name"] = job_name(spec)
    job["metadata"]["annotations"] = {DIGEST_ANNOTATION: spec_digest(spec), ATTEMPT_ANNOTATION: str(attempt)}
    for group in _groups(job):
        group["template"]["spec"]["containers"][0]["env"].append(
            {"name": JOB_ATTEMPT_ENVIRONMENT, "value": str(attempt)}
        )
    return job


def is_job_of(job: Resource, spec: RayJobSpec) -> bool:
    """Whether the resource `job` was made of `spec`, by whichever attempt."""
    found: Mapping[str, str] = job["metadata"].get("annotations") or {}
    return found.get(DIGEST_ANNOTATION) == spec_digest(spec)


@cache
def _template() -> str:
    """The template as JSON: as objects, YAML's aliases would be shared."""
    text = resources.files("k8s").joinpath("rayjob.yaml").read_text(encoding="utf-8")
    return json.dumps(yaml.safe_load(text))


def job_template(spec: RayJobSpec) -> Resource:
    """The resource without name and attempt."""
    settings = spec.cluster
    job: Resource = json.loads(_template())
    del job["metadata"]["name"]
    labels = job["metadata"]["labels"]
    labels |= {"app.kubernetes.io/component": spec.step, RUN_LABEL: spec.run_id}
    # Kubernetes replaces $(NAME) in arguments of containers, of which the submitter's hold the command.
    job["spec"] |= {
        "entrypoint": shlex.join(spec.command).replace("$", "$$"),
        "activeDeadlineSeconds": settings.deadlines.active,
        "preRunningDeadlineSeconds": settings.deadlines.start,
        "ttlSecondsAfterFinished": settings.deadlines.after_end,
    }
    if settings.queue:
        labels[_QUEUE_LABEL] = settings.queue
        job["spec"]["suspend"] = True  # Kueue lifts it; without Kueue, the job must not slip past the quota
    cluster = job["spec"]["rayClusterSpec"]
    cluster["rayVersion"] = metadata.version("ray")
    for group in _groups(job):
        _fill_in_pod(group["template"], spec)
    _fill_in_groups(cluster, settings)
    return job


def _fill_in_groups(cluster: Resource, settings: RayClusterSettings) -> None:
    """Set sizes, places and numbers of pods."""
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    head_pod, worker_pod, counts = head["template"]["spec"], workers["template"]["spec"], settings.workers
    _set_size(head_pod, settings.head)
    _set_place(head_pod, settings.head_place)
    _set_size(worker_pod, counts.size)
    _set_place(worker_pod, counts.place)
    if counts.spot_label:
        _set_spot(worker_pod, head_pod, counts.spot_label)
    workers |= {"replicas": counts.minimum, "minReplicas": counts.minimum, "maxReplicas": counts.maximum}
    if counts.autoscaling:
        cluster["enableInTreeAutoscaling"] = True
        # The autoscaler, beside the head, changes the RayCluster; KubeRay binds the role that it needs.
        head_pod["automountServiceAccountToken"] = True
    else:
        del cluster["autoscalerOptions"]
    if counts.maximum == 0:
        del cluster["workerGroupSpecs"]
        del head["rayStartParams"]["num-cpus"]


def _fill_in_pod(template: Resource, spec: RayJobSpec) -> None:
    settings, pod = spec.cluster, template["spec"]
    template["metadata"]["labels"] |= {"app.kubernetes.io/component": spec.step, RUN_LABEL: spec.run_id}
    pod["serviceAccountName"] = settings.service_account
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    (container,) = pod["containers"]
    container["image"] = spec.image
    sources = []
    if settings.env_config_map:
        sources.append({"configMapRef": {"name": settings.env_config_map}})
    if settings.env_secret:
        sources.append({"secretRef": {"name": settings.env_secret}})
    if sources:
        container["envFrom"] = sources


def _set_size(pod: Resource, size: PodSize) -> None:
    amounts = {"cpu": str(size.cpu), "memory": f"{size.memory_gib}Gi"}
    if size.gpu:
        amounts[GPU] = str(size.gpu)
    for kind in ("requests", "limits"):
        pod["containers"][0]["resources"][kind] |= amounts
    (shm,) = (volume for volume in pod["volumes"] if volume["name"] == "shm")
    shm["emptyDir"]["sizeLimit"] = f"{size.shm_gib}Gi"


def _set_place(pod: Resource, place: Place) -> None:
    if place.node_selector:
        pod["nodeSelector"] = dict(label.split("=", 1) for label in place.node_selector)
    if place.tolerations:
        pod["tolerations"] = [_toleration(taint) for taint in place.tolerations]


def _set_spot(workers: Resource, head: Resource, label: str) -> None:
    """Put the workers on nodes with `label`, `key=value`, perhaps tainted with it, and the head on others."""
    key, _, value = label.partition("=")
    workers["nodeSelector"] = {**workers.get("nodeSelector", {}), key: value}
    workers["tolerations"] = [*workers.get("tolerations", []), _toleration(f"{label}:NoSchedule")]
    term = {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    head["affinity"] = {"nodeAffinity": required}


def _toleration(taint: str) -> Resource:
    label, _, effect = taint.rpartition(":")
    key, separator, value = label.partition("=")
    operator = {"operator": "Equal", "value": value} if separator else {"operator": "Exists"}
    return {"key": key, **operator, "effect": effect}


def _groups(job: Resource) -> list[Resource]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
