"""Removing versions, and what no version refers to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from arco_core.errors import DataError
from infra.datasets.catalog import DATASETS, Catalog, Listed, list_versions
from infra.datasets.manifest import MANIFEST, Manifest
from infra.storage import AlreadyExists, ObjectInfo, Store

GRACE_S = 24 * 3600.0
"""A preparation that has written nothing for so long is taken for dead."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a removal takes away; paths are relative to the store."""

    objects: tuple[ObjectInfo, ...]
    partial: tuple[ObjectInfo, ...] = ()
    """Uploads that were begun and never finished: no object shows them."""
    left_out: tuple[str, ...] = ()
    """Why some datasets were left alone."""

    @property
    def bytes(self) -> int:
        """Of all objects."""
        return sum(entry.bytes for entry in (*self.objects, *self.partial))


def version_removal(store: Store, url: str) -> Removal:
    """What removing the version at `url` takes away: its objects, less those that other versions use.

    Raises `DataError` while another version uses shards that this one wrote.
    """
    return _removal(store, *_split_catalog(store, url))


def _removal(store: Store, version: Listed, others: Sequence[Listed]) -> Removal:
    _refuse_users(version, others)
    name = version.manifest.name
    kept = set().union(*(_referenced(other.manifest) for other in others))
    own = {entry for entry in _referenced(version.manifest) if entry not in kept}
    folder = PurePosixPath(DATASETS, name)
    entries = (e for e in store.entries(str(folder)) if str(PurePosixPath(e.path).relative_to(folder)) in own)
    return Removal(objects=tuple(entries))


def remove_version(store: Store, url: str) -> Removal:
    """Remove the version at `url`; returns what is gone.

    The manifest goes first: from then on there is no version, and whoever goes on from it meanwhile is told.
    Raises as `version_removal`; then the version is as it was.
    """
    version, others = _split_catalog(store, url)
    removal = _removal(store, version, others)
    manifest = f"{DATASETS}/{version.key}/{MANIFEST}"
    content = store.read_bytes(manifest)
    store.delete(manifest)
    try:
        _refuse_users(version, list_versions(store, version.manifest.name).versions)
    except DataError:
        _put_back(store, manifest, content)
        raise
    for entry in removal.objects:
        store.delete(entry.path)
    return removal


def unreferenced(store: Store, *, older_than_s: float = GRACE_S) -> Removal:
    """Objects of datasets that no version lists, as a killed preparation leaves them, and unfinished uploads.

    A folder's objects are left alone while the newest of them is younger than `older_than_s` by the store's
    clock: a preparation writes there. So are datasets with a manifest that cannot be read.
    """
    entries, partial = store.entries(DATASETS), store.partial_uploads()
    catalog = list_versions(store)  # after the entries: what is published meanwhile is known to be used
    unknown = {_dataset_folder(path) for path in catalog.unreadable}
    used = {
        f"{DATASETS}/{listed.manifest.name}/{path}"
        for listed in catalog.versions
        for path in _referenced(listed.manifest)
    }
    spare: dict[str, list[ObjectInfo]] = defaultdict(list)
    for entry in entries:
        if entry.path not in used and _dataset_folder(entry.path) not in unknown:
            spare[_version_folder(entry.path)].append(entry)
    limit = store.clock() - older_than_s
    old = [e for group in spare.values() if max(e.modified for e in group) <= limit for e in group]
    return Removal(
        objects=tuple(old),
        partial=tuple(entry for entry in partial if entry.modified <= limit),
        left_out=tuple(catalog.unreadable.values()),
    )


def remove_unreferenced(store: Store, removal: Removal) -> None:
    """Remove what `unreferenced` found."""
    for entry in removal.objects:
        store.delete(entry.path)
    for upload in removal.partial:
        store.discard(upload)


def _split_catalog(store: Store, url: str) -> tuple[Listed, list[Listed]]:
    """The version at `url`, and the others of its dataset."""
    location = Store(url)
    name = location.parent().url.rpartition("/")[2]
    catalog = list_versions(store, name)
    _require_readable(catalog)
    found = [listed for listed in catalog.versions if listed.url == location.url]
    if not found:
        raise DataError(f"{url} is no dataset version of the store {store.url}: give the right --store")
    return found[0], [listed for listed in catalog.versions if listed.url != location.url]


def _require_readable(catalog: Catalog) -> None:
    for problem in catalog.unreadable.values():
        raise DataError(
            f"{problem}. What that version refers to is not known, so nothing is removed: "
            "remove its folder by hand first"
        )


def _refuse_users(version: Listed, others: Iterable[Listed]) -> None:
    name = version.manifest.version
    users = [o.key for o in others if any(shard.writer == name for shard in o.manifest.shards)]
    if users:
        raise DataError(
            f"{version.key} cannot be removed: {', '.join(users[:5])}{', …' if len(users) > 5 else ''} "
            f"use{'s' if len(users) == 1 else ''} its shards; remove the later versions first"
        )


def _referenced(manifest: Manifest) -> set[str]:
    """Objects that a version needs, relative to the dataset's folder."""
    return {
        f"{manifest.version}/{MANIFEST}", manifest.cases_path, *(shard.path for shard in manifest.shards)
    }  # fmt: skip


def _dataset_folder(path: str) -> str:
    """`datasets/name` of an object's path."""
    return "/".join(path.split("/")[:2])


def _version_folder(path: str) -> str:
    """`datasets/name/version` of an object's path."""
    return "/".join(path.split("/")[:3])


def _put_back(store: Store, path: str, content: bytes) -> None:
    try:
        store.put_if_absent(path, content)
    except AlreadyExists:  # the version was prepared anew meanwhile
        return
