"""Signals that tell this process to stop, turned into an event: what was begun can be put away first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cancel_on_signals() -> Iterator[threading.Event]:
    """Yields an event that SIGTERM and SIGINT set meanwhile, instead of ending the process.

    Signals reach the main thread only; in another, nothing sets the event.
    """
    cancel = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return

    def stop(number: int, frame: FrameType | None) -> None:
        cancel.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
