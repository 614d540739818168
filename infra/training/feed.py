"""What a training worker draws from: pools of samples, and batches on their way to its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from arco_core.errors import DataError
from infra.datasets import DatasetVersion, SlicePool
from infra.datasets.row_groups import row_groups_of
from infra.training.seeds import derived_seed
from infra.training.stage_job import StageJob

CACHE_BYTES = 512 * 2**20
"""Pools up to this size (decoded, a worker) are kept in memory."""
CPU = torch.device("cpu")

Tensors = dict[str, Tensor]


class TrainingFeed:
    """Labelled and unlabelled batches side by side, on `device`, in float32.

    The batch after the current one is drawn ahead. On a GPU it is copied there meanwhile, as float16 on a
    stream of its own, from page-locked memory when the pools pin theirs; the host never waits for a copy.
    """

    def __init__(self, labeled: SlicePool, unlabeled: SlicePool | None, device: torch.device = CPU) -> None:
        self._pools = {"labeled": labeled} | ({} if unlabeled is None else {"unlabeled": unlabeled})
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: _Moving | None = None
        self._position = self._cursors()

    def __enter__(self) -> TrainingFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools.values():
            pool.close()

    def next(self) -> Tensors:
        """`labeled_image`, `labeled_label` and, where there is an unlabelled pool, `unlabeled_image`.

        Raises `DataError` or `StoreError` when this batch or the one after it cannot be read; the feed then
        stands where it stood.
        """
        try:
            moving = self._ahead or self._draw()
            position = self._cursors()
            ahead = self._draw()
        except Exception:
            self.load_state_dict(self._position)
            raise
        self._ahead, self._position = ahead, position
        return self._arrived(moving)

    def state_dict(self) -> dict[str, int]:
        """The pools' cursors after the last batch that `next` returned."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken. Raises `DataError` when it is another feed's."""
        if state.keys() != self._pools.keys():
            raise DataError(f"the saved feed has the pools {sorted(state)}, this one {sorted(self._pools)}")
        for name, pool in self._pools.items():
            pool.cursor = state[name]
        self._ahead, self._position = None, self._cursors()

    def _cursors(self) -> dict[str, int]:
        return {name: pool.cursor for name, pool in self._pools.items()}

    def _draw(self) -> _Moving:
        """Draw a batch and send it on its way."""
        batch: Tensors = {}
        for name, pool in self._pools.items():
            images, labels = pool.next()
            batch[f"{name}_image"] = images
            if labels is not None:
                batch[f"{name}_label"] = labels
        if self._copies is None:
            return _Moving(batch, None)
        with torch.cuda.stream(self._copies):
            copies = {key: value.to(self._device, non_blocking=True) for key, value in batch.items()}
        return _Moving(copies, self._copies.record_event())

    def _arrived(self, moving: _Moving) -> Tensors:
        """The batch for the current stream, which waits for the copies; the host does not."""
        if moving.copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(moving.copied)
            for value in moving.batch.values():
                value.record_stream(stream)  # its memory is the copying stream's, and in use here
        return {
            key: value.float() if value.dtype == torch.float16 else value
            for key, value in moving.batch.items()
        }


@dataclass(frozen=True)
class _Moving:
    """A batch on its way to the device, and the event after its copies."""

    batch: Tensors
    copied: torch.cuda.Event | None


def open_feed(job: StageJob, *, rank: int, world: int, device: torch.device = CPU) -> TrainingFeed:
    """What worker `rank` of `world` trains on: batches of labelled and, unless supervised, unlabelled slices.

    Labelled slices come from the job's labelled patients, unlabelled ones from all other training patients;
    where every training patient is labelled, their slices also serve as unlabelled.
    """
    version = DatasetVersion.open(job.dataset_url)

    def pool(patients: Sequence[str], batch: int, *, labels: bool) -> SlicePool:
        groups = row_groups_of(version, patients, annotated_only=labels)
        return SlicePool(
            version,
            patients,
            labels=labels,
            batch=batch // world,
            rank=rank,
            world=world,
            seed=derived_seed(job.seed, job.stage, "labeled" if labels else "unlabeled"),
            cache=sum(group.bytes for group in groups) <= CACHE_BYTES,
            pin=device.type == "cuda",
        )

    labeled = pool(job.labeled_patients, job.labeled_batch, labels=True)
    if not job.unlabeled_batch:
        return TrainingFeed(labeled, None, device)
    everyone = version.patients("train")
    others = [patient for patient in everyone if patient not in set(job.labeled_patients)]
    return TrainingFeed(labeled, pool(others or everyone, job.unlabeled_batch, labels=False), device)
