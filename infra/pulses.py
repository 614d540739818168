"""Which workers of a training are alive, and how far each has come."""

from __future__ import annotations

import time


class Pulses:
    """What workers told of themselves, last."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, float]] = {}
        self._since: float | None = None

    def beat(self, rank: int, step: int) -> None:
        """Worker `rank` is alive and has done `step` steps."""
        self._since = time.monotonic()
        self._of[rank] = (step, self._since)

    def silence(self) -> float:
        """Seconds since any worker was heard of, 0 before the first; counted anew after `tell`."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def tell(self) -> str:
        """Who was heard of last, and when; the one of whom nothing was heard for longest first."""
        self._since, now = time.monotonic(), time.monotonic()
        oldest = sorted(self._of.items(), key=lambda item: (item[1][1], item[0]))
        return ", ".join(
            f"worker {rank} {now - heard:.0f} s ago after step {step}" for rank, (step, heard) in oldest
        )

    def quietest(self) -> int | None:
        """The worker of whom nothing was heard for longest."""
        return min(self._of, key=lambda rank: (self._of[rank][1], rank), default=None)
