"""Signals that ask this process to end: noted, so that what is under way can be saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from arco_core.errors import Stopped

ENDING = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C; and what schedulers send before they take a machine away or end a job."""


class Interrupted(Stopped):
    """A training was stopped by a signal; its state is saved.

    Args:
        step: optimiser steps done.
        number: of the signal.
    """

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step)
        self.number = number

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name}: {super().__str__()}"


class SignalNote:
    """Meanwhile, the first signal of `ENDING` after `begin` is noted. Any other ends this process as ever.

    As ever is `KeyboardInterrupt` for Ctrl-C, and else the exit code 128 + the signal's number. In a thread
    other than the main one, where Python lets nobody handle signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal noted, or None."""
        self._begun = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalNote:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in ENDING}
        return self

    def begin(self) -> None:
        """From now on there is something to save."""
        self._begun = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._begun and self.number is None:
            self.number = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)
