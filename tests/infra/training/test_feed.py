from __future__ import annotations

from pathlib import Path

import torch

from infra.training.feed import open_feed
from tests.infra.training.jobs import make_job


def test_a_stage_gets_labelled_and_unlabelled_slices(tiny_dataset: str, tmp_path: Path) -> None:
    batch = open_feed(make_job(tiny_dataset, tmp_path, "finetune"), rank=0, world=1).next()
    assert batch["labeled_image"].shape == batch["unlabeled_image"].shape == (2, 1, 32, 32)
    assert batch["labeled_label"].shape == (2, 32, 32)


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
