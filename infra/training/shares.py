"""What is each worker's own in a checkpoint, and how another number of workers goes on from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from arco_core.banks import Bank
from arco_core.errors import TrainingError
from arco_core.stages import Stage
from infra.training import collectives
from infra.training.stage_job import StageJob


def gather_shares(stage: Stage, state: Mapping[str, Any], *, rank: int, world: int) -> dict[str, list[Any]]:
    """Every worker's own in `state`, by rank: `feeds`, and `banks` where these are local.

    The first worker's banks are among the stage's own state and left out here.
    """
    feeds = collectives.gather_objects(state["feed"]) if world > 1 else [state["feed"]]
    if world == 1 or stage.peers.gathered == world:
        return {"feeds": feeds}
    prefixes = tuple(f"{name}." for name, module in stage.named_modules() if isinstance(module, Bank))
    banks = {key: value.cpu() for key, value in state["stage"].items() if key.startswith(prefixes)}
    return {"feeds": feeds, "banks": collectives.gather_objects(banks if rank else {})}


def own_state(state: Mapping[str, Any], *, rank: int, world: int) -> dict[str, Any]:
    """What worker `rank` of `world` continues from in the checkpoint `state`, whoever wrote it.

    Raises:
        TrainingError: the samples drawn so far cannot be divided among so many workers.
    """
    written = len(state["feeds"])
    banks = state.get("banks", [{}] * written)
    feed = state["feeds"][rank] if world == written else redeal(state["feeds"], world)
    return {**state, "feed": feed, "stage": {**state["stage"], **banks[rank % written]}}


def redeal(feeds: Sequence[Mapping[str, int]], world: int) -> dict[str, int]:
    """The cursors of each of `world` workers after other workers have drawn as far as `feeds`.

    Together they stand where those stood. For pools in memory, whose stream is common to all, no sample is
    repeated or left out. Pools that each worker reads a part of are parted anew: when the share f of an epoch
    was drawn, the share f · (1 - f) of the samples, a quarter at most, is expected twice in this epoch and as
    many not at all; no sample comes more than twice.

    Raises:
        TrainingError: the samples drawn so far cannot be divided among so many workers.
    """
    drawn = {name: sum(feed[name] for feed in feeds) for name in feeds[0]}
    if any(total % world for total in drawn.values()):
        raise TrainingError(
            f"{len(feeds)} workers have drawn {drawn} samples, which {world} workers cannot go on from: "
            "set run.workers so that it divides the batches"
        )
    return {name: total // world for name, total in drawn.items()}


def training_workers(job: StageJob, places: int) -> int:
    """How many of `places` workers train `job`: as many as both its batches can be divided among."""
    common = math.gcd(job.labeled_batch, job.unlabeled_batch)
    return max(count for count in range(1, places + 1) if common % count == 0)
