"""The baseline: the same labels, network and number of steps, and no unlabelled scan."""

from __future__ import annotations

from components.training_options import TrainingOptions, train


def supervised(options: TrainingOptions) -> str:
    """The baseline: the same labels, network and number of steps, and no unlabelled scan.

    Returns the URL of the final checkpoint. Raises as `components.training_options.train`.
    """
    return train("supervised", options)
