"""Stage two: anatomical contrastive fine-tuning."""

from components.finetune.step import finetune

__all__ = ["finetune"]
