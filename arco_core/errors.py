"""Errors that a user can act on: the message states the value, the rule and the way out."""

from __future__ import annotations

from collections.abc import Mapping


class ArcoError(Exception):
    """Anything wrong that the user can mend; command lines print it without a traceback."""


class DataError(ArcoError):
    """A scan, an annotation or a dataset that breaks a rule."""


class StoreError(ArcoError):
    """The object store refused or failed."""


class TrainingError(ArcoError):
    """Training cannot start, or went wrong in a way that a retry does not mend."""


class Diverged(TrainingError):
    """The loss or its gradient is no longer finite.

    Args:
        step: the step after which it was noticed.
        values: means of all metrics since the last report.
    """

    def __init__(self, step: int, values: Mapping[str, float | list[float]]) -> None:
        numbers = ", ".join(f"{name} {x:.4g}" for name, x in values.items() if isinstance(x, float))
        super().__init__(
            f"training diverged: the loss or its gradient is not finite at step {step} ({numbers}); "
            "lower optimizer.lr, or look for scans with extreme intensities"
        )
        self.step, self.values = step, dict(values)


class Stopped(Exception):
    """Training was asked to stop before its end. Its state is saved: the same call goes on from there.

    Args:
        step: optimiser steps done.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved; the same command continues from there")
        self.step = step
