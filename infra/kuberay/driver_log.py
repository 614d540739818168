"""The log of a job's driver, which the submitter container beside the head prints."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from infra.kuberay.api import KubernetesApi
from infra.kuberay.errors import KubernetesError, KubernetesUnavailable, RayJobCancelled
from infra.kuberay.stream import Stream
from infra.kuberay.timing import Timing

SUBMITTER = "ray-job-submitter"
"""Name that KubeRay gives to the container in SidecarMode."""
_TAIL = 20
_NOT_YET = frozenset({400, 404})
"""Answers while the container, or the pod, is still to come."""


class DriverLog:
    """Shows every line once, in order, however often the connection breaks."""

    def __init__(self, api: KubernetesApi, pod: str, show: Callable[[str], None], timing: Timing) -> None:
        """Args:
        api: of the pod's namespace.
        pod: name of the head pod.
        show: called in a thread for every line.
        timing: how patient to be.
        """
        self._api, self._pod, self._show, self._timing = api, pod, show, timing
        self.tail: deque[str] = deque(maxlen=_TAIL)
        """The last lines."""
        self._last, self._lines_at_last = "", 0
        self._ending, self._stop = threading.Event(), threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"log-{pod}", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Show what there is yet to show of a job that has ended, for a while at most."""
        self._ending.set()
        self._thread.join(self._timing.log_tail)
        self.close()

    def close(self) -> None:
        """Show nothing more."""
        self._stop.set()
        self._ending.set()
        if self._stream is not None:
            self._stream.end()

    def _run(self) -> None:
        while not self._stop.is_set():
            last_round = self._ending.is_set()
            try:
                self._read()
            except KubernetesUnavailable:
                last_round = False
            except RayJobCancelled:
                return
            except KubernetesError as error:
                if error.status not in _NOT_YET:
                    self._show(f"the driver's log cannot be had: {error}")
                    return
            if last_round:
                return
            (self._stop if self._ending.is_set() else self._ending).wait(self._timing.backoff)

    def _read(self) -> None:
        """Read on from the last line until the connection or the container ends."""
        since = _second(self._last) if self._last else None
        self._stream = self._api.pod_log(self._pod, SUBMITTER, since)
        again = self._lines_at_last  # the log is cut at full seconds: lines of the last one come again
        with self._stream:
            for line in self._stream:
                stamp, _, text = line.partition(" ")
                if stamp < self._last:
                    continue
                if stamp == self._last and again:
                    again -= 1
                    continue
                self._lines_at_last = self._lines_at_last + 1 if stamp == self._last else 1
                self._last = stamp
                self.tail.append(text)
                self._show(text)


def _second(stamp: str) -> str:
    """The full second, in UTC, of a log line's time."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
