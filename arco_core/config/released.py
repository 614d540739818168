"""What the authors' released code does and the paper does not say; for the preset `released`."""

from __future__ import annotations

from dataclasses import dataclass

RELEASED_SAMPLERS = ("sg-released", "sag-released")
"""Samplers for `finetune.contrast.sampler` that exist to reproduce; they are biased."""


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """Behaviours of the released code (METHOD section 8), each a switch; all are off by default."""

    linear_projectors: bool = False
    """Stage one: projectors and predictors without the non-linearity between their two layers."""
    teacher_keeps_statistics: bool = False
    """The teacher is in training mode, drops out, and averages batch-norm statistics of its own passes."""
    teacher_without_warmup: bool = False
    """The moving average has its full length from the first update on."""
    teacher_from_student: bool = False
    """Stage two starts with stage one's student as its teacher too."""
    random_heads: bool = False
    """Stage two: representation heads start as random maps instead of the identity."""
    neighbors_without_gradient: bool = False
    """L_nn: the student picks the neighbours, the distance is the teacher's, and nothing is learnt."""
    starving_banks: bool = False
    """L_contrast: each class has a bank of its own negatives, which hardly any pixel may enter."""
