"""Checks of a pipeline's parameters, by its first step."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

from arco_core.config import ConfigError
from components.checks.base import writable
from components.evaluate.options import scoring_by
from components.launch import RAYJOB, RUN_ENVIRONMENT, check_clusters
from components.settings import load_settings
from components.sweep.grid import make_grid
from components.sweep.settings import pipeline_sweep
from components.training_options import ALL_LABELED, TrainingOptions, check_one_choice, stage_job
from infra.kuberay.cron import require_cron
from infra.kuberay.settings import check_overrides
from infra.storage import Store
from infra.training import BACKENDS


def check_parameters(
    *,
    backend: str,
    data: str,
    store: str,
    run: str,
    preset: str,
    overrides: Sequence[str],
    labeled: float,
    seeds: Sequence[int],
    sweep_labeled: Sequence[float],
    sweep_methods: Sequence[str],
    convention: str,
    cluster: Sequence[str],
) -> None:
    """Raise for a parameter of `pipelines.arco_full` that would fail a later step.

    Whoever starts a run in Kubeflow's pages has not gone through `components.plan`.

    Raises:
        ConfigError: an impossible parameter.
        StoreError: a URL that is none, or a store that cannot be written.
    """
    check_backend(backend)
    check_seeds(seeds)
    check_labeled(labeled)
    scoring_by(convention)
    if sweep_labeled:
        pipeline_sweep(preset=preset, labeled=sweep_labeled, methods=sweep_methods, seeds=seeds)
    settings = load_settings(preset=preset, overrides=list(map(str, overrides)))
    check_one_choice(labeled, settings.run.labeled_patients)
    for url in (data, store):
        Store(url)
    writable(run)
    if backend == RAYJOB:
        check_clusters(cluster)
        check_shared([data, store, run])


def check_labels(
    dataset: str,
    *,
    run: str,
    preset: str,
    overrides: Sequence[str],
    labeled: float,
    seeds: Sequence[float],
    sweep_labeled: Sequence[float],
    sweep_methods: Sequence[str],
) -> None:
    """Raise where a training of the pipeline, or its sweep, asks for labels that `dataset` does not have.

    Args as of `check_parameters`, but for `dataset`, the URL of the version that has been prepared.

    Raises:
        ConfigError: labelled patients by name and by amount, or two amounts that are the same number.
        DataError: labels that are not there, or a dataset that the network does not fit.
        StoreError: the dataset cannot be read.
    """
    numbers = [int(seed) for seed in seeds]  # Kubeflow makes floats of all numbers
    options = TrainingOptions(dataset=dataset, run=run, preset=preset, overrides=overrides, labeled=labeled)
    for seed in numbers:
        stage_job("pretrain", replace(options, seed=seed), init=None)
    if sweep_labeled:
        sweep = pipeline_sweep(preset=preset, labeled=sweep_labeled, methods=sweep_methods, seeds=numbers)
        make_grid(sweep, dataset, trainings=run, overrides=overrides)


def check_backend(backend: str) -> None:
    """Raise `ConfigError` for a backend that is none, or too much for the pods of Kubeflow's steps."""
    if backend not in (*BACKENDS, RAYJOB):
        raise ConfigError(f"backend = {backend!r}: must be one of {', '.join((*BACKENDS, RAYJOB))}.")
    if backend != RAYJOB and os.environ.get(RUN_ENVIRONMENT):
        raise ConfigError(
            f"backend = {backend!r}: Kubeflow's steps only start Ray clusters, so their pods have 4 GiB, no "
            f"GPU and no /dev/shm; take {RAYJOB}."
        )


def check_shared(urls: Sequence[str]) -> None:
    """Raise `ConfigError` for a URL of a folder, which pods do not share."""
    for url in urls:
        if "://" not in url:
            raise ConfigError(f"{url!r}: pods share no folder; give a URL, as s3://bucket/prefix.")


def check_remote(urls: Sequence[str], cluster: Sequence[str]) -> None:
    """Raise `ConfigError` for what is wrong with a run on a cluster, as far as it is known from here."""
    check_shared(urls)
    check_overrides(cluster)


def six_fields(cron: str) -> str:
    """Kubeflow's form of a cron line, seconds first. Raises `ConfigError` unless it has five fields."""
    require_cron("cron", cron)
    return f"0 {cron}"


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ConfigError` unless `seeds` are different whole numbers from 0, at least one."""
    whole = all(isinstance(seed, int | float) and seed == int(seed) for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"seeds = {list(seeds)}: must be different whole numbers from 0, at least one.")


def check_labeled(labeled: float) -> None:
    """Raise `ConfigError` unless `labeled` is 0 for all, a ratio below 1, or a number of patients."""
    ok = math.isfinite(labeled) and labeled >= 0 and (labeled < 1 or labeled == int(labeled))
    if not ok and labeled != ALL_LABELED:
        raise ConfigError(
            f"labeled = {labeled!r}: must be a number of patients from 1, a ratio below 1, or 0 for all."
        )
