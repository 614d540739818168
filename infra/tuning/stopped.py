"""The end of a sweep that was asked to stop."""

from __future__ import annotations

import signal

from infra.signals import Interrupted


class SweepInterrupted(Interrupted):
    """A signal stopped the sweep; trainings that were running are saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(0, number)

    def __str__(self) -> str:
        return (
            f"{signal.Signals(self.number).name}: the sweep stopped, and what was running is saved; "
            "the same command continues from there"
        )
