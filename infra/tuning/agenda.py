"""What is to be trained, in which order, and what has come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from infra.training import StageJob
from infra.training.stage_job import StageResult
from infra.training.worker import finished

State = Literal["done", "stopped", "failed", "left out"]
"""`stopped` early, because others did better; `left out` because what it starts from is not there."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training."""

    name: str
    """For people; different for each task."""
    job: StageJob
    after: str | None = None
    """Name of the task whose checkpoint this one starts from."""
    group: str | None = None
    """Tasks of one group compete where trainings are stopped early; without a group, none is stopped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has come of a task."""

    task: Task
    """With the checkpoint that it started from."""
    state: State
    attempts: int
    """0 where it was done before."""
    reason: str = ""
    """Why it is not done."""
    result: StageResult | None = None
    """Of a task that is done."""


class Agenda:
    """Hands out tasks that can start, and takes their outcomes.

    A task whose job was finished before, in whatever run of this program, is done at once.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        stopped: Mapping[str, str] | None = None,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Args:
        tasks: each after those that it starts from.
        stopped: digests of jobs that were stopped early before, and why; they stay so.
        on_outcome: told each outcome.
        """
        self._waiting = list(tasks)
        self._stopped = stopped or {}
        self._on_outcome = on_outcome
        self._outcomes: dict[str, Outcome] = {}
        self._running: dict[str, Task] = {}

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """By the tasks' names."""
        return self._outcomes

    @property
    def waiting(self) -> Sequence[Task]:
        """Tasks that have not started."""
        return tuple(self._waiting)

    def take(self) -> Task | None:
        """The next task that can start, from now on running; None where all others have to wait, or none is.

        Raises `StoreError` when it cannot be found out what is done already.
        """
        for task in tuple(self._waiting):
            ready = self._ready(task)
            if ready is not None:
                self._waiting.remove(task)
                self._running[task.name] = ready
                return ready
        return None

    def settle(self) -> None:
        """Take up what was done before, as far as can be known now."""
        for task in tuple(self._waiting):
            self._ready(task)

    def end(
        self, name: str, state: State, *, attempts: int, reason: str = "", result: StageResult | None = None
    ) -> None:
        """A running task has ended."""
        task = self._running.pop(name)
        self._keep(Outcome(task=task, state=state, attempts=attempts, reason=reason, result=result))

    def _ready(self, task: Task) -> Task | None:
        """`task` with what it starts from, where it is to run now."""
        if task.after is not None:
            before = self._outcomes.get(task.after)
            if before is None:
                return None
            if before.result is None:
                self._leave(task, "left out", f"{before.task.name} {before.state}: {before.reason}")
                return None
            task = replace(task, job=replace(task.job, init_checkpoint=before.result.checkpoint_url))
        result = finished(task.job)
        if task.job.digest in self._stopped:
            self._leave(task, "stopped", self._stopped[task.job.digest])
        elif result is not None:
            self._leave(task, "done", result=result)
        else:
            return task
        return None

    def _leave(self, task: Task, state: State, reason: str = "", result: StageResult | None = None) -> None:
        self._waiting = [other for other in self._waiting if other.name != task.name]
        self._keep(Outcome(task=task, state=state, attempts=0, reason=reason, result=result))

    def _keep(self, outcome: Outcome) -> None:
        self._outcomes[outcome.task.name] = outcome
        self._on_outcome(outcome)
