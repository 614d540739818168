"""The sweep on a backend."""

from __future__ import annotations

from collections.abc import Sequence

from components.evaluate.options import DEFAULT_SCORING, Scoring, scoring_arguments
from components.launch import RAYJOB, StepCommand, repeated, run_as_ray_job
from components.sweep.report import evaluate_sweep
from components.sweep.settings import SweepConfig
from components.sweep.step import SweepOptions, sweep
from infra.storage import Store

FOLDER = "sweep"
"""The sweep's folder in that of a pipeline's run."""


def sweep_on(
    backend: str,
    *,
    config: SweepConfig,
    dataset: str,
    run: str,
    overrides: Sequence[str] = (),
    scoring: Scoring = DEFAULT_SCORING,
    cluster: Sequence[str] = (),
) -> str:
    """Train and evaluate a sweep beside the trainings of the run `run`, and return the URL of its folder.

    Trainings that the run has done already are found. Trials that fail are the report's matter; the step
    itself fails where no trial is done.

    Raises as `components.sweep.sweep`, `evaluate_sweep` and, with the backend `rayjob`, `run_as_ray_job`.
    """
    folder = Store(run).join(FOLDER)
    if backend == RAYJOB:
        labeled = [f"{amount:g}" if amount else "all" for amount in config.labeled]
        arguments = [
            *("--dataset", dataset, "--run", folder, "--trainings", run, "--report-failures"),
            *("--labeled", *labeled, "--methods", *config.methods, "--seeds", *map(str, config.seeds)),
            *("--preset", str(config.preset), *repeated("--set", overrides)),
            *scoring_arguments(scoring),
        ]
        command = StepCommand(step="sweep", arguments=tuple(arguments), home=run, cluster=tuple(cluster))
        return run_as_ray_job(command)
    options = SweepOptions(
        sweep=config, dataset=dataset, run=folder, trainings=run, overrides=overrides, backend=backend
    )
    evaluate_sweep(sweep(options), scoring=scoring)
    return folder
