"""A thread that tells whatever happens to a RayJob, whatever happens to the connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from infra.kuberay.api import KubernetesApi
from infra.kuberay.errors import KubernetesError, KubernetesUnavailable, RayJobError
from infra.kuberay.manifest import Resource
from infra.kuberay.stream import Stream
from infra.kuberay.timing import Timing

_GONE = 410


@dataclass(frozen=True)
class JobSeen:
    """The job as it is now, or was shortly."""

    job: Resource


@dataclass(frozen=True)
class JobGone:
    """There is no such job any more; another may have its name."""


News = JobSeen | JobGone | RayJobError
"""An error is the last news: the thread has given up."""


class JobWatch:
    """Reads a job, then watches it from there: again after a while, when the watch broke off or expired."""

    def __init__(
        self, api: KubernetesApi, name: str, uid: str, tell: Callable[[News], None], timing: Timing
    ) -> None:
        """Args:
        api: of the job's namespace.
        name: of the job.
        uid: of the job; one with another is not it.
        tell: called in the thread.
        timing: how patient to be.
        """
        self._api, self._name, self._uid, self._tell, self._timing = api, name, uid, tell, timing
        self._stop = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._stream is not None:
            self._stream.end()
        self._thread.join(self._timing.tick)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._follow()
                self._stop.wait(self._timing.backoff)  # something on the way may end watches at once
        except RayJobError as error:
            self._tell(error)

    def _follow(self) -> None:
        """Read the job and watch it until it has to be read again."""
        version = self._seen(self._api.job(self._name))
        broken = 0
        while version is not None and broken < 2 and not self._stop.is_set():
            before = version
            try:
                version = self._watch(version)
            except KubernetesUnavailable as error:
                version = self._version  # go on from the last event
                broken = 0 if version != before else broken + 1
                self._stop.wait(max(self._timing.backoff, error.retry_after))

    def _watch(self, version: str) -> str | None:
        """Tell the events after `version`; None when the watch is over, properly or because it expired."""
        self._version = version
        try:
            self._stream = self._api.watch_job(self._name, version)
        except KubernetesError as error:
            if error.status == _GONE:
                return None
            raise
        with self._stream:
            for line in self._stream:
                event = _decode(line)
                if event["type"] == "ERROR":  # its object is a Status; 410 where the version is too old
                    return None
                if event["type"] == "BOOKMARK":
                    self._version = event["object"]["metadata"]["resourceVersion"]
                elif self._seen(event["object"], deleted=event["type"] == "DELETED") is None:
                    return None
        return None

    def _seen(self, job: Resource | None, *, deleted: bool = False) -> str | None:
        """Tell how the job is; its resource version, or None when it is gone."""
        if job is not None and job["metadata"]["uid"] == self._uid:
            self._tell(JobSeen(job))
            self._version = str(job["metadata"]["resourceVersion"])
            if not deleted:
                return self._version
        self._tell(JobGone())
        self._stop.set()
        return None


def _decode(line: str) -> Resource:
    try:
        return dict(json.loads(line))
    except ValueError as error:  # a line that was cut off
        raise KubernetesUnavailable(f"the watch broke off in the middle of an event: {error}") from error
