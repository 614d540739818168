"""The training loop: the same in-process, under a launcher, on one worker or many.

All randomness of a step is a pure function of (seed, rank, step), and so is the learning rate; a run
that resumes from a checkpoint therefore continues exactly, whatever happened in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from arco_core.config.schema import OptimizerConfig
from arco_core.errors import Stopped
from arco_core.meter import Meter, Values
from arco_core.session import Feed, Session, State, learning_rate, make_optimizer
from arco_core.stages import Passes, Stage


def _nothing() -> None:
    pass


def _ignore(step: int, values: Any) -> None:
    pass


def _never(step: int) -> bool:
    return False


class Request(IntEnum):
    """What a loop may be asked to do besides training; of several requests the greatest counts."""

    GO_ON = 0
    SAVE = 1
    """Save a checkpoint, and go on."""
    STOP = 2
    """Save a checkpoint, and stop."""


def _go_on() -> Request:
    return Request.GO_ON


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
    request: Callable[[], Request] = _go_on
    """Asked after every step but the last; all workers must get the same answer."""
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

    Raises:
        Diverged: loss or gradient are no longer finite; a state of such a step is never saved.
        Stopped: `loop.request` asked for it.
    """
    device = next(stage.parameters()).device
    stage.passes = loop.passes
    session = Session(
        stage, make_optimizer(stage, optimizer_config), loop.passes.scaler(device), feed, Meter(loop.average)
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
                batch = {key: _to(value, device) for key, value in feed.next().items()}
            metrics = forward(batch, generator)
            norm = session.descend(metrics["loss"], lr)
            loop.after_step()
            stage.after_step()
            meter.add({**metrics, **norm})
            _after(step + 1, loop, session, lr)
    final = session.state(max(start, loop.steps))
    loop.on_checkpoint(final["step"], final)
    return final


def _to(value: Tensor, device: torch.device) -> Tensor:
    """`value` on `device`; to a GPU from pinned memory, so that the copy does not wait for earlier work."""
    if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


def _after(step: int, loop: Loop, session: Session, lr: float) -> None:
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
    if last:
        return
    request = loop.request()
    if save or request is not Request.GO_ON:
        meter.check(step)
        with meter.paused():
            loop.on_checkpoint(step, session.state(step))
    if request is Request.STOP:
        raise Stopped(step)


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
