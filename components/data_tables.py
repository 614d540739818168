"""What `arco data` prints."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from arco_core.config import DataConfig
from infra.datasets.catalog import Listed
from infra.datasets.manifest import Manifest, Shard
from infra.datasets.splits import SPLITS
from infra.datasets.version import DatasetVersion

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
    """A version's origin, its splits, its shards and its settings."""
    manifest = version.manifest
    yield _pairs(
        f"{manifest.name} {manifest.version}",
        [
            ("url", version.url),
            ("created", f"{manifest.created} by ARCO {manifest.code_version}"),
            ("scans from", manifest.source),
            ("classes", ", ".join(f"{value} {name}" for value, name in enumerate(manifest.classes))),
            ("channels", str(manifest.channels)),
        ],
    )
    yield _splits_table(version)
    yield _shards_table(manifest)
    yield _pairs("settings", list(settings(manifest.data).items()))


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
