"""What the steps of a retraining do around its functions: who holds the lease, and what is told."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from arco_core.config import ConfigError
from components.checks.pipeline import check_backend, check_labeled, check_shared
from components.launch import RAYJOB, RUN_ENVIRONMENT, check_clusters
from components.retrain.discover import discover
from components.retrain.plan import RetrainSettings
from components.retrain.update import abandon

_FAILED = ("FAILED", "CANCELED", "CANCELLED")
"""States of Kubeflow; one that went well is SUCCEEDED, COMPLETE or, by mistake, still RUNNING
(kubeflow/pipelines#13321)."""


def discover_step(backend: str, cluster: Sequence[str], holder: str, **options: Any) -> tuple[int, str]:
    """Check all parameters, then `discover`: the number of new scans, and the plan's URL.

    Args:
        backend: of the steps to come.
        cluster: settings of Ray clusters.
        holder: of the lease; without one, Kubeflow's run.
        options: of `RetrainSettings`.
    """
    settings = RetrainSettings(**options)
    check_settings(settings, backend)
    if backend == RAYJOB:
        check_clusters(cluster)
    found = discover(settings, holder=_holder(holder))
    return (0, "") if found.plan is None else (len(found.plan.new), found.plan.url)


def end_step(holder: str, state: str, error: str, **options: Any) -> None:
    """Tell of a night that did not come to its end, and give its lease back; see `abandon`.

    Args:
        holder: as of `discover_step`.
        state: of the steps before, in Kubeflow's words.
        error: Kubeflow's, if any.
        options: of `RetrainSettings`.
    """
    reason = f"{state}: {error or 'a step failed, see its log'}"
    abandon(RetrainSettings(**options), holder=_holder(holder), failed=state in _FAILED, reason=reason)


def check_settings(settings: RetrainSettings, backend: str) -> None:
    """Raise `ConfigError` for an impossible parameter."""
    check_backend(backend)
    check_labeled(settings.labeled)
    if not (math.isfinite(settings.settle_minutes) and settings.settle_minutes >= 0):
        raise ConfigError(f"settle_minutes = {settings.settle_minutes!r}: must be minutes, at least 0.")
    if not 0 <= settings.margin < 1:
        raise ConfigError(f"margin = {settings.margin!r}: must be a Dice between 0 and 1, as 0.02.")
    if settings.min_patients < 2:
        raise ConfigError(f"min_patients = {settings.min_patients}: must be at least 2, to resample them.")
    if not settings.name or "/" in settings.name or not settings.name.strip("."):
        raise ConfigError(f"name = {settings.name!r}: must be a name, without slashes.")
    if {"'", '"'} & set(settings.store):  # Kubeflow would read a condition on it wrongly
        raise ConfigError(f"store = {settings.store!r}: must be a URL without quotes.")
    if backend == RAYJOB:
        check_shared([settings.raw, settings.store])


def _holder(holder: str) -> str:
    holder = holder or os.environ.get(RUN_ENVIRONMENT, "")
    if not holder:
        raise ConfigError(f"holder = '': must be given where {RUN_ENVIRONMENT} is not set")
    return holder
