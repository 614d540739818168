"""What compiled pipelines have in common: the reviewed files, and rules for the pods of steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arco_core import __version__
from components.image import IMAGE

GOLDEN = Path(__file__).parent


def reviewed(name: str) -> str:
    """The reviewed file, with the image that this shell compiles in."""
    return (GOLDEN / f"{name}.yaml").read_text().replace(f"arco:{__version__}-python", IMAGE)


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compiled pipeline, and what Kubernetes is told of its steps' pods, by executor."""
    spec, platforms = yaml.safe_load_all(path.read_text())
    return spec, platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def broken_rules(spec: dict[str, Any], pods: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the steps, in words; nothing when they keep the rules."""
    executors = spec["deploymentSpec"]["executors"]
    if set(pods) != set(executors):
        yield f"steps without settings of their pods: {sorted(set(executors) - set(pods))}"
    for name, pod in pods.items():
        for text in (*_broken_pod(pod), *_broken_container(executors[name]["container"])):
            yield f"{name}: {text}"
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    for name, task in ((name, task) for dag in dags for name, task in dag["tasks"].items()):
        if spec["components"][task["componentRef"]["name"]].get("executorLabel"):
            if task.get("retryPolicy", {}).get("maxRetryCount") != 2:
                yield f"{name}: must be tried three times"
            if task.get("triggerPolicy", {}).get("strategy") and task["cachingOptions"].get("enableCache"):
                yield f"{name}: an exit handler must run every time"


def _broken_pod(pod: dict[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext", {})
    user, group = (int(context.get(key, 0)) for key in ("runAsUser", "runAsGroup"))
    if not context.get("runAsNonRoot") or (user, group) != (1000, 1000):
        yield "must run as user and group 1000"
    if int(pod.get("activeDeadlineSeconds", 0)) < 3600:
        yield "must have a time limit"
    if pod["podMetadata"]["labels"].get("app.kubernetes.io/part-of") != "arco":
        yield "must have the label that the network policies select"
    if {"fieldPath": "metadata.labels['pipeline/runid']", "name": "ARCO_RUN_ID"} not in pod["fieldPathAsEnv"]:
        yield "must know its run"
    if pod["configMapAsVolume"][0]["mountPath"] != "/etc/arco":
        yield "must find clusters.toml"
    if not all(source.get("optional") for source in pod["secretAsEnv"]):
        yield "secrets must be optional: pods may have an identity"


def _broken_container(container: dict[str, Any]) -> Iterator[str]:
    if container["image"] != IMAGE:
        yield f"must run in {IMAGE}"
    if "pip install" in " ".join(container["command"]):
        yield "must install nothing"
    missing = {"resourceCpuLimit", "resourceMemoryLimit"} - container["resources"].keys()
    if missing:
        yield f"must have {', '.join(sorted(missing))}"
