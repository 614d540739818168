"""The methods that are compared, by the names that tables give them."""

from __future__ import annotations

from collections.abc import Mapping

from arco_core.config import ArcoConfig
from arco_core.config.frameworks import ARCO, FRAMEWORK_NAMES
from arco_core.config.schema import SAMPLER_NAMES
from components.model_ref import BASELINE, FRAMEWORK_SEPARATOR

MEAN_TEACHER = "mean-teacher"

_WITHOUT_ARCO = tuple(f"finetune.weights.{term}=0.0" for term in ("contrast", "neighbors", "equivariance"))
_STAGE_TWO: Mapping[str, tuple[str, ...]] = {
    MEAN_TEACHER: _WITHOUT_ARCO,
    **{f"arco-{sampler}": (f"finetune.contrast.sampler={sampler}",) for sampler in SAMPLER_NAMES},
}


def _full_name(stage_two: str, framework: str) -> str:
    return stage_two if framework == ARCO else f"{stage_two}{FRAMEWORK_SEPARATOR}{framework}"


METHODS: Mapping[str, tuple[str, ...]] = {
    BASELINE: (),
    **{
        _full_name(stage_two, framework): (f"pretrain.framework={framework}", *settings)
        for framework in FRAMEWORK_NAMES
        for stage_two, settings in _STAGE_TWO.items()
    },
}
"""Each method's settings over a preset's. `arco-sg+simclr` is `arco-sg` after a stage one by SimCLR."""

OWN_METHODS = (BASELINE, *_STAGE_TWO)
"""Those whose stage one, if any, is ARCO's own."""


def framework_of(method: str) -> str:
    """By which framework one of `METHODS` with two stages learns in the first: one of `FRAMEWORK_NAMES`."""
    return method.partition(FRAMEWORK_SEPARATOR)[2] or ARCO


def finetuned_method(config: ArcoConfig) -> str:
    """The name of what a configuration's two stages train: `arco-sg`, `arco-sg+simclr`, `mean-teacher`, …"""
    weights = config.finetune.weights
    stage_two = f"arco-{config.finetune.contrast.sampler}"
    if weights.unsupervised and not (weights.contrast or weights.neighbors or weights.equivariance):
        stage_two = MEAN_TEACHER
    return _full_name(stage_two, config.pretrain.framework)
