"""The methods that are compared, by the names that tables give them."""

from __future__ import annotations

from collections.abc import Mapping

from arco_core.config import ArcoConfig
from arco_core.config.schema import SAMPLER_NAMES
from components.model_ref import BASELINE

MEAN_TEACHER = "mean-teacher"

_WITHOUT_ARCO = tuple(f"finetune.weights.{term}=0.0" for term in ("contrast", "neighbors", "equivariance"))

METHODS: Mapping[str, tuple[str, ...]] = {
    BASELINE: (),
    MEAN_TEACHER: _WITHOUT_ARCO,
    **{f"arco-{sampler}": (f"finetune.contrast.sampler={sampler}",) for sampler in SAMPLER_NAMES},
}
"""Each method's settings over those of a preset."""


def finetuned_method(config: ArcoConfig) -> str:
    """The name of what a configuration's stage two trains: `arco-sg`, …, or `mean-teacher`."""
    weights = config.finetune.weights
    if weights.unsupervised and not (weights.contrast or weights.neighbors or weights.equivariance):
        return MEAN_TEACHER
    return f"arco-{config.finetune.contrast.sampler}"
