"""Whether a job's Ray head still lives. KubeRay may leave a job "Running" long after it died.

The rule: while a job is Running and its driver has not ended, the head counts as lost when for
`Timing.head_loss` seconds its pod is gone, ended, being deleted or another one, or its container has
restarted; or when for `Timing.status_stale` seconds KubeRay could not read the job's status. The time is for
KubeRay, which may have a better reason to tell.
"""

from __future__ import annotations

from datetime import UTC, datetime

from infra.kuberay.api import KubernetesApi
from infra.kuberay.errors import KubernetesUnavailable, RayClusterLost
from infra.kuberay.manifest import Resource
from infra.kuberay.state import JobState
from infra.kuberay.timing import Timing


class HeadWatch:
    """Looks at the head pod of one job now and then."""

    def __init__(self, api: KubernetesApi, name: str, timing: Timing) -> None:
        """Args:
        api: of the job's namespace.
        name: of the job.
        timing: how often to look, and how patient to be.
        """
        self._api, self._name, self._timing = api, name, timing
        self._cluster = self._pod = ""
        self._first: Resource | None = None
        self._next_look = 0.0
        self._lost_since: float | None = None
        self._sign = ""

    def check(self, state: JobState, now: float) -> None:
        """Look, if it is time to; `now` is a monotonic time in seconds.

        Raises:
            RayClusterLost: the head counts as lost.
        """
        if state.deployment != "Running" or state.driver_ended or not state.head_pod:
            self._lost_since = None
            return
        if now < self._next_look:
            return
        self._next_look = now + self._timing.head_check
        self._stale(state)
        try:
            self._sign = self._look(state)
        except KubernetesUnavailable:
            return  # says nothing about the head
        if not self._sign:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = now
        elif now - self._lost_since >= self._timing.head_loss and self._still_running():
            raise RayClusterLost(
                f"ray job {self._name}: {self._sign}, and KubeRay has left the job Running for "
                f"{now - self._lost_since:.0f} s"
            )

    def _look(self, state: JobState) -> str:
        """A sign that the head is lost, or nothing."""
        if state.cluster != self._cluster:
            self._cluster, self._pod, self._first = state.cluster, state.head_pod, None
        pod = self._api.pod(self._pod)
        if pod is None:
            return f"the head pod {self._pod} is gone"
        if self._first is None:
            self._first = pod
        if state.head_pod != self._pod or pod["metadata"]["uid"] != self._first["metadata"]["uid"]:
            return f"the head pod {self._pod} was replaced"
        if pod["metadata"].get("deletionTimestamp"):
            return f"the head pod {self._pod} is being deleted"
        phase = pod["status"].get("phase", "")
        if phase in ("Failed", "Succeeded"):
            return f"the head pod {self._pod} has ended: {phase} {pod['status'].get('reason', '')}".rstrip()
        if _restarts(pod) > _restarts(self._first):
            return f"the head's container in pod {self._pod} has restarted"
        return ""

    def _still_running(self) -> bool:
        """Whether KubeRay says so at this moment: news may be on their way."""
        job = self._api.job(self._name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            return False
        return JobState.of(job).deployment == "Running"

    def _stale(self, state: JobState) -> None:
        if state.unreadable_since is None:
            return
        seconds = (datetime.now(UTC) - state.unreadable_since).total_seconds()
        if seconds >= self._timing.status_stale:
            raise RayClusterLost(
                f"ray job {self._name}: for {seconds:.0f} s KubeRay could not ask Ray for the job's status"
            )


def _restarts(pod: Resource) -> int:
    """Restarts of the Ray container, which is the first."""
    name = pod["spec"]["containers"][0]["name"]
    statuses = pod["status"].get("containerStatuses") or []
    return next((int(status["restartCount"]) for status in statuses if status["name"] == name), 0)
