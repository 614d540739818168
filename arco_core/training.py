"""The training loop: the same in-process, under a launcher, on one worker or many.

All randomness of a step is a pure function of (seed, rank, step), and so is the learning rate; a run
that resumes from a checkpoint therefore continues exactly, whatever happened in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from arco_core.config.schema import OptimizerConfig
from arco_core.errors import TrainingError
from arco_core.stages import Passes, Stage

State = dict[str, Any]


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


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How long to train, what to do along the way, and which of the workers this is."""

    steps: int
    seed: int
    rank: int = 0
    log_every: int = 10
    checkpoint_every: int = 500
    on_log: Callable[[int, dict[str, float]], None] = _ignore
    """Called with the step and the means since the last call of all terms, `lr`, `seconds`, `data_wait`."""
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

    A state holds `stage`, `optimizer`, `scaler`, `feed` and `step`; pass it as `loop.resume` to continue.

    Raises `TrainingError` when the loss is no longer finite.
    """
    device = next(stage.parameters()).device
    stage.passes = loop.passes
    session = _Session(stage, _sgd(stage, optimizer_config), loop.passes.scaler(device), feed)
    start = session.restore(loop.resume)
    generator = torch.Generator(device)
    forward = loop.forward or stage
    meter = _Meter(loop)
    stage.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(start, loop.steps):
            torch.manual_seed(step_seed(loop.seed, loop.rank, step))  # dropout has no generator argument
            generator.manual_seed(step_seed(loop.seed, loop.rank, step) ^ 1)
            lr = learning_rate(optimizer_config, step, loop.steps)
            with meter.waiting():
                batch = {key: value.to(device, non_blocking=True) for key, value in feed.next().items()}
            losses = forward(batch, generator)
            session.descend(losses["loss"], lr)
            loop.after_step()
            stage.after_step()
            meter.add(step + 1, losses, lr)
            if (step + 1) % loop.checkpoint_every == 0 and step + 1 < loop.steps:
                loop.on_checkpoint(step + 1, session.state(step + 1))
    final = session.state(max(start, loop.steps))
    loop.on_checkpoint(final["step"], final)
    return final


def _sgd(stage: Stage, config: OptimizerConfig) -> torch.optim.SGD:
    return torch.optim.SGD(
        [p for p in stage.parameters() if p.requires_grad],
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
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

    def descend(self, loss: Tensor, lr: float) -> None:
        """One step of the optimiser; none, but a lower scale, where scaled gradients overflow."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state(self, step: int) -> State:
        """The state after `step` steps."""
        return {
            "stage": self.stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "feed": self.feed.state_dict(),
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
        return int(state["step"])


class _Meter:
    """Means of the terms between two reports, without waiting for the device in between."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.wait = 0.0
        self.since = time.perf_counter()

    def waiting(self) -> _Wait:
        """Context that counts its time as waiting for data."""
        return _Wait(self)

    def add(self, step: int, losses: dict[str, Tensor], lr: float) -> None:
        """Count one step's losses; report when due."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.steps += 1
        if step % self.loop.log_every and step != self.loop.steps:
            return
        values = {name: (total / self.steps).item() for name, total in self.sums.items()}
        if not values["loss"] < float("inf"):
            raise TrainingError(
                f"the loss is {values['loss']} at step {step} ({values}): training diverged; "
                "lower optimizer.lr or resume from an earlier checkpoint with another seed"
            )
        now = time.perf_counter()
        timing = {"seconds": (now - self.since) / self.steps, "data_wait": self.wait / self.steps}
        self.loop.on_log(step, {**values, **timing, "lr": lr})
        self.sums, self.steps, self.wait, self.since = {}, 0, 0.0, now


class _Wait:
    def __init__(self, meter: _Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.meter.wait += time.perf_counter() - self.start
