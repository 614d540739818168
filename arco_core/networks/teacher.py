"""The mean teacher: an exponential moving average of the student's parameters and buffers.

Tarvainen & Valpola, NeurIPS 2017. The average includes the batch-norm statistics: a teacher whose
statistics never follow the student's is one of the faults of the released code.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def make_teacher(student: M) -> M:
    """A frozen copy of `student`, in evaluation mode."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    return teacher.eval()


def teach(teacher: nn.Module) -> None:
    """Put a teacher into the mode in which it guides training: no dropout, batch-norm by batch.

    Averaged statistics lag behind averaged weights while the student changes fast: measured on
    hippocampus, the teacher then calls everything background, with confidence, for 400 steps. The
    batch's own statistics always fit. Momentum 0 leaves the averaged ones alone; they are what
    evaluation uses.
    """
    teacher.eval()
    for module in teacher.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float, *, buffers: bool = True) -> None:
    """Move `teacher` towards `student`: t <- momentum · t + (1 - momentum) · s.

    Floating-point buffers are averaged as parameters are; integer ones (counters) are copied. Without
    `buffers` the teacher keeps its own, as in the released code.
    """
    own = set() if buffers else {name for name, _ in teacher.named_buffers()}
    averaged: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    source = dict(student.state_dict(keep_vars=False))
    for name, target in teacher.state_dict(keep_vars=False).items():
        if name in own:
            continue
        if target.is_floating_point():
            averaged[0].append(target)
            averaged[1].append(source[name])
        else:
            target.copy_(source[name])
    torch._foreach_lerp_(averaged[0], averaged[1], 1.0 - momentum)
