"""A sweep: every method, with every amount of labels and every seed."""

from components.sweep.step import SweepOptions, sweep

__all__ = ["SweepOptions", "sweep"]
