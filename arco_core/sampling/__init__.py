"""Pixel samplers: naive, stratified group (SG), antithetic (SAG) and Hilbert stratification.

All of them are unbiased: every member of a population of P is expected n / P times in a sample of n.
They differ in the variance of the mean over the sample. METHOD section 4; You et al. 2023, section 3.2.
"""

from arco_core.sampling.base import PixelSample, Sampler
from arco_core.sampling.grid import GroupSampler
from arco_core.sampling.ordered import OrderedSampler
from arco_core.sampling.registry import make_sampler

__all__ = ["GroupSampler", "OrderedSampler", "PixelSample", "Sampler", "make_sampler"]
