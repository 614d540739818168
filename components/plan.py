"""A run before it starts: what can be found wrong is found here, and the user sees what will happen."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from arco_core.config import ArcoConfig, ConfigError, dumps, load, preset_names
from arco_core.errors import DataError
from arco_core.metrics import Convention
from components.methods import MEAN_TEACHER
from components.model_ref import BASELINE
from components.sweep.settings import check_different_counts, pipeline_sweep
from components.training_options import ALL_LABELED, check_one_choice
from infra.code_digest import code_digest
from infra.datasets.draft import preview
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.detect import leave_out, read_raw
from infra.datasets.splits import choose_labeled, named_labeled
from infra.datasets.synthetic import write_cohort
from infra.datasets.validate import resolve_classes
from infra.storage import Store

SWEEP_METHODS = (BASELINE, MEAN_TEACHER, "arco-sg")
"""Of a sweep beside a run."""
AUTO = "auto"
"""The preset that the dataset's own name names, or `generic`."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run that can start: its arguments are resolved, its inputs are there and its store can be written."""

    data: str
    store: str
    run: str
    """URL of the run folder."""
    preset: str
    overrides: tuple[str, ...]
    labeled: float
    seeds: tuple[int, ...]
    sweep_labeled: tuple[float, ...]
    """Amounts of labels of the sweep beside the run."""
    sweep_methods: tuple[str, ...]
    convention: Convention
    """Of the metrics."""
    backend: str
    code: str
    """Fingerprint of the project's code."""
    config: ArcoConfig
    classes: tuple[str, ...]
    channels: int
    patients: int
    train_patients: int
    labeled_patients: int

    def lines(self) -> list[tuple[str, str]]:
        """What will happen, as (topic, text) pairs to print."""
        steps = self.config
        workers = f"{steps.run.workers} worker{'s' * (steps.run.workers > 1)}"
        share = self.labeled_patients / self.train_patients
        return [
            ("scans", f"{self.data}, {self.patients} patients (preset {self.preset})"),
            ("labels", f"{self.labeled_patients} of {self.train_patients} training patients ({share:.1%})"),
            ("seeds", " ".join(map(str, self.seeds))),
            *([("sweep", self._sweep())] if self.sweep_labeled else []),
            (
                "steps",
                f"pretrain {steps.pretrain.steps}, finetune {steps.finetune.steps}, "
                f"supervised {steps.supervised_steps}, on {workers} ({self.backend})",
            ),
            ("results", self.run),
        ]

    def _sweep(self) -> str:
        amounts = ", ".join(f"{amount:g}" if amount else "all" for amount in self.sweep_labeled)
        return f"{amounts} labelled × {', '.join(self.sweep_methods)}"


