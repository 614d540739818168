"""What the three training steps have in common: their options, and the job that they make of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from arco_core.config import ArcoConfig, ConfigError, dumps
from arco_core.errors import DataError
from components.command_line import add_check_option, add_result_option
from components.launch import RAYJOB, StepCommand, repeated, run_step
from components.settings import add_config_options, load_settings
from infra.datasets import DatasetVersion
from infra.training import BACKENDS, StageJob, StageName, run_stage
from infra.training.worker import finished

ALL_LABELED = 0.0
"""Amount of labels that stands for every annotated training patient."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Which data to train on, and how."""

    dataset: str
    """URL of the dataset version."""
    run: str
    """URL of the run folder."""
    preset: str | None = None
    config_file: str | None = None
    """TOML file with settings, see `components.settings.load_settings`."""
    overrides: Sequence[str] = ()
    """Settings over preset and file, each `section.key=value`."""
    labeled: float = ALL_LABELED
    """Labelled patients: a number from 1, a ratio of the training patients below 1, or 0 for all."""
    seed: int = 0
    backend: str = "ray"
    """One of `infra.training.BACKENDS`, or `components.launch.RAYJOB`."""
    cluster: Sequence[str] = ()
    """Settings of the Ray cluster that a RayJob gets, over the installation's."""

    @property
    def settings(self) -> ArcoConfig:
        """The configuration. Raises `ConfigError` for an impossible one."""
        return load_settings(preset=self.preset, config_file=self.config_file, overrides=self.overrides)


def train(
    stage: StageName, options: TrainingOptions, *, init: str | None = None, continued: bool = False
) -> str:
    """Train `stage` and return the URL of its final checkpoint.

    Args:
        stage: which one.
        options: on what, and how.
        init: checkpoint of the stage to start from.
        continued: whether that is one of the same stage, as of a model in service.

    Raises as `stage_job`, `infra.training.run_stage` and `components.launch.run_as_ray_job`.
    """
    job = stage_job(stage, options, init=init, continued=continued)
    if options.backend == RAYJOB and (done := finished(job)) is not None:
        return done.checkpoint_url  # no cluster to find that out
    return run_step(
        _command(stage, options, init, continued),
        options.backend,
        lambda: run_stage(job, options.backend).checkpoint_url,
    )


def _command(stage: StageName, options: TrainingOptions, init: str | None, continued: bool) -> StepCommand:
    """The same training by its command line. Raises `ConfigError` for a local file with a RayJob."""
    if options.backend == RAYJOB and options.config_file is not None:
        raise ConfigError(
            f"config_file = {options.config_file!r}: another pod does not have it; give --preset and --set"
        )
    labeled = "all" if options.labeled == ALL_LABELED else f"{options.labeled:g}"
    arguments: tuple[str, ...] = ("--dataset", options.dataset, "--run", options.run, "--labeled", labeled)
    arguments += ("--seed", str(options.seed), *repeated("--set", options.overrides))
    if options.preset is not None:
        arguments += ("--preset", options.preset)
    if init is not None:
        arguments += ("--init", init, *(("--continued",) if continued else ()))
    return StepCommand(step=stage, arguments=arguments, home=options.run, cluster=tuple(options.cluster))


def stage_job(
    stage: StageName, options: TrainingOptions, *, init: str | None, continued: bool = False
) -> StageJob:
    """What `train` trains; arguments as there.

    Raises:
        ConfigError: an impossible setting.
        DataError: labels that are not there, or a dataset that the network does not fit.
        StoreError: the dataset cannot be read.
    """
    job = job_on(DatasetVersion.open(options.dataset), stage, options, init=init)
    return replace(job, continued=continued)


