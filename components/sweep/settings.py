"""What a sweep trains: the grid, and how its trainings share the machines."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from arco_core.config import ConfigError, build
from arco_core.config.errors import require
from components.methods import MEAN_TEACHER, METHODS
from components.model_ref import BASELINE
from infra.storage import NotFound, Store

TABLE = "sweep"
"""The table of a sweep's file that holds a `SweepConfig` and the preset; all others are settings over it."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The grid amount of labels × method × seed."""

    name: str = "sweep"
    """Of the run folder, where none is given."""
    preset: str | None = None
    labeled: tuple[float, ...] = (0.01, 0.05, 0.1)
    """Labelled patients: numbers from 1, ratios of the training patients below 1, or 0 for all."""
    methods: tuple[str, ...] = (BASELINE, MEAN_TEACHER, "arco-ns", "arco-sg", "arco-sag")
    seeds: tuple[int, ...] = (0, 1, 2)
    concurrent: int | None = None
    """Trainings at a time; none is as many as the cores, or the cluster's CPUs, have workers for."""
    retries: int = 1
    """Further attempts at a training that failed."""
    early_stopping: bool = False
    """Stop trainings whose validation Dice is in the lower half of their amount of labels and seed."""
    grace: float = 0.3
    """Share of a training's last stage that early stopping leaves alone."""

    def __post_init__(self) -> None:
        for key in ("labeled", "methods", "seeds"):
            values = getattr(self, key)
            require(
                len(values) > 0 and len(set(values)) == len(values),
                f"{TABLE}.{key}", list(values), "must be different, and at least one",
            )  # fmt: skip
        for method in self.methods:
            require(method in METHODS, f"{TABLE}.methods", method, f"must be one of {', '.join(METHODS)}")
        require(min(self.seeds) >= 0, f"{TABLE}.seeds", list(self.seeds), "must not be negative")
        require(min(self.labeled) >= 0, f"{TABLE}.labeled", list(self.labeled), "must not be negative")
        require(
            self.concurrent is None or self.concurrent >= 1,
            f"{TABLE}.concurrent", self.concurrent, "must be at least 1",
        )  # fmt: skip
        require(self.retries >= 0, f"{TABLE}.retries", self.retries, "must not be negative")
        require(0 < self.grace < 1, f"{TABLE}.grace", self.grace, "must lie in (0, 1)")


def load_sweep(
    url: str | None, *, values: Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[SweepConfig, list[str]]:
    """A sweep and its settings over the preset, from a TOML file and what is given over it.

    Args:
        url: of the file; without one, the defaults.
        values: fields of `SweepConfig` over the file's.
        overrides: settings over the file's, each `section.key=value`.

    Raises:
        ConfigError: no such file, no TOML, or an impossible value.
        StoreError: the file cannot be read.
    """
    tables = {} if url is None else _read(url)
    own = tables.pop(TABLE, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"{TABLE} = {own!r}: must be a table of settings.")
    sweep = build(SweepConfig, {**own, **values})
    return sweep, [*_as_overrides(tables, ""), *overrides]


def pipeline_sweep(
    *, preset: str, labeled: Sequence[float], methods: Sequence[str], seeds: Sequence[float]
) -> SweepConfig:
    """The sweep of a pipeline's parameters; Kubeflow makes floats of all numbers. Raises `ConfigError`."""
    return build(
        SweepConfig,
        {"preset": preset, "labeled": labeled, "methods": methods, "seeds": [int(seed) for seed in seeds]},
    )


def check_different_counts(amounts: Sequence[float], counts: Sequence[int]) -> None:
    """Raise `ConfigError` where two `amounts` of labels are the same number of patients, by `counts`."""
    for number, (amount, count) in enumerate(zip(amounts, counts, strict=True)):
        if count in counts[:number]:
            raise ConfigError(
                f"{TABLE}.labeled = {list(amounts)}: {amount:g} is {count} patients, as another amount is: "
                "give each number of patients once."
            )


def _read(url: str) -> dict[str, Any]:
    folder, _, name = url.rpartition("/")
    try:
        return tomllib.loads(Store(folder or ".").read_bytes(name).decode())
    except NotFound as error:
        raise ConfigError(f"config file {url!r} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {url!r} is not TOML: {error}") from error


def _as_overrides(values: Mapping[str, Any], path: str) -> list[str]:
    """Tables of settings as `section.key=value`, with values in TOML."""
    overrides: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            overrides += _as_overrides(value, f"{path}{key}.")
        else:
            raw = tomli_w.dumps({"v": list(value) if isinstance(value, tuple) else value})
            overrides.append(f"{path}{key}={' '.join(raw.removeprefix('v = ').split())}")
    return overrides
