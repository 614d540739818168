from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from infra.storage import Store
from infra.training import StageJob
from infra.training.earlier import not_continued
from infra.training.recorder import JOB, Recorder
from tests.infra.training.jobs import make_job


def begin(job: StageJob) -> Recorder:
    recorder = Recorder(job, lambda step, metrics: None, print)
    recorder.start(0, None, [])
    return recorder


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["run.workers=2"], "run.workers = 1, run.min_workers = 1"),
        (["run.threads_per_worker=2"], "run.threads_per_worker = 1"),
        (["run.checkpoint_every=1"], None),
        (["supervised.labeled_batch=4"], None),
    ],
)
def test_a_training_that_is_not_continued_is_told_of(
    tiny_dataset: str, tmp_path: Path, settings: list[str], says: str | None
) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised")
    assert not_continued(job) is None
    begin(job)
    other = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    found = not_continued(other)
    assert found == (says and f"not continued: {job.folder}, of {says}")
    assert not_continued(make_job(tiny_dataset, tmp_path, "supervised", settings=settings, seed=1)) is None
    begin(other).save(1, {}, {})
    assert not_continued(other) is None, "it has checkpoints of its own"


def test_code_and_versions_differ_too(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised")
    begin(dataclasses.replace(job, code="older"))
    assert (not_continued(job) or "").endswith(", of other code")
    Store(str(tmp_path)).write_bytes(f"supervised-seed0-ancient/{JOB}", b"{}")
    assert not_continued(job) == "not continued: supervised-seed0-ancient, of another version"
