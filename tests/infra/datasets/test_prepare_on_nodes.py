"""Preparation on a Ray cluster whose workers, nodes and driver are killed gives the same version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from arco_core.config import load
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.catalog import list_versions
from infra.datasets.remove import remove_unreferenced, unreferenced
from infra.datasets.verify import verify
from infra.storage import Store
from tests.conftest import TINY_SETTINGS, write_msd_folder
from tests.infra.ray_cluster import REPOSITORY, RayCluster, start_cluster, wait_until

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

CASES = 24


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[RayCluster]:
    """A cluster with two CPUs, each on a node of its own."""
    with start_cluster({}, nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans that take seconds to prepare, on a fast machine too."""
    folder = tmp_path_factory.mktemp("scans")
    return write_msd_folder(folder, patients=CASES, labeled=CASES // 2, shape=(256, 256, 48))


@pytest.fixture(scope="module")
def expected(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """What one process makes of them."""
    return prepare(scans, Store(str(tmp_path_factory.mktemp("expected"))))


def prepare(scans: Path, store: Store) -> DatasetVersion:
    config = load(preset="generic", overrides=TINY_SETTINGS).data
    return prepare_dataset(str(scans), store, config, use_ray=False)


class Preparation:
    """`python -m components.prepare` as a user starts it, on the cluster."""

    def __init__(self, cluster: RayCluster, scans: Path, store: Store) -> None:
        settings = [part for setting in TINY_SETTINGS for part in ("--set", setting)]
        command = [sys.executable, "-m", "components.prepare", "--data", str(scans), "--store", store.url]
        self._cluster, self._store = cluster, store
        self._log = Path(f"{store.url}.log")
        with self._log.open("a") as out:
            self.process = subprocess.Popen(
                [*command, *settings], cwd=REPOSITORY, env=dict(cluster.environment), stdout=out, stderr=out
            )

    def wait_for_shards(self, count: int) -> None:
        """Wait until `count` shards lie in the store, while the preparation goes on."""
        wait_until(lambda: self.process.poll() is not None or len(shards_in(self._store)) >= count)
        assert self.process.poll() is None, self._log.read_text()

    def wait(self) -> str:
        """Wait for success; what was told."""
        assert self.process.wait(300) == 0, self._log.read_text()
        return self._log.read_text()

    def workers(self) -> dict[int, int]:
        """Process ids of the workers that convert scans, and of their nodes."""
        return self._cluster.workers(b"ray::Map")


def shards_in(store: Store) -> Sequence[str]:
    return [path for path in store.list() if "/labeled/" in path or "/unlabeled/" in path]


def the_version(store: Store) -> DatasetVersion:
    """The only one."""
    (entry,) = list_versions(store).versions
    return DatasetVersion.open(entry.url)


def assert_same(version: DatasetVersion, expected: DatasetVersion) -> None:
    assert verify(version) == []
    assert version.version == expected.version
    assert version.manifest.shards == expected.manifest.shards


def test_a_worker_and_a_node_are_killed(
    two_nodes: RayCluster, scans: Path, expected: DatasetVersion, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    preparation = Preparation(two_nodes, scans, store)
    preparation.wait_for_shards(1)
    wait_until(lambda: len(set(preparation.workers().values())) == 2, 60)  # both nodes take part
    os.kill(min(preparation.workers()), signal.SIGKILL)
    preparation.wait_for_shards(3)
    wait_until(preparation.workers, 60)
    os.kill(max(preparation.workers().values()), signal.SIGKILL)  # a raylet, and so its workers
    told = preparation.wait()
    two_nodes.add_node()
    assert f"{CASES} patients" in told
    assert_same(the_version(store), expected)


def test_the_driver_is_killed_and_a_rerun_finishes(
    two_nodes: RayCluster, scans: Path, expected: DatasetVersion, tmp_path: Path
) -> None:
    """While it hashes, and early and late while it converts; what was converted is not converted again."""
    store = Store(str(tmp_path / "store"))
    old = prepare(write_msd_folder(tmp_path / "old", patients=4), store)
    for point in (0, 1, 6):
        preparation = Preparation(two_nodes, scans, store)
        if point:
            preparation.wait_for_shards(len(old.manifest.shards) + point)
        else:
            wait_until(preparation.workers)
        preparation.process.kill()
        preparation.process.wait()
        wait_until(lambda: not two_nodes.workers(b"ray::Map"))
        assert verify(the_version(store)) == []
    told = Preparation(two_nodes, scans, store).wait()
    assert "goes on where it was stopped" in told
    listed = list_versions(store).versions
    assert len(listed) == 2 and old.version in {entry.manifest.version for entry in listed}
    (new,) = (DatasetVersion.open(v.url) for v in listed if v.manifest.version != old.version)
    assert_same(new, expected)
    before = set(store.list())
    remove_unreferenced(store, unreferenced(store, older_than_s=-3600))
    assert len(before - set(store.list())) <= 2  # a file or two that a worker had begun with
    assert verify(new) == [] and verify(old) == []
