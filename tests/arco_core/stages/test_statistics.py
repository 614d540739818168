"""What a step says of its samples: counted here by loops."""

from __future__ import annotations

import pytest
import torch

from arco_core.stages.finetune import FinetuneStage
from tests.arco_core.stages.test_stages import batch, small_stage, step


def test_candidates_queries_and_banks() -> None:
    stage = small_stage("finetune")
    assert isinstance(stage, FinetuneStage)
    fills = []
    for i in range(3):
        values = step(stage, i)
        fills.append(values["bank_fill"])
    assert values["candidates"].shape == values["queries"].shape == values["bank_fill"].shape == (3,)
    # All thresholds are 0: the pixels of a class are its label's and its pseudo-label's.
    assert float(values["candidates"].sum()) == 8 * 32 * 32
    assert (values["absent"] == (values["candidates"] == 0)).all()
    assert (values["queries"] == torch.where(values["absent"] > 0, 0.0, 16.0)).all()
    assert torch.equal(fills[0] * 64, torch.where(values["absent"] > 0, 0.0, 8.0))  # 8 keys a step of 64
    assert torch.equal(fills[2], torch.where(values["absent"] > 0, 0.0, 24 / 64))


def test_a_class_without_pixels_is_absent() -> None:
    """Nothing is unlabelled enough to be trusted, and no label holds class 2."""
    stage = small_stage("finetune", "finetune.weak_threshold=1.0")
    data = batch()
    data["labeled_label"] = data["labeled_label"].clamp_max(1)
    for _ in range(3):
        values = stage(data, torch.Generator().manual_seed(0))
    assert values["absent"].tolist() == [0.0, 0.0, 1.0]
    assert values["candidates"][2] == values["queries"][2] == values["bank_fill"][2] == 0


def test_shares_of_confident_pixels() -> None:
    stage = small_stage("finetune", "finetune.weak_threshold=0.5", "finetune.strong_threshold=0.6")
    values = step(stage)
    assert 0 <= values["confident"] <= values["pseudo_labeled"] <= 1
    stage = small_stage("finetune", "finetune.strong_threshold=0.0")
    assert step(stage)["confident"] == pytest.approx(1.0)
