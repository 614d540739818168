"""Raw scans to a dataset version.

What the version is made of is found first: files that no earlier version has read are hashed, which names the
version and tells the scans that have shards already from new ones. Only new ones are converted, on the
workers, into shards of their own. `manifest.json` is written last. A preparation that was killed goes on from
the shards that it finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.append import (
    Scan,
    check_same_images,
    find_parent,
    is_unchanged,
    known_digests,
    shares_scans,
)
from infra.datasets.catalog import DATASETS
from infra.datasets.convert import Digests
from infra.datasets.groups import run_groups
from infra.datasets.manifest import MANIFEST, Shard
from infra.datasets.packing import (
    CaseGroup,
    Failure,
    PackedCase,
    PackedGroup,
    Packer,
    group_cases,
    hash_group,
)
from infra.datasets.publish import manifest_paths, publish
from infra.datasets.readers.base import RawCase, RawDataset
from infra.datasets.readers.detect import leave_out, read_raw
from infra.datasets.records import pack, read_records, remove_records
from infra.datasets.validate import check_sizes, check_spacing, resolve_classes
from infra.datasets.version import CaseEntry, DatasetVersion
from infra.datasets.work import Work
from infra.storage import ObjectInfo, Store

OnCase = Callable[[int, int], None]
"""Told how many of the scans that need work are done."""
OnNote = Callable[[str], None]
"""Told what the user should know, a sentence at a time."""


def prepare_dataset(
    raw: str,
    store: Store,
    config: DataConfig,
    *,
    append_to: str | None = None,
    only: Mapping[str, Digests] | None = None,
    use_ray: bool = True,
    on_case: OnCase | None = None,
    on_note: OnNote | None = None,
) -> DatasetVersion:
    """Prepare the scans below the URL `raw` as a version below `datasets/` of `store`.

    The same scans and settings give the same version, which is reused where it exists. Where the store has a
    version with the same settings and some of the scans, the new one goes on from it: patients stay in their
    splits, and scans that have not changed keep their shards.

    Args:
        raw: URL of the raw scans; the version holds those that are there now.
        store: where the version goes.
        config: how to prepare them.
        append_to: a version, as `arco data` names it: the new one holds its scans besides those of `raw`.
        only: the cases of `raw` to take, and their content; one that has another by now counts as bad.
        use_ray: work in Ray Data tasks on the Ray that is initialised, or one case after another here.
        on_case: told of progress.
        on_note: told what was found.

    Raises:
        DataError: bad input, all bad cases in one message; or a version that another writer appended
            meanwhile. Versions that exist are never touched.
        StoreError: a store that cannot be read or written.
    """
    store.check_writable()
    tell = on_note if on_note is not None else _say_nothing
    raw_scans = _read(Store(raw), config, tell, only)
    home = Store(store.join(DATASETS, config.name))
    seen = manifest_paths(home)
    parent = find_parent(store, raw_scans.config, raw_scans.dataset.channels, append_to)
    if parent is not None and not raw_scans.config.classes:
        config = dataclasses.replace(raw_scans.config, classes=parent.classes)
        raw_scans = dataclasses.replace(raw_scans, config=config)
    digests, failures = _hash(raw_scans, parent, only, use_ray=use_ray)
    work = _compare(raw_scans, digests, failures, parent, appending=append_to is not None)
    draft = work.draft({})
    if not home.exists(f"{draft.version}/{MANIFEST}"):
        if work.parent is not None:
            done, left = len(work.kept), len(work.new)
            tell(f"goes on from version {work.parent.version}: {done} scans are prepared, {left} are new")
        packer = raw_scans.packer(home, draft.version)
        groups = raw_scans.grouped(work.new)
        before = read_records(packer, groups, work.digests)
        if before:
            done = sum(len(group.cases) for group in before)
            tell(f"goes on where it was stopped: {done} of {len(work.new)} scans are prepared already")
        packed, shards, failures = _convert(packer, groups, before, work, use_ray=use_ray, on_case=on_case)
        work = dataclasses.replace(work, failures=(*work.failures, *failures))
        _check_failures(work.failures, config.max_failures, len(raw_scans.dataset.cases))
        for failure in work.failures:
            tell(f"left out {failure.case_id}: {failure.message}")
        # Only now are all voxels known: what was left out, or shows a known image, may change the splits.
        draft = work.draft(packed)
        manifest, cases = work.manifest(draft, packed, shards)
        publish(home, manifest, cases, seen=seen)
        remove_records(packer)
    return DatasetVersion.open(home.join(draft.version))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RawScans:
    """A raw folder, and how its scans are to be prepared."""

    source: Store
    dataset: RawDataset
    config: DataConfig
    files: Mapping[str, ObjectInfo]
    """Listing of `source`, from before any file was read."""

    @property
    def tags(self) -> dict[str, str]:
        """What the listing says of each file."""
        return {path: entry.tag for path, entry in self.files.items()}

    def grouped(self, cases: Sequence[RawCase]) -> list[CaseGroup]:
        """`cases` as tasks."""
        return group_cases(cases, {path: entry.bytes for path, entry in self.files.items()})

    def packer(self, home: Store, folder: str) -> Packer:
        """What turns cases into shards below `folder` of `home`."""
        return Packer(
            source=self.source, home=home, folder=folder, config=self.config, channels=self.dataset.channels
        )


def _read(source: Store, config: DataConfig, tell: OnNote, only: Mapping[str, Digests] | None) -> _RawScans:
    files = {entry.path: entry for entry in source.entries()}
    dataset = leave_out(read_raw(source, files), config.exclude)
    if only is not None:
        dataset = dataclasses.replace(dataset, cases=tuple(c for c in dataset.cases if c.case_id in only))
    check_sizes(dataset.cases, {path: entry.bytes for path, entry in files.items()})
    for note in dataset.notes:
        tell(note)
    config = dataclasses.replace(config, classes=resolve_classes(config.classes, dataset.classes))
    check_spacing(config, dataset.spacing_known)
    return _RawScans(source=source, dataset=dataset, config=config, files=files)


def _hash(
    raw: _RawScans, parent: DatasetVersion | None, only: Mapping[str, Digests] | None, *, use_ray: bool
) -> tuple[dict[str, Digests], tuple[Failure, ...]]:
    """Digests by case id: those that `parent` has where a file is still the same, else of the file."""
    cases = raw.dataset.cases
    digests = {} if parent is None else known_digests(parent, raw.source, cases, raw.tags)
    unknown = [case for case in cases if case.case_id not in digests]
    failures: list[Failure] = []
    digest, allowed = partial(hash_group, raw.source), raw.config.max_failures
    for group in run_groups(digest, raw.grouped(unknown), attempt=digest, use_ray=use_ray, allowed=allowed):
        digests |= {d.case_id: d for d in group.digests}
        failures += group.failures
    for name, expected in (only or {}).items():
        if name in digests and digests[name] != expected:
            del digests[name]
            failures.append(Failure(case_id=name, message="it changed after it had been found"))
    _check_failures(failures, raw.config.max_failures, len(cases))
    return digests, tuple(failures)


def _compare(
    raw: _RawScans,
    digests: Mapping[str, Digests],
    failures: tuple[Failure, ...],
    parent: DatasetVersion | None,
    *,
    appending: bool,
) -> Work:
    """Which scans have shards already, and which need some."""
    usable = [case for case in raw.dataset.cases if case.case_id in digests]
    scans = [Scan(case_id=c.case_id, patient_id=c.patient_id, digests=digests[c.case_id]) for c in usable]
    if parent is not None and not appending and not shares_scans(parent, scans):
        parent = None  # of other scans altogether, under the same name
    kept: dict[str, CaseEntry] = {}
    if parent is not None:
        before = {entry.case_id: entry for entry in parent.cases}
        if appending:
            check_same_images(parent, scans)
            kept = {name: entry for name, entry in before.items() if name not in digests}
        for scan in scans:
            entry = before.get(scan.case_id)
            if entry is not None and is_unchanged(entry, scan):
                kept[scan.case_id] = entry

    return Work(
        source=raw.source,
        dataset=raw.dataset,
        config=raw.config,
        tags=raw.tags,
        parent=parent,
        kept=kept,
        new=tuple(case for case in usable if case.case_id not in kept),
        digests=digests,
        failures=failures,
    )


def _convert(
    packer: Packer,
    tasks: Sequence[CaseGroup],
    before: Sequence[PackedGroup],
    work: Work,
    *,
    use_ray: bool,
    on_case: OnCase | None,
) -> tuple[dict[str, PackedCase], tuple[Shard, ...], tuple[Failure, ...]]:
    """Pack the new cases into shards, less what was packed `before`: the cases by id, the shards by name, and
    the failures."""
    groups = list(before)
    finished = {group.number for group in groups}
    done = sum(len(group.cases) for group in groups)
    left = [task for task in tasks if task.number not in finished]
    for group in run_groups(
        partial(pack, packer),
        left,
        attempt=packer.attempt,
        use_ray=use_ray,
        allowed=packer.config.max_failures,
        memory=max((task.memory for task in left), default=0),
    ):
        groups.append(group)
        for _ in (*group.cases, *group.failures):
            done += 1
            if on_case is not None:
                on_case(done, len(work.new))
    groups.sort(key=lambda group: group.number)
    packed = {case.digests.case_id: case for group in groups for case in group.cases}
    for name, case in packed.items():
        if case.digests != work.digests[name]:
            raise DataError(f"case {name} changed while it was prepared: run again when it is whole")
    shards = sorted((shard for group in groups for shard in group.shards), key=lambda shard: shard.path)
    return packed, tuple(shards), tuple(failure for group in groups for failure in group.failures)


def _check_failures(failures: Sequence[Failure], allowed: int, total: int) -> None:
    if len(failures) <= allowed:
        return
    lines = [f"  {failure.case_id}: {failure.message}" for failure in sorted(failures, key=_name)[:10]]
    more = [f"  … and {len(failures) - 10} more"] if len(failures) > 10 else []
    limit = f" (data.max_failures = {allowed})" if allowed else ""
    raise DataError("\n".join([f"{len(failures)} of {total} cases cannot be used{limit}:", *lines, *more]))


def _name(failure: Failure) -> str:
    return failure.case_id


def _say_nothing(note: str) -> None:
    pass
