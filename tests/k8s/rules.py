"""Rules for Kubernetes objects that no schema makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from arco_core.config import ConfigError
from infra.kuberay.cron import require_cron, require_time_zone

Resource = dict[str, Any]

SUBMISSION_MODES = ("HTTPMode", "SidecarMode")
"""Of KubeRay's, those without a submitter pod that can fail by itself."""
_PINNED = re.compile(r"[^\s:@]+(:\d+/[^\s:@]+)?(:(?!latest(@|$))[\w][\w.-]*)?(@sha256:[0-9a-f]{64})?")
_RAY_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def broken_rules(one: Resource) -> list[str]:
    """What is wrong with a rendered object, in words; nothing when it keeps the rules."""
    broken = [f"{path}: {text}" for path, pod in pods_of(one) for text in _broken_pod(pod)]
    if one["kind"] == "RayJob":
        broken += _broken_job(one["spec"])
        broken += _broken_name(one, 47)
        if not one["spec"].get("shutdownAfterJobFinishes") or not one["spec"].get("ttlSecondsAfterFinished"):
            broken.append("shutdownAfterJobFinishes and ttlSecondsAfterFinished must be set")
    if one["kind"] == "RayCronJob":
        broken += _broken_job(one["spec"]["jobTemplate"])
        broken += _broken_name(one, 36)
        broken += _broken_schedule(one["spec"])
    return broken


def pods_of(one: Resource, path: str = "") -> Iterator[tuple[str, Resource]]:
    """Every pod spec in an object, and where it is."""
    if isinstance(one, dict):
        if isinstance(one.get("containers"), list):
            yield path, one
        for key, value in one.items():
            yield from pods_of(value, f"{path}.{key}")
    elif isinstance(one, list):
        for index, value in enumerate(one):
            yield from pods_of(value, f"{path}[{index}]")


def _broken_pod(pod: Resource) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 1) == 0:
        yield "must run as another user than root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "must have the seccomp profile RuntimeDefault"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"must not set {key}"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for name, volume in volumes.items():
        if "hostPath" in volume:
            yield f"volume {name} must not be a path of the host"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {name} must have a size limit"
    if not pod.get("serviceAccountName"):
        yield "must name its service account"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        for text in _broken_container(container, set(volumes)):
            yield f"container {container['name']}: {text}"


def _broken_container(container: Resource, volumes: set[str]) -> Iterator[str]:
    image = container.get("image", "")
    if not _PINNED.fullmatch(image) or not re.search(r":[^/]+$|@", image):
        yield f"image {image!r} must be pinned by version or digest"
    context = container.get("securityContext", {})
    if context.get("readOnlyRootFilesystem") is not True:
        yield "must have a read-only root file system"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "must not gain privileges"
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
        yield "must drop all capabilities"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        missing = {"cpu", "memory", "ephemeral-storage"} - resources.get(kind, {}).keys()
        if missing:
            yield f"{kind} must have {', '.join(sorted(missing))}"
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"volume mount {mount['name']!r} has no volume"
    for variable in container.get("env", []):
        if re.search(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY", variable["name"]) and "value" in variable:
            yield f"environment variable {variable['name']} must come from a secret"


def _broken_job(spec: Resource) -> Iterator[str]:
    """What KubeRay 1.7 would refuse, or what would outlive its use."""
    if spec.get("submissionMode") not in SUBMISSION_MODES:
        yield f"submissionMode {spec.get('submissionMode')!r} must be one of {', '.join(SUBMISSION_MODES)}"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if not spec.get(key):
            yield f"{key} must be set"
    if spec.get("backoffLimit") != 0:
        yield "backoffLimit must be 0"
    cluster = spec["rayClusterSpec"]
    if cluster.get("authOptions", {}).get("mode") != "token" or not cluster.get("rayVersion"):
        yield "authOptions.mode must be token, and rayVersion set"
    if (
        cluster["headGroupSpec"].get("enableIngress")
        or cluster["headGroupSpec"].get("serviceType") != "ClusterIP"
    ):
        yield "the dashboard must stay inside the cluster"
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        pod = group["template"]["spec"]
        environment = {one["name"]: one.get("value") for one in pod["containers"][0].get("env", [])}
        if environment.get("RAY_AUTH_MODE") != "token":
            yield "RAY_AUTH_MODE must be token in every pod"
        if pod.get("restartPolicy") != "Never":
            yield "restartPolicy must be Never: SidecarMode and the autoscaler need it"
    for group in cluster.get("workerGroupSpecs", []):
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"worker group {group['groupName']}: replicas must lie between their limits"


def _broken_name(one: Resource, longest: int) -> Iterator[str]:
    name = one["metadata"]["name"]
    if not _RAY_NAME.fullmatch(name) or len(name) > longest:
        yield f"name {name!r} must be a DNS-1035 label of at most {longest} letters"


def _broken_schedule(spec: Resource) -> Iterator[str]:
    try:
        require_cron("schedule", spec["schedule"])
        require_time_zone("timeZone", spec["timeZone"])
    except ConfigError as error:
        yield str(error)
    rules = spec["jobTemplate"].get("deletionStrategy", {}).get("deletionRules", [])
    if not {"SUCCEEDED", "FAILED"} <= {
        rule["condition"].get("jobStatus") for rule in rules if rule["policy"] == "DeleteSelf"
    }:
        yield "scheduled jobs must delete themselves, or they fill the quota"
