"""The state of a preparation: which scans the version will hold, and where their samples are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import arco_core
from arco_core.config import DataConfig
from infra.datasets.append import Scan, file_tags, scan_of
from infra.datasets.convert import Digests
from infra.datasets.draft import Draft, draft_version
from infra.datasets.manifest import Counts, Manifest, Shard, Skipped
from infra.datasets.packing import Failure, PackedCase
from infra.datasets.readers.base import RawCase, RawDataset
from infra.datasets.validate import check_no_copies
from infra.datasets.version import CaseEntry, DatasetVersion, encode_cases
from infra.storage import Store

Packed = Mapping[str, PackedCase]
"""Converted cases by id."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a version is made of."""

    source: Store
    dataset: RawDataset
    config: DataConfig
    tags: Mapping[str, str]
    """What the listing of `source` says of each file."""
    parent: DatasetVersion | None
    kept: Mapping[str, CaseEntry]
    """Cases that have shards, by id."""
    new: tuple[RawCase, ...]
    """Cases that need some."""
    digests: Mapping[str, Digests]
    """Of the usable cases of `source`, by id."""
    failures: tuple[Failure, ...]

    def draft(self, packed: Packed) -> Draft:
        """The version, as far as it is known: new cases count as usable unless they are in `failures`.

        Raises `DataError` for one image under two patients, or patients that cannot be split.
        """
        failed = {failure.case_id for failure in self.failures}
        scans = [scan_of(entry) for entry in self.kept.values()]
        scans += [self._scan(case, packed) for case in self.new if case.case_id not in failed]
        patients = {scan.case_id: scan.patient_id for scan in scans}
        check_no_copies({scan.case_id: scan.digests.image for scan in scans}, patients)
        known = {scan.case_id: scan.content_sha256 for scan in scans if scan.content_sha256 is not None}
        check_no_copies(known, patients)
        return draft_version(scans, self.failures, self.dataset, self.config, self.parent)

    def manifest(self, draft: Draft, packed: Packed, shards: tuple[Shard, ...]) -> tuple[Manifest, bytes]:
        """The manifest, and the table of cases; `shards` are those of the new cases."""
        split_of = {patient: split for split, members in draft.splits.items() for patient in members}
        raw = {case.case_id: case for case in self.dataset.cases}
        entries = [self._refreshed(entry, raw) for entry in self.kept.values()]
        entries += [self._entry(case, packed[case.case_id]) for case in self.new if case.case_id in packed]
        entries = [replace(entry, split=split_of[entry.patient_id]) for entry in entries]
        entries.sort(key=lambda entry: entry.case_id)
        cases = encode_cases(entries)
        digest = hashlib.sha256(cases).hexdigest()
        manifest = Manifest(
            name=self.config.name,
            version=draft.version,
            parent=None if self.parent is None else self.parent.version,
            source=self.source.url,
            created=self._now().isoformat(timespec="milliseconds"),
            code_version=arco_core.__version__,
            classes=self.config.classes,
            channels=self.dataset.channels,
            label_groups=draft.label_groups,
            spacing_known=self.dataset.spacing_known,
            data=self.config,
            splits=draft.splits,
            counts=_count(entries),
            shards=self._used(entries, shards),
            skipped=tuple(Skipped(case_id=f.case_id, reason=f.message) for f in self.failures),
            cases_path=f"{draft.version}/cases-{digest[:12]}.parquet",
            cases_sha256=digest,
        )
        return manifest, cases

    def _scan(self, case: RawCase, packed: Packed) -> Scan:
        done = packed.get(case.case_id)
        return Scan(
            case_id=case.case_id,
            patient_id=case.patient_id,
            digests=self.digests[case.case_id],
            content_sha256=None if done is None else done.content_sha256,
        )

    def _entry(self, case: RawCase, packed: PackedCase) -> CaseEntry:
        return CaseEntry(
            case_id=case.case_id,
            patient_id=case.patient_id,
            split="train",  # until the caller puts it where its patient is
            annotated=packed.reference_shard is not None,
            shard=packed.shard,
            row_groups=packed.row_groups,
            rows=packed.rows,
            reference_shard=packed.reference_shard,
            reference_row_groups=packed.reference_row_groups,
            geometry=packed.geometry,
            source=self.source.url,
            source_images=case.image_paths,
            source_labels=case.label_paths,
            source_tags=file_tags(case, self.tags),
            source_sha256=packed.digests.image,
            label_sha256=packed.digests.label,
            content_sha256=packed.content_sha256,
        )

    def _refreshed(self, entry: CaseEntry, raw: Mapping[str, RawCase]) -> CaseEntry:
        """The entry of a case that has shards, with where its files are now."""
        case = raw.get(entry.case_id)
        if case is None or entry.case_id not in self.digests:
            return entry
        return replace(
            entry,
            source=self.source.url,
            source_images=case.image_paths,
            source_labels=case.label_paths,
            source_tags=file_tags(case, self.tags),
        )

    def _used(self, entries: Sequence[CaseEntry], shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
        before = () if self.parent is None else self.parent.manifest.shards
        used = {path for entry in entries for path in (entry.shard, entry.reference_shard)}
        return tuple({s.path: s for s in (*before, *shards) if s.path in used}.values())

    def _now(self) -> datetime:
        """The time, in any case later than the parent's: it tells which version is the newest."""
        now = datetime.now(UTC)
        if self.parent is None:
            return now
        return max(now, datetime.fromisoformat(self.parent.manifest.created) + timedelta(milliseconds=1))


def _count(entries: Sequence[CaseEntry]) -> Counts:
    annotated = [entry for entry in entries if entry.annotated]
    return Counts(
        cases=len(entries),
        annotated_cases=len(annotated),
        annotated_patients=len({entry.patient_id for entry in annotated}),
        samples=sum(entry.rows for entry in entries),
    )
