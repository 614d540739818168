"""The baseline: the same labels, network and number of steps, and no unlabelled scan."""

from components.supervised.step import supervised

__all__ = ["supervised"]
