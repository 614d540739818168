"""Scores of one segmented volume against its reference (METHOD section 7).

Everything is per volume and per foreground class, on the scan's original grid. Surfaces, surface
distances and Dice are MONAI's: a surface is the set of voxels that a 6-neighbour erosion removes,
a distance runs from voxel centre to voxel centre.

Two conventions:

* ``arco`` (default): ASD is the mean over both surfaces' distances pooled (average symmetric surface
  distance); HD95 is the larger of the two directed 95th percentiles; a distance to an empty set does not
  exist.
* ``released``: what the authors' code computes, kept for tables that must be compared like with like. ASD
  runs from prediction to reference only, HD95 is the 95th percentile of the pooled distances, a missed
  structure scores (Dice 0, ASD 0, HD95 0), a false positive on an absent one (Dice 1, ASD 0, HD95 0), and an
  absent structure rightly left out (Dice 0, ASD 0, HD95 0).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from monai.metrics.utils import get_edge_surface_distance

from arco_core.errors import DataError

Convention = Literal["arco", "released"]
CONVENTIONS: tuple[Convention, ...] = ("arco", "released")

_BoolVolume = npt.NDArray[np.bool_]
_Distances = tuple[float, float]
_VOXEL = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One structure of one volume. Distances are None where one of the two surfaces does not exist."""

    class_name: str
    dice: float
    """Between 0 and 1."""
    asd_mm: float | None
    hd95_mm: float | None
    asd_voxel: float | None
    hd95_voxel: float | None
    missing: bool
    """The reference has the structure and the prediction has not a voxel of it."""


def score_case(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    spacing_mm: Sequence[float],
    classes: Sequence[str],
    *,
    convention: Convention = "arco",
) -> list[ClassScore]:
    """Score every foreground class of one volume.

    Args:
        prediction: class indices, (X, Y, Z).
        reference: class indices, (X, Y, Z).
        spacing_mm: size of a voxel along X, Y and Z in mm.
        classes: class names, background first; the background is not scored.
        convention: `arco` or `released`, see the module's docstring.

    Raises:
        DataError: the shapes differ, a value is not a class, or the spacing is impossible.
    """
    spacing_mm = tuple(float(s) for s in spacing_mm)
    _check(prediction, reference, spacing_mm, classes, convention)
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes to itself.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        return [
            _score_class(prediction == index, reference == index, spacing_mm, name, convention)
            for index, name in enumerate(classes)
            if index > 0
        ]


def _check(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    spacing_mm: Sequence[float],
    classes: Sequence[str],
    convention: str,
) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise DataError(
            f"prediction {prediction.shape} and reference {reference.shape}: "
            "must be volumes of one shape (X, Y, Z)."
        )
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise DataError(f"spacing {tuple(spacing_mm)} mm: must be three positive numbers, one per axis.")
    for what, volume in (("prediction", prediction), ("reference", reference)):
        if volume.size and int(volume.max()) >= len(classes):
            raise DataError(
                f"{what} holds label {int(volume.max())}: must be below {len(classes)}, "
                f"the number of classes ({', '.join(classes)})."
            )
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r}: must be one of {', '.join(CONVENTIONS)}.")


def _score_class(
    prediction: _BoolVolume,
    reference: _BoolVolume,
    spacing_mm: tuple[float, ...],
    name: str,
    convention: Convention,
) -> ClassScore:
    predicted, present = bool(prediction.any()), bool(reference.any())
    voxel: _Distances | None = None
    mm: _Distances | None = None
    if predicted and present:
        box = _union_box(prediction, reference)
        pair = _as_batch(prediction[box]), _as_batch(reference[box])
        dice = float(compute_dice(*pair))
        distances = _arco_distances if convention == "arco" else _released_distances
        voxel = distances(*pair, _VOXEL)
        mm = voxel if spacing_mm == _VOXEL else distances(*pair, spacing_mm)
    elif convention == "arco":
        dice = 1.0 if predicted == present else 0.0
    else:
        dice = 1.0 if predicted else 0.0
        voxel = mm = (0.0, 0.0)
    return ClassScore(
        class_name=name,
        dice=dice,
        asd_mm=mm[0] if mm else None,
        hd95_mm=mm[1] if mm else None,
        asd_voxel=voxel[0] if voxel else None,
        hd95_voxel=voxel[1] if voxel else None,
        missing=present and not predicted,
    )


def _union_box(prediction: _BoolVolume, reference: _BoolVolume) -> tuple[slice, ...]:
    """Bounding box of both masks. Nothing outside it can change a surface or a distance."""
    union = prediction | reference
    box = []
    for axis in range(3):
        inside = np.flatnonzero(union.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _as_batch(mask: _BoolVolume) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _arco_distances(
    prediction: torch.Tensor, reference: torch.Tensor, spacing: Sequence[float]
) -> _Distances:
    """(ASD, HD95) of two non-empty masks (1, 1, X, Y, Z), symmetric, in the unit of `spacing`."""
    asd = compute_average_surface_distance(
        prediction, reference, include_background=True, symmetric=True, spacing=list(spacing)
    )
    hd95 = compute_hausdorff_distance(
        prediction, reference, include_background=True, percentile=95, spacing=list(spacing)
    )
    return float(asd), float(hd95)


def _released_distances(
    prediction: torch.Tensor, reference: torch.Tensor, spacing: Sequence[float]
) -> _Distances:
    """(ASD, HD95) as medpy's `asd` (one-sided) and `hd95` (pooled), which the authors' code calls."""
    _, distances, _ = get_edge_surface_distance(
        prediction[0, 0], reference[0, 0], spacing=list(spacing), symmetric=True
    )
    return float(distances[0].mean()), float(torch.quantile(torch.cat(distances), 0.95))
