"""Logs of containers: lines with times, which followers get as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.infra.kuberay.objects import Clock, Refusal


class Logs:
    """The log of one container a pod."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[str, list[tuple[str, str]]] = {}
        self._ended: set[str] = set()

    def start(self, pod: str) -> None:
        """The container runs; before, its log cannot be read."""
        with self._clock.changed:
            self._lines.setdefault(pod, [])

    def add(self, pod: str, text: str) -> None:
        with self._clock.changed:
            self._lines[pod].append((_now(), text))
            self._clock.changed.notify_all()

    def end(self, pod: str) -> None:
        with self._clock.changed:
            self._ended.add(pod)
            self._clock.changed.notify_all()

    def read(self, pod: str, query: dict[str, str]) -> Iterator[bytes]:
        with self._clock.changed:
            if pod not in self._lines:
                container = query.get("container")
                raise Refusal(
                    400, "BadRequest", f'container "{container}" is waiting to start: ContainerCreating'
                )
        return self._follow(pod, query)

    def _follow(self, pod: str, query: dict[str, str]) -> Iterator[bytes]:
        since = query.get("sinceTime", "").removesuffix("Z")
        position = 0
        while True:
            with self._clock.changed:
                lines = self._lines[pod][position:]
                if not lines and (pod in self._ended or self._clock.closed or query.get("follow") != "true"):
                    return
                if not lines:
                    self._clock.changed.wait(1.0)
            for stamp, text in lines:
                position += 1
                if stamp >= since:
                    prefix = f"{stamp} " if query.get("timestamps") == "true" else ""
                    yield f"{prefix}{text}\n".encode()


def _now() -> str:
    nanoseconds = time.time_ns()
    second = datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{nanoseconds % 10**9:09d}Z"
