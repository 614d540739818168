"""The end of a retraining: the new model takes the old one's place, or does not."""

from __future__ import annotations

import json
from collections.abc import Sequence

from arco_core.errors import DataError
from arco_core.model_package import DESCRIPTION
from components.launch import StepCommand, run_step
from components.methods import finetuned_method
from components.model_ref import ModelRef
from components.publish.step import FOLDER, provenance_of, write_package
from components.retrain.judge import NEW, OLD, Earlier, Verdict, judge, references_digest
from components.retrain.plan import Plan, lease_of, registry_of
from components.retrain.report import REPORT, Outcome, finish
from components.retrain.update import release_of, remember, skipped_scans, used_scans
from infra.datasets import DatasetVersion
from infra.registry import Registry, Release, ReleaseConflict
from infra.storage import Store
from infra.training.load import load_networks


def release_on(
    backend: str, plan_url: str, dataset: str, checkpoint: str, *, cluster: Sequence[str] = ()
) -> Outcome:
    """`release` on a backend, see `components.launch`, and the end of the night; raises as both do."""
    plan = Plan.load(plan_url)
    lease = lease_of(plan.settings)
    if (outcome := _told(plan)) is None:
        arguments = ("--plan", plan_url, "--dataset", dataset, "--checkpoint", checkpoint)
        command = StepCommand(step="retrain", arguments=arguments, home=plan.run, cluster=tuple(cluster))
        with lease.holding(plan.lease):
            run_step(command, backend, lambda: release(plan_url, dataset, checkpoint).decision)
        outcome = _told(plan)
    if outcome is None:
        raise DataError(f"{plan.run} has no outcome of this night, though its judgement ended")
    lease.release(plan.lease)
    return outcome


def release(plan_url: str, dataset: str, checkpoint: str) -> Outcome:
    """Judge the new model against the one in service, and promote it, or keep the old one and alert.

    The new model is published before it is promoted, so that what is in service is always whole. Started
    again after it was killed, it goes by what it did before.

    Raises:
        DataError: the models cannot be compared.
        LeaseLost: another retraining has taken over; nothing is promoted.
        StoreError: something cannot be read or written.
    """
    plan = Plan.load(plan_url)
    registry, before, number = registry_of(plan.settings), release_of(plan), None
    mine = registry.promoted(parent=before.number, checkpoint=checkpoint)
    verdict = _judge(plan, before, dataset, checkpoint) if mine is None else _verdict_of(mine)
    reason = verdict.reason
    if mine is None and verdict.promote:
        model = _publish(plan, before, dataset, checkpoint, verdict)
        try:
            mine = _promote(plan, before, dataset, checkpoint, model, verdict)
        except ReleaseConflict as error:
            reason = str(error)
    if mine is not None:
        number = mine.number
        digest = references_digest(dataset, before.frozen)
        registry.note_scores(number, {"references": digest, "dice": verdict.scores[NEW]})
    version = DatasetVersion.open(dataset)
    used, skipped = used_scans(plan, version), skipped_scans(plan, version)
    remember(plan, skipped, used)
    outcome = Outcome(
        name=plan.settings.name, decision="kept" if number is None else "promoted", reason=reason,
        release=before.number, lease=plan.lease, in_service=number, new=used,
        left_out=plan.left_out | skipped, dataset=dataset, checkpoint=checkpoint, rule=verdict.rule,
        classes=verdict.classes,
    )  # fmt: skip
    finish(plan.settings, outcome, run=plan.run, alert=number is None or bool(skipped))
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


def _told(plan: Plan) -> Outcome | None:
    """The outcome of this very night, None before there is one."""
    outcome = Outcome.read(plan.run)
    return outcome if outcome is not None and outcome.lease == plan.lease and outcome.final else None


def _judge(plan: Plan, before: Release, dataset: str, checkpoint: str) -> Verdict:
    """The verdict; how the model in service scored is remembered for later nights."""
    registry, digest = registry_of(plan.settings), references_digest(dataset, before.frozen)
    earlier = []
    for one in registry.lineage(before.number):
        scores = registry.scores(one.number)
        if one.checkpoint != before.checkpoint and scores is not None and scores["references"] == digest:
            earlier.append(Earlier(release=one.number, scores=scores["dice"]))
    verdict = judge(
        dataset=dataset, split=before.split, frozen=before.frozen, old=before.checkpoint, new=checkpoint,
        margin=plan.settings.margin, min_patients=plan.settings.min_patients, earlier=earlier,
    )  # fmt: skip
    registry.note_scores(before.number, {"references": digest, "dice": verdict.scores[OLD]})
    return verdict


def _verdict_of(release: Release) -> Verdict:
    """The verdict that a promotion went by, from the published model."""
    metrics = json.loads(Store(release.model).read_bytes(DESCRIPTION))["metrics"]
    return Verdict(
        promote=True, reason=release.reason, rule=metrics["rule"], classes=tuple(metrics["judged"]),
        scores={NEW: metrics["by_patient"]},
    )  # fmt: skip


def _promote(
    plan: Plan, before: Release, dataset: str, checkpoint: str, model: str, verdict: Verdict
) -> Release:
    lease_of(plan.settings).check(plan.lease)
    return registry_of(plan.settings).append(
        expected=before.number, action="promote", model=model, checkpoint=checkpoint, dataset=dataset,
        split=before.split, frozen=before.frozen, parent=before.number, reason=verdict.reason,
        report=Store(plan.run).join(REPORT),
    )  # fmt: skip


def _publish(plan: Plan, before: Release, dataset: str, checkpoint: str, verdict: Verdict) -> str:
    networks, version = load_networks(checkpoint), DatasetVersion.open(dataset)
    job = networks[2]
    ref = ModelRef(method=finetuned_method(job.settings), seed=job.seed, checkpoint=checkpoint)
    lineage = {
        "parent_release": before.number,
        "parent_model": before.model,
        "parent_checkpoint": before.checkpoint,
        "parent_dataset": before.dataset,
        "new_scans": list(used_scans(plan, version)),
    }
    dice = {row["class"]: row["new"] for row in verdict.classes}
    metrics = {
        "split": before.split,
        "cases": f"{len(before.frozen)} patients",
        "dice": {"mean": sum(dice.values()) / len(dice), "per_class": dice},
        "judged": list(verdict.classes),
        "rule": verdict.rule,
        "by_patient": verdict.scores[NEW],
    }
    provenance = {**provenance_of(ref, job, version), "steps": {"finetune": job.steps}, **lineage}
    return write_package(Store(plan.run), networks, version, metrics=metrics, provenance=provenance)
