"""From a checkpoint to the stage or the network that it holds."""

from __future__ import annotations

import torch

from arco_core.networks import PyramidNetwork
from arco_core.stages import Stage, build_stage
from infra.checkpoints import read_checkpoint
from infra.training.stage_job import StageJob


def load_job(checkpoint_url: str) -> StageJob:
    """The job that trained it, without its weights: also of a stage whose parts have changed since.

    Raises:
        StoreError: there is no committed checkpoint at `checkpoint_url`, or it is damaged.
    """
    return StageJob.from_json(read_checkpoint(checkpoint_url)["job"])


def load_stage(checkpoint_url: str) -> tuple[Stage, StageJob]:
    """The whole stage as it was when it was saved, on the CPU, and the job that trained it.

    Raises:
        StoreError: there is no committed checkpoint at `checkpoint_url`, or it is damaged.
    """
    state = read_checkpoint(checkpoint_url)
    job = StageJob.from_json(state["job"])
    with torch.random.fork_rng(devices=[]):
        stage = build_stage(job.stage, job.settings, channels=job.channels, classes=len(job.classes))
    stage.load_state_dict(state["stage"])
    return stage, job


def load_network(checkpoint_url: str) -> tuple[PyramidNetwork, StageJob]:
    """The network to evaluate or publish (the student, on the CPU, evaluating), and the job that trained it.

    Raises:
        StoreError: there is no committed checkpoint at `checkpoint_url`, or it is damaged.
    """
    network, _, job = load_networks(checkpoint_url)
    return network, job


def load_networks(checkpoint_url: str) -> tuple[PyramidNetwork, PyramidNetwork | None, StageJob]:
    """As `load_network`, with the network's teacher where the stage has one."""
    stage, job = load_stage(checkpoint_url)
    network = stage.export()
    teachers = (teacher for teacher, student in stage.teacher_of().items() if student is network)
    teacher = next((t for t in teachers if isinstance(t, PyramidNetwork)), None)
    for module in (network, teacher):
        if module is not None:
            module.eval()
    return network, teacher, job
