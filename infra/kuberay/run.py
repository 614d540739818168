"""Run a command on a Ray cluster of its own, as a KubeRay RayJob."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubernetes.client import ApiClient

from infra.kuberay.api import KubernetesApi, connect
from infra.kuberay.cancel import cancel_on_signals
from infra.kuberay.deadlines import DeadlineWatch
from infra.kuberay.driver_log import DriverLog
from infra.kuberay.errors import RayJobCancelled, RayJobDeleted, RayJobError, RayJobFailed
from infra.kuberay.head import HeadWatch
from infra.kuberay.manifest import ATTEMPT_ANNOTATION, RUN_LABEL, Resource
from infra.kuberay.spec import RayJobSpec
from infra.kuberay.state import JobState
from infra.kuberay.submit import remove, submit
from infra.kuberay.timing import Timing
from infra.kuberay.watch import JobSeen, JobWatch, News


@dataclass(frozen=True, kw_only=True)
class RayJobOutcome:
    """A job that succeeded."""

    name: str
    attempt: int
    """Number of the attempt that did."""
    seconds: float
    """From submission, or adoption, to the end."""


def run_ray_job(
    spec: RayJobSpec,
    *,
    namespace: str,
    claim_attempt: Callable[[], int],
    restarts: int = 1,
    show: Callable[[str], None] = print,
    api: ApiClient | None = None,
    timing: Timing | None = None,
) -> RayJobOutcome:
    """Run `spec` and return when it has succeeded. Whatever happens, its job is deleted.

    A job of the same spec that is there already is followed instead of a new one made. When the cluster, not
    the program, fails, the job is made again, as a new attempt; writes of the old one's are fenced off by
    `infra.checkpoints`.

    Args:
        spec: what to run, and where.
        namespace: where the jobs of the pipeline live.
        claim_attempt: gives the number of a new attempt, higher than all before, see `infra.attempts`.
        restarts: how often to make the job again.
        show: called with a line of text for every change of status and every line of the driver's log.
        api: client of the cluster; by default that of this pod, or of kubectl's context.
        timing: how patient to be, by default as `Timing` says.

    Raises:
        RayJobFailed: the program failed; the message has its reason and last lines.
        RayClusterLost: the cluster failed, `restarts` times and once more.
        RayJobTimeout: a deadline of `spec.cluster.deadlines` has passed.
        RayJobDeleted: somebody else deleted the job.
        RayJobConflict: another job has the name.
        RayJobCancelled: SIGTERM or SIGINT came.
        KubernetesError, KubernetesUnavailable: the API server refused, or did not answer.
    """
    timing = timing or Timing()
    with cancel_on_signals() as cancel:
        access = KubernetesApi(api or connect(), namespace, timing, cancel)
        while True:
            try:
                return _Attempt(access, spec, claim_attempt, show, timing, cancel).run()
            except RayJobError as error:
                if not error.retryable or restarts == 0:
                    raise
                restarts -= 1
                show(f"{error}; starting again on a new cluster, {restarts} more tries after that")


def delete_run_jobs(
    run_id: str, *, namespace: str, api: ApiClient | None = None, timing: Timing | None = None
) -> list[str]:
    """Delete all jobs of a pipeline run, for its exit handler; returns their names."""
    access = KubernetesApi(api or connect(), namespace, timing or Timing())
    jobs = access.jobs(f"{RUN_LABEL}={run_id},app.kubernetes.io/managed-by=arco")
    for job in jobs:
        access.delete_job(job["metadata"]["name"], job["metadata"]["uid"])
    return [str(job["metadata"]["name"]) for job in jobs]


class _Attempt:
    """One job, from its submission to its removal."""

    def __init__(
        self,
        api: KubernetesApi,
        spec: RayJobSpec,
        claim_attempt: Callable[[], int],
        show: Callable[[str], None],
        timing: Timing,
        cancel: threading.Event,
    ) -> None:
        self._api, self._spec, self._claim_attempt = api, spec, claim_attempt
        self._show, self._timing, self._cancel = show, timing, cancel
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._log: DriverLog | None = None
        self._log_pod = ""

    def run(self) -> RayJobOutcome:
        """Submit, follow, remove."""
        job: Resource | None = None
        try:
            job = submit(
                self._api,
                self._spec,
                claim_attempt=self._claim_attempt,
                timing=self._timing,
                cancel=self._cancel,
                show=self._show,
            )
            start = time.monotonic()
            self._follow(job)
            return RayJobOutcome(
                name=job["metadata"]["name"],
                attempt=int(job["metadata"]["annotations"][ATTEMPT_ANNOTATION]),
                seconds=time.monotonic() - start,
            )
        finally:
            self._remove(job["metadata"]["uid"] if job else None)
            if self._log:
                self._log.close()

    def _remove(self, uid: str | None) -> None:
        cancelled = self._cancel.is_set()
        patience = self._timing.patience_on_cancel if cancelled else self._timing.patience_at_end
        try:
            remove(
                self._api.with_patience(patience),
                self._spec,
                self._timing,
                uid=uid,
                wait=not cancelled,
            )
        except RayJobError as error:
            # The job's own end matters more to the caller; the job ends by its deadlines.
            self._show(f"could not see the job removed: {error}")

    def _follow(self, job: Resource) -> None:
        """Return when the job has succeeded."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        state = JobState.of(job)
        head = HeadWatch(self._api, name, self._timing)
        deadlines = DeadlineWatch(self._spec.cluster.deadlines, name, self._timing)
        with JobWatch(self._api, name, uid, self._news.put, self._timing):
            while True:
                self._follow_log(state)
                now = time.monotonic()
                if self._over(name, state) or deadlines.settled(state, now):
                    self._finish_log()
                    return
                head.check(state, now)
                if self._cancel.is_set():
                    raise RayJobCancelled(f"ray job {name}: told to stop; the job is removed")
                state = self._next(name, state)

    def _next(self, name: str, state: JobState) -> JobState:
        """The state after the next news, or the same when there are none for a moment."""
        try:
            news = self._news.get(timeout=self._timing.tick)
        except queue.Empty:
            return state
        if isinstance(news, RayJobError):
            raise news
        if isinstance(news, JobSeen):
            new = JobState.of(news.job)
            if new.line() != state.line():
                self._show(f"ray job {name}: {new.line()}")
            if new.ended or not news.job["metadata"].get("deletionTimestamp"):
                return new
        raise RayJobDeleted(f"ray job {name}: deleted by somebody else while it was: {state.line()}")

    def _over(self, name: str, state: JobState) -> bool:
        """Whether the job has succeeded; raises when it has failed."""
        if not state.ended or state.succeeded:
            return state.ended
        error = state.failure(name)
        self._finish_log()
        if isinstance(error, RayJobFailed) and self._log:
            lines = "\n".join(self._log.tail)
            raise RayJobFailed(f"{error}\nlast lines of its log:\n{lines}")
        raise error

    def _finish_log(self) -> None:
        if self._log:
            self._log.finish()

    def _follow_log(self, state: JobState) -> None:
        begun = state.deployment == "Running" or state.ended
        if begun and state.head_pod and state.head_pod != self._log_pod:
            self._finish_log()
            self._log_pod = state.head_pod
            self._log = DriverLog(self._api, state.head_pod, self._show, self._timing)
