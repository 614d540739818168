"""The dataset versions of a store: finding them without opening them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from arco_core.errors import DataError
from infra.datasets.manifest import MANIFEST, Manifest
from infra.storage import NotFound, ObjectInfo, Store

DATASETS = "datasets"
"""The folder of a store that holds the datasets, each a folder of versions."""
_READERS = 8
"""Manifests read at a time: each is one small object, whose latency counts."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A version that exists: its manifest, and where it lies."""

    url: str
    manifest: Manifest

    @property
    def key(self) -> str:
        """`name/version`, as commands take it."""
        return f"{self.manifest.name}/{self.manifest.version}"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What a store holds."""

    versions: tuple[Listed, ...]
    """By dataset, the oldest first."""
    unreadable: Mapping[str, str]
    """What is wrong with manifests that cannot be read, such as those in another format, by their paths."""


def list_versions(store: Store, name: str | None = None) -> Catalog:
    """All versions below `datasets/` of `store`, or those of the dataset `name`."""
    entries = store.entries(f"{DATASETS}/{name}" if name else DATASETS)
    found = [entry for entry in entries if PurePosixPath(entry.path).name == MANIFEST]
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(lambda entry: _read(store, entry), found))
    versions = [listed for listed in read if isinstance(listed, Listed)]
    return Catalog(
        versions=tuple(sorted(versions, key=lambda v: (v.manifest.name, v.manifest.created, v.url))),
        unreadable={
            e.path: problem for e, problem in zip(found, read, strict=True) if isinstance(problem, str)
        },
    )


def resolve(text: str, store: Store) -> str:
    """URL of the version that a command names: a URL or path, or `name/version` or `name` in `store`.

    A version may be cut short as long as one version only begins so; a name alone is the newest version.
    Raises `DataError` for what is not there, or not unique.
    """
    if "://" in text or text.startswith(("/", ".", "~")) or text.count("/") > 1:
        return Store(text).url
    name, _, start = text.strip("/").partition("/")
    versions = [v for v in list_versions(store, name).versions if v.manifest.version.startswith(start)]
    if not versions:
        raise DataError(
            f"{store.url} has no dataset version {text!r}: see what there is with "
            f"arco data ls --store {store.url}, or give the version's URL"
        )
    if start and len(versions) > 1:
        raise DataError(f"{text!r} begins {', '.join(v.key for v in versions)}: give more of its digits")
    return versions[-1].url


def _read(store: Store, entry: ObjectInfo) -> Listed | str | None:
    """The version behind a manifest, or what is wrong; none when it was removed since it was listed."""
    try:
        data = store.read_bytes(entry.path)
        manifest = Manifest.from_json(data, store.join(entry.path))
    except NotFound:
        return None
    except DataError as error:
        return str(error)
    return Listed(url=store.join(str(PurePosixPath(entry.path).parent)), manifest=manifest)
