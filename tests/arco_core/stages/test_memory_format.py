"""Channels last: the networks stay in it through a step, and compute the same in it."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from arco_core.config import OptimizerConfig
from arco_core.session import make_optimizer
from arco_core.stages import STAGES, Stage
from tests.arco_core.stages import test_stages, test_stages_3d

FORMATS = {test_stages: torch.channels_last, test_stages_3d: torch.channels_last_3d}
NO_DROPOUT = "network.dropout=[0.0,0.0,0.0]"  # masks depend on the order of a map's elements in memory
BOTH = pytest.mark.parametrize("module", FORMATS, ids=["2d", "3d"])


def told(tensor: Tensor) -> bool:
    """Whether its strides tell channels last from channels first."""
    return tensor.ndim > 3 and tensor.shape[1] > 1 and tensor.shape[2:].numel() > 1


@BOTH
@pytest.mark.parametrize("name", STAGES)
def test_maps_and_weights_stay_channels_last(name: str, module: ModuleType) -> None:
    stage, wanted = module.small_stage(name), FORMATS[module]
    maps: list[tuple[str, bool]] = []
    for key, layer in stage.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d)):
            # A kernel of one pixel has no format, and torch gives the logits of V-Net's head as it likes.
            pointwise = isinstance(layer, nn.Conv3d) and not told(layer.weight)
            layer.register_forward_hook(
                lambda _, inputs, out, key=key, pointwise=pointwise: maps.extend(
                    (key, t.is_contiguous(memory_format=wanted))
                    for t in ([inputs[0]] if pointwise else [inputs[0], out])
                    if told(t)
                )
            )
    optimizer = make_optimizer(stage, OptimizerConfig())
    for i in range(2):
        module.step(stage, i)["loss"].backward()
        optimizer.step()
        stage.after_step()
    assert {key.split(".")[0] for key, _ in maps} == {"student", "teacher"} & {
        key for key, _ in stage.named_children()
    }
    assert [key for key, kept in maps if not kept] == []
    for key, weight in stage.named_parameters():
        assert not told(weight) or weight.is_contiguous(memory_format=wanted), key


def loss_and_gradient(stage: Stage, module: ModuleType) -> tuple[dict[str, Tensor], Tensor]:
    for i in range(2):
        losses = module.step(stage, i)
    losses["loss"].backward()
    slope = torch.cat([p.grad.flatten() for p in stage.parameters() if p.grad is not None])
    return {key: value.detach() for key, value in losses.items()}, slope


@BOTH
@pytest.mark.parametrize("name", STAGES)
def test_results_are_those_of_channels_first(name: str, module: ModuleType) -> None:
    last, first = (module.small_stage(name, NO_DROPOUT) for _ in range(2))
    first.to(memory_format=torch.contiguous_format)
    assert all(p.is_contiguous() for p in first.parameters())
    assert not all(p.is_contiguous() for p in last.parameters())
    (losses, slope), (expected, wanted) = (loss_and_gradient(stage, module) for stage in (last, first))
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert torch.linalg.vector_norm(slope - wanted) < 1e-3 * torch.linalg.vector_norm(wanted)
