"""The end of a training that stands still."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infra.pulses import Pulses

EXIT_CODE = 1
_TITLE = b"ray::"
"""What the command line of Ray's worker processes begins with."""


class StallWatch:
    """Meanwhile, end this process when `beat` was not called for `seconds`; 0 is never.

    Whatever blocks it, a file system or a driver of a GPU, may not let anything else end it. What is
    committed is whole: the same command continues from there.
    """

    def __init__(self, title: str, seconds: float) -> None:
        self._title, self._seconds = title, seconds
        self._pulses = Pulses()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)

    def __enter__(self) -> StallWatch:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def beat(self, step: int) -> None:
        """Training goes on, and has done `step` steps."""
        self._pulses.beat(0, step)

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            if self._pulses.silence() > self._seconds:
                told = stall_message(self._seconds, self._pulses.tell())
                print(
                    f"error: {self._title}: {told}; this process ends. Where it stands:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(EXIT_CODE)


def stall_message(seconds: float, told: str) -> str:
    """What to say when nothing was heard for `seconds`, but what `Pulses.tell` gives."""
    return f"no step for {seconds / 60:.3g} minutes (run.stall_minutes); last heard of: {told}"


def kill_worker(node: str, process: int) -> None:
    """Kill a worker process on a node of this Ray, if it is there still.

    By a task on its node: what stands still may not answer Ray itself any more.
    """
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_kill).remote(process)


def _kill(process: int) -> None:
    command = Path(f"/proc/{process}/cmdline")
    if not command.parent.parent.exists() or (command.exists() and command.read_bytes().startswith(_TITLE)):
        os.kill(process, signal.SIGKILL)
