"""A process that works for another one ends when that one is gone: an object in the store shows its life.

Times are the store's own, so clocks of machines do not matter.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from arco_core.errors import StoreError
from infra.repeating import repeating
from infra.storage import Store

STALE_SECONDS = 2700.0
"""Without a beat for so long, the other process counts as gone: longer than between two tries of a step."""
BEAT_SECONDS = 60.0
_GRACE_SECONDS = 120.0
"""Between SIGTERM and the end."""


@contextmanager
def beating(store: Store, path: str, *, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Meanwhile, a thread writes the object `path` again and again. Raises `StoreError` at the start."""
    store.write_bytes(path, b"")
    # A store that fails may be back by the next beat.
    with repeating(
        lambda: store.write_bytes(path, b""), every=beat_seconds, name="heartbeat", but=(StoreError,)
    ):
        yield


def end_without(
    store: Store,
    path: str,
    *,
    stale_seconds: float = STALE_SECONDS,
    beat_seconds: float = BEAT_SECONDS,
) -> threading.Thread:
    """Have a thread end this process, by SIGTERM, once the object `path` has not been written for long."""

    def watch() -> None:
        begun = store.clock()
        while not wait(beat_seconds):
            try:
                beats = [
                    entry.modified for entry in store.entries(path.rpartition("/")[0]) if entry.path == path
                ]
                silent = store.clock() - max([begun, *beats])
            except StoreError:  # nothing is known of the other process
                continue
            if silent > stale_seconds:
                print(f"{store.join(path)}: no heartbeat for {silent:.0f} s; this job ends", flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                wait(_GRACE_SECONDS)
                os._exit(128 + signal.SIGTERM)  # whatever keeps the process from ending

    wait = threading.Event().wait
    thread = threading.Thread(target=watch, name="watch of heartbeat", daemon=True)
    thread.start()
    return thread
