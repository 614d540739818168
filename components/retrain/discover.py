"""Which scans are new: by their content, and only once they lie still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arco_core.config import load
from arco_core.errors import DataError
from components.retrain.memory import Memory
from components.retrain.plan import (
    BASE,
    Plan,
    RetrainSettings,
    batch_of,
    lease_of,
    model_overrides,
    registry_of,
)
from components.retrain.report import BAD, Outcome, finish
from infra.datasets import DatasetVersion
from infra.datasets.append import file_tags, known_digests
from infra.datasets.convert import Digests, hash_case
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import leave_out, read_raw
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

    A file takes part once it has been written `settle_minutes` ago and two listings agree on size and tag; a
    scan of several files, once an earlier night saw the very same files, too. A scan is known by the sha256
    of its content, under whichever name. A batch that was judged for the same model before is not tried
    again, and after a rollback nothing is, until a scan comes that was never judged.

    Whatever is raised, the lease stays with `holder`, for another try or for `end_step`.

    Args:
        settings: of the retraining.
        holder: who holds the lease: the same text when the step is tried again.

    Raises:
        DataError: no model is in service.
        ConfigError: impossible settings.
        StoreError: the store cannot be read or written.
    """
    registry, lease = registry_of(settings), lease_of(settings)
    try:
        number = lease.claim(holder)
    except LeaseHeld as error:
        return _nothing(settings, registry.current(), "busy", str(error))
    release = registry.current()
    if release is None:
        raise DataError(
            f"no model named {settings.name!r} is in service in {settings.store}: put one there with "
            f"arco model promote --name {settings.name} --run RUN"
        )
    try:
        found = _look(settings, release, number)
    except DataError as error:  # the folder as a whole: uploads that broke its layout
        found = _nothing(settings, release, "bad folder", str(error), alert=True)
    if found.plan is None:
        lease.release(number)
    return found


def _look(settings: RetrainSettings, release: Release, lease: int) -> Discovery:
    raw, parent, memory = Store(settings.raw), DatasetVersion.open(release.dataset), Memory(settings, lease)
    overrides = model_overrides(release.checkpoint, settings.overrides)
    first = {entry.path: entry for entry in raw.entries()}
    if not first:
        return _nothing(settings, release, "nothing new", f"{settings.raw} is empty")
    exclude = {*parent.data_config.exclude, *load(preset=BASE, overrides=overrides).data.exclude}
    cases = leave_out(read_raw(raw, first), exclude).cases
    known = known_digests(parent, raw, cases, {path: entry.tag for path, entry in first.items()})
    left_out: dict[str, str] = {}
    settled = [case for case in cases if case.case_id not in known]
    memory.forget_series_but(case.case_id for case in settled)
    settled = _without_moving(raw, settled, first, settings.settle_minutes * 60, left_out)
    settled = _without_growing(settled, first, memory, left_out)
    digests = {case.case_id: hash_case(raw, case) for case in settled}
    settled = _without_moving(raw, settled, first, 0.0, left_out)  # nothing changed while it was hashed
    found = [digests[case.case_id] for case in settled]
    new = _without_known(found, parent, memory, left_out)
    memory.note((d for d in found if left_out.get(d.case_id, "").startswith(BAD)), left_out)
    memory.save()
    if not new:
        return _nothing(settings, release, "nothing new", f"{len(cases)} scans", left_out=left_out)
    if release.action == "rollback" and not _any_unjudged(new, settings, memory):
        reason = f"a rollback holds: all {len(new)} scans were judged before; new ones end it"
        return _nothing(settings, release, "nothing new", reason, left_out=left_out)
    return _begin(settings, release, lease, overrides, new, left_out, memory)


