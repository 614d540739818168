"""Stage two: anatomical contrastive fine-tuning."""

from __future__ import annotations

from components.methods import finetuned_method
from components.training_options import TrainingOptions, train


def finetune(options: TrainingOptions, *, init: str, continued: bool = False) -> str:
    """Stage two: anatomical contrastive fine-tuning, from the checkpoint `init` of stage one.

    Where it is `continued`, `init` is a checkpoint of stage two: its networks go on, with new banks.

    Returns the URL of the final checkpoint. Raises as `components.training_options.train`.
    """
    return train("finetune", options, init=init, continued=continued)


def method_name(options: TrainingOptions) -> str:
    """The method's name in tables, see `components.methods`."""
    return finetuned_method(options.settings)
