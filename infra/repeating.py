"""Do something again and again beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def repeating(
    action: Callable[[], None], *, every: float, name: str, but: tuple[type[Exception], ...]
) -> Iterator[None]:
    """Meanwhile, a thread calls `action` every so many seconds, first after one; it ends with the block.

    Args:
        action: what to do.
        every: seconds between calls.
        name: of the thread.
        but: errors that do not end it, since the next call may succeed.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every):
            with suppress(*but):
                action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