def job_on(
    version: DatasetVersion, stage: StageName, options: TrainingOptions, *, init: str | None = None
) -> StageJob:
    """As `stage_job`, on the opened dataset version. Raises `ConfigError` and `DataError` as it does."""
    config = options.settings
    prepared = version.data_config.image_size
    if len(prepared) != config.network.spatial_axes:
        raise DataError(
            f"{version.url} was prepared with data.image_size = {list(prepared)}, and network.kind = "
            f"{config.network.kind!r} takes {config.network.spatial_axes} sides: train with the preset and "
            "settings that the dataset was prepared with."
        )
    levels = len(config.network.features)
    if any(side % 2 ** (levels - 1) for side in prepared):
        raise DataError(
            f"{version.url} was prepared with data.image_size = {list(prepared)}, and the {levels} levels of "
            f"network.features need sides that are multiples of {2 ** (levels - 1)}: prepare it so, or take "
            "fewer levels."
        )
    return StageJob(
        stage=stage,
        config=dumps(config),
        dataset_url=version.url,
        labeled_patients=labeled_patients(
            version, options.labeled, options.seed, config.run.labeled_patients
        ),
        channels=version.channels,
        classes=version.classes,
        run_url=options.run,
        seed=options.seed,
        init_checkpoint=init,
    )


def labeled_patients(
    version: DatasetVersion, labeled: float, seed: int, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """The labelled patients that `labeled` asks for, or those of `names`.

    Raises `DataError` for an impossible amount or name, and `ConfigError` where both are given.
    """
    if names:
        check_one_choice(labeled, names)
        return version.named_patients(names)
    if labeled == ALL_LABELED:
        labeled = sum(map(len, version.manifest.label_groups))
    return version.labeled_patients(labeled, seed)


def check_one_choice(labeled: float, names: Sequence[str]) -> None:
    """Raise `ConfigError` where labelled patients are given by name and by amount."""
    if names and labeled != ALL_LABELED:
        raise ConfigError(
            f"run.labeled_patients = {list(names)} names the labelled patients, and labeled = {labeled:g} "
            "asks for an amount: give one of the two."
        )


def parse_training_options(
    stage: StageName, description: str | None, arguments: Sequence[str] | None
) -> tuple[TrainingOptions, dict[str, Any]]:
    """The options of a training step's command line; `check`, `result`, and `init` where there is one."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{stage}", description=description)
    parser.add_argument("--dataset", required=True, help="URL of the dataset version")
    parser.add_argument("--run", required=True, help="URL of the run folder")
    add_config_options(parser)
    parser.add_argument(
        "--labeled", type=labeled_amount, default=ALL_LABELED, help="labelled patients, a ratio, or all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=backend_names(), default="ray")
    if stage == "finetune":
        parser.add_argument("--init", required=True, help="URL of the pre-training's checkpoint")
        parser.add_argument(
            "--continued", action="store_true", help="--init is a fine-tuning's checkpoint, to go on from"
        )
    add_labeled_patients_option(parser)
    add_check_option(parser)
    add_result_option(parser)
    values = vars(parser.parse_args(arguments))
    extra: dict[str, Any] = {
        key: values.pop(key) for key in ("check", "result", "init", "continued") if key in values
    }
    return TrainingOptions(**values), extra


def backend_names() -> tuple[str, ...]:
    """What `--backend` takes."""
    return BACKENDS


def add_labeled_patients_option(parser: argparse.ArgumentParser) -> None:
    """The option `--labeled-patients`, which is short for a setting."""
    parser.add_argument(
        "--labeled-patients", dest="overrides", action="append", type=_named, metavar="A,B,…",
        help="labelled patients by name, instead of --labeled",
    )  # fmt: skip


def _named(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    return f"run.labeled_patients={json.dumps(names, ensure_ascii=False)}"


def labeled_amount(text: str) -> float:
    """The amount of labels that a command line gives: a number, a ratio, or `all`."""
    if text == "all":
        return ALL_LABELED
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 < amount < float("inf") or (amount >= 1 and amount != int(amount)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be a number of patients (2), a ratio of the training patients (0.05), or all"
        )
    return amount
