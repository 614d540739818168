"""Augmentation on the training device: batched, label-consistent, reproducible by a `torch.Generator`.

Each function draws fresh parameters for every image of the batch. No image is looped over.
"""

from arco_core.augment.geometry import RandomWarp, identity_grid, invert, random_affine, warp
from arco_core.augment.intensity import jitter
from arco_core.augment.mix import mix
from arco_core.augment.random import chance, uniform

__all__ = [
    "RandomWarp",
    "chance",
    "identity_grid",
    "invert",
    "jitter",
    "mix",
    "random_affine",
    "uniform",
    "warp",
]
