"""Run tasks on a backend."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.errors import TrainingError
from infra.signals import Interrupted
from infra.training import BACKENDS, run_stage
from infra.tuning.agenda import Agenda


@dataclass(frozen=True, kw_only=True)
class Places:
    """How tasks share the machines."""

    concurrent: int | None = None
    """Trainings at a time; None is as many as the cores, or the cluster's CPUs and GPUs, have workers for."""
    retries: int = 1
    """Further attempts at a training that failed, each from its last checkpoint."""
    grace: float | None = None
    """Share of a training after which it may be stopped early, in (0, 1); None is never."""


def run_tasks(agenda: Agenda, places: Places, backend: str = "ray") -> None:
    """Run all tasks of `agenda` on a backend of `infra.training.BACKENDS`; failures are outcomes.

    Raises:
        TrainingError: an unknown backend, or tasks in this process that need Ray.
        Interrupted: this process was asked to end; what was running is saved.
        StoreError: it cannot be found out what is done already.
    """
    if backend not in BACKENDS:
        raise TrainingError(f"backend = {backend!r}: must be one of {', '.join(BACKENDS)}")
    agenda.settle()
    if not agenda.waiting:
        return
    if backend == "in-process":
        _run_in_turn(agenda, places)
        return
    from infra.tuning.ray_tune import run_on_tune  # imports Ray Tune and Train, which takes seconds

    run_on_tune(agenda, places)


def _run_in_turn(agenda: Agenda, places: Places) -> None:
    if places.grace is not None:
        raise TrainingError(
            "trainings in this process run one after another, so none can be stopped early for doing worse "
            "than others: leave early stopping out, or take the backend ray"
        )
    while (task := agenda.take()) is not None:
        for attempt in range(1, places.retries + 2):
            try:
                result = run_stage(task.job, "in-process")
            except Interrupted:
                raise
            except Exception as error:  # out of memory, or whatever else: other trainings may fare better
                reason = str(error) or type(error).__name__
                print(f"{task.name}: attempt {attempt} failed: {reason}", flush=True)
                if attempt > places.retries:
                    agenda.end(task.name, "failed", attempts=attempt, reason=reason)
            else:
                agenda.end(task.name, "done", attempts=attempt, result=result)
                break
