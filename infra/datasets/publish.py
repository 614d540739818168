"""The last step of a preparation: a version comes into being, whole, or not at all."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from arco_core.errors import DataError, StoreError
from infra.datasets.manifest import MANIFEST, Manifest
from infra.datasets.verify import wrong_sizes
from infra.storage import AlreadyExists, NotFound, ObjectInfo, Store

_ATTEMPTS = 5
_PAUSE_S = (0.0, 3.0)
"""The clock of an S3 ticks in seconds."""


def manifest_paths(home: Store) -> set[str]:
    """Manifests of the dataset whose folder is `home`, relative to it."""
    return {entry.path for entry in _manifests(home)}


def publish(home: Store, manifest: Manifest, cases: bytes, *, seen: Collection[str]) -> None:
    """Write the table of cases, then, with one conditional PUT, the manifest.

    A writer of the same version that was faster is no error: its version has the same content. Two different
    versions that go on from one parent would tear the history of the dataset apart: the slower writer fails.

    Args:
        home: the dataset's folder.
        manifest: of the new version; every shard that it lists is there already.
        cases: the table that `manifest` names.
        seen: `manifest_paths` when the parent was chosen.

    Raises:
        DataError: another version went on from the parent meanwhile; nothing is published.
        StoreError: shards, or the parent, were removed meanwhile; nothing is published.
    """
    home.write_bytes(manifest.cases_path, cases)
    lost = list(wrong_sizes(home, manifest.shards))
    if lost:
        raise StoreError(
            f"version {manifest.version} cannot be published, as {len(lost)} of its shards are not as "
            f"they were written: {lost[0]}; run again"
        )
    path = f"{manifest.version}/{MANIFEST}"
    for _ in range(_ATTEMPTS):
        _check_parent(home, manifest)
        _refuse(_rivals(home, manifest, seen), manifest)
        try:
            home.put_if_absent(path, manifest.to_json())
        except AlreadyExists:
            return
        try:
            _check_parent(home, manifest)
            rivals = _rivals(home, manifest, seen)
            _refuse([rival for rival in rivals if rival.before is True], manifest)
        except (DataError, StoreError):
            home.delete(path)
            raise
        if all(rival.before is False for rival in rivals):
            return
        # Written in the same tick of the store's clock: nobody can tell who was first, so both step back.
        home.delete(path)
        time.sleep(random.uniform(*_PAUSE_S))
    raise StoreError(f"version {manifest.version} and others were published at one time: run again")


@dataclass(frozen=True, kw_only=True)
class _Rival:
    """Another version that goes on from the same parent."""

    version: str
    before: bool | None
    """Whether it was written before ours; none where the clock does not tell."""


def _check_parent(home: Store, manifest: Manifest) -> None:
    """Whoever removes a version looks for later ones once its manifest is gone, and we look for the parent
    once our manifest is there: of two, at least one sees the other."""
    if manifest.parent is not None and not home.exists(f"{manifest.parent}/{MANIFEST}"):
        raise StoreError(
            f"version {manifest.parent}, from which {manifest.version} goes on, was removed: run again"
        )


def _rivals(home: Store, manifest: Manifest, seen: Collection[str]) -> list[_Rival]:
    if manifest.parent is None:
        return []
    now = {entry.path: entry for entry in _manifests(home)}
    own = now.pop(f"{manifest.version}/{MANIFEST}", None)
    rivals = []
    for path in sorted(now.keys() - set(seen)):
        other = _read(home, path)
        if other is not None and other.parent == manifest.parent:
            first = own is None or now[path].modified < own.modified
            same = own is not None and now[path].modified == own.modified
            rivals.append(_Rival(version=other.version, before=None if same else first))
    return rivals


def _refuse(rivals: Collection[_Rival], manifest: Manifest) -> None:
    for rival in rivals:
        raise DataError(
            f"version {rival.version} went on from {manifest.parent} while {manifest.version} was being "
            "prepared, which was not published: run again, and it goes on from there"
        )


def _manifests(home: Store) -> list[ObjectInfo]:
    return [entry for entry in home.entries() if PurePosixPath(entry.path).name == MANIFEST]


def _read(home: Store, path: str) -> Manifest | None:
    try:
        return Manifest.from_json(home.read_bytes(path), home.join(path))
    except (NotFound, DataError):  # removed again, or of a format that does not append to this one
        return None
