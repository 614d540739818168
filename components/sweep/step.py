"""The sweep step: train the whole grid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from components.sweep.grid import Grid, make_grid
from components.sweep.record import SweepRecord, stopped_early, write_record
from components.sweep.settings import SweepConfig
from infra.progress import Event, default_sink
from infra.storage import Store
from infra.tuning import Agenda, Outcome, Places, run_tasks


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What to train, on which data."""

    sweep: SweepConfig
    dataset: str
    """URL of the dataset version."""
    run: str
    """URL of the sweep's folder."""
    trainings: str | None = None
    """URL of the folder of all trainings, where others may be, too; none is one of the sweep's own."""
    overrides: Sequence[str] = ()
    """Settings over the sweep's preset, each `section.key=value`."""
    backend: str = "ray"
    """One of `infra.training.BACKENDS`."""

    def grid(self) -> Grid:
        """The trials. Raises as `make_grid`."""
        trainings = self.trainings or f"{self.run}/trainings"
        return make_grid(self.sweep, self.dataset, trainings=Store(trainings).url, overrides=self.overrides)

    @property
    def places(self) -> Places:
        """How the trainings share the machines."""
        sweep = self.sweep
        return Places(
            concurrent=sweep.concurrent,
            retries=sweep.retries,
            grace=sweep.grace if sweep.early_stopping else None,
        )


def sweep(options: SweepOptions) -> SweepRecord:
    """Train every method with every amount of labels and every seed, and record what came of it.

    What is trained already, with the same settings, labels and code, is not trained again; what an earlier
    run of the sweep began goes on from its last checkpoint. Trials that fail are retried, then recorded.

    Raises:
        ConfigError, DataError: a grid that cannot be.
        Interrupted: this process was asked to end; what was running is saved.
        StoreError: dataset or run folder cannot be read or written.
    """
    grid = options.grid()
    store = Store(options.run)
    store.check_writable()
    show = _Show(grid)

    def keep(outcome: Outcome) -> None:
        write_record(store.url, options.dataset, grid, agenda)
        show(outcome, len(agenda.outcomes))

    earlier = stopped_early(store.url) if options.sweep.early_stopping else {}
    agenda = Agenda(grid.tasks, stopped=earlier, on_outcome=keep)
    run_tasks(agenda, options.places, options.backend)
    return write_record(store.url, options.dataset, grid, agenda)


class _Show:
    """Tells how the sweep gets on; the time left is as if all trainings took as long as those so far."""

    def __init__(self, grid: Grid) -> None:
        self._total = len(grid.tasks)
        self._sink = default_sink()
        self._started = time.monotonic()
        self._trained = 0

    def __call__(self, outcome: Outcome, ended: int) -> None:
        if outcome.state != "done":
            self._sink.warn(f"{outcome.task.name}: {outcome.state}: {outcome.reason}")
        left = None
        if outcome.attempts:  # not done before, nor left out
            self._trained += 1
            left = (time.monotonic() - self._started) / self._trained * (self._total - ended)
        self._sink.show(
            Event(
                title="sweep",
                done=ended,
                total=self._total,
                unit="trainings",
                text=f"{outcome.task.name} {outcome.state}",
                seconds_left=left,
            )
        )
