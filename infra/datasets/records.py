"""What the tasks of a preparation have done: one that was killed goes on from there when it is run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import arco_core
from arco_core.errors import StoreError
from arco_core.preprocess import Geometry
from infra.datasets.convert import Digests
from infra.datasets.manifest import Shard
from infra.datasets.packing import CaseGroup, PackedCase, PackedGroup, Packer

FOLDER = "records"


def pack(packer: Packer, group: CaseGroup) -> PackedGroup:
    """`packer.pack`, and a record of it, unless a case could not be used."""
    packed = packer.pack(group)
    if not packed.failures:
        packer.home.write_bytes(_path(packer.folder, group), _to_json(packed))
    return packed


def read_records(
    packer: Packer, groups: Sequence[CaseGroup], digests: Mapping[str, Digests]
) -> list[PackedGroup]:
    """What came of those of `groups` that are packed already, from files that still have these `digests` (by
    case id), and whose shards are as they were written."""
    home = packer.home
    sizes = {entry.path: entry.bytes for entry in home.entries(packer.folder)}
    paths = [_path(packer.folder, group) for group in groups]
    found = [_from_json(home.read_bytes(path), home.join(path)) for path in paths if path in sizes]
    return [
        packed
        for packed in found
        if all(sizes.get(shard.path) == shard.bytes for shard in packed.shards)
        and all(digests.get(case.digests.case_id) == case.digests for case in packed.cases)
    ]


def remove_records(packer: Packer) -> None:
    """Remove the records of a preparation that has ended."""
    for path in packer.home.list(f"{packer.folder}/{FOLDER}"):
        packer.home.delete(path)


def _path(folder: str, group: CaseGroup) -> str:
    """Of other files, or written by other code, a group has another record. What is in the files is known by
    the digests of `group`, and how they are prepared by `folder`, the name of the version."""
    files = [(case.case_id, case.image_paths, case.label_paths) for case in group.cases]
    key = hashlib.sha256(json.dumps([arco_core.__version__, files]).encode()).hexdigest()[:12]
    return f"{folder}/{FOLDER}/{group.number:05d}-{key}.json"


def _to_json(packed: PackedGroup) -> bytes:
    cases = [asdict(case) | {"geometry": case.geometry.to_json()} for case in packed.cases]
    shards = [asdict(shard) for shard in packed.shards]
    return json.dumps({"number": packed.number, "cases": cases, "shards": shards}).encode()


def _from_json(data: bytes, url: str) -> PackedGroup:
    try:
        values = json.loads(data)
        return PackedGroup(
            number=values["number"],
            cases=tuple(_case(case) for case in values["cases"]),
            shards=tuple(Shard(**shard) for shard in values["shards"]),
            failures=(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{url} is no record of a preparation ({error!r}): remove it and run again"
        ) from error


def _case(values: dict[str, Any]) -> PackedCase:
    rebuilt = {
        "digests": Digests(**values["digests"]),
        "geometry": Geometry.from_json(values["geometry"]),
        "row_groups": tuple(values["row_groups"]),
        "reference_row_groups": tuple(values["reference_row_groups"]),
    }
    return PackedCase(**values | rebuilt)
