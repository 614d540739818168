"""Stage one: semi-supervised pre-training."""

from components.pretrain.step import pretrain

__all__ = ["pretrain"]
