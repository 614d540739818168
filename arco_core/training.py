"""The training loop: the same in-process, under a launcher, on one worker or many.

All randomness of a step is a pure function of (seed, rank, step), and so is the learning rate; a run
that resumes from a checkpoint therefore continues exactly, whatever happened in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from arco_core.config.schema import OptimizerConfig
from arco_core.errors import Diverged
from arco_core.meter import Meter, Values
from arco_core.stages import Passes, Stage

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


def _nothing() -> None:
    pass


def _ignore(step: int, values: Any) -> None:
    pass


def _never(step: int) -> bool:
    return False


def _alone(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How long to train, what to do along the way, and which of the workers this is."""

    steps: int
    seed: int
    rank: int = 0
    log_every: int = 10
    validate_every: int = 0
    """0 is never."""
    checkpoint_every: int = 500
    on_log: Callable[[int, Values], None] = _ignore
    """Called with the step and the means since the last call of what `Stage.forward` gives, of `grad_norm`
    and of what `Meter.report` adds; and with `lr`."""
    on_validate: Callable[[int], bool] = _never
    """Called every `validate_every` steps and after the last one; true asks for a checkpoint of the step."""
    average: Callable[[Tensor], Tensor] = _alone
    """Mean of a tensor over all workers."""
    on_checkpoint: Callable[[int, State], None] = _ignore
    """Called with the step and this worker's state, also after the last step."""
    forward: Callable[..., dict[str, Tensor]] | None = None
    """The stage, wrapped for data-parallel training; none calls the stage itself."""
    after_step: Callable[[], None] = _nothing
    """Called after every optimiser step, before the teacher's update (synchronise statistics)."""
    passes: Passes = field(default_factory=Passes)
    """In which precision the networks run, and whether compiled."""
    resume: State | None = field(default=None, repr=False)


def train(stage: Stage, feed: Feed, optimizer_config: OptimizerConfig, loop: Loop) -> State:
    """Train `stage` for `loop.steps` optimiser steps and return the last state.

    A state holds `stage`, `optimizer`, `scaler`, `feed`, `meter` and `step`; pass it as `loop.resume` to
    continue. What `loop` is told and asked along the way changes no bit of it.

    Raises `Diverged` when loss or gradient are no longer finite, before a state of such a step is saved.
    """
    device = next(stage.parameters()).device
    stage.passes = loop.passes
    session = _Session(
        stage, _sgd(stage, optimizer_config), loop.passes.scaler(device), feed, Meter(loop.average)
    )
    start = session.restore(loop.resume)
    generator = torch.Generator(device)
    forward = loop.forward or stage
    meter = session.meter
    stage.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(start, loop.steps):
            torch.manual_seed(step_seed(loop.seed, loop.rank, step))  # dropout has no generator argument
            generator.manual_seed(step_seed(loop.seed, loop.rank, step) ^ 1)
            lr = learning_rate(optimizer_config, step, loop.steps)
            with meter.waiting():
                batch = {key: value.to(device, non_blocking=True) for key, value in feed.next().items()}
            metrics = forward(batch, generator)
            norm = session.descend(metrics["loss"], lr)
            loop.after_step()
            stage.after_step()
            meter.add({**metrics, **norm})
            _after(step + 1, loop, session, lr)
    final = session.state(max(start, loop.steps))
    loop.on_checkpoint(final["step"], final)
    return final


def _after(step: int, loop: Loop, session: _Session, lr: float) -> None:
    """Report, validate and save what is due after `step` steps."""
    last, meter = step == loop.steps, session.meter
    if step % loop.log_every == 0 or last:
        session.check_scale(step)
        loop.on_log(step, {**meter.report(step), "lr": lr})
    save = step % loop.checkpoint_every == 0
    if loop.validate_every and (step % loop.validate_every == 0 or last):
        meter.check(step)
        with meter.paused():
            save = loop.on_validate(step) or save
    if save and not last:
        meter.check(step)
        with meter.paused():
            loop.on_checkpoint(step, session.state(step))


def _sgd(stage: Stage, config: OptimizerConfig) -> torch.optim.SGD:
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


def step_seed(seed: int, rank: int, step: int) -> int:
    """A well-mixed 63-bit seed of (seed, rank, step): splitmix64 (Steele et al., OOPSLA 2014)."""
    mask = (1 << 64) - 1
    z = 0
    for part in (seed, rank, step):
        z = (z + part + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
    return z >> 1


@dataclass(frozen=True)
class _Session:
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
