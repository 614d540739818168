"""What Ray Train runs in every worker process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

import ray
import torch.distributed as dist
from ray.train import get_context
from ray.train.torch import get_device
from ray.train.v2._internal.execution.context import get_train_context

from arco_core.errors import ArcoError, Stopped, StoreError
from arco_core.training import Request
from infra.training import collectives
from infra.training.shares import training_workers
from infra.training.stage_job import StageJob
from infra.training.watch import Contact
from infra.training.worker import run_worker

_notice = threading.Event()
"""This process was told to end."""


def train_function(arguments: dict[str, Any]) -> None:
    """Train `arguments["job"]`, in touch with the driver by `arguments["mailbox"]`."""
    mailbox = arguments["mailbox"]
    job = StageJob.from_json(arguments["job"])
    context = get_context()
    rank, places = context.get_world_rank(), context.get_world_size()
    start = _begin(mailbox, rank, places)
    if start is None:
        return  # it would fail in the same way again, or was asked to end
    world = training_workers(job, places)
    if world < places and not _join_smaller_group(rank, world):
        return

    mailbox.enlist.remote(rank, ray.get_runtime_context().get_node_id(), os.getpid())

    def report(step: int, metrics: Mapping[str, float]) -> None:
        mailbox.post.remote(step, dict(metrics))

    contact = Contact(
        report=report,
        warn=mailbox.warn.remote,
        alive=lambda step: mailbox.beat.remote(rank, step),
        request=_Requests(mailbox, first=rank == 0),
    )
    try:
        run_worker(
            job,
            rank=rank,
            world=world,
            device=get_device(),
            contact=contact,
        )
    except Stopped as stopped:
        ray.get(mailbox.stopped.remote(start, stopped.step))
    except StoreError as error:
        ray.get(mailbox.fail.remote(start, str(error)))  # stores recover
        raise
    except ArcoError as error:
        ray.get(mailbox.refuse.remote(start, str(error)))
        raise


def _begin(mailbox: Any, rank: int, places: int) -> int | None:
    """The number of this start, which all workers have to know alike; None where none is to be made."""
    start = ray.get(mailbox.begin.remote()) if rank == 0 else None
    return collectives.broadcast_object(start) if places > 1 else start


def _join_smaller_group(rank: int, world: int) -> bool:
    """Replace the group of all workers by one of the first `world`; false in those left over."""
    address = None
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("", 0))
            address = f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
    address, backend = collectives.broadcast_object(address), dist.get_backend()
    dist.destroy_process_group()
    if rank >= world:
        return False
    if world > 1:
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=world)
    return True


class _Requests:
    """What this worker is asked to do by the driver, by a signal, or by a node that is about to go.

    A drained node asks for a checkpoint only: Ray Train goes on until its time is up, and then elsewhere.
    """

    def __init__(self, mailbox: Any, *, first: bool) -> None:
        self._stop = threading.Event()
        self._drains = 0
        _notice.clear()
        # Python handles signals in the main thread, where Ray runs this actor's methods.
        ray.get(ray.get_runtime_context().current_actor.execute.remote(_note_signals))
        if first:
            threading.Thread(target=self._wait, args=(mailbox,), name="wait-for-stop", daemon=True).start()

    def __call__(self) -> Request:
        if self._stop.is_set() or _notice.is_set():
            return Request.STOP
        # Ray's public `get_preemption_info` waits for all workers at each call: too long in every step.
        info = get_train_context().preemption_context.preemption_info
        drains = len(info.preempted_node_ids) if info else 0
        saved, self._drains = self._drains, drains
        return Request.SAVE if drains > saved else Request.GO_ON

    def _wait(self, mailbox: Any) -> None:
        ray.get(mailbox.wait_for_stop.remote())
        self._stop.set()


def _note_signals() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: _notice.set())
