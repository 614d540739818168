"""The rules find what they are for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from infra.kuberay import RayJobSpec
from infra.kuberay.manifest import ray_job
from tests.k8s.rules import broken_rules
from tests.k8s.test_schedule import expected

JOB = ray_job(RayJobSpec(run_id="r", step="train", command=("/bin/true",), image="arco:1"), 1)


def head(job: Any) -> Any:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def ray(job: Any) -> Any:
    return head(job)["containers"][0]


HARM: list[tuple[Callable[[Any], Any], str]] = [
    (lambda job: head(job)["volumes"].pop(), "volume mount 'shm' has no volume"),
    (lambda job: ray(job).update(image="arco"), "image 'arco' must be pinned"),
    (lambda job: ray(job).update(image="arco:latest"), "image 'arco:latest' must be pinned"),
    (lambda job: ray(job).update(image="host:5000/arco"), "image 'host:5000/arco' must be pinned"),
    (lambda job: head(job)["securityContext"].update(runAsNonRoot=False), "another user than root"),
    (lambda job: head(job)["securityContext"].update(runAsUser=0), "another user than root"),
    (lambda job: head(job)["securityContext"].pop("seccompProfile"), "seccomp"),
    (lambda job: head(job).update(hostNetwork=True), "must not set hostNetwork"),
    (lambda job: head(job)["volumes"].append({"name": "a", "hostPath": {}}), "volume a must not be a path"),
    (lambda job: ray(job)["securityContext"].pop("readOnlyRootFilesystem"), "read-only root"),
    (lambda job: ray(job)["securityContext"].update(privileged=True), "must not gain privileges"),
    (lambda job: ray(job)["securityContext"]["capabilities"].update(add=["NET_RAW"]), "capabilities"),
    (lambda job: ray(job)["resources"]["limits"].pop("memory"), "limits must have memory"),
    (lambda job: ray(job)["env"].append({"name": "S3_SECRET_KEY", "value": "x"}), "must come from a secret"),
    (lambda job: job["spec"].update(submissionMode="HttpMode"), "submissionMode 'HttpMode' must be one of"),
    (
        lambda job: job["spec"].update(submissionMode="K8sJobMode"),
        "submissionMode 'K8sJobMode' must be one of",
    ),
    (lambda job: job["spec"].pop("activeDeadlineSeconds"), "activeDeadlineSeconds must be set"),
    (lambda job: job["spec"].update(backoffLimit=3), "backoffLimit must be 0"),
    (lambda job: job["spec"].update(shutdownAfterJobFinishes=False), "shutdownAfterJobFinishes"),
    (lambda job: job["spec"]["rayClusterSpec"].pop("authOptions"), "authOptions.mode must be token"),
    (lambda job: ray(job)["env"].clear(), "RAY_AUTH_MODE must be token"),
    (lambda job: job["metadata"].update(name="1" * 10), "must be a DNS-1035 label"),
    (lambda job: job["metadata"].update(name="a" * 48), "at most 47"),
    (
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"].update(serviceType="LoadBalancer"),
        "dashboard",
    ),
]


@pytest.mark.parametrize(("harm", "text"), HARM, ids=[text for _, text in HARM])
def test_a_broken_job_is_found(harm: Callable[[Any], Any], text: str) -> None:
    job = copy.deepcopy(JOB)
    assert broken_rules(job) == []
    harm(job)
    assert text in "\n".join(broken_rules(job))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ({"schedule": "0 2 * *"}, "schedule = '0 2 * *': must be five fields"),
        ({"timeZone": "Mars"}, "timeZone = 'Mars'"),
    ],
)
def test_a_broken_schedule_is_found(edit: dict[str, str], text: str) -> None:
    cron = expected()
    cron["spec"] |= edit
    assert text in "\n".join(broken_rules(cron))


def test_scheduled_jobs_that_stay_are_found() -> None:
    cron = expected()
    del cron["spec"]["jobTemplate"]["deletionStrategy"]
    assert "must delete themselves" in "\n".join(broken_rules(cron))
