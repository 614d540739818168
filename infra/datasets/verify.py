"""Whether every object of a version is what its manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from infra.datasets.manifest import Shard
from infra.datasets.version import DatasetVersion
from infra.storage import NotFound, Store

_CHUNK = 8 * 2**20
_READERS = 4


def verify(
    version: DatasetVersion, *, quick: bool = False, on_shard: Callable[[int], None] | None = None
) -> list[str]:
    """What is wrong with `version`, a line each; nothing when all is well.

    Checks every shard's size and sha256, reading it once, and that cases, shards and splits agree. `quick`
    checks sizes only, from listings. `on_shard` is told how many shards are done. The cases' table itself was
    checked when the version was opened.
    """
    shards = version.manifest.shards
    problems = list(_disagreements(version))
    if quick:
        return problems + list(wrong_sizes(version.store, shards))
    with ThreadPoolExecutor(_READERS) as pool:
        for done, problem in enumerate(pool.map(lambda s: _check(version.store, s), shards), 1):
            problems += [problem] if problem else []
            if on_shard is not None:
                on_shard(done)
    return problems


def wrong_sizes(home: Store, shards: tuple[Shard, ...]) -> Iterator[str]:
    """Shards that are missing below the dataset's folder `home`, or not as long as they were written."""
    folders = sorted({shard.writer for shard in shards})
    sizes = {entry.path: entry.bytes for folder in folders for entry in home.entries(folder)}
    for shard in shards:
        if shard.path not in sizes:
            yield f"{home.join(shard.path)} is missing"
        elif sizes[shard.path] != shard.bytes:
            yield f"{home.join(shard.path)} has {sizes[shard.path]} bytes, written were {shard.bytes}"


def _check(home: Store, shard: Shard) -> str | None:
    digest, size = hashlib.sha256(), 0
    try:
        with home.open_input(shard.path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except NotFound:
        return f"{home.join(shard.path)} is missing"
    if size != shard.bytes:
        return f"{home.join(shard.path)} has {size} bytes, written were {shard.bytes}"
    if digest.hexdigest() != shard.sha256:
        return f"{home.join(shard.path)} has another content than was written (sha256 {digest.hexdigest()})"
    return None


def _disagreements(version: DatasetVersion) -> Iterator[str]:
    listed = {shard.path for shard in version.manifest.shards}
    split_of = {p: split for split, members in version.manifest.splits.items() for p in members}
    if len(split_of) != sum(map(len, version.manifest.splits.values())):
        yield f"{version.url}: a patient is in two splits"
    for case in version.cases:
        for path in {case.shard, case.reference_shard} - {None} - listed:
            yield f"{version.url}: case {case.case_id} lies in {path}, which the manifest does not list"
        if split_of.get(case.patient_id) != case.split:
            yield f"{version.url}: case {case.case_id} is in another split than its patient"
