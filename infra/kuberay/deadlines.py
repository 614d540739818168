"""The deadlines of a job, kept here where KubeRay does not: in a queue, and when KubeRay itself is down."""

from __future__ import annotations

from infra.kuberay.errors import RayJobFailed, RayJobTimeout
from infra.kuberay.spec import Deadlines
from infra.kuberay.state import WAITING, JobState
from infra.kuberay.timing import Timing


class DeadlineWatch:
    """Clocks of one job: of waiting, of being active since it was last admitted, and of its driver's end."""

    def __init__(self, deadlines: Deadlines, name: str, timing: Timing) -> None:
        """Args:
        deadlines: of the job.
        name: of the job.
        timing: how much longer to leave to KubeRay what it keeps.
        """
        self._deadlines, self._name, self._timing = deadlines, name, timing
        self._waiting_since: float | None = None
        self._active_since: float | None = None
        self._driver_ended_at: float | None = None

    def settled(self, state: JobState, now: float) -> bool:
        """Whether the driver has succeeded so long ago that KubeRay will not say so any more.

        Raises:
            RayJobTimeout: a deadline has passed.
            RayJobFailed: as settled, but the driver has failed.
        """
        if state.deployment in WAITING:
            self._active_since = None
            self._waiting_since = now if self._waiting_since is None else self._waiting_since
            self._check("waiting", now - self._waiting_since, self._deadlines.queue, state)
            return False
        self._waiting_since = None
        self._active_since = now if self._active_since is None else self._active_since
        active = now - self._active_since
        if state.driver_ended:
            return self._check_driver_ended(state, now)
        self._check("active", active, self._deadlines.active + self._timing.overtime, state)
        if state.deployment != "Running":
            self._check("starting", active, self._deadlines.start + self._timing.overtime, state)
        return False

    def _check(self, what: str, seconds: float, limit: float, state: JobState) -> None:
        if seconds > limit:
            raise RayJobTimeout(
                f"ray job {self._name}: {what} for {seconds:.0f} s, more than {limit:.0f} s "
                f"({state.line()}): raise the deadline, or see whether Kueue and KubeRay are running"
            )

    def _check_driver_ended(self, state: JobState, now: float) -> bool:
        self._driver_ended_at = now if self._driver_ended_at is None else self._driver_ended_at
        if now - self._driver_ended_at <= self._timing.settle:
            return False
        if state.driver == "SUCCEEDED":
            return True
        raise RayJobFailed(f"ray job {self._name}: the driver has {state.driver.lower()}: {state.message}")
