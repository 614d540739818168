"""What training changes, how a step changes it, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from arco_core.config.schema import OptimizerConfig
from arco_core.errors import Diverged
from arco_core.meter import Meter
from arco_core.stages import Stage

State = dict[str, Any]

_SMALLEST_SCALE = 2.0**-20
"""fp16's scale starts at 2^16 and is halved where gradients overflow: 36 overflows more than there were steps
without any. No finite gradient needs that."""


class Feed(Protocol):
    """An endless, resumable source of batches (see `Stage.forward` for their keys)."""

    def next(self) -> dict[str, Tensor]:
        """The next batch of this worker."""

    def state_dict(self) -> State:
        """The position in the stream."""

    def load_state_dict(self, state: State) -> None:
        """Go back to a position in the stream."""


@dataclass(frozen=True)
class Session:
    """Everything that training changes, and that a checkpoint therefore holds."""

    stage: Stage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    feed: Feed
    meter: Meter

    def descend(self, loss: Tensor, lr: float) -> dict[str, Tensor]:
        """One step of the optimiser; none, but a lower scale, where scaled gradients overflow.

        Returns `grad_norm`, 0-dim, and in fp16 `skipped`: 1 where no step was taken.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(
            [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self.scaler.is_enabled():
            return {"grad_norm": norm}
        taken = norm.isfinite()
        return {"grad_norm": torch.where(taken, norm, 0.0), "skipped": (~taken).float()}

    def check_scale(self, step: int) -> None:
        """Raise `Diverged` when fp16 has found no scale at which gradients do not overflow."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise Diverged(step, {"fp16 scale": self.scaler.get_scale()})

    def state(self, step: int) -> State:
        """The state after `step` steps."""
        return {
            "stage": self.stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "feed": self.feed.state_dict(),
            "meter": self.meter.state(),
            "step": step,
        }

    def restore(self, state: State | None) -> int:
        """Go back to `state`, if any, and return its number of steps."""
        if state is None:
            return 0
        self.stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.feed.load_state_dict(state["feed"])
        self.meter.restore(state["meter"], next(self.stage.parameters()).device)
        return int(state["step"])


def make_optimizer(stage: Stage, config: OptimizerConfig) -> torch.optim.SGD:
    """SGD over the trainable parameters; on a GPU in one kernel, which also spares fp16 a wait."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
        fused=parameters[0].device.type == "cuda" or None,
    )


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of a step (0-based) out of `steps`."""
    if config.schedule == "poly":
        return float(config.lr * (1.0 - step / steps) ** 0.9)
    return float(config.lr * 0.1 ** (step // config.decay_every))
