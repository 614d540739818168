"""The relational distillation loss of stage one (You et al. 2023, L_inst; ISD, ICCV 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relational_loss(
    student: Tensor, teacher: Tensor, bank: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """KL(u_t || u_s) between similarity distributions over the keys of a bank, mean over rows and images.

    u_s = softmax(cos(student, bank) / τ_s), u_t = softmax(cos(teacher, bank) / τ_t).

    Args:
        student: (R, B, D) student embeddings, after the predictor; R windows, or 1 for global ones.
        teacher: (R, B, D) teacher embeddings; no gradient flows into them.
        bank: (R, N, D) keys: teacher embeddings of the mined views.
    """
    keys = F.normalize(bank, dim=2).transpose(1, 2)
    with torch.no_grad():
        target = (torch.bmm(F.normalize(teacher, dim=2), keys) / teacher_temperature).softmax(2)
    log_student = (torch.bmm(F.normalize(student, dim=2), keys) / student_temperature).log_softmax(2)
    return F.kl_div(log_student, target, reduction="none").sum(2).mean()
