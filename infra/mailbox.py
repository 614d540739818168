"""Actors between those who train and those who watch them.

They have a module of their own because Ray imports it in the actors' processes: it has to be light.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infra.pulses import Pulses

News = tuple[int, dict[str, float]]
"""A step that is done, and its metrics."""
Place = tuple[str, int]
"""A node's id, and a process there."""
Verdict = Literal["trial", "sweep", ""]
"""Who has to stop; nobody any more."""


class Mailbox:
    """What workers and their watcher have to say to each other. Use it through `open_mailbox`.

    Workers start together, several times if some of them fail. What one of an earlier start says of the
    whole training does not count any more: it may have been cut off, and not know what has come since.
    """

    def __init__(self) -> None:
        self._news: News | None = None
        self._refusal = self._failure = ""
        self._stop = asyncio.Event()
        self._stopped_at: int | None = None
        self._warnings: list[str] = []
        self._pulses = Pulses()
        self._places: dict[int, Place] = {}
        self._start = 0
        self._alone_since: float | None = time.monotonic()

    def begin(self) -> int | None:
        """Number of a new start of all workers; None where none is to start any more."""
        if self._refusal or self._stop.is_set():
            return None
        self._start += 1
        self._alone_since = None
        return self._start

    def lose(self) -> None:
        """The workers of the last start are gone, or will be at once."""
        self._alone_since = time.monotonic()
        self._pulses = Pulses()
        self._places.clear()

    def alone(self) -> float | None:
        """Seconds since there are no workers; None while there are."""
        return None if self._alone_since is None else time.monotonic() - self._alone_since

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

    def refuse(self, start: int, reason: str) -> None:
        """Leave what keeps the training from going on, for the user to mend, found in start `start`."""
        if start == self._start:
            self._refusal = self._refusal or reason

    def refusal(self) -> str:
        """The first reason given to `refuse`, or nothing."""
        return self._refusal

    def fail(self, start: int, reason: str) -> None:
        """Leave what went wrong in start `start`, though another may succeed."""
        if start == self._start:
            self._failure = reason

    def failure(self) -> str:
        """The last reason given to `fail`, or nothing."""
        return self._failure

    def stop(self) -> None:
        """Ask the workers to save and stop; none start after that."""
        self._stop.set()

    async def wait_for_stop(self) -> None:
        """Return when `stop` was called."""
        await self._stop.wait()

    def stopped(self, start: int, step: int) -> None:
        """Leave that start `start` ended before its time, with `step` saved."""
        if start == self._start:
            self._stopped_at = step

    def take_stopped(self) -> int | None:
        """What `stopped` left, once."""
        step, self._stopped_at = self._stopped_at, None
        return step


class Board:
    """Where the drivers of a sweep's trials learn that they are to stop. Use it through `open_board`."""

    def __init__(self) -> None:
        self._sweep_ends = False
        self._ending: set[str] = set()
        self._waiting: dict[str, asyncio.Event] = {}
        self._warnings: list[str] = []

    def stop_all(self) -> None:
        """Ask all trials to save and stop, those that start later too."""
        self._sweep_ends = True
        for event in self._waiting.values():
            event.set()

    def stop(self, trial: str) -> None:
        """Ask `trial` to stop, for good."""
        self._ending.add(trial)
        if event := self._waiting.get(trial):
            event.set()

    def leave(self, trial: str) -> None:
        """Nobody waits for `trial` any more."""
        if event := self._waiting.pop(trial, None):
            event.set()

    async def wait(self, trial: str) -> Verdict:
        """Return when `trial` is to stop, or has left."""
        event = self._waiting.setdefault(trial, asyncio.Event())
        if not self._verdict(trial):
            await event.wait()
        return self._verdict(trial)

    def warn(self, text: str) -> None:
        """Leave what somebody should look at."""
        self._warnings.append(text)

    def take_warnings(self) -> list[str]:
        """What `warn` left, once."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _verdict(self, trial: str) -> Verdict:
        if trial in self._ending:
            return "trial"
        return "sweep" if self._sweep_ends else ""


def open_mailbox() -> Any:
    """The handle of a new mailbox on this node; it ends with the process that opened it."""
    return _open(Mailbox)


def open_board() -> Any:
    """The handle of a new board, as `open_mailbox`."""
    return _open(Board)


def _open(kind: type) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(kind).remote()
