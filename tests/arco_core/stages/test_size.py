"""What a whole step allocates, forwards and backwards: nothing of the size of dense representations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arco_core.config import load
from arco_core.stages import Stage, build_stage
from benchmarks.dense import dense_representation

PRESETS = {"paper": (64, 64), "la": (16, 16, 32)}
SMALL = [
    "finetune.labeled_batch=2", "finetune.unlabeled_batch=2", "finetune.weak_threshold=0",
    "finetune.contrast.query_threshold=0", "finetune.contrast.queries=64", "finetune.contrast.negatives=64",
    "finetune.contrast.bank_size=64", "finetune.contrast.keys_per_step=16",
]  # fmt: skip
BATCH, CLASSES, DIM = 4, 4, 496


class Largest(TorchDispatchMode):
    """Bytes of the largest memory that an operation's result lies in, and which operation it was."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.operation = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor) and t.untyped_storage().nbytes() > self.bytes:
                self.bytes, self.operation = t.untyped_storage().nbytes(), str(func)
        return out


def stage_of(preset: str, *overrides: str) -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = load(preset=preset, overrides=[*SMALL, *overrides])
        return build_stage("finetune", config, channels=1, classes=CLASSES).train()


def batch_of(size: tuple[int, ...]) -> dict[str, Tensor]:
    """Every class in every image."""
    labels = torch.arange(size[-1]).div(size[-1] // CLASSES, rounding_mode="floor").expand(2, *size)
    images = torch.rand(2, 2, 1, *size, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    return {"labeled_image": images[0], "labeled_label": labels.byte(), "unlabeled_image": images[1]}


@pytest.mark.parametrize(("preset", "sampler"), [("paper", "hilbert"), ("la", "sag")])
def test_a_step_holds_nothing_beyond_the_networks_own_maps(preset: str, sampler: str) -> None:
    """No more than the widest map of the network at full size, 32 channels, or its largest weight."""
    size = PRESETS[preset]
    stage, batch = stage_of(preset, f"finetune.contrast.sampler={sampler}"), batch_of(size)
    pixels = BATCH * torch.Size(size).numel() * 4
    with torch.no_grad():
        stage(batch, torch.Generator().manual_seed(0))  # banks are empty until then
    with Largest() as largest:
        losses = stage(batch, torch.Generator().manual_seed(1))
        losses["loss"].backward()
    assert losses["contrast"] > 0 and (losses["queries"] == 64).all()
    assert stage.student_head.dim == DIM
    weights = max(p.numel() for p in stage.parameters()) * 4
    assert largest.bytes <= max(32 * pixels, weights) < DIM * pixels / 8, largest.operation


def test_the_dense_formulation_would_be_seen() -> None:
    stage, batch = stage_of("paper"), batch_of(PRESETS["paper"])
    with torch.no_grad(), Largest() as largest:
        _, pyramid = stage.teacher.forward_pyramid(batch["unlabeled_image"].repeat(2, 1, 1, 1))
        dense_representation(stage.teacher_head, pyramid)
    assert largest.bytes >= BATCH * DIM * 64 * 64 * 4
