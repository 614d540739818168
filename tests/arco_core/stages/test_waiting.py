"""No step of training waits for the device; see `waiting.py`. Only the preset `released` may."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from arco_core.config.frameworks import FRAMEWORK_NAMES
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.meter import Meter
from arco_core.session import Session, make_optimizer
from arco_core.stages import STAGES, Passes, Stage
from tests.arco_core.stages.test_stages import batch, small_config, small_stage
from tests.arco_core.stages.test_stages_3d import patches
from tests.arco_core.stages.test_stages_3d import small_stage as small_stage_3d
from tests.arco_core.stages.waiting import NoWaiting, WouldWait


def one_step(session: Session, data: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    metrics = session.stage(data, generator)
    session.meter.add({**metrics, **session.descend(metrics["loss"], 0.01)})
    session.stage.after_step()


def session_of(stage: Stage) -> Session:
    stage.passes = Passes()
    optimizer = make_optimizer(stage, small_config().optimizer)
    return Session(stage, optimizer, Passes().scaler(torch.device("cpu")), None, Meter(lambda x: x))


def check(stage: Stage, data: dict[str, torch.Tensor]) -> None:
    session, generator = session_of(stage), torch.Generator().manual_seed(0)
    one_step(session, data, generator)  # what depends on sizes alone is computed once, and kept
    for _ in range(2):
        with NoWaiting():
            one_step(session, data, generator)


@pytest.mark.parametrize("name", STAGES)
def test_no_step_waits(name: str) -> None:
    check(small_stage(name), batch())


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_no_sampler_waits(sampler: str) -> None:
    check(small_stage("finetune", f"finetune.contrast.sampler={sampler}"), batch())


@pytest.mark.parametrize("mix", ["cutout", "classmix", "none"])
def test_no_mix_waits(mix: str) -> None:
    check(small_stage("finetune", f"finetune.mix={mix}"), batch())


@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_no_framework_of_stage_one_waits(framework: str) -> None:
    check(small_stage("pretrain", f"pretrain.framework={framework}"), batch())


@pytest.mark.parametrize("name", STAGES)
def test_no_step_waits_in_3d(name: str) -> None:
    check(small_stage_3d(name), patches())


_TENSOR = torch.arange(4.0)


@pytest.mark.parametrize(
    "action",
    [
        lambda: _TENSOR[0].item(),
        lambda: bool(_TENSOR[0] > 0),
        lambda: _TENSOR[_TENSOR > 1],
        lambda: _TENSOR.nonzero(),
        lambda: _TENSOR.tolist(),
        lambda: _TENSOR.unique(),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: torch.unravel_index(torch.arange(3), (2, 2)),
        lambda: torch.ones(2).repeat_interleave(torch.arange(2)),
        lambda: torch.nn.functional.one_hot(torch.arange(3), 3),
    ],
)
def test_what_would_wait_is_found(action: Callable[[], object]) -> None:
    with pytest.raises(WouldWait), NoWaiting():
        action()


@pytest.mark.gpu
@pytest.mark.parametrize("name", STAGES)
def test_no_step_waits_for_a_real_gpu(name: str) -> None:
    device = torch.device("cuda")
    stage = small_stage(name).to(device)
    data = {key: value.to(device) for key, value in batch().items()}
    session, generator = session_of(stage), torch.Generator(device)
    for _ in range(3):
        one_step(session, data, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        one_step(session, data, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
