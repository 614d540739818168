"""Real processes that train together, and real deaths of them.

They fork from a server that has imported torch once, so a process costs a tenth of a second and not five.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import torch
import torch.distributed as dist

from arco_core.stages import Stage
from arco_core.training import Request
from infra.signals import SignalNote
from infra.storage import Store
from infra.training import StageJob
from infra.training.recorder import Recorder
from infra.training.watch import Contact
from infra.training.worker import run_worker

_LAST_WORDS_SECONDS = 20
"""How long processes may take to notice that another has died."""


@dataclass(frozen=True)
class Death:
    """Where a process dies."""

    place: Literal["step", "state", "commit", "metrics", "result"]
    """After the optimiser of a step, with half of a checkpoint's state written, or before its commit; before
    the metrics that it holds are shown, or the result is written."""
    step: int
    rank: int = 0
    signal: signal.Signals = signal.SIGKILL
    """What it sends to itself there."""


def start_group(work: Callable[[int], None], world: int = 2) -> list[BaseProcess]:
    """`work(rank)` in `world` processes that form a gloo group."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # the first optimiser imports the latter
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    processes: list[BaseProcess] = [
        context.Process(target=_start, args=(rank, world, port, environment, work)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: Sequence[BaseProcess]) -> list[int]:
    """Wait for the end of a group; negative codes are signals.

    Once a process has failed the others are given some time to fail, too.
    """
    deadline = None
    while any(process.is_alive() for process in processes):
        if deadline is None and any(process.exitcode for process in processes):
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    return [process.exitcode or 0 for process in processes]


def run_on_two(work: Callable[[int], None]) -> None:
    """`work(rank)` in two processes that form a gloo group, and that must succeed."""
    assert exit_codes(start_group(work)) == [0, 0]


def start_training(job: StageJob, world: int, death: Death | None = None) -> list[BaseProcess]:
    """Train `job` with `world` workers, one of which meets `death`."""
    return start_group(_Training(job.to_json(), world, death), world)


def train_group(job: StageJob, world: int, death: Death | None = None) -> list[int]:
    """As `start_training`, to the end; the exit codes."""
    return exit_codes(start_training(job, world, death))


def exit_code_of(main: Callable[[Sequence[str]], None], arguments: Sequence[str], death: Death) -> int:
    """The exit code of a command line, in a process of its own that meets `death`."""
    return exit_codes(start_group(_Command(main, tuple(arguments), death), 1))[0]


@dataclass(frozen=True)
class _Command:
    main: Callable[[Sequence[str]], None]
    arguments: Sequence[str]
    death: Death

    def __call__(self, rank: int) -> None:
        _arrange(self.death)
        self.main(self.arguments)


@dataclass(frozen=True)
class _Training:
    job: str
    world: int
    death: Death | None

    def __call__(self, rank: int) -> None:
        if self.death and self.death.rank == rank:
            _arrange(self.death)
        with SignalNote() as note:
            note.begin()
            run_worker(
                StageJob.from_json(self.job),
                rank=rank,
                world=self.world,
                device=torch.device("cpu"),
                contact=Contact(
                    report=lambda step, metrics: None,
                    warn=print,
                    alive=lambda step: None,
                    request=lambda: Request.GO_ON if note.number is None else Request.STOP,
                ),
            )


def _start(
    rank: int, world: int, port: int, environment: Mapping[str, str], work: Callable[[int], None]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    if world == 1:
        work(rank)
        return
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        work(rank)
    finally:
        dist.destroy_process_group()


def _arrange(death: Death) -> None:
    """Make this process die there."""
    if death.place == "step":
        after_step = Stage.after_step

        def last_step(stage: Stage) -> None:
            after_step(stage)
            if stage.teacher_updates == death.step:
                os.kill(os.getpid(), death.signal)

        Stage.after_step = last_step  # type: ignore[method-assign]
        return
    if death.place in ("metrics", "result"):
        method = "_show" if death.place == "metrics" else "finish"
        record = getattr(Recorder, method)

        def last_record(recorder: Recorder, *arguments: Any) -> None:
            if recorder._step == death.step:
                os.kill(os.getpid(), death.signal)
            record(recorder, *arguments)

        setattr(Recorder, method, last_record)
        return
    part = f"/{'step' if death.place == 'state' else 'COMMITTED'}-{death.step:08d}-"
    write_bytes = Store.write_bytes

    def last_write(store: Store, path: str, data: bytes) -> None:
        if part in path:
            if death.place == "state":
                write_bytes(store, path, data[: len(data) // 2])
            os.kill(os.getpid(), death.signal)
        write_bytes(store, path, data)

    Store.write_bytes = last_write  # type: ignore[method-assign]


def assert_equal_states(one: object, other: object, place: str = "state") -> None:
    """Both hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), place
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal_states(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        assert len(one) == len(other), place
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_equal_states(first, second, f"{place}[{number}]")
    else:
        assert one == other, place
