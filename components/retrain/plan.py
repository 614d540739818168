"""What one retraining works on: JSON in its run folder, which every step reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import tomli_w

from arco_core.config import ConfigError, load
from infra.checkpoints import read_checkpoint
from infra.datasets.convert import Digests
from infra.lease import Lease
from infra.registry import Registry
from infra.storage import Store
from infra.training.stage_job import StageJob

PLAN = "retrain.json"
BASE = "generic"


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """The parameters of a retraining."""

    raw: str
    """URL below which new scans appear."""
    store: str
    name: str
    """Of the model in service."""
    overrides: tuple[str, ...] = ()
    """Over the settings that the model in service was trained with, each `section.key=value`."""
    labeled: float = 0.0
    """As of `components.training_options`; 0 takes every annotated training patient."""
    settle_minutes: float = 10.0
    """A file whose size or tag changed more recently waits for the next time."""
    margin: float = 0.02
    """Dice that the new model may lose in a class at most, see `components.retrain.judge`."""
    min_patients: int = 5
    """Test patients that it takes to judge a class."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A retraining that has begun."""

    settings: RetrainSettings
    run: str
    """URL of the run folder."""
    release: int
    """Number of the release that was in service."""
    lease: int
    overrides: tuple[str, ...]
    """All settings that differ from those of the preset `BASE`."""
    scans: tuple[Digests, ...]
    """The new scans, and their content."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Case ids in the raw folder that take no part, and why."""

    @property
    def new(self) -> tuple[str, ...]:
        """Case ids of the new scans."""
        return tuple(scan.case_id for scan in self.scans)

    @property
    def url(self) -> str:
        """Where it is saved."""
        return Store(self.run).join(PLAN)

    def save(self) -> None:
        """Write it into the run folder."""
        Store(self.run).write_bytes(PLAN, json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def load(url: str) -> Plan:
        """The plan that `save` wrote."""
        folder, _, name = url.rpartition("/")
        values: dict[str, Any] = json.loads(Store(folder).read_bytes(name))
        settings = values.pop("settings")
        settings["overrides"] = tuple(settings["overrides"])
        values["overrides"] = tuple(values["overrides"])
        values["scans"] = tuple(Digests(**scan) for scan in values["scans"])
        return Plan(**values, settings=RetrainSettings(**settings))


def batch_of(
    scans: Sequence[Digests], checkpoint: str, overrides: tuple[str, ...], settings: RetrainSettings
) -> str:
    """Names a batch: the same scans and settings are judged once for a model, whichever release it is."""
    contents = [asdict(scan) for scan in sorted(scans, key=lambda scan: scan.case_id)]
    options = (settings.labeled, settings.margin, settings.min_patients)
    text = json.dumps([contents, checkpoint, overrides, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def model_overrides(checkpoint: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """What the settings of the training behind `checkpoint`, with `overrides`, change in the preset `BASE`.

    Raises:
        ConfigError: an impossible setting.
        StoreError: the checkpoint cannot be read.
    """
    job = StageJob.from_json(read_checkpoint(checkpoint)["job"])
    flat, base = _flat(asdict(job.settings)), _flat(asdict(load(preset=BASE)))
    changed = [f"{key}={_toml(value)}" for key, value in flat.items() if value != base[key]]
    load(preset=BASE, overrides=[*changed, *overrides])
    return (*changed, *overrides)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _toml(value: Any) -> str:
    if value is None:
        raise ConfigError(f"a setting of the model in service is none where {BASE} has a value")
    return (
        tomli_w.dumps({"v": list(value) if isinstance(value, tuple) else value}, indent=0)[4:]
        .replace("\n", " ")
        .strip()
    )


def lease_of(settings: RetrainSettings) -> Lease:
    """The lease that keeps two retrainings of a model apart."""
    return Lease(Store(settings.store), f"{registry_of(settings).folder}/lease")


def registry_of(settings: RetrainSettings) -> Registry:
    """The releases of the model."""
    return Registry(Store(settings.store), settings.name)
