"""A job of a spec in the cluster: made, found again, or removed. There is never a second one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from infra.kuberay.api import KubernetesApi
from infra.kuberay.errors import KubernetesError, RayJobCancelled, RayJobConflict, RayJobTimeout
from infra.kuberay.manifest import DIGEST_ANNOTATION, Resource, is_job_of, job_name, ray_job, spec_digest
from infra.kuberay.spec import RayJobSpec
from infra.kuberay.state import JobState
from infra.kuberay.timing import Timing


def submit(
    api: KubernetesApi,
    spec: RayJobSpec,
    *,
    claim_attempt: Callable[[], int],
    timing: Timing,
    cancel: threading.Event,
    show: Callable[[str], None],
) -> Resource:
    """The job of `spec`: one that runs, or ended well, is adopted; one that failed is replaced.

    Raises:
        RayJobConflict: another job has the name.
        RayJobTimeout: a job that is being deleted does not go.
        RayJobCancelled: `cancel` was set.
        KubernetesError, KubernetesUnavailable: the API server refused, or did not answer.
    """
    name = job_name(spec)
    attempt: int | None = None
    while True:
        if cancel.is_set():
            raise RayJobCancelled(f"ray job {name}: told to stop before it was submitted")
        job = api.job(name)
        if job is None:
            attempt = attempt or claim_attempt()
            try:
                job = api.create_job(ray_job(spec, attempt))
            except KubernetesError as error:
                if error.reason != "AlreadyExists":
                    raise
                cancel.wait(timing.backoff)
                continue
            show(f"ray job {name}: submitted, attempt {attempt}")
            return job
        _require_own(job, spec, name)
        if job["metadata"].get("deletionTimestamp"):
            _wait_until_gone(api, job, timing, cancel)
        elif JobState.of(job).ended and not JobState.of(job).succeeded:
            show(f"ray job {name}: an earlier attempt failed ({JobState.of(job).line()}); starting again")
            api.delete_job(name, job["metadata"]["uid"])
        else:
            show(f"ray job {name}: there already, {JobState.of(job).line()}; following it")
            return job


def remove(api: KubernetesApi, spec: RayJobSpec, timing: Timing, *, uid: str | None, wait: bool) -> None:
    """Remove the job of `spec`, if there is one; what else has its name stays.

    Args:
        api: with the patience that there is.
        spec: of the job.
        timing: how patient to be.
        uid: of the job, where it is known. Where not, a request to create it, whose answer was lost, may yet
            take effect.
        wait: whether to wait, for `timing.removal`, until it is gone.

    Raises:
        KubernetesError, KubernetesUnavailable: the API server refused, or did not answer.
    """
    name = job_name(spec)
    job = api.job(name)
    if job is None and uid is None:
        time.sleep(timing.late)
        job = api.job(name)
    if job is None or not is_job_of(job, spec) or uid not in (None, job["metadata"]["uid"]):
        return
    api.delete_job(name, job["metadata"]["uid"])
    if wait:
        _wait_until_gone(api, job, timing, threading.Event())


def _require_own(job: Resource, spec: RayJobSpec, name: str) -> None:
    if not is_job_of(job, spec):
        found = (job["metadata"].get("annotations") or {}).get(DIGEST_ANNOTATION)
        raise RayJobConflict(
            f"ray job {name}: another one has this name (its {DIGEST_ANNOTATION} is {found}, this one's "
            f"{spec_digest(spec)}); delete it, or choose another run id"
        )


def _wait_until_gone(api: KubernetesApi, job: Resource, timing: Timing, cancel: threading.Event) -> None:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    start = time.monotonic()
    while time.monotonic() - start < timing.removal:
        now = api.job(name)
        if now is None or now["metadata"]["uid"] != uid:
            return
        if cancel.wait(timing.tick):
            raise RayJobCancelled(f"ray job {name}: told to stop while an earlier one was being removed")
    raise RayJobTimeout(
        f"ray job {name}: deleted, but still there after {timing.removal:.0f} s: is the KubeRay operator "
        "running? It removes the finalizer"
    )
