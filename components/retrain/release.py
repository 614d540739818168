"""The end of a retraining: the new model takes the old one's place, or does not."""

from __future__ import annotations

import json

from arco_core.errors import DataError
from arco_core.model_package import DESCRIPTION
from components.methods import finetuned_method
from components.model_ref import ModelRef
from components.publish.step import FOLDER, provenance_of, write_package
from components.retrain.judge import Verdict, judge
from components.retrain.plan import Plan, lease_of, registry_of
from components.retrain.report import REPORT, Outcome, finish
from components.retrain.update import release_of
from infra.datasets import DatasetVersion
from infra.registry import Registry, Release, ReleaseConflict
from infra.storage import Store
from infra.training.load import load_networks


def release(plan_url: str, dataset: str, checkpoint: str) -> Outcome:
    """Judge the new model against the one in service, and promote it, or keep the old one and alert.

    The new model is published before it is promoted, so that what is in service is always whole.

    Raises:
        DataError: the models cannot be compared.
        LeaseLost: another retraining has taken over; nothing is promoted.
        StoreError: something cannot be read or written.
    """
    plan = Plan.load(plan_url)
    settings, lease, before = plan.settings, lease_of(plan.settings), release_of(plan)
    with lease.holding(plan.lease):
        verdict = judge(
            dataset=dataset, split=before.split, frozen=before.frozen, old=before.checkpoint, new=checkpoint,
            margin=settings.margin, min_patients=settings.min_patients,
        )  # fmt: skip
        model = _publish(plan, before, dataset, checkpoint, verdict) if verdict.promote else None
    outcome = _decided(plan, before, dataset, checkpoint, verdict, model)
    finish(settings, outcome, run=plan.run, alert=outcome.decision == "kept")
    lease.release(plan.lease)
    return outcome


def promote_run(registry: Registry, run: str, reason: str) -> Release:
    """Put the published model of a run folder into service, judged by nobody.

    The first release decides which patients later models are judged on: the annotated ones of its dataset's
    test split or, where there are none, of its validation split.

    Raises:
        DataError: the run has published no model, or its dataset has nobody to judge models on.
        ReleaseConflict: another release came first.
    """
    package = Store(run).join(FOLDER)
    provenance = json.loads(Store(package).read_bytes(DESCRIPTION))["provenance"]
    version, current = DatasetVersion.open(provenance["dataset"]), registry.current()
    split, frozen = (current.split, current.frozen) if current else _frozen(version)
    return registry.append(
        expected=current.number if current else 0,
        action="promote",
        model=package,
        checkpoint=provenance["checkpoint"],
        dataset=version.url,
        split=split,
        frozen=frozen,
        parent=None,
        reason=reason,
    )


def _frozen(version: DatasetVersion) -> tuple[str, tuple[str, ...]]:
    for split in ("test", "validation"):
        annotated = {c.patient_id for c in version.cases_of(version.patients(split)) if c.annotated}
        if annotated:
            return split, tuple(sorted(annotated))
    raise DataError(
        f"{version.url} has no annotated test or validation patient, so nobody to judge models on: raise "
        "data.test_fraction, prepare and train anew"
    )


def _publish(plan: Plan, before: Release, dataset: str, checkpoint: str, verdict: Verdict) -> str:
    networks, version = load_networks(checkpoint), DatasetVersion.open(dataset)
    job = networks[2]
    ref = ModelRef(method=finetuned_method(job.settings), seed=job.seed, checkpoint=checkpoint)
    lineage = {
        "parent_release": before.number,
        "parent_model": before.model,
        "parent_checkpoint": before.checkpoint,
        "parent_dataset": before.dataset,
        "new_scans": list(plan.new),
    }
    dice = {row["class"]: row["new"] for row in verdict.classes}
    metrics = {
        "split": before.split,
        "cases": f"{len(before.frozen)} patients",
        "dice": {"mean": sum(dice.values()) / len(dice), "per_class": dice},
        "judged": list(verdict.classes),
        "rule": verdict.rule,
    }
    provenance = {**provenance_of(ref, job, version), "steps": {"finetune": job.steps}, **lineage}
    return write_package(Store(plan.run), networks, version, metrics=metrics, provenance=provenance)


def _decided(
    plan: Plan, before: Release, dataset: str, checkpoint: str, verdict: Verdict, model: str | None
) -> Outcome:
    """The outcome, the new model promoted if there is one."""
    decision, reason, number = "kept", verdict.reason, None
    registry, lease = registry_of(plan.settings), lease_of(plan.settings)
    if model is not None:
        lease.check(plan.lease)
        try:
            number = registry.append(
                expected=before.number, action="promote", model=model, checkpoint=checkpoint,
                dataset=dataset, split=before.split, frozen=before.frozen, parent=before.number,
                reason=verdict.reason, report=Store(plan.run).join(REPORT),
            ).number  # fmt: skip
            decision = "promoted"
        except ReleaseConflict as error:
            reason = str(error)
    version = DatasetVersion.open(dataset)
    skipped = {s.case_id: f"bad: {s.reason}" for s in version.manifest.skipped if s.case_id in plan.new}
    return Outcome(
        name=plan.settings.name, decision=decision, reason=reason, release=before.number,
        in_service=number, new=tuple(n for n in plan.new if n not in skipped),
        left_out=plan.left_out | skipped, dataset=dataset, checkpoint=checkpoint, rule=verdict.rule,
        classes=verdict.classes,
    )  # fmt: skip