def plan_run(
    *,
    data: str | None,
    store: str,
    labeled: float = ALL_LABELED,
    seeds: Sequence[int] = (0,),
    sweep_labeled: Sequence[float] = (),
    sweep_methods: Sequence[str] = SWEEP_METHODS,
    convention: Convention = "arco",
    backend: str = "ray",
    run: str | None = None,
    preset: str = AUTO,
    overrides: Sequence[str] = (),
    save: bool = True,
) -> RunPlan:
    """Check and complete the arguments of a run.

    Args:
        data: URL of the raw scans; none takes the synthetic demo cohort, written where it is missing.
        store: URL of the object store.
        labeled: number of labelled patients from 1, ratio of the training patients below 1, 0 for all.
        seeds: one training of every stage each; they also choose the labelled patients.
        sweep_labeled: amounts of labels, as `labeled`, of a sweep beside the run; none leaves it out.
        sweep_methods: of the sweep, names of `components.methods.METHODS`.
        convention: of the metrics, see `arco_core.metrics`.
        backend: `ray` or `in-process`.
        run: name of the run folder; by default it follows from data, labels and configuration, so that the
            same command finds its earlier results.
        preset: configuration to start from; `auto` takes the one named like the dataset, or `generic`.
        overrides: settings over the preset's, each `section.key=value`.
        save: write the resolved configuration into the run folder.

    Raises:
        ConfigError: an impossible setting.
        DataError: scans that cannot be used, or not with so many labels.
        StoreError: a store that cannot be written.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"seeds = {list(seeds)}: must be different whole numbers from 0, at least one.")
    if sweep_labeled:
        pipeline_sweep(preset=preset, labeled=sweep_labeled, methods=sweep_methods, seeds=seeds)
    target = Store(store)
    if preset != AUTO:
        load(preset=preset, overrides=overrides)  # a wrong setting is told before anything is written
    target.check_writable()
    source = Store(data if data is not None else _demo_cohort(target))
    raw = read_raw(source)
    if preset == AUTO:
        named = _slug(raw.name)
        preset = named if named in preset_names() else "generic"
    if preset == "generic":
        overrides = [f'data.name="{_slug(raw.name)}"', *overrides]
    config = load(preset=preset, overrides=overrides)
    raw = leave_out(raw, config.data.exclude)
    if backend == "in-process" and config.run.workers != 1:
        raise ConfigError(f"run.workers = {config.run.workers}: must be 1 to train in-process.")
    train, labeled_count = _preview(target, raw, config, (labeled, *sweep_labeled), seeds[0])
    folder = f"runs/{run or _run_name(source, config, labeled)}"
    if save:
        target.write_bytes(f"{folder}/config.toml", dumps(config).encode())
    return RunPlan(
        data=source.url,
        store=target.url,
        run=target.join(folder),
        preset=preset,
        overrides=tuple(overrides),
        labeled=labeled,
        seeds=tuple(seeds),
        sweep_labeled=tuple(sweep_labeled),
        sweep_methods=tuple(sweep_methods),
        convention=convention,
        backend=backend,
        code=code_digest("arco_core", "infra", "components", "pipelines"),
        config=config,
        classes=resolve_classes(config.data.classes, raw.classes),
        channels=raw.channels,
        patients=len({case.patient_id for case in raw.cases}),
        train_patients=train,
        labeled_patients=labeled_count,
    )


def _demo_cohort(store: Store) -> str:
    """URL of the demo cohort, written unless it is there."""
    folder = "raw/demo"
    local = store.local_path(folder)
    if local is not None:
        return str(write_cohort(local))
    if not store.exists(f"{folder}/dataset.json"):
        with tempfile.TemporaryDirectory() as temporary:
            store.upload_folder(write_cohort(Path(temporary) / "demo"), folder)
    return store.join(folder)


def _preview(
    store: Store, raw: RawDataset, config: ArcoConfig, amounts: Sequence[float], seed: int
) -> tuple[int, int]:
    """Numbers of training patients and of those that the first of `amounts`, the run's, labels.

    Raises `DataError` and `ConfigError` for what a later step would refuse, of a sweep's amounts, too. The
    seed says who is labelled, not how many.
    """
    splits, groups = preview(store, raw, config.data)
    names, train = config.run.labeled_patients, splits["train"]
    counts = []
    for amount in amounts:
        check_one_choice(amount, names)
        if names:
            counts.append(len(named_labeled(groups, names, splits)))
        elif amount == ALL_LABELED:
            counts.append(sum(map(len, groups)))
        else:
            counts.append(len(choose_labeled(groups, train, amount, seed)))
    check_different_counts(amounts[1:], counts[1:])
    return len(train), counts[0]


def _run_name(source: Store, config: ArcoConfig, labeled: float) -> str:
    """`<dataset>-l<labels>-<fingerprint>`; of `[run]`, only what changes results is in the fingerprint."""
    settings = {**asdict(config), "run": config.run.result_settings}
    text = json.dumps([source.url, settings, labeled], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    labels = "all" if labeled == ALL_LABELED else f"{labeled:g}"
    if config.run.labeled_patients:
        labels = f"{len(config.run.labeled_patients)}-named"
    return f"{config.data.name}-l{labels}-{digest}"


def _slug(name: str) -> str:
    """`name` as a part of a path."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug:
        raise DataError(f"the dataset's name {name!r} has no letter or digit: name it in its dataset.json")
    return slug
