"""Preparation on Ray Data, into S3, and of real scans."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from arco_core.config import load
from arco_core.errors import DataError, StoreError
from arco_core.preprocess import restore_label
from infra.datasets import DatasetVersion, SlicePool, prepare_dataset
from infra.datasets.nifti import NiftiFile
from infra.datasets.packing import CaseGroup, hash_group
from infra.datasets.readers.base import RawCase
from infra.datasets.runner import run_tasks
from infra.storage import Store
from tests.conftest import write_msd_folder

from .conftest import TINY


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    from infra.ray_session import ray_session

    with ray_session():
        yield


@pytest.mark.slow
def test_ray_gives_the_same_version_byte_for_byte(
    ray: None, tiny: DatasetVersion, tiny_raw: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    version = prepare_dataset(
        str(tiny_raw), Store(str(tmp_path)), TINY, use_ray=True, on_case=lambda done, _: seen.append(done)
    )
    assert version.version == tiny.version
    untagged = [[replace(case, source_tags=()) for case in v.cases] for v in (version, tiny)]
    assert untagged[0] == untagged[1]
    assert version.manifest.shards == tiny.manifest.shards
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_ray_names_every_bad_case(ray: None, raw: Path, tmp_path: Path) -> None:
    for name in ("case_001", "case_004"):
        path = next(raw.glob(f"images*/{name}.nii.gz"))
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"2 of 6 cases cannot be used:\n  case_001: .*\n  case_004: "):
        prepare_dataset(str(raw), Store(str(tmp_path / "store")), TINY, use_ray=True)


@pytest.mark.slow
def test_ray_passes_a_failing_store_on(ray: None, raw: Path, tmp_path: Path) -> None:
    (raw / "imagesTr" / "folder.nii.gz").mkdir()
    case = RawCase(
        case_id="x", patient_id="x", channels=(NiftiFile("imagesTr/folder.nii.gz"),), annotation=None
    )
    group = CaseGroup(number=0, cases=(case,))
    with pytest.raises(StoreError, match=r"cannot read .*folder\.nii\.gz"):
        list(run_tasks(partial(hash_group, Store(str(raw))), [group], use_ray=True))


def _die_once(folder: Path, task: int) -> int:
    """Ends its worker, as the kernel does that runs out of memory, the first time."""
    try:
        (folder / str(task)).touch(exist_ok=False)
    except FileExistsError:
        return task
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


@pytest.mark.slow
def test_ray_starts_the_tasks_of_a_dead_worker_again(ray: None, tmp_path: Path) -> None:
    assert sorted(run_tasks(partial(_die_once, tmp_path), [1, 2], use_ray=True)) == [(0, 1), (1, 2)]


def _count(folder: Path, task: int) -> int:
    """How many tasks are under way."""
    own = folder / str(task)
    own.touch()
    time.sleep(0.05)
    running = len(list(folder.iterdir()))
    own.unlink()
    return running


@pytest.mark.slow
def test_ray_runs_no_more_tasks_at_a_time_than_it_has_cores(ray: None, tmp_path: Path) -> None:
    import ray as engine

    cores = int(engine.cluster_resources()["CPU"])
    running = [count for _, count in run_tasks(partial(_count, tmp_path), range(10 * cores), use_ray=True)]
    assert len(running) == 10 * cores and 1 <= max(running) <= cores


@pytest.mark.slow
def test_memory_of_a_worker_does_not_grow_with_the_cases(tmp_path: Path) -> None:
    """A worker converts a task's cases one after the other, and puts them onto the disk."""
    shape = (160, 160, 64)
    case_mib = 4 * math.prod(shape) / 2**20
    peaks = {}
    for cases in (2, 10):
        folder = write_msd_folder(tmp_path / str(cases), patients=cases, labeled=cases, shape=shape)
        task = [sys.executable, "-m", "tests.infra.datasets.one_task", str(folder), str(tmp_path / "store")]
        made = subprocess.run(
            task, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=500
        )
        assert made.returncode == 0, made.stderr[-2000:]
        result = json.loads(made.stdout)
        assert result["cases"] == cases
        peaks[cases] = result["peak_mib"]
    assert peaks[2] > case_mib
    assert peaks[10] - peaks[2] < 3 * case_mib, peaks


@pytest.mark.s3
def test_version_lives_in_s3_alike(aws: None, tiny: DatasetVersion, tiny_raw: Path, tmp_path: Path) -> None:
    raw = Store(f"s3://arco/{tmp_path.name}/raw")
    raw.upload_folder(tiny_raw, "tiny")
    store = Store(f"s3://arco/{tmp_path.name}/store")
    version = prepare_dataset(raw.join("tiny"), store, TINY, use_ray=False)
    assert version.version == tiny.version and version.manifest.shards == tiny.manifest.shards
    for case in tiny.cases:
        here, there = version.read_case(case.case_id), tiny.read_case(case.case_id)
        np.testing.assert_array_equal(here[0], there[0])
        assert (here[1] is None) == (there[1] is None)
    for cache in (True, False):
        pools = [
            SlicePool(v, v.patients("train"), labels=True, batch=3, cache=cache) for v in (version, tiny)
        ]
        for _ in range(5):
            (images, labels), (other_images, other_labels) = (pool.next() for pool in pools)
            assert images.equal(other_images)
            assert labels is not None and other_labels is not None and labels.equal(other_labels)


@pytest.mark.realdata
def test_hippocampus_round_trip(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "Task04_Hippocampus"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    version = prepare_dataset(
        str(folder), Store(str(tmp_path)), load(preset="hippocampus").data, use_ray=False
    )
    assert {split: len(version.patients(split)) for split in ("train", "validation", "test")} == {
        "train": 160,
        "validation": 20,
        "test": 20,
    }
    assert len(version.labeled_patients(0.01, seed=0)) == 2
    for case in version.cases:
        _, labels = version.read_case(case.case_id)
        reference = version.reference(case.case_id)
        assert labels is not None and reference is not None
        np.testing.assert_array_equal(restore_label(labels, case.geometry), reference)
