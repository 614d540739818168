"""Checks of the steps around training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from arco_core.config import DataConfig
from arco_core.metrics import check_tolerance
from components.checks.base import Checks, dataset_line, writable
from components.evaluate.scoring import TrainedModel, annotated_cases, load_models
from components.model_ref import ModelRef
from components.publish.step import choose_model, read_summary
from components.settings import load_settings
from infra.datasets import DatasetVersion
from infra.datasets.draft import preview
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.detect import leave_out, read_raw
from infra.resources import check_workers
from infra.storage import Store
from infra.training.load import load_network
from infra.training.needs import WORKER_BYTES


def check_preparation(options: Mapping[str, Any]) -> Checks:
    """What would keep `components.prepare.prepare` from its work, as far as files' names tell."""
    checks = Checks()
    settings = {key: options[key] for key in ("preset", "config_file", "overrides")}
    config = checks.value(lambda: load_settings(**settings))
    store = checks.value(lambda: Store(writable(options["store"])))
    raw = checks.value(lambda: read_raw(Store(options["data"])))
    if config is None or store is None or raw is None:
        return checks
    patients = len({case.patient_id for case in raw.cases})
    checks.lines.append(("scans", f"{options['data']}: {len(raw.cases)} of {patients} patients"))
    checks.line("splits", lambda: _splits(store, leave_out(raw, config.data.exclude), config.data))
    backend = "ray" if options["use_ray"] else "in-process"
    run = config.run if options["use_ray"] else replace(config.run, workers=1)
    checks.line("workers", lambda: check_workers(run, backend, memory=WORKER_BYTES))
    return checks


def _splits(store: Store, raw: RawDataset, config: DataConfig) -> str:
    splits, groups = preview(store, raw, config)
    counts = ", ".join(f"{len(patients)} {split}" for split, patients in splits.items())
    return f"{counts} patients, {sum(map(len, groups))} of the training patients annotated"


def check_evaluation(options: Mapping[str, Any], models: Sequence[ModelRef]) -> Checks:
    """What would keep `components.evaluate.evaluate` from its work; arguments as there."""
    checks = Checks()
    checks.line("run", lambda: writable(options["run"]))
    checks.value(lambda: check_tolerance(options["tolerance_mm"]))
    version = checks.value(lambda: DatasetVersion.open(options["dataset"]))
    if version is None:
        return checks
    checks.line("dataset", lambda: dataset_line(version))
    split = options["split"]
    checks.line("volumes", lambda: f"{len(annotated_cases(version, split))} annotated ones, {split} split")
    checks.line("models", lambda: _models(load_models(models, version, split)))
    return checks


def _models(models: Sequence[TrainedModel]) -> str:
    return ", ".join(
        f"{m.ref.method} {m.ref.seed} ({' and '.join(m.checkpoints)}, step {m.step})" for m in models
    )


def check_publication(options: Mapping[str, Any], models: Sequence[ModelRef]) -> Checks:
    """What would keep `components.publish.publish` from its work; arguments as there."""
    checks = Checks()
    checks.line("run", lambda: writable(options["run"]))
    checks.value(lambda: DatasetVersion.open(options["dataset"]))
    summary = options["summary"]
    chosen = checks.value(lambda: choose_model(models, read_summary(summary), summary))
    if chosen is not None:
        checks.lines.append(("model", f"{chosen.method}, seed {chosen.seed}, the best in {summary}"))
        checks.line(
            "checkpoint", lambda: f"{chosen.checkpoint}, of {load_network(chosen.checkpoint)[1].title}"
        )
    return checks
