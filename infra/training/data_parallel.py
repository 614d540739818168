"""A stage whose gradients are averaged over the workers, in an order that no restart changes."""

from __future__ import annotations

import copy

import torch
from torch.nn.parallel import DistributedDataParallel

from arco_core.session import Feed
from arco_core.stages import Passes, Stage


def data_parallel(stage: Stage, feed: Feed, passes: Passes) -> DistributedDataParallel:
    """Wrap `stage` for all workers of the process group, and leave it and `feed` as they are.

    In its first step `DistributedDataParallel` finds out in which order gradients become ready, and lays out
    its buckets by it from the second step on. Sums over three or more workers depend on the layout, in their
    last bits: a worker that resumes would go through a first step where an undisturbed one does not. So that
    step is rehearsed before training, in every attempt on the same batch.
    """
    wrapped = DistributedDataParallel(stage, forward_sync_buffers=False)
    device = next(stage.parameters()).device
    before, position = copy.deepcopy(stage.state_dict()), feed.state_dict()
    stage.passes = passes
    stage.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batch = {key: value.to(device) for key, value in feed.next().items()}
        loss = wrapped(batch, torch.Generator(device).manual_seed(0))["loss"]
        torch.autograd.backward(loss)
    stage.zero_grad(set_to_none=True)
    stage.load_state_dict(before)
    feed.load_state_dict(position)
    return wrapped
