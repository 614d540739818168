"""A version that goes on from an earlier one: what it takes over, and when it may."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.catalog import list_versions, resolve
from infra.datasets.convert import Digests
from infra.datasets.manifest import Manifest
from infra.datasets.readers.base import RawCase
from infra.datasets.splits import SPLITS
from infra.datasets.version import CaseEntry, DatasetVersion
from infra.storage import Store

_CHOICE = ("exclude", "max_failures")
"""Settings that say which cases take part, not what becomes of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """A case of the version being made, before its split is known."""

    case_id: str
    patient_id: str
    digests: Digests
    content_sha256: str | None = None
    """None until the case has been read."""

    @property
    def annotated(self) -> bool:
        """Whether it has an annotation."""
        return self.digests.label is not None


def preparation_settings(config: DataConfig) -> dict[str, Any]:
    """The settings that decide what becomes of a scan, and of its patient."""
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in _CHOICE}


def find_parent(
    store: Store, config: DataConfig, channels: int, append_to: str | None
) -> DatasetVersion | None:
    """The version to go on from: `append_to`, else the newest of the dataset with the same settings.

    Raises `DataError` when `append_to` was made with other settings.
    """
    if append_to is not None:
        parent = DatasetVersion.open(resolve(append_to, store))
        if not config.classes:  # a folder of unlabelled scans names none
            config = dataclasses.replace(config, classes=parent.classes)
        differences = _differences(parent.manifest, config, channels)
        if differences:
            raise DataError(
                f"{parent.url} cannot be appended to with other settings: {'; '.join(differences)}. Use its "
                "settings (arco data show), or prepare all scans anew without --append-to"
            )
        return parent
    versions = list_versions(store, config.name).versions
    alike = [listed for listed in versions if not _differences(listed.manifest, config, channels)]
    return DatasetVersion.open(alike[-1].url) if alike else None


def _differences(manifest: Manifest, config: DataConfig, channels: int) -> list[str]:
    before, now = preparation_settings(manifest.data), preparation_settings(config)
    found = [f"data.{k} was {before[k]!r}, is {now[k]!r}" for k in now if before[k] != now[k]]
    if manifest.channels != channels:
        found.append(f"the scans had {manifest.channels} channels, have {channels}")
    return found


def known_digests(
    parent: DatasetVersion, source: Store, cases: Iterable[RawCase], tags: Mapping[str, str]
) -> dict[str, Digests]:
    """Digests of the cases whose files are still those that `parent` read, by case id.

    `tags` has what the listing of `source` says of each file. A file that it says nothing of is not known.
    """
    before = {entry.case_id: entry for entry in parent.cases if entry.source == source.url}
    known = {}
    for case in cases:
        entry = before.get(case.case_id)
        if entry is None:
            continue
        same_files = (case.image_paths, case.label_paths) == (entry.source_images, entry.source_labels)
        now = file_tags(case, tags)
        if same_files and all(now) and now == entry.source_tags:
            known[case.case_id] = Digests(
                case_id=case.case_id, image=entry.source_sha256, label=entry.label_sha256
            )
    return known


def file_tags(case: RawCase, tags: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of the case's files, in their order: image, then annotation."""
    return tuple(tags.get(path, "") for path in (*case.image_paths, *case.label_paths))


def shares_scans(parent: DatasetVersion, scans: Iterable[Scan]) -> bool:
    """Whether any image of `scans` is in `parent`, too."""
    return not {entry.source_sha256 for entry in parent.cases}.isdisjoint(s.digests.image for s in scans)


def is_unchanged(entry: CaseEntry, scan: Scan) -> bool:
    """Whether the shards hold `scan` already, as `entry`."""
    return (
        entry.patient_id == scan.patient_id
        and entry.source_sha256 == scan.digests.image
        and entry.label_sha256 == scan.digests.label
    )


def scan_of(entry: CaseEntry) -> Scan:
    """An earlier version's case, as a part of a later one."""
    return Scan(
        case_id=entry.case_id,
        patient_id=entry.patient_id,
        digests=Digests(case_id=entry.case_id, image=entry.source_sha256, label=entry.label_sha256),
        content_sha256=entry.content_sha256,
    )


def check_same_images(parent: DatasetVersion, scans: Sequence[Scan]) -> None:
    """Refuse a scan to be appended under the name of another one: it would take its place."""
    before = {entry.case_id: entry.source_sha256 for entry in parent.cases}
    taken = [s.case_id for s in scans if before.get(s.case_id, s.digests.image) != s.digests.image]
    if taken:
        raise DataError(
            f"{parent.url} has other scans under the names {', '.join(taken[:5])}"
            f"{', …' if len(taken) > 5 else ''}: rename the new ones, or, where they are meant to take the "
            "others' place, put all scans into one folder and prepare that without --append-to"
        )


def settled_patients(parent: DatasetVersion, scans: Iterable[Scan]) -> dict[str, str]:
    """The splits of the patients of `scans` that `parent` knows, by name or by an image of theirs.

    A patient whose scans were in several splits, as when two turn out to be one, goes where most was seen of
    them: train before validation before test.
    """
    by_name = {entry.patient_id: entry.split for entry in parent.cases}
    by_file = {entry.source_sha256: entry.split for entry in parent.cases}
    by_content = {entry.content_sha256: entry.split for entry in parent.cases}
    places: dict[str, str] = {}
    for scan in scans:
        candidates = (
            places.get(scan.patient_id),
            by_name.get(scan.patient_id),
            by_file.get(scan.digests.image),
            by_content.get(scan.content_sha256 or ""),
        )
        found = [place for place in candidates if place is not None]
        if found:
            places[scan.patient_id] = min(found, key=SPLITS.index)
    return places
