"""The RayJob resource of a `RayJobSpec`: the template `k8s/rayjob.yaml`, filled in."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from importlib import metadata, resources
from typing import Any

import yaml

from infra.attempts import JOB_ATTEMPT_ENVIRONMENT
from infra.kuberay.spec import GPU, Place, PodSize, RayJobSpec, Toleration

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
    text = json.dumps(_fill_in(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def ray_job(spec: RayJobSpec, attempt: int) -> Resource:
    """The resource to create for attempt number `attempt` at `spec`."""
    job = _fill_in(spec)
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


def _template() -> Resource:
    text = resources.files("k8s").joinpath("rayjob.yaml").read_text(encoding="utf-8")
    # YAML's aliases come as shared objects; a copy by way of JSON has none.
    return dict(json.loads(json.dumps(yaml.safe_load(text))))


def _fill_in(spec: RayJobSpec) -> Resource:
    job = _template()
    del job["metadata"]["name"]
    labels = job["metadata"]["labels"]
    labels |= {"app.kubernetes.io/component": spec.step, RUN_LABEL: spec.run_id}
    # Kubernetes replaces $(NAME) in arguments of containers, of which the submitter's hold the command.
    job["spec"] |= {
        "entrypoint": shlex.join(spec.command).replace("$", "$$"),
        "activeDeadlineSeconds": spec.deadlines.active,
        "preRunningDeadlineSeconds": spec.deadlines.start,
        "ttlSecondsAfterFinished": spec.deadlines.after_end,
    }
    if spec.queue:
        labels[_QUEUE_LABEL] = spec.queue
        job["spec"]["suspend"] = True  # Kueue lifts it; without Kueue, the job must not slip past the quota
    _fill_in_cluster(job["spec"]["rayClusterSpec"], spec)
    return job


def _fill_in_cluster(cluster: Resource, spec: RayJobSpec) -> None:
    cluster["rayVersion"] = metadata.version("ray")
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for group in (head, workers):
        _fill_in_pod(group["template"], spec)
    _set_size(head["template"]["spec"], spec.head)
    _set_place(head["template"]["spec"], spec.head_place)
    _set_size(workers["template"]["spec"], spec.workers.size)
    _set_place(workers["template"]["spec"], _worker_place(spec))
    if spec.workers.spot_label:
        head["template"]["spec"]["affinity"] = _away_from(spec.workers.spot_label)
    counts = spec.workers
    workers |= {"replicas": counts.minimum, "minReplicas": counts.minimum, "maxReplicas": counts.maximum}
    if counts.autoscaling:
        cluster["enableInTreeAutoscaling"] = True
        # The autoscaler, beside the head, changes the RayCluster; KubeRay binds the role that it needs.
        head["template"]["spec"]["automountServiceAccountToken"] = True
    else:
        del cluster["autoscalerOptions"]
    if counts.maximum == 0:
        del cluster["workerGroupSpecs"]
        del head["rayStartParams"]["num-cpus"]


def _fill_in_pod(template: Resource, spec: RayJobSpec) -> None:
    template["metadata"]["labels"] |= {"app.kubernetes.io/component": spec.step, RUN_LABEL: spec.run_id}
    pod = template["spec"]
    pod["serviceAccountName"] = spec.service_account
    if spec.priority_class:
        pod["priorityClassName"] = spec.priority_class
    (container,) = pod["containers"]
    container["image"] = spec.image
    sources = []
    if spec.env_config_map:
        sources.append({"configMapRef": {"name": spec.env_config_map}})
    if spec.env_secret:
        sources.append({"secretRef": {"name": spec.env_secret}})
    if sources:
        container["envFrom"] = sources


def _set_size(pod: Resource, size: PodSize) -> None:
    amounts = {"cpu": str(size.cpu), "memory": f"{size.memory_gib}Gi"}
    if size.gpu:
        amounts[GPU] = str(size.gpu)
    pod["containers"][0]["resources"] = {"requests": amounts, "limits": copy.copy(amounts)}
    (shm,) = (volume for volume in pod["volumes"] if volume["name"] == "shm")
    shm["emptyDir"]["sizeLimit"] = f"{size.shm_gib}Gi"


def _set_place(pod: Resource, place: Place) -> None:
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    if place.tolerations:
        pod["tolerations"] = [_toleration(one) for one in place.tolerations]


def _worker_place(spec: RayJobSpec) -> Place:
    place = spec.workers.place
    if spec.workers.spot_label is None:
        return place
    key, _, value = spec.workers.spot_label.partition("=")
    return Place(
        node_selector={**place.node_selector, key: value},
        tolerations=(*place.tolerations, Toleration(key=key, value=value)),
    )


def _away_from(label: str) -> Resource:
    """Affinity to nodes without `label`, `key=value`."""
    key, _, value = label.partition("=")
    term = {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _toleration(one: Toleration) -> Resource:
    if one.value is None:
        return {"key": one.key, "operator": "Exists", "effect": one.effect}
    return {"key": one.key, "operator": "Equal", "value": one.value, "effect": one.effect}


def _groups(job: Resource) -> list[Resource]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
