"""New scans to a dataset version, and on to a model that goes on from the one in service."""

from __future__ import annotations

import json
from collections.abc import Sequence

from arco_core.errors import DataError
from components.prepare.step import prepare_on
from components.retrain.plan import BASE, PLAN, Plan, RetrainSettings, lease_of, registry_of
from components.retrain.report import Outcome, finish
from components.training_options import TrainingOptions, train
from infra.datasets import DatasetVersion
from infra.registry import Release
from infra.storage import Store


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
    before = {case.case_id: case for case in DatasetVersion.open(release.dataset).cases}
    excluded = [*before_excluded(release), *plan.left_out]
    overrides = [*plan.overrides, f"data.max_failures={len(plan.new)}"]
    overrides += [f"data.exclude={json.dumps(sorted(set(excluded)))}"] if excluded else []
    with lease.holding(plan.lease):
        try:
            url = prepare_on(
                backend, data=settings.raw, store=settings.store, preset=BASE,
                overrides=overrides, append_to=release.dataset, cluster=cluster,
            )  # fmt: skip
        except DataError as error:
            _end(plan, str(error), {})
            return None
    version = DatasetVersion.open(url)
    skipped = {s.case_id: f"bad: {s.reason}" for s in version.manifest.skipped if s.case_id in plan.new}
    added = [c for c in version.cases if c.case_id not in before or c != before[c.case_id]]
    if not any(case.case_id in plan.new for case in added):
        _end(plan, "none of the new scans can be used", skipped)
        return None
    return url


def before_excluded(release: Release) -> tuple[str, ...]:
    """What the dataset version of the model in service was told to leave out."""
    return DatasetVersion.open(release.dataset).data_config.exclude


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


def abandon(settings: RetrainSettings, *, holder: str, reason: str) -> None:
    """End a night of `holder` that failed: the model in service stays, and somebody is told.

    Nothing is done where the night has ended already.
    """
    lease = lease_of(settings)
    number = lease.open_of(holder)
    if number is None:
        return
    run = registry_of(settings).night(number)
    if run is not None and Outcome.read(run) is None:
        _end(Plan.load(Store(run).join(PLAN)), reason, {}, decision="failed")
    lease.release(number)


def _end(plan: Plan, reason: str, bad: dict[str, str], decision: str = "bad scans") -> None:
    outcome = Outcome(
        name=plan.settings.name, decision=decision, reason=reason, release=plan.release, new=plan.new,
        left_out=plan.left_out | bad,
    )  # fmt: skip
    finish(plan.settings, outcome, run=plan.run, alert=True)
    lease_of(plan.settings).release(plan.lease)
