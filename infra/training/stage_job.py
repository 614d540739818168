"""What a training stage is asked to do, and what came of it. Both are JSON, so they can be sent and kept."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from arco_core.config import ArcoConfig, loads
from infra.code_digest import code_digest

StageName = Literal["pretrain", "finetune", "supervised"]

_VALIDATIONS = 10
"""Validations of a stage where the configuration does not say how often."""
_TRAINING_CODE = ("arco_core", "infra.datasets", "infra.training")


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """Everything that the result of a training stage depends on, besides the content of its inputs."""

    stage: StageName
    config: str
    """The whole configuration, as TOML."""
    dataset_url: str
    labeled_patients: tuple[str, ...]
    channels: int
    """Channels of an image."""
    classes: tuple[str, ...]
    """Class names, background first."""
    run_url: str
    """The run folder; what the stage writes goes below it."""
    seed: int
    init_checkpoint: str | None = None
    """Checkpoint of the stage that this one starts from."""
    continued: bool = False
    """Whether that is a checkpoint of the same stage: a model in service goes on, with more scans."""
    code: str = field(default_factory=lambda: code_digest(*_TRAINING_CODE))
    """Fingerprint of the training code."""

    @property
    def settings(self) -> ArcoConfig:
        """The configuration, parsed."""
        return loads(self.config)

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        config = self.settings
        if self.stage == "supervised":
            return config.supervised_steps
        return config.pretrain.steps if self.stage == "pretrain" else config.finetune.steps

    @property
    def labeled_batch(self) -> int:
        """Labelled images of an optimiser step, over all workers."""
        config = self.settings
        if self.stage == "supervised":
            return config.supervised.labeled_batch
        return config.pretrain.labeled_batch if self.stage == "pretrain" else config.finetune.labeled_batch

    @property
    def unlabeled_batch(self) -> int:
        """Unlabelled images of an optimiser step, over all workers."""
        config = self.settings
        if self.stage == "supervised":
            return 0
        return (
            config.pretrain.unlabeled_batch if self.stage == "pretrain" else config.finetune.unlabeled_batch
        )

    @property
    def images_per_step(self) -> int:
        """Images of an optimiser step, over all workers."""
        return self.labeled_batch + self.unlabeled_batch

    @property
    def validate_every(self) -> int:
        """Steps between validations; 0 is never."""
        every = self.settings.run.validate_every
        return math.ceil(self.steps / _VALIDATIONS) if every is None else every

    @property
    def title(self) -> str:
        """For people: the stage and its seed."""
        return f"{self.stage}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the stage's folder in the run folder; another job never shares it."""
        return f"{self.stage}-seed{self.seed}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        """Fingerprint (hex) of what determines the result."""
        return hashlib.sha256(json.dumps(self.determinants(), sort_keys=True).encode()).hexdigest()

    def determinants(self) -> dict[str, Any]:
        """What determines the result. Of `[run]` only some settings do."""
        values = asdict(self)
        del values["config"], values["run_url"]
        if not self.continued:
            del values["continued"]
        config = asdict(self.settings)
        keys = ("network", "augment", "optimizer", "inference", self.stage)  # inference: of validation
        values["config"] = {key: config[key] for key in keys}
        values["steps"] = self.steps
        values["validate_every"] = self.validate_every  # decides which checkpoint is the best one
        values["run"] = self.settings.run.result_settings
        return values

    def to_json(self) -> str:
        """The job as JSON, for `from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> StageJob:
        """The job that `to_json` wrote."""
        values = json.loads(text)
        for key in ("labeled_patients", "classes"):
            values[key] = tuple(values[key])
        return StageJob(**values)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The step at which validation went best."""

    step: int
    dice: float
    """Mean over foreground classes and validation volumes."""
    checkpoint_url: str


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a finished stage left."""

    checkpoint_url: str
    metrics_url: str
    steps: int
    seconds: float
    """Time spent training, over all attempts, without start-up."""
    final: dict[str, float]
    """The last value of every metric."""
    best: Best | None = None
    """None where nothing was validated."""

    def to_json(self) -> str:
        """The result as JSON, for `from_json`."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> StageResult:
        """The result that `to_json` wrote."""
        values = json.loads(text)
        best = values.pop("best", None)
        return StageResult(**values, best=best and Best(**best))
