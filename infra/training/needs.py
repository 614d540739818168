"""What a training needs, before it runs."""

from __future__ import annotations

from typing import Any

import torch

from arco_core.errors import DataError
from arco_core.stages import build_stage
from infra.checkpoints import read_checkpoint
from infra.datasets import DatasetVersion
from infra.datasets.row_groups import row_groups_of
from infra.training.feed import CACHE_BYTES
from infra.training.stage_job import StageJob

WORKER_BYTES = 550 * 2**20
"""Memory of a worker on Ray that has imported everything and holds no data: measured 520 MiB."""
_CHECKPOINTS = 4
"""At a time: the last two, the best one, and one that is being written."""


def state_bytes(job: StageJob) -> int:
    """Size of the training's state: networks, heads, banks, and the optimiser's momentum."""
    with torch.device("meta"):
        stage = build_stage(job.stage, job.settings, channels=job.channels, classes=len(job.classes))
    tensors = [value for value in stage.state_dict().values() if isinstance(value, torch.Tensor)]
    tensors += [parameter for parameter in stage.parameters() if parameter.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def checkpoint_bytes(job: StageJob) -> int:
    """Room that the training's checkpoints take."""
    return _CHECKPOINTS * state_bytes(job)


def worker_bytes(job: StageJob, version: DatasetVersion) -> int:
    """Memory that a worker needs at least: without the networks' passes, which take what the batch needs."""
    cached = 0
    pools = [(job.labeled_patients, True)]
    if job.unlabeled_batch:
        pools.append((version.patients("train"), False))
    for patients, labels in pools:
        size = sum(group.bytes for group in row_groups_of(version, patients, annotated_only=labels))
        cached += size if size <= CACHE_BYTES else 0
    return WORKER_BYTES + 2 * state_bytes(job) + cached


def check_init(job: StageJob) -> str:
    """The checkpoint that `job` starts from, in words. Raises as `init_state`."""
    state = init_state(job)
    other = StageJob.from_json(state["job"])
    return f"{job.init_checkpoint}, {other.title}, after step {state['step']}"


def init_state(job: StageJob) -> dict[str, Any]:
    """The checkpoint that `job` starts from.

    Raises:
        StoreError: it cannot be read.
        DataError: the job cannot start from it, or would not be what its configuration says.
    """
    url = job.init_checkpoint or ""
    state = read_checkpoint(url)
    other = StageJob.from_json(state["job"])
    wrong = {
        "stage": (other.stage, job.stage if job.continued else "pretrain"),
        "classes": (other.classes, job.classes),
        "channels": (other.channels, job.channels),
        "network": (_network(other), _network(job)),
        "pretrain.framework": (other.settings.pretrain.framework, job.settings.pretrain.framework),
    }
    kind = "fine-tuning" if job.continued else "pre-training"
    for what, (found, needed) in wrong.items():
        if found != needed:
            raise DataError(
                f"init = {url}: its {what} is {found}, and {job.title} needs {needed}: give the checkpoint "
                f"of a {kind} with the same dataset, network and framework."
            )
    return state


def _network(job: StageJob) -> str:
    """What the shapes of the network's weights depend on, besides channels and classes."""
    network = job.settings.network
    return f"{network.kind} {list(network.features)}"
