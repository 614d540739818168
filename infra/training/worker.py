"""What every training worker does, whoever started it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arco_core.errors import Diverged, TrainingError
from arco_core.meter import Values
from arco_core.stages import ALONE, Passes, Peers, Stage, build_stage
from arco_core.training import Loop, train
from infra.checkpoints import TakenOver
from infra.datasets import DatasetVersion
from infra.storage import Store
from infra.training import collectives
from infra.training.ballot import Ballot
from infra.training.data_parallel import data_parallel
from infra.training.examination import Examination
from infra.training.feed import TrainingFeed, open_feed
from infra.training.health import Collapsed, gone_back_before, rollback_line, rollbacks
from infra.training.metrics_log import ROLLBACK, Line
from infra.training.needs import init_state
from infra.training.recorder import RESULT, Recorder, checkpoints_of, lines_in
from infra.training.seeds import derived_seed
from infra.training.shares import gather_shares, own_state
from infra.training.stage_job import StageJob, StageResult
from infra.training.validation import Validator, annotated_cases, validations_of
from infra.training.watch import Contact, Pulse


def finished(job: StageJob) -> StageResult | None:
    """What `job` left when it was done before, or None when it is still to do."""
    store = Store(job.run_url)
    path = f"{job.folder}/{RESULT}"
    if not store.exists(path):
        return None
    result = StageResult.from_json(store.read_bytes(path).decode())
    folder, _, name = result.checkpoint_url.rpartition("/")
    return result if Store(folder).exists(name) else None


def run_worker(job: StageJob, *, rank: int, world: int, device: torch.device, contact: Contact) -> None:
    """Train `job` as worker `rank` of `world`; continues from the last checkpoint where there is one.

    With more than one worker, `torch.distributed` is set up already. Rank 0 writes checkpoints, metrics and,
    at the end, the result into the stage's folder. What one worker is asked to do by `contact`, all do.
    A training that diverges goes back to its last checkpoint, once (`infra.training.health`).

    Raises:
        TrainingError: the training went wrong for good, or a newer attempt has taken over.
        DataError, StoreError: the dataset or the store cannot be read.
        Stopped: it was asked for; the last step is saved.
    """
    with _threads(job.settings.run.threads_per_worker):
        contact.alive(0)  # from here on, nothing may hang unnoticed
        recorder = Recorder(job, contact.report, contact.warn) if rank == 0 else None
        ballot = Ballot(contact.request) if world > 1 else None
        try:
            _Worker(job, rank, world, device, contact, recorder, ballot).train_to_the_end()
        except TakenOver:
            raise
        except TrainingError:
            if recorder:
                recorder.fail()
            raise
        if ballot:
            ballot.close()
        if recorder:
            recorder.finish()


@dataclass(frozen=True)
class _Worker:
    job: StageJob
    rank: int
    world: int
    device: torch.device
    contact: Contact
    recorder: Recorder | None
    ballot: Ballot | None

    def train_to_the_end(self) -> None:
        """Train, going back once if it diverges."""
        diverged: Diverged | None = None
        while True:
            try:
                self._train(diverged)
                return
            except Diverged as error:
                if self.recorder:
                    self.recorder.show(error)
                if diverged:
                    raise gone_back_before(error) from error
                diverged = error.with_traceback(None)  # or it would hold on to the old stage's memory
            except Collapsed:
                if self.recorder:
                    self.recorder.show()
                raise

    def _train(self, diverged: Diverged | None) -> None:
        """From the last checkpoint to the end; back to it, if training had `diverged` since."""
        job, world = self.job, self.world
        step, state = self._checkpoint()
        self.contact.alive(step or 0)
        lines = lines_in(state)
        if diverged:
            lines.append(rollback_line(step or 0, diverged, lines))
        with open_feed(job, rank=self.rank, world=world, device=self.device) as feed:
            stage = build(job, world, self.device)
            loop = self._loop(stage, feed, lines, state)
            if self.recorder:
                self.recorder.start(step or 0, state, lines)
            if diverged and self.recorder:
                self.contact.warn(f"{diverged}. Training goes back to step {step or 0}, once")
            train(stage, feed, job.settings.optimizer, loop)

    def _checkpoint(self) -> tuple[int | None, dict[str, Any] | None]:
        """The step to continue from and its state, the same on all workers."""
        found = self.recorder.last_checkpoint() if self.recorder else None
        step = found[0] if found else None
        if self.world > 1:
            step = collectives.broadcast_object(step)
        if found or step is None:
            return found or (None, None)
        return step, checkpoints_of(self.job).load(step)

    def _loop(
        self, stage: Stage, feed: TrainingFeed, lines: Sequence[Line], state: dict[str, Any] | None
    ) -> Loop:
        job, run, world = self.job, self.job.settings.run, self.world
        passes = Passes.on(self.device, run)
        pulse = Pulse(self.contact.alive, state["step"] if state else 0)
        pulse.beat()
        examine = self._examination(stage, lines, pulse)
        return Loop(
            steps=job.steps,
            seed=derived_seed(job.seed, job.stage, *[ROLLBACK] * rollbacks(lines)),
            rank=self.rank,
            log_every=run.log_every,
            validate_every=job.validate_every if examine else 0,
            checkpoint_every=run.checkpoint_every,
            on_log=self.recorder.log if self.recorder else _ignore,
            on_validate=examine or _never,
            average=collectives.average if world > 1 else _unchanged,
            on_checkpoint=_on_checkpoint(stage, self.recorder, self.rank, world),
            request=self.ballot or self.contact.request,
            forward=data_parallel(stage, feed, passes) if world > 1 else None,
            after_step=_after_step(stage, world, pulse),
            passes=passes,
            resume=own_state(state, rank=self.rank, world=world) if state else None,
        )

    def _examination(self, stage: Stage, lines: Sequence[Line], pulse: Pulse) -> Examination | None:
        """What is done at validations; None where there is nothing to validate on."""
        job = self.job
        version = DatasetVersion.open(job.dataset_url)
        if not job.validate_every or not annotated_cases(version):
            return None
        validator = Validator(
            version,
            job.settings.inference,
            rank=self.rank,
            world=self.world,
            gather=collectives.gather_objects if self.world > 1 else _in_list,
            alive=pulse.beat,
        )
        earlier = validations_of(lines, job.classes)
        return Examination(validator, stage, earlier, self.recorder, self.contact.warn)


def build(job: StageJob, world: int, device: torch.device) -> Stage:
    """The stage of `job` on `device`, with the same initial weights and buffers on every rank.

    Its memory format must not change any more: `DistributedDataParallel` lays out its buckets by it, and
    would scramble the gradients of its first step (torch only warns that strides differ).
    """
    peers = ALONE
    if world > 1 and job.settings.run.banks == "shared":
        peers = Peers(count=world, gathered=world, rank=collectives.rank(), gather=collectives.gather_rows)
    elif world > 1:
        peers = Peers(count=world)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(job.seed, "weights"))
        stage = build_stage(
            job.stage, job.settings, channels=job.channels, classes=len(job.classes), peers=peers
        )
    if job.init_checkpoint:
        stage.load_pretrained(init_state(job)["stage"])
    return stage.to(device)


def _on_checkpoint(
    stage: Stage, recorder: Recorder | None, rank: int, world: int
) -> Callable[[int, dict[str, Any]], None]:
    def save(step: int, state: dict[str, Any]) -> None:
        shares = gather_shares(stage, state, rank=rank, world=world)
        if recorder:
            recorder.save(step, state, shares)

    return save


def _after_step(stage: Stage, world: int, pulse: Pulse) -> Callable[[], None]:
    def after() -> None:
        if world > 1:
            collectives.average_running_statistics(stage.get_submodule("student"))
        pulse.step()

    return after


def _ignore(step: int, values: Values) -> None:
    pass


def _never(step: int) -> bool:
    return False


def _unchanged(values: Tensor) -> Tensor:
    return values


def _in_list(value: Any) -> list[Any]:
    return [value]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, which also decides in which order it sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
