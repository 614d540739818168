"""The loss of VICReg."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-4


def vicreg_loss(
    first: Tensor, second: Tensor, *, invariance: float, variance: float, covariance: float
) -> Tensor:
    """λ s(Z, Z') + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')] (Bardes et al., ICLR 2022, equations 1 to 6).

    v(Z) = 1/D Σ_j max(0, 1 - √(Var(z_j) + ε)), c(Z) = 1/D Σ_{i≠j} C(Z)²_ij, and s, as in the paper's
    algorithm 1 and the authors' code but not in equation 5, is the mean over images *and* dimensions of the
    squared difference. The code halves v; the equations, followed here, do not.

    Args:
        first, second: (B, D) embeddings of two views of the same images, B at least 2.
        invariance, variance, covariance: λ, μ, ν.
    """
    spread = _variance_term(first) + _variance_term(second)
    shared = _covariance_term(first) + _covariance_term(second)
    return invariance * F.mse_loss(first, second) + variance * spread + covariance * shared


def _variance_term(z: Tensor) -> Tensor:
    return F.relu(1.0 - (z.var(0) + _EPSILON).sqrt()).mean()


def _covariance_term(z: Tensor) -> Tensor:
    """Of C = XᵀX / (B - 1), X centred; by ‖XᵀX‖ = ‖XXᵀ‖ without C, which is D × D."""
    n, dim = z.shape
    centred = z - z.mean(0)
    everything = (centred @ centred.T).square().sum() / (n - 1) ** 2
    return (everything - z.var(0).square().sum()) / dim
