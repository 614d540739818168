"""An actor between the workers of a training and the process that watches them.

It has a module of its own because Ray imports that module in the actor's process: it has to be light.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infra.pulses import Pulses

News = tuple[int, dict[str, float]]
"""A step that is done, and its metrics."""
Place = tuple[str, int]
"""A node's id, and a process there."""


class Mailbox:
    """What workers and their watcher have to say to each other. Use it through `open_mailbox`."""

    def __init__(self) -> None:
        self._news: News | None = None
        self._refusal = self._failure = ""
        self._stop = asyncio.Event()
        self._stopped_at: int | None = None
        self._warnings: list[str] = []
        self._pulses = Pulses()
        self._places: dict[int, Place] = {}

    def enlist(self, rank: int, node: str, process: int) -> None:
        """Leave where worker `rank` is: the node's id, and the process there."""
        self._places[rank] = node, process

    def beat(self, rank: int, step: int) -> None:
        """See `Pulses.beat`."""
        self._pulses.beat(rank, step)

    def silence(self) -> float:
        """See `Pulses.silence`."""
        return self._pulses.silence()

    def tell_silence(self) -> tuple[str, Place | None]:
        """What `Pulses.tell` gives, and where the worker is of whom nothing was heard for longest."""
        quietest = self._pulses.quietest()
        return self._pulses.tell(), None if quietest is None else self._places.get(quietest)

    def warn(self, text: str) -> None:
        """Leave what somebody should look at."""
        self._warnings.append(text)

    def take_warnings(self) -> list[str]:
        """What `warn` left, once."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def post(self, step: int, metrics: dict[str, float]) -> None:
        """Leave the news of a step; only the last are kept."""
        self._news = (step, metrics)

    def take(self) -> News | None:
        """The last news, once."""
        news, self._news = self._news, None
        return news

    def refuse(self, reason: str) -> None:
        """Leave what keeps the training from going on, for the user to mend."""
        self._refusal = self._refusal or reason

    def refusal(self) -> str:
        """The first reason given to `refuse`, or nothing."""
        return self._refusal

    def fail(self, reason: str) -> None:
        """Leave what went wrong in an attempt, though another may succeed."""
        self._failure = reason

    def failure(self) -> str:
        """The last reason given to `fail`, or nothing."""
        return self._failure

    def stop(self) -> None:
        """Ask the workers to save and stop, those of later attempts too."""
        self._stop.set()

    async def wait_for_stop(self) -> None:
        """Return when `stop` was called."""
        await self._stop.wait()

    def stopped(self, step: int) -> None:
        """Leave that an attempt ended before its time, with `step` saved."""
        self._stopped_at = step

    def take_stopped(self) -> int | None:
        """What `stopped` left, once."""
        step, self._stopped_at = self._stopped_at, None
        return step


def open_mailbox() -> Any:
    """The handle of a new mailbox on this node; it ends with the process that opened it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
