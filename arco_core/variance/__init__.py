"""How much a sampler lowers the variance of the contrastive loss and of its gradient (METHOD section 4)."""

from arco_core.variance.compare import (
    OVERALL,
    QUANTITIES,
    Ratio,
    VarianceRow,
    batch_variances,
    compare_samplers,
)
from arco_core.variance.exact import exact_variances
from arco_core.variance.fields import check_stage, class_fields
from arco_core.variance.outer import Outer

__all__ = [
    "OVERALL",
    "QUANTITIES",
    "Outer",
    "Ratio",
    "VarianceRow",
    "batch_variances",
    "check_stage",
    "class_fields",
    "compare_samplers",
    "exact_variances",
]
