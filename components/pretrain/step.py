"""Stage one: semi-supervised pre-training."""

from __future__ import annotations

from components.training_options import TrainingOptions, train


def pretrain(options: TrainingOptions) -> str:
    """Stage one: semi-supervised pre-training, by `pretrain.framework`.

    Returns the URL of the final checkpoint. Raises as `components.training_options.train`.
    """
    return train("pretrain", options)
