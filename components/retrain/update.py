"""New scans to a dataset version, and on to a model that goes on from the one in service."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from arco_core.errors import DataError
from components.prepare.step import prepare_on, write_cases
from components.retrain.memory import Memory
from components.retrain.plan import BASE, PLAN, Plan, RetrainSettings, batch_of, lease_of, registry_of
from components.retrain.report import BAD, Outcome, finish
from components.training_options import TrainingOptions, train
from infra.datasets import DatasetVersion
from infra.registry import Release
from infra.storage import Store

CASES = "cases.json"
"""In the run folder: the scans that the dataset version gets."""


def extend(plan_url: str, *, backend: str, cluster: Sequence[str] = ()) -> str | None:
    """Make a dataset version of the old one's scans and the new ones, and return its URL.

    New scans that cannot be used are left out, and told in the report. None where no new scan is left: the
    night is over then, and the model in service stays.

    Raises:
        LeaseLost: another retraining has taken over.
        StoreError: the store cannot be read or written.
    """
    plan = Plan.load(plan_url)
    settings, lease = plan.settings, lease_of(plan.settings)
    release = release_of(plan)
    excluded = DatasetVersion.open(release.dataset).data_config.exclude
    overrides = [*plan.overrides, f"data.max_failures={len(plan.scans)}"]
    overrides += [f"data.exclude={json.dumps(excluded)}"] if excluded else []
    cases = Store(plan.run).join(CASES)
    with lease.holding(plan.lease):
        write_cases(cases, plan.scans)
        try:
            url = prepare_on(
                backend, data=settings.raw, store=settings.store, preset=BASE, overrides=overrides,
                append_to=release.dataset, only=cases, cluster=cluster,
            )  # fmt: skip
        except DataError as error:
            _end(plan, str(error), {})
            return None
    version = DatasetVersion.open(url)
    if not used_scans(plan, version):
        _end(plan, "none of the new scans can be used", skipped_scans(plan, version))
        return None
    return url


def used_scans(plan: Plan, version: DatasetVersion) -> tuple[str, ...]:
    """Case ids of the new scans that `version` holds, with the content that was found."""
    held = {(case.case_id, case.source_sha256, case.label_sha256) for case in version.cases}
    return tuple(scan.case_id for scan in plan.scans if (scan.case_id, scan.image, scan.label) in held)


def skipped_scans(plan: Plan, version: DatasetVersion) -> dict[str, str]:
    """The new scans that could not be used, and why."""
    new = set(plan.new)
    return {s.case_id: f"{BAD}{s.reason}" for s in version.manifest.skipped if s.case_id in new}


def continue_training(plan_url: str, dataset: str, *, backend: str, cluster: Sequence[str] = ()) -> str:
    """Stage two on the enlarged pool, from the weights of the model in service, with banks of its own.

    Returns the URL of the final checkpoint. Raises as `components.training_options.train`, and `LeaseLost`.
    """
    plan = Plan.load(plan_url)
    settings = plan.settings
    options = TrainingOptions(
        dataset=dataset, run=plan.run, preset=BASE, overrides=plan.overrides,
        labeled=settings.labeled, backend=backend, cluster=cluster,
    )  # fmt: skip
    with lease_of(settings).holding(plan.lease):
        return train("finetune", options, init=release_of(plan).checkpoint, continued=True)


def release_of(plan: Plan) -> Release:
    """The release that was in service when the plan was made. Raises `DataError` where it is gone."""
    for release in registry_of(plan.settings).releases():
        if release.number == plan.release:
            return release
    raise DataError(f"release {plan.release} of {plan.settings.name} is gone from {plan.settings.store}")


def abandon(settings: RetrainSettings, *, holder: str, failed: bool, reason: str) -> None:
    """End a night of `holder` that did not come to its end: the model in service stays, and somebody is told.

    A night that gave its lease back has ended, unless it has `failed`.
    """
    lease, registry = lease_of(settings), registry_of(settings)
    number = lease.open_of(holder)
    run = None if number is None else registry.night(number)
    if run is not None and number is not None:
        told = Outcome.read(run)
        if told is None or told.lease != number:  # of an earlier night with the same scans
            _end(Plan.load(Store(run).join(PLAN)), reason, {}, decision="failed")
    elif number is not None or failed:
        current = registry.current()
        outcome = Outcome(
            name=settings.name, decision="failed", reason=reason, release=current.number if current else 0,
            lease=number,
        )  # fmt: skip
        finish(settings, outcome, run=None, alert=True)
    if number is not None:
        lease.release(number)


def _end(plan: Plan, reason: str, bad: dict[str, str], decision: str = "bad scans") -> None:
    remember(plan, bad, judged=())
    outcome = Outcome(
        name=plan.settings.name, decision=decision, reason=reason, release=plan.release, lease=plan.lease,
        new=plan.new, left_out=plan.left_out | bad,
    )  # fmt: skip
    finish(plan.settings, outcome, run=plan.run, alert=True)
    lease_of(plan.settings).release(plan.lease)


def remember(plan: Plan, bad: Mapping[str, str], judged: Collection[str]) -> None:
    """Have later nights know which of the plan's scans are `bad`, and which took part in a judgement."""
    memory = Memory(plan.settings, plan.lease)
    memory.note((scan for scan in plan.scans if scan.case_id in bad or scan.case_id in judged), bad)
    used = [scan for scan in plan.scans if scan.case_id in judged]
    if used:
        batch = batch_of(used, release_of(plan).checkpoint, plan.overrides, plan.settings)
        memory.note_batch(batch, plan.run)
    memory.save()
