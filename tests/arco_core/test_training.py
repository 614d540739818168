"""The loop: exact resume, the schedule, reports, and a loud end when training diverges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from arco_core.config import OptimizerConfig
from arco_core.errors import TrainingError
from arco_core.session import learning_rate
from arco_core.training import Loop, step_seed, train
from tests.arco_core.stages.test_stages import batch, small_stage


class CountingFeed:
    """Batches that depend on the position alone."""

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> dict[str, Tensor]:
        self.position += 1
        return batch(self.position)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state.clone()]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [t for value in values for t in tensors(value)]


@pytest.mark.parametrize("name", ["pretrain", "finetune", "supervised"])
def test_resume_is_exact(name: str) -> None:
    """Stopped after 3 of 6 steps and continued in a new stage: the same bits everywhere."""
    saved: dict[int, bytes] = {}

    def save(step: int, state: dict[str, Any]) -> None:
        import io

        buffer = io.BytesIO()
        torch.save(state, buffer)
        saved[step] = buffer.getvalue()

    def run(**kwargs: Any) -> dict[str, Any]:
        loop = Loop(steps=6, seed=1, checkpoint_every=3, **kwargs)
        return train(small_stage(name), CountingFeed(), OptimizerConfig(), loop)

    whole = run(on_checkpoint=save)
    import io

    half = torch.load(io.BytesIO(saved[3]), weights_only=True)
    assert half["step"] == 3
    resumed = run(resume=half)
    pairs = list(zip(tensors(whole), tensors(resumed), strict=True))
    assert len(pairs) > 50 and all(torch.equal(a, b) for a, b in pairs)


def test_a_finished_run_does_nothing_more() -> None:
    stage = small_stage("supervised")
    state = train(stage, CountingFeed(), OptimizerConfig(), Loop(steps=2, seed=0))
    again = train(stage, CountingFeed(), OptimizerConfig(), Loop(steps=2, seed=0, resume=state))
    assert again["feed"] == {"position": 2} and again["step"] == 2


def test_training_lowers_the_loss() -> None:
    logged: list[dict[str, float]] = []
    loop = Loop(steps=60, seed=0, log_every=20, on_log=lambda step, values: logged.append(values))
    train(small_stage("supervised"), CountingFeed(), OptimizerConfig(lr=0.05), loop)
    assert len(logged) == 3
    assert logged[-1]["loss"] < 0.7 * logged[0]["loss"]
    assert {"loss", "supervised", "lr", "seconds", "data_wait"} <= logged[0].keys()


def test_divergence_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"not finite at step .*lower optimizer.lr"):
        train(
            small_stage("supervised"),
            CountingFeed(),
            OptimizerConfig(lr=1e12),
            Loop(steps=20, seed=0, log_every=1),
        )


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(small_stage("supervised"), CountingFeed(), OptimizerConfig(), Loop(steps=2, seed=0))
    assert torch.equal(torch.rand(3), expected)


def test_learning_rate() -> None:
    poly = OptimizerConfig(lr=0.01)
    assert learning_rate(poly, 0, 100) == 0.01
    assert learning_rate(poly, 50, 100) == pytest.approx(0.01 * 0.5**0.9)
    steps = OptimizerConfig(lr=0.01, schedule="step", decay_every=10)
    assert [learning_rate(steps, s, 100) for s in (9, 10, 20)] == pytest.approx([0.01, 0.001, 0.0001])


def test_step_seeds_differ() -> None:
    seeds = {step_seed(s, r, t) for s in range(5) for r in range(5) for t in range(40)}
    assert len(seeds) == 1000 and all(0 <= s < 2**63 for s in seeds)
