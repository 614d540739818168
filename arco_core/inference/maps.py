"""What prediction makes of class probabilities: a mask, and maps of how sure it is.

Uncertainty is measured in two ways, both from 0 (sure) to 1:

* the entropy of the predicted probabilities over that of guessing, ln K;
* the disagreement of student and teacher: the Jensen-Shannon divergence of their probabilities over its
  largest value, ln 2. It is zero where both are equally unsure, where entropy is high (Lin, IEEE Trans.
  Information Theory 1991).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.special import entr

from arco_core.preprocess import Geometry, place

Mask = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
MapName = Literal["probabilities", "entropy", "disagreement"]
MAPS: tuple[MapName, ...] = ("probabilities", "entropy", "disagreement")


@dataclass(kw_only=True)
class Segmentation:
    """A scan's mask and the maps that were asked for, on one grid *S."""

    mask: Mask
    """Class indices (*S)."""
    probabilities: Map | None = None
    """(K, *S)."""
    entropy: Map | None = None
    """(*S), 0 to 1."""
    disagreement: Map | None = None
    """(*S), 0 to 1."""

    @classmethod
    def empty(cls, classes: int, shape: tuple[int, ...], maps: Collection[MapName]) -> Segmentation:
        """All background and sure of it, to be filled in."""
        return cls(
            mask=np.zeros(shape, np.uint8),
            probabilities=np.zeros((classes, *shape), np.float32) if "probabilities" in maps else None,
            entropy=np.zeros(shape, np.float32) if "entropy" in maps else None,
            disagreement=np.zeros(shape, np.float32) if "disagreement" in maps else None,
        )

    def placed(self, geometry: Geometry) -> Segmentation:
        """From the grid of the crop (d, h, w) onto the scan's own; what was cropped away is background."""
        probabilities = self.probabilities
        if probabilities is not None:
            channels = [place(p, geometry, fill=float(c == 0)) for c, p in enumerate(probabilities)]
            probabilities = np.stack(channels)
        return Segmentation(
            mask=place(self.mask, geometry),
            probabilities=probabilities,
            entropy=None if self.entropy is None else place(self.entropy, geometry),
            disagreement=None if self.disagreement is None else place(self.disagreement, geometry),
        )


def entropy_terms(probabilities: Tensor, classes: int) -> Tensor:
    """Each class's part of the entropy; their sum over `classes` is the entropy over ln K."""
    terms: Tensor = entr(probabilities) / math.log(classes)
    return terms


def disagreement_terms(student: Tensor, teacher: Tensor) -> Tensor:
    """Each class's part of the disagreement; their sum over the classes is the divergence over ln 2."""
    terms: Tensor = entr((student + teacher) / 2) - (entr(student) + entr(teacher)) / 2
    return terms / math.log(2)
