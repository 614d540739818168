"""Batches of both pools on their way to the device, drawn one ahead, resumed exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arco_core.errors import DataError, StoreError
from infra.datasets import DatasetVersion, SlicePool
from infra.training.feed import TrainingFeed, open_feed
from tests.infra.training.jobs import make_job

PATIENTS = [f"case_{n:03d}" for n in range(6)]


def feed(url: str, device: str = "cpu", *, cache: bool = True, unlabeled: bool = True) -> TrainingFeed:
    """Two labelled and three unlabelled slices a batch."""
    version = DatasetVersion.open(url)

    def pool(batch: int, *, labels: bool) -> SlicePool:
        pin = device != "cpu"
        return SlicePool(version, PATIENTS, labels=labels, batch=batch, cache=cache, pin=pin)

    second = pool(3, labels=False) if unlabeled else None
    return TrainingFeed(pool(2, labels=True), second, torch.device(device))


def test_a_stage_gets_labelled_and_unlabelled_slices(tiny_dataset: str, tmp_path: Path) -> None:
    with open_feed(make_job(tiny_dataset, tmp_path, "finetune"), rank=0, world=1) as drawn:
        batch = drawn.next()
    assert batch["labeled_image"].shape == batch["unlabeled_image"].shape == (2, 1, 32, 32)
    assert batch["labeled_image"].dtype == batch["unlabeled_image"].dtype == torch.float32
    assert batch["labeled_label"].shape == (2, 32, 32) and batch["labeled_label"].dtype == torch.uint8


def test_the_baseline_gets_no_unlabelled_slice(tiny_dataset: str, tmp_path: Path) -> None:
    batch = open_feed(make_job(tiny_dataset, tmp_path, "supervised"), rank=0, world=1).next()
    assert set(batch) == {"labeled_image", "labeled_label"}


def test_workers_share_the_batch(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, settings=["run.workers=2"])
    whole = open_feed(job, rank=0, world=1).next()["unlabeled_image"]
    parts = [open_feed(job, rank=rank, world=2).next()["unlabeled_image"] for rank in (0, 1)]
    assert [len(part) for part in parts] == [1, 1]
    assert torch.equal(torch.cat(parts), whole)


def test_seeds_draw_in_different_orders(tiny_dataset: str, tmp_path: Path) -> None:
    jobs = [make_job(tiny_dataset, tmp_path, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (open_feed(job, rank=0, world=1).next()["unlabeled_image"] for job in jobs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_workers_read_parts_of_a_large_pool(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large to be kept in memory: each worker has samples of its own, together they have all."""
    monkeypatch.setattr("infra.training.feed.CACHE_BYTES", 0)
    job = make_job(tiny_dataset, tmp_path, settings=["run.workers=2"])
    parts: list[set[bytes]] = []
    for rank in (0, 1):
        with open_feed(job, rank=rank, world=2) as drawn:
            batches = [drawn.next()["unlabeled_image"] for _ in range(40)]
        parts.append({image.numpy().tobytes() for batch in batches for image in batch})
    version = DatasetVersion.open(tiny_dataset)
    others = set(version.patients("train")) - set(job.labeled_patients)
    slices = sum(case.rows for case in version.cases if case.patient_id in others)
    assert not parts[0] & parts[1]
    assert len(parts[0]) == len(parts[1]) == slices // 2


@pytest.mark.parametrize("cache", [True, False], ids=["memory", "windows"])
def test_a_feed_resumes_after_the_last_batch_it_gave(tiny_dataset: str, cache: bool) -> None:
    """The batch that is drawn ahead does not count."""
    with feed(tiny_dataset, cache=cache) as whole, feed(tiny_dataset, cache=cache) as other:
        assert whole.state_dict() == {"labeled": 0, "unlabeled": 0}
        states, batches = [], []
        for _ in range(12):
            states.append(whole.state_dict())
            batches.append(whole.next())
        assert states[3] == {"labeled": 6, "unlabeled": 9}
        for step in (5, 0, 11):
            other.load_state_dict(states[step])
            assert other.state_dict() == states[step]
            for expected in batches[step : step + 2]:
                for key, value in other.next().items():
                    assert torch.equal(value, expected[key])


def test_another_feeds_state_is_refused(tiny_dataset: str) -> None:
    supervised = feed(tiny_dataset, unlabeled=False)
    with pytest.raises(DataError, match="the saved feed has the pools"):
        supervised.load_state_dict({"labeled": 0, "unlabeled": 0})


def test_an_error_leaves_the_feed_where_it_stood(tiny_dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with feed(tiny_dataset) as whole, feed(tiny_dataset) as failing:
        expected = [whole.next() for _ in range(4)]
        failing.next()
        state = failing.state_dict()
        pool = failing._pools["unlabeled"]
        original = pool.next

        def broken() -> object:
            raise StoreError("the store is gone")

        monkeypatch.setattr(pool, "next", broken)
        for _ in range(2):
            with pytest.raises(StoreError, match="gone"):
                failing.next()
            assert failing.state_dict() == state
        monkeypatch.setattr(pool, "next", original)
        for batch in expected[1:]:
            for key, value in failing.next().items():
                assert torch.equal(value, batch[key])


@pytest.mark.gpu
def test_copies_run_beside_the_step_and_arrive_whole(tiny_dataset: str) -> None:
    """Same batches as on the CPU, while the device is busy; drawing them does not wait for it."""
    with feed(tiny_dataset) as host, feed(tiny_dataset, "cuda") as device:
        device.next()
        host.next()
        busy = torch.rand(4096, 4096, device="cuda")
        done = torch.cuda.Event()
        for _ in range(20):
            for _ in range(20):
                busy = (busy @ busy).clamp(0, 1)
            done.record()
            batch = device.next()
            assert not done.query(), "drawing a batch waited for the device"
            for key, value in host.next().items():
                assert batch[key].is_cuda and batch[key].dtype == value.dtype
                assert torch.equal(batch[key].cpu(), value)
