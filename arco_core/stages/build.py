"""Stages by name."""

from __future__ import annotations

from arco_core.config.errors import require_in
from arco_core.config.schema import ArcoConfig
from arco_core.networks import channels_last
from arco_core.peers import ALONE, Peers
from arco_core.stages.base import Stage
from arco_core.stages.finetune import FinetuneStage
from arco_core.stages.pretrain import PretrainStage
from arco_core.stages.supervised import SupervisedStage

STAGES = ("pretrain", "finetune", "supervised")


def build_stage(name: str, config: ArcoConfig, *, channels: int, classes: int, peers: Peers = ALONE) -> Stage:
    """A freshly initialised stage.

    Initial weights come from torch's default generator: seed it inside `torch.random.fork_rng`.

    Args:
        name: `pretrain`, `finetune` or `supervised`.
        config: the whole configuration.
        channels: image channels C.
        classes: number of classes K, background included.
        peers: the other workers.
    """
    require_in("stage", name, STAGES)
    kinds: dict[str, type[PretrainStage] | type[FinetuneStage] | type[SupervisedStage]] = {
        "pretrain": PretrainStage,
        "finetune": FinetuneStage,
        "supervised": SupervisedStage,
    }
    stage = kinds[name](config, peers, channels=channels, classes=classes)
    # Heads, too, and not later: data-parallel wrappers lay out their buckets by the format.
    stage.to(memory_format=channels_last(config.network))  # type: ignore[call-overload]
    return stage
