"""The last step of a preparation: a version comes into being, whole, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from arco_core.errors import DataError, StoreError
from infra.datasets.manifest import MANIFEST, Manifest
from infra.datasets.verify import wrong_sizes
from infra.storage import AlreadyExists, NotFound, ObjectInfo, Store


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
    _check_history(home, manifest, seen, committed=False)
    path = f"{manifest.version}/{MANIFEST}"
    try:
        home.put_if_absent(path, manifest.to_json())
    except AlreadyExists:
        return
    try:
        _check_history(home, manifest, seen, committed=True)
    except (DataError, StoreError):
        home.delete(path)
        raise


def _check_history(home: Store, manifest: Manifest, seen: Collection[str], *, committed: bool) -> None:
    """Whether the parent is still there, and still the last version.

    Whoever removes a parent, and whoever else goes on from it, checks after its own write, too: of two, at
    least one sees the other.
    """
    if manifest.parent is None:
        return
    if not home.exists(f"{manifest.parent}/{MANIFEST}"):
        raise StoreError(
            f"version {manifest.parent}, from which {manifest.version} goes on, was removed: run again"
        )
    own = f"{manifest.version}/{MANIFEST}"
    now = {entry.path: entry for entry in _manifests(home)}
    for path in sorted(now.keys() - set(seen) - {own}):
        rival = _read(home, path)
        if rival is None or rival.parent != manifest.parent:
            continue
        if not committed or _came_first(now[path], now.get(own)):
            raise DataError(
                f"version {rival.version} went on from {manifest.parent} while {manifest.version} was being "
                "prepared, which was not published: run again, and it goes on from there"
            )


def _came_first(rival: ObjectInfo, own: ObjectInfo | None) -> bool:
    return own is None or (rival.modified, rival.path) < (own.modified, own.path)


def _manifests(home: Store) -> list[ObjectInfo]:
    return [entry for entry in home.entries() if PurePosixPath(entry.path).name == MANIFEST]


def _read(home: Store, path: str) -> Manifest | None:
    try:
        return Manifest.from_json(home.read_bytes(path), home.join(path))
    except (NotFound, DataError):  # removed again, or of a format that does not append to this one
        return None
