"""Pixel representations ψ: sample first, project after (METHOD section 5)."""

from arco_core.representation.head import PyramidHead, project
from arco_core.representation.sampling import image_mean, masked_mean, sample_pyramid

__all__ = ["PyramidHead", "image_mean", "masked_mean", "project", "sample_pyramid"]
