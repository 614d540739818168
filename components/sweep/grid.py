"""The trainings of a sweep, and which of them share a stage one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from components.methods import METHODS
from components.model_ref import BASELINE
from components.sweep.settings import SweepConfig, check_different_counts
from components.training_options import TrainingOptions, job_on
from infra.datasets import DatasetVersion
from infra.tuning import Task


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A method trained with one amount of labels and one seed."""

    method: str
    labeled: int
    """Patients."""
    seed: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.method}, {self.labeled} labelled, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All trials, and what is to be trained for them."""

    trials: Sequence[Trial]
    tasks: Sequence[Task]
    """Stages one, shared by those trials for which they are the same; then, by name, each trial's last stage.
    A stage one comes before the first that starts from it."""


def make_grid(sweep: SweepConfig, dataset: str, *, trainings: str, overrides: Sequence[str] = ()) -> Grid:
    """The trials of `sweep` on the dataset version at `dataset`, in the folder `trainings`.

    They come seed by seed, so that a sweep which ends early has whole tables of fewer seeds.

    Trials share a stage one where nothing that it depends on differs: labelled patients, seed, its settings,
    the network's, the code's (`infra.training.StageJob.digest`).

    Raises:
        ConfigError: an impossible setting, or two amounts of labels that are the same number of patients.
        DataError: labels that are not there, or a dataset that the network does not fit.
        StoreError: the dataset cannot be read.
    """
    version = DatasetVersion.open(dataset)
    trials: list[Trial] = []
    tasks: dict[str, Task] = {}
    counts: dict[float, int] = {}
    for seed, amount, method in itertools.product(sweep.seeds, sweep.labeled, sweep.methods):
        options = TrainingOptions(
            dataset=version.url,
            run=trainings,
            preset=sweep.preset,
            overrides=[*overrides, *METHODS[method]],
            labeled=amount,
            seed=seed,
        )
        new = _tasks_of(version, method, options)
        labeled = len(new[-1].job.labeled_patients)
        trial = Trial(method=method, labeled=labeled, seed=seed)
        counts[amount] = labeled
        check_different_counts(tuple(counts), tuple(counts.values()))
        trials.append(trial)
        for task in new:
            tasks.setdefault(task.name, task)
    return Grid(trials=trials, tasks=list(tasks.values()))


def _tasks_of(version: DatasetVersion, method: str, options: TrainingOptions) -> list[Task]:
    """What is to be trained for one trial, its last stage last."""
    two_stages = method != BASELINE
    job = job_on(version, "finetune" if two_stages else "supervised", options)
    labeled = f"{len(job.labeled_patients)} labelled, seed {job.seed}"
    tasks: list[Task] = []
    if two_stages:
        first = job_on(version, "pretrain", options)
        # The fingerprint tells stages one apart that differ in settings only.
        tasks.append(Task(name=f"stage one {first.digest[:8]}, {labeled}", job=first))
    shared = tasks[0].name if tasks else None
    return [*tasks, Task(name=f"{method}, {labeled}", job=job, after=shared, group=labeled)]
