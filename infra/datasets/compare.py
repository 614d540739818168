"""What differs between two versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.datasets.append import preparation_settings
from infra.datasets.version import CaseEntry, DatasetVersion


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """From one version to another."""

    added: tuple[str, ...]
    """Cases that only the other one has."""
    removed: tuple[str, ...]
    """Cases that only the first one has."""
    changed: tuple[tuple[str, str], ...]
    """Cases of both that differ, and in what."""
    settings: tuple[tuple[str, str, str], ...]
    """Name of a setting that differs, and both values."""
    shared_bytes: int
    """Of shards that both use."""

    @property
    def is_empty(self) -> bool:
        """Whether the versions hold the same."""
        return not (self.added or self.removed or self.changed or self.settings)


def compare(first: DatasetVersion, other: DatasetVersion) -> Comparison:
    """Cases and settings of `other` as against `first`; they may lie in different stores."""
    before = {entry.case_id: entry for entry in first.cases}
    after = {entry.case_id: entry for entry in other.cases}
    changes = (
        (name, ", ".join(_changes(before[name], after[name]))) for name in sorted(before & after.keys())
    )
    shared = {shard.sha256 for shard in first.manifest.shards}
    return Comparison(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple((name, what) for name, what in changes if what),
        settings=tuple(_settings(first, other)),
        shared_bytes=sum(shard.bytes for shard in other.manifest.shards if shard.sha256 in shared),
    )


def _changes(before: CaseEntry, after: CaseEntry) -> Iterator[str]:
    if before.content_sha256 != after.content_sha256:
        yield "image"
    elif before.source_sha256 != after.source_sha256:
        yield "image file, with the same voxels"
    if before.label_sha256 != after.label_sha256:
        if before.label_sha256 is None:
            yield "annotated"
        else:
            yield "annotation" if after.label_sha256 is not None else "no longer annotated"
    if before.patient_id != after.patient_id:
        yield f"patient {before.patient_id} → {after.patient_id}"
    if before.split != after.split:
        yield f"{before.split} → {after.split}"


def _settings(first: DatasetVersion, other: DatasetVersion) -> Iterator[tuple[str, str, str]]:
    before, after = preparation_settings(first.data_config), preparation_settings(other.data_config)
    before |= {"channels": first.channels}
    after |= {"channels": other.channels}
    for name in before:
        if before[name] != after[name]:
            yield name, str(before[name]), str(after[name])
