"""What a RayJob's status says, and what it means for the job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.kuberay.errors import RayClusterLost, RayJobError, RayJobFailed, RayJobTimeout
from infra.kuberay.manifest import Resource

WAITING = frozenset({"", "Suspending", "Suspended"})
"""Values of `jobDeploymentStatus` before a job is admitted, and after Kueue took its place away."""
_ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
_DRIVER_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_DEADLINES = frozenset({"DeadlineExceeded", "PreRunningDeadlineExceeded"})


@dataclass(frozen=True, kw_only=True)
class JobState:
    """The status of a RayJob. `deployment` is KubeRay's view of the whole, `driver` Ray's of the program."""

    deployment: str
    driver: str
    reason: str
    message: str
    cluster: str
    """Name of the RayCluster, empty before there is one."""
    head_pod: str
    cluster_problem: str
    """What keeps the cluster from being ready, as far as KubeRay says."""
    unreadable_since: datetime | None
    """Since when KubeRay fails to ask Ray for the job's status."""

    @staticmethod
    def of(job: Resource) -> JobState:
        """The state in the resource of a job."""
        status = job.get("status") or {}
        cluster = status.get("rayClusterStatus") or {}
        since = status.get("jobStatusCheckFailureStartTime")
        return JobState(
            deployment=status.get("jobDeploymentStatus", ""),
            driver=status.get("jobStatus", ""),
            reason=status.get("reason", ""),
            message=status.get("message", "").strip(),
            cluster=status.get("rayClusterName", ""),
            head_pod=(cluster.get("head") or {}).get("podName", ""),
            cluster_problem=_problem(cluster),
            unreadable_since=datetime.fromisoformat(since) if since else None,
        )

    @property
    def ended(self) -> bool:
        """Whether KubeRay is done with the job."""
        return self.deployment in _ENDED

    @property
    def driver_ended(self) -> bool:
        """Whether the job's program has ended; KubeRay may yet have to take note of it."""
        return self.driver in _DRIVER_ENDED

    @property
    def succeeded(self) -> bool:
        """Whether the job ended well."""
        return self.deployment == "Complete" and self.driver == "SUCCEEDED"

    def line(self) -> str:
        """For people: where the job is."""
        words = [self.deployment or "created"]
        if self.driver:
            words.append(f"driver {self.driver.lower()}")
        if self.cluster:
            words.append(f"cluster {self.cluster}")
        if self.deployment == "Initializing" and self.cluster_problem:
            words.append(self.cluster_problem)
        return ", ".join(words)

    def failure(self, name: str) -> RayJobError:
        """The error of an ended job that did not succeed."""
        text = f"ray job {name}: {self.reason or self.driver or self.deployment}: {self.message}".rstrip(": ")
        if self.reason in _DEADLINES:
            problem = f" ({self.cluster_problem})" if self.cluster_problem else ""
            return RayJobTimeout(f"{text}{problem}; raise the deadline or give the job more room")
        if self.deployment == "ValidationFailed" or self.driver in ("FAILED", "STOPPED"):
            return RayJobFailed(text)
        return RayClusterLost(text)


def _problem(cluster: Resource) -> str:
    """The first condition of a RayCluster's status that is false, and why."""
    for condition in cluster.get("conditions") or []:
        if condition["status"] == "False" and condition["type"] in ("HeadPodReady", "RayClusterProvisioned"):
            return f"{condition['reason']}: {condition.get('message', '')}".rstrip(": ")
    return str(cluster.get("reason", ""))
