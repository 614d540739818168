"""Which scans are new: by their content, and only once they lie still."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from arco_core.errors import DataError
from components.retrain.plan import Plan, RetrainSettings, lease_of, model_overrides, registry_of
from components.retrain.report import Outcome, finish
from infra.datasets import DatasetVersion
from infra.datasets.append import file_tags, known_digests
from infra.datasets.convert import Digests, hash_case
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import read_raw
from infra.lease import LeaseHeld
from infra.registry import Release
from infra.storage import ObjectInfo, Store


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What came of a look at the raw folder."""

    plan: Plan | None
    """None where there is nothing to do."""
    outcome: Outcome | None
    """Why there is nothing to do."""


def discover(settings: RetrainSettings, *, holder: str) -> Discovery:
    """Look for scans that the model in service has not seen, and begin a retraining where there are some.

    A file takes part once it has been written `settle_minutes` ago and two listings agree on size and tag. A
    scan is known by the sha256 of its content, under whichever name. A batch that was judged against the
    same release before is not tried again.

    Args:
        settings: of the retraining.
        holder: who holds the lease: the same text when the step is tried again.

    Raises:
        DataError: no model is in service.
        ConfigError: impossible settings.
        StoreError: the store cannot be read or written.
    """
    release = registry_of(settings).current()
    if release is None:
        raise DataError(
            f"no model named {settings.name!r} is in service in {settings.store}: put one there with "
            f"arco model promote --name {settings.name} --run RUN"
        )
    lease = lease_of(settings)
    try:
        number = lease.claim(holder)
    except LeaseHeld as error:
        return _nothing(settings, release, "busy", str(error))
    try:
        found = _look(settings, release, number)
    except DataError as error:  # the folder as a whole: uploads that broke its layout
        found = _nothing(settings, release, "bad folder", str(error), alert=True)
    except BaseException:
        lease.release(number)
        raise
    if found.plan is None:
        lease.release(number)
    return found


def _look(settings: RetrainSettings, release: Release, lease: int) -> Discovery:
    raw, parent = Store(settings.raw), DatasetVersion.open(release.dataset)
    first = {entry.path: entry for entry in raw.entries()}
    if not first:
        return _nothing(settings, release, "nothing new", f"{settings.raw} is empty")
    cases = read_raw(raw, first).cases
    known = known_digests(parent, raw, cases, {path: entry.tag for path, entry in first.items()})
    left_out: dict[str, str] = {}
    settled = [case for case in cases if case.case_id not in known]
    settled = _without_moving(raw, settled, first, settings.settle_minutes * 60, left_out)
    digests = {case.case_id: hash_case(raw, case) for case in settled}
    settled = _without_moving(raw, settled, first, 0.0, left_out)  # nothing changed while it was hashed
    new = _without_known(settled, digests, parent, left_out)
    if not new:
        return _nothing(settings, release, "nothing new", f"{len(cases)} scans", left_out=left_out)
    overrides = model_overrides(release.checkpoint, settings.overrides)
    batch = _digest([asdict(digests[name]) for name in sorted(new)], release.number, overrides, settings)
    plan = Plan(
        settings=settings,
        run=Store(settings.store).join(f"runs/{settings.name}-retrain-{batch}"),
        release=release.number,
        lease=lease,
        overrides=overrides,
        new=tuple(sorted(new)),
        left_out=left_out,
    )
    judged = Outcome.read(plan.run)
    if judged is not None and judged.final:
        return _nothing(
            settings, release, "nothing new",
            f"the same {len(new)} scans were judged before ({judged.decision}): {plan.run}",
            left_out=left_out,
        )  # fmt: skip
    plan.save()
    registry_of(settings).note_night(lease, plan.run)
    return Discovery(plan=plan, outcome=None)


def _without_moving(
    raw: Store,
    cases: Sequence[RawCase],
    first: Mapping[str, ObjectInfo],
    seconds: float,
    left_out: dict[str, str],
) -> list[RawCase]:
    """The cases whose files are as old as `seconds`, and as they were in the listing `first`."""
    now, listed = raw.clock(), {entry.path: entry for entry in raw.entries()} if cases else {}
    kept = []
    for case in cases:
        files = (*case.image_paths, *case.label_paths)
        changed = any(path not in listed or _differ(first[path], listed[path]) for path in files)
        youngest = min((now - first[path].modified for path in files), default=seconds)
        if changed or not all(file_tags(case, {path: first[path].tag for path in files})):
            left_out[case.case_id] = "waits: it is being written"
        elif youngest < seconds:
            left_out[case.case_id] = (
                f"waits: written {max(0.0, youngest):.0f} s ago, {seconds:.0f} s are asked for"
            )
        else:
            kept.append(case)
    return kept


def _differ(one: ObjectInfo, other: ObjectInfo) -> bool:
    return (one.bytes, one.tag) != (other.bytes, other.tag)


def _without_known(
    cases: Sequence[RawCase],
    digests: Mapping[str, Digests],
    parent: DatasetVersion,
    left_out: dict[str, str],
) -> list[str]:
    """Ids of the cases with a content that the dataset does not have."""
    before = {entry.case_id: entry for entry in parent.cases}
    images = {entry.source_sha256: entry for entry in parent.cases}
    new: dict[str, str] = {}
    for case in cases:
        digest, name = digests[case.case_id], case.case_id
        same, named = images.get(digest.image), before.get(name)
        if named is not None and named.source_sha256 != digest.image:
            left_out[name] = "bad: another scan has this name in the dataset; rename it"
        elif same is not None and (same.case_id != name or same.label_sha256 == digest.label):
            if same.case_id != name:
                left_out[name] = f"known: its content is that of {same.case_id}"
        elif digest.image in new:
            left_out[name] = f"known: its content is that of {new[digest.image]}"
        else:
            new[digest.image] = name
    return list(new.values())


def _digest(contents: object, release: int, overrides: tuple[str, ...], settings: RetrainSettings) -> str:
    """Names the run folder: the same scans, settings and release are judged once."""
    options = (settings.labeled, settings.margin, settings.min_patients)
    text = json.dumps([contents, release, overrides, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _nothing(
    settings: RetrainSettings,
    release: Release,
    decision: str,
    reason: str,
    *,
    left_out: Mapping[str, str] | None = None,
    alert: bool = False,
) -> Discovery:
    outcome = Outcome(
        name=settings.name, decision=decision, reason=reason, release=release.number,
        left_out=dict(left_out or {}),
    )  # fmt: skip
    bad = any(reason.startswith("bad") for reason in outcome.left_out.values())
    finish(settings, outcome, run=None, alert=alert or bad)
    return Discovery(plan=None, outcome=outcome)
