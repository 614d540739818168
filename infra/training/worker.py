"""What every training worker does, whoever started it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from arco_core.errors import TrainingError
from arco_core.meter import Values
from arco_core.stages import ALONE, Passes, Peers, Stage, build_stage
from arco_core.training import Loop, Request, train
from infra.checkpoints import read_checkpoint
from infra.datasets import DatasetVersion
from infra.storage import Store
from infra.training import collectives
from infra.training.ballot import Ballot
from infra.training.data_parallel import data_parallel
from infra.training.feed import open_feed
from infra.training.metrics_log import Line
from infra.training.recorder import RESULT, Recorder, Report, checkpoints_of, lines_in
from infra.training.seeds import derived_seed
from infra.training.stage_job import StageJob, StageResult
from infra.training.validation import Validator, annotated_cases, best_of, validations_of


def finished(job: StageJob) -> StageResult | None:
    """What `job` left when it was done before, or None when it is still to do."""
    store = Store(job.run_url)
    path = f"{job.folder}/{RESULT}"
    if not store.exists(path):
        return None
    result = StageResult.from_json(store.read_bytes(path).decode())
    folder, _, name = result.checkpoint_url.rpartition("/")
    return result if Store(folder).exists(name) else None


def run_worker(
    job: StageJob,
    *,
    rank: int,
    world: int,
    device: torch.device,
    report: Report,
    request: Callable[[], Request],
) -> None:
    """Train `job` as worker `rank` of `world`; continues from the last checkpoint where there is one.

    With more than one worker, `torch.distributed` is set up already. Rank 0 writes checkpoints, metrics and,
    at the end, the result into the stage's folder, and calls `report`. `request` is asked after every step
    what else to do; what one worker is asked to do, all do.

    Raises:
        TrainingError: the training diverged, or a newer attempt has taken over.
        DataError, StoreError: the dataset or the store cannot be read.
        Stopped: it was asked for; the last step is saved.
    """
    config = job.settings
    threads = _threads(config.run.threads_per_worker)
    with threads, open_feed(job, rank=rank, world=world, device=device) as feed:
        recorder = Recorder(job, report) if rank == 0 else None
        resume_step = recorder.resume_step if recorder else None
        if world > 1:
            resume_step = collectives.broadcast_object(resume_step)
        state = checkpoints_of(job).load(resume_step) if resume_step is not None else None
        stage = build(job, world, device)
        passes = Passes.on(device, config.run)
        ballot = Ballot(request) if world > 1 else None
        validate = _validation(job, stage, recorder, rank, world, lines_in(state))
        loop = Loop(
            steps=job.steps,
            seed=derived_seed(job.seed, job.stage),
            rank=rank,
            log_every=config.run.log_every,
            validate_every=job.validate_every if validate else 0,
            checkpoint_every=config.run.checkpoint_every,
            on_log=recorder.log if recorder else _ignore,
            on_validate=validate or _never,
            average=collectives.average if world > 1 else _unchanged,
            on_checkpoint=_on_checkpoint(recorder, world),
            request=ballot or request,
            forward=data_parallel(stage, feed, passes) if world > 1 else None,
            after_step=_synchronise(stage, world),
            passes=passes,
            resume=_own_state(state, rank, world, job),
        )
        if recorder:
            recorder.start(state)
        train(stage, feed, config.optimizer, loop)
        if ballot:
            ballot.close()
        if recorder:
            recorder.finish()


def build(job: StageJob, world: int, device: torch.device) -> Stage:
    """The stage of `job` on `device`, with the same initial weights and buffers on every rank.

    Its memory format must not change any more: `DistributedDataParallel` lays out its buckets by it, and
    would scramble the gradients of its first step (torch only warns that strides differ).
    """
    peers = Peers(count=world, gather=collectives.gather_rows) if world > 1 else ALONE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(job.seed, "weights"))
        stage = build_stage(
            job.stage, job.settings, channels=job.channels, classes=len(job.classes), peers=peers
        )
    if job.init_checkpoint:
        stage.load_pretrained(read_checkpoint(job.init_checkpoint)["stage"])
    return stage.to(device)


def _on_checkpoint(recorder: Recorder | None, world: int) -> Callable[[int, dict[str, Any]], None]:
    def save(step: int, state: dict[str, Any]) -> None:
        feeds = collectives.gather_objects(state["feed"]) if world > 1 else [state["feed"]]
        if recorder:
            recorder.save(step, state, feeds)

    return save


def _validation(
    job: StageJob, stage: Stage, recorder: Recorder | None, rank: int, world: int, lines: Sequence[Line]
) -> Callable[[int], bool] | None:
    """Validates the student and tells whether it was never better; None where there is nothing to do."""
    version = DatasetVersion.open(job.dataset_url)
    if not job.validate_every or not annotated_cases(version):
        return None
    gather = collectives.gather_objects if world > 1 else _in_list
    validator = Validator(version, job.settings.inference, rank=rank, world=world, gather=gather)
    best = best_of(validations_of(lines, job.classes))

    def validate(step: int) -> bool:
        nonlocal best
        start = time.perf_counter()
        validation = validator(stage.export(), step)
        if recorder:
            recorder.log_validation(validation, time.perf_counter() - start)
        if best and validation.dice <= best.dice:
            return False
        best = validation
        return True

    return validate


def _synchronise(stage: Stage, world: int) -> Callable[[], None]:
    def average() -> None:
        collectives.average_running_statistics(stage.get_submodule("student"))

    return average if world > 1 else _nothing


def _own_state(state: dict[str, Any] | None, rank: int, world: int, job: StageJob) -> dict[str, Any] | None:
    """This rank's part of a checkpoint."""
    if state is None:
        return None
    if len(state["feeds"]) != world:
        raise TrainingError(
            f"{job.title}: the checkpoint was written by {len(state['feeds'])} workers and cannot be "
            f"continued by {world}: set run.workers={len(state['feeds'])}"
        )
    return {**state, "feed": state["feeds"][rank]}


def _ignore(step: int, values: Values) -> None:
    pass


def _never(step: int) -> bool:
    return False


def _unchanged(values: Tensor) -> Tensor:
    return values


def _in_list(value: Any) -> list[Any]:
    return [value]


def _nothing() -> None:
    pass


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, which also decides in which order it sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
