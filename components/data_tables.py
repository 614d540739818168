"""What `arco data` prints."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table

from arco_core.config import DataConfig
from infra.datasets.catalog import Listed
from infra.datasets.compare import Comparison
from infra.datasets.manifest import Manifest, Shard
from infra.datasets.remove import Removal
from infra.datasets.splits import SPLITS
from infra.datasets.version import DatasetVersion
from infra.storage import ObjectInfo

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def versions_table(versions: Sequence[Listed]) -> Table:
    """A row a version: patients of each split, annotated ones, samples, bytes of its own and shared."""
    table = Table()
    for title in ("dataset", "version", "created (UTC)"):
        table.add_column(title, no_wrap=True)
    for title in (*SPLITS, "annotated", "scans", "samples", "own", "shared"):
        table.add_column(title, justify="right", no_wrap=True)
    for listed in versions:
        manifest = listed.manifest
        own, shared = _own_and_shared(manifest)
        table.add_row(
            escape(manifest.name),
            manifest.version,
            manifest.created[:16].replace("T", " "),
            *(str(len(manifest.splits[split])) for split in SPLITS),
            str(manifest.counts.annotated_patients),
            str(manifest.counts.cases),
            str(manifest.counts.samples),
            size(own),
            size(shared),
        )
    return table


def version_tables(version: DatasetVersion) -> Iterator[Table]:
    """A version's origin, what was left out and why, its splits, its shards and its settings."""
    manifest = version.manifest
    yield _pairs(
        f"{manifest.name} {manifest.version}",
        [
            ("url", version.url),
            ("created", f"{manifest.created} by ARCO {manifest.code_version}"),
            ("scans from", manifest.source),
            ("goes on from", manifest.parent or "no other version"),
            ("left out", f"{len(manifest.skipped)} scans" if manifest.skipped else "nothing"),
            ("classes", ", ".join(f"{value} {name}" for value, name in enumerate(manifest.classes))),
            ("channels", str(manifest.channels)),
        ],
    )
    if manifest.skipped:
        yield _pairs("left out", [(case.case_id, case.reason) for case in manifest.skipped])
    yield _splits_table(version)
    yield _shards_table(manifest)
    yield _pairs("settings", list(settings(manifest.data).items()))


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Settings that differ, and cases that were added, removed or changed."""
    if comparison.settings:
        table = Table("setting", "was", "is", title="settings", title_justify="left")
        for row in comparison.settings:
            table.add_row(*map(escape, row))
        yield table
    cases = [("added", name, "") for name in comparison.added]
    cases += [("removed", name, "") for name in comparison.removed]
    cases += [("changed", name, what) for name, what in comparison.changed]
    if cases:
        counts = Counter(kind for kind, _, _ in cases)
        title = "scans: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
        table = Table("", "scan", "what", title=title, title_justify="left")
        for row in cases:
            table.add_row(*map(escape, row))
        yield table


def removal_table(removal: Removal) -> Table:
    """A row a folder: how many objects, how large, how old."""
    table = Table("folder")
    for title in ("objects", "size", "last written (UTC)"):
        table.add_column(title, justify="right", no_wrap=True)
    groups: dict[str, list[ObjectInfo]] = defaultdict(list)
    for entry in (*removal.objects, *removal.partial):
        groups[entry.path.rpartition("/")[0]].append(entry)
    for folder, entries in sorted(groups.items()):
        newest = datetime.fromtimestamp(max(entry.modified for entry in entries), UTC)
        total = size(sum(entry.bytes for entry in entries))
        table.add_row(escape(folder), str(len(entries)), total, f"{newest:%Y-%m-%d %H:%M}")
    return table


def settings(config: DataConfig) -> dict[str, str]:
    """The settings under `[data]` by name, as text."""
    return {field.name: str(getattr(config, field.name)) for field in dataclasses.fields(config)}


def size(count: int) -> str:
    """`count` bytes in three digits: `1.53 GB`."""
    value, unit = float(count), 0
    while value >= 999.5 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def _splits_table(version: DatasetVersion) -> Table:
    table = Table("split", title="patients", title_justify="left")
    for title in ("patients", "annotated", "scans", "samples"):
        table.add_column(title, justify="right")
    for split in SPLITS:
        cases = [case for case in version.cases if case.split == split]
        annotated = {case.patient_id for case in cases if case.annotated}
        samples = sum(case.rows for case in cases)
        table.add_row(
            split, str(len(version.patients(split))), str(len(annotated)), str(len(cases)), str(samples)
        )
    return table


def _shards_table(manifest: Manifest) -> Table:
    """Shards by kind and by the version that wrote them."""
    table = Table("kind", "written by", title="shards", title_justify="left")
    for title in ("shards", "rows", "size"):
        table.add_column(title, justify="right")
    groups: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    for shard in manifest.shards:
        groups[shard.kind, shard.writer].append(shard)
    for (kind, writer), shards in groups.items():
        name = "this version" if writer == manifest.version else writer
        rows, total = sum(s.rows for s in shards), sum(s.bytes for s in shards)
        table.add_row(kind, name, str(len(shards)), str(rows), size(total))
    return table


def _own_and_shared(manifest: Manifest) -> tuple[int, int]:
    own = sum(shard.bytes for shard in manifest.shards if shard.writer == manifest.version)
    return own, sum(shard.bytes for shard in manifest.shards) - own
