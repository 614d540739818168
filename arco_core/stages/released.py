"""L_contrast as the authors' released code feeds it, to compare with (METHOD section 8).

A class's bank holds what are meant to be its negatives: unlabelled pixels whose pseudo-label is the class,
though the teacher, on the strong view, ranks it fourth or lower, and of which the student is least certain.
Labelled pixels are asked for a label that is and is not the class. So the banks starve; with fewer than
four classes they stay empty, and the one negative is a vector of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from arco_core.sampling.ordered import nth_true
from arco_core.stages.contrast import Contrast

_LOWEST_RANK = 3  # counted from 0: the fourth class
_LARGEST_PROBABILITY = 0.97


def entropy_levels(logits: Tensor, labeled: int, progress: float) -> Tensor:
    """What takes the place of confidence: 1 on labelled images; on unlabelled ones 1, 0 or ½, (B, *S).

    1 where the student's entropy is among the lowest 20% of the unlabelled pixels, 0 among the highest 20%;
    both shares fall to nothing as `progress` goes from 0 to 1.

    Args:
        logits: (B, K, *S) of the student, the first `labeled` images being labelled.
    """
    log_probability = logits.log_softmax(1)
    entropy = -(log_probability.exp() * log_probability).sum(1)
    levels = torch.ones_like(entropy)
    unlabeled, share = entropy[labeled:], 0.2 * (1.0 - progress)
    low, high = quantiles(unlabeled.flatten(), (share, 1.0 - share))
    middle = torch.where(unlabeled <= low, 1.0, 0.5)
    levels[labeled:] = torch.where(unlabeled >= high, 0.0, middle)
    return levels


def quantiles(values: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """Quantiles of `values` (N,) by linear interpolation, 0-dim each, for any N.

    `torch.quantile` refuses more than 2^24 values, four patches of 256 × 128 × 128.
    """
    ordered = values.sort().values
    found: list[Tensor] = []
    for share in shares:
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        found.append(ordered[below].lerp(ordered[above], place - below))
    return found


class StarvingContrast(Contrast):
    """`Contrast`, given `entropy_levels` as confidence. `keys_per_step` has no effect: all keys enter."""

    def negatives(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Contrast.negatives`: from the class's own bank; an empty one holds a vector of zeros."""
        bank, rows = self.bank, len(self.bank.count)
        rank = self.sampler.ranks(bank.count.clamp_min(1), self.sets * self.config.negatives, generator)
        slot = ((bank.head - bank.count)[:, None] + rank) % bank.size
        keys = bank.keys[torch.arange(rows, device=slot.device)[:, None], slot]
        return keys.view(rows, self.sets, self.config.negatives, -1), torch.ones_like(bank.count).bool()

    def key_mask(self, of_class: Tensor, confidence: Tensor, teacher_probability: Tensor) -> Tensor:
        """See `Contrast.key_mask`."""
        rank = teacher_probability.argsort(1, descending=True).argsort(1)
        low = (rank >= _LOWEST_RANK) & (teacher_probability < _LARGEST_PROBABILITY)
        return of_class & (confidence == 0) & low.transpose(0, 1)

    def fresh_keys(self, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Contrast.fresh_keys`: all of them, or the last ones that the bank has room for."""
        sizes = mask.flatten(1).sum(1, keepdim=True)
        # As many for every worker, so that keys can be gathered.
        largest = int(self.peers.gather(sizes.amax(0)).max())
        m = max(1, min(largest, self.bank.size // self.peers.gathered))
        place = torch.arange(m, device=mask.device)
        valid = place < sizes
        return nth_true(mask.flatten(1), torch.where(valid, place + (sizes - m).clamp_min(0), 0)), valid