def _begin(
    settings: RetrainSettings,
    release: Release,
    lease: int,
    overrides: tuple[str, ...],
    new: list[Digests],
    left_out: dict[str, str],
    memory: Memory,
) -> Discovery:
    """The plan, unless the same batch was judged before."""
    batch = batch_of(new, release.checkpoint, overrides, settings)
    plan = Plan(
        settings=settings,
        run=Store(settings.store).join(f"runs/{settings.name}-retrain-{batch}"),
        release=release.number,
        lease=lease,
        overrides=overrides,
        scans=tuple(new),
        left_out=left_out,
    )
    run = memory.run_of(batch) or plan.run  # of a night that had bad ones besides
    judged = Outcome.read(run)
    if judged is not None and judged.final:
        reason = f"the same {len(new)} scans were judged before ({judged.decision}): {run}"
        return _nothing(settings, release, "nothing new", reason, left_out=left_out)
    plan.save()
    registry_of(settings).note_night(lease, plan.run)
    return Discovery(plan=plan, outcome=None)


def _any_unjudged(new: Iterable[Digests], settings: RetrainSettings, memory: Memory) -> bool:
    """Whether a scan is in no dataset of a release, and no model that was trained on it was judged."""
    datasets = {release.dataset for release in registry_of(settings).releases()}
    entries = [entry for url in datasets for entry in DatasetVersion.open(url).cases]
    contents = {(entry.source_sha256, entry.label_sha256) for entry in entries}
    return any((d.image, d.label) not in contents and not memory.judged(d) for d in new)


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


def _without_growing(
    cases: Sequence[RawCase],
    first: Mapping[str, ObjectInfo],
    memory: Memory,
    left_out: dict[str, str],
) -> list[RawCase]:
    """The cases of one file, and of several that an earlier night saw as they are now.

    Half of a file cannot be read; half of a series of DICOM slices looks like a scan.
    """
    kept = []
    for case in cases:
        tags = [f"{path} {first[path].tag}" for path in case.image_paths]
        several = any(len(channel.paths) > 1 for channel in case.channels)
        if several and not memory.seen_before(case.case_id, tags):
            left_out[case.case_id] = f"waits: {len(tags)} files, for the next night to find the same"
        else:
            kept.append(case)
    return kept


def _differ(one: ObjectInfo, other: ObjectInfo) -> bool:
    return (one.bytes, one.tag) != (other.bytes, other.tag)


def _without_known(
    found: Iterable[Digests], parent: DatasetVersion, memory: Memory, left_out: dict[str, str]
) -> list[Digests]:
    """Those with a content that the dataset does not have, and of which nothing bad is known."""
    before = {entry.case_id: entry for entry in parent.cases}
    images = {entry.source_sha256: entry for entry in parent.cases}
    new: dict[str, Digests] = {}
    for digests in found:
        name, bad = digests.case_id, memory.bad(digests)
        same, named = images.get(digests.image), before.get(name)
        if bad is not None:
            left_out[name] = f"known: {bad}"
        elif named is not None and named.source_sha256 != digests.image:
            left_out[name] = f"{BAD}another scan has this name in the dataset; rename it"
        elif same is not None and (same.case_id != name or same.label_sha256 == digests.label):
            if same.case_id != name:
                left_out[name] = f"known: its content is that of {same.case_id}"
        elif digests.image in new:
            left_out[name] = f"known: its content is that of {new[digests.image].case_id}"
        else:
            new[digests.image] = digests
    return sorted(new.values(), key=lambda digests: digests.case_id)


def _nothing(
    settings: RetrainSettings,
    release: Release | None,
    decision: str,
    reason: str,
    *,
    left_out: Mapping[str, str] | None = None,
    alert: bool = False,
) -> Discovery:
    outcome = Outcome(
        name=settings.name, decision=decision, reason=reason, release=release.number if release else 0,
        left_out=dict(left_out or {}),
    )  # fmt: skip
    bad = any(reason.startswith(BAD) for reason in outcome.left_out.values())
    finish(settings, outcome, run=None, alert=alert or bad)
    return Discovery(plan=None, outcome=outcome)
