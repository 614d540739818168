"""Samplers by the names that the configuration uses."""

from __future__ import annotations

from arco_core.config.errors import require_in
from arco_core.config.released import RELEASED_SAMPLERS
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling.base import Sampler
from arco_core.sampling.grid import GroupSampler
from arco_core.sampling.ordered import OrderedSampler
from arco_core.sampling.released import ReleasedSampler


def make_sampler(name: str, grid: int = 4) -> Sampler:
    """The sampler called `name`; `grid` is the number of cells along each axis for sg and sag.

    Raises `ConfigError` for an unknown name.
    """
    require_in("sampler", name, SAMPLER_NAMES + RELEASED_SAMPLERS)
    if name in RELEASED_SAMPLERS:
        return ReleasedSampler(grid, antithetic=name == "sag-released")
    if name in ("sg", "sag"):
        return GroupSampler(grid, antithetic=name == "sag")
    if name == "ns":
        return OrderedSampler("independent", along_curve=False)
    if name == "hilbert-antithetic":
        return OrderedSampler("antithetic", along_curve=True)
    if name == "hilbert-systematic":
        return OrderedSampler("systematic", along_curve=True)
    return OrderedSampler("stratified", along_curve=True)
