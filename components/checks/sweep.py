"""The check of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from components.checks.base import Checks, dataset_line, writable
from components.sweep.grid import Grid
from components.sweep.step import SweepOptions
from infra.datasets import DatasetVersion
from infra.resources import check_space, check_workers
from infra.storage import Store
from infra.training.needs import checkpoint_bytes, worker_bytes
from infra.training.worker import finished
from infra.tuning import Task


def check_sweep(options: SweepOptions) -> Checks:
    """What would keep `components.sweep.sweep` from training, and what it would train."""
    checks = Checks()
    version = checks.value(lambda: DatasetVersion.open(options.dataset))
    if version is not None:
        checks.line("dataset", lambda: dataset_line(version))
    checks.line("run", lambda: writable(options.run))
    grid = checks.value(options.grid) if version is not None else None
    if version is None or grid is None:
        return checks
    checks.lines += _plan(options, grid)
    largest = max((task.job for task in grid.tasks), key=lambda job: job.settings.run.workers)
    checks.line(
        "workers",
        lambda: check_workers(largest.settings.run, options.backend, memory=worker_bytes(largest, version)),
    )
    needed = sum(checkpoint_bytes(task.job) for task in grid.tasks)
    checks.line("space", lambda: check_space(Store(options.run), needed))
    checks.line("done", lambda: _done(grid.tasks))
    return checks


def _plan(options: SweepOptions, grid: Grid) -> list[tuple[str, str]]:
    sweep = options.sweep
    labeled = ", ".join(map(str, sorted({trial.labeled for trial in grid.trials})))
    steps = sum(task.job.steps for task in grid.tasks)
    shared = len(grid.tasks) - len(grid.trials)
    return [
        ("labels", f"{labeled} patients"),
        ("methods", ", ".join(sweep.methods)),
        ("seeds", ", ".join(map(str, sweep.seeds))),
        ("trials", f"{len(grid.trials)}, and {shared} shared stages one: {steps} optimiser steps in all"),
    ]


def _done(tasks: Sequence[Task]) -> str:
    """Those whose start is known: a last stage's follows from its stage one's checkpoint."""
    results = {task.name: finished(task.job) for task in tasks if task.after is None}
    done = sum(result is not None for result in results.values())
    return f"{done} of {len(results)} trainings that start from nothing are done already"
