"""A RayJob on a schedule, for clusters without Kubeflow: KubeRay's RayCronJob.

It is alpha in KubeRay 1.7: the operator needs the feature gates `RayCronJob` and, on by default,
`RayJobDeletionPolicy`. It has no rule for runs that overlap, and after a pause it makes up for every run that
was missed: what it runs has to see to both.
"""

from __future__ import annotations

from typing import Any

from arco_core.config.errors import require
from infra.kuberay.cron import require_cron, require_time_zone
from infra.kuberay.manifest import Resource, job_template
from infra.kuberay.spec import RayJobSpec

_MAX_NAME = 36
"""KubeRay appends the time to it for the names of jobs (`MaxRayCronJobNameLength`)."""
_KEEP_FAILED = 3 * 86400
"""Seconds for which a failed job stays, without its cluster, to be looked at."""


def ray_cron_job(spec: RayJobSpec, *, schedule: str, time_zone: str) -> Resource:
    """The resource that runs `spec` at the times of `schedule`.

    Args:
        spec: what to run. Its jobs have no attempt number: each takes over from those before.
        schedule: cron line of five fields.
        time_zone: in which it counts.

    Raises:
        ConfigError: an impossible schedule, time zone or name, or a queue, which these jobs cannot have:
            KubeRay gives them no labels.
    """
    require_cron("schedule", schedule)
    require_time_zone("time_zone", time_zone)
    require(spec.cluster.queue is None, "queue", spec.cluster.queue, "scheduled jobs have no label for Kueue")
    name = f"arco-{spec.step}"
    require(len(name) <= _MAX_NAME, "step", spec.step, f"must leave the name {name} at {_MAX_NAME} letters")
    job = job_template(spec)
    template = job["spec"]
    # The jobs remove themselves, or they would fill the quota of RayJobs.
    for key in ("shutdownAfterJobFinishes", "ttlSecondsAfterFinished"):
        del template[key]
    template["deletionStrategy"] = {"deletionRules": _deletion_rules(spec.cluster.deadlines.after_end)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": name, "labels": job["metadata"]["labels"]},
        "spec": {"schedule": schedule, "timeZone": time_zone, "suspend": False, "jobTemplate": template},
    }


def _deletion_rules(seconds: int) -> list[dict[str, Any]]:
    kept = max(seconds, _KEEP_FAILED)
    rules = [("DeleteSelf", {"jobStatus": "SUCCEEDED"}, seconds)]
    for condition in ({"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"}):
        rules += [("DeleteCluster", condition, seconds), ("DeleteSelf", condition, kept)]
    return [{"policy": policy, "condition": {**when, "ttlSeconds": ttl}} for policy, when, ttl in rules]
