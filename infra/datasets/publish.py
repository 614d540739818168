"""The last step of a preparation: a version comes into being, whole, or not at all."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from pathlib import PurePosixPath

from arco_core.errors import DataError, StoreError
from infra.datasets.manifest import MANIFEST, Manifest
from infra.datasets.verify import wrong_sizes
from infra.storage import AlreadyExists, NotFound, Store

_ATTEMPTS = 5
_PAUSE_S = (0.0, 2.0)


def manifest_paths(home: Store) -> set[str]:
    """Manifests of the dataset whose folder is `home`, relative to it."""
    return {path for path in home.list() if PurePosixPath(path).name == MANIFEST}


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
        for rival in _rivals(home, manifest, seen):
            raise DataError(
                f"version {rival} went on from {manifest.parent} while {manifest.version} was being "
                "prepared, which was not published: run again, and it goes on from there"
            )
        try:
            home.put_if_absent(path, manifest.to_json())
        except AlreadyExists:
            return
        try:
            _check_parent(home, manifest)
        except StoreError:
            home.delete(path)
            raise
        if not _rivals(home, manifest, seen):
            return
        # No clock tells who was first. Whoever sees the other steps back; whoever returns first then stays.
        home.delete(path)
        time.sleep(random.uniform(*_PAUSE_S))
    raise StoreError(f"version {manifest.version} and others were published at one time: run again")


def _check_parent(home: Store, manifest: Manifest) -> None:
    """Whoever removes a version looks for later ones once its manifest is gone, and we look for the parent
    once our manifest is there: of two, at least one sees the other."""
    if manifest.parent is not None and not home.exists(f"{manifest.parent}/{MANIFEST}"):
        raise StoreError(
            f"version {manifest.parent}, from which {manifest.version} goes on, was removed: run again"
        )


def _rivals(home: Store, manifest: Manifest, seen: Collection[str]) -> list[str]:
    """Versions that go on from the same parent, and are not among those `seen` before."""
    if manifest.parent is None:
        return []
    paths = manifest_paths(home).difference(seen, [f"{manifest.version}/{MANIFEST}"])
    others = [_read(home, path) for path in sorted(paths)]
    return [other.version for other in others if other is not None and other.parent == manifest.parent]


def _read(home: Store, path: str) -> Manifest | None:
    try:
        return Manifest.from_json(home.read_bytes(path), home.join(path))
    except (NotFound, DataError):  # removed again, or of a format that does not append to this one
        return None
