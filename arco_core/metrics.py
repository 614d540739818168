"""Scores of one segmented volume against its reference (METHOD section 7).

Everything is per volume and per foreground class, on the scan's original grid. Surfaces, distances between
them, Dice and surface Dice are MONAI's. For ASD and HD95 a surface is the set of voxels that a 6-neighbour
erosion removes, and a distance runs from voxel centre to voxel centre. Surface Dice (Nikolov et al. 2021,
doi:10.2196/26151) is the share of both surfaces' area that lies within a tolerance of the other surface.

Two conventions:

* ``arco`` (default): ASD is the mean over both surfaces' distances pooled (average symmetric surface
  distance); HD95 is the larger of the two directed 95th percentiles. A structure that only one of the two
  has scores Dice 0 and surface Dice 0, one that neither has scores 1 and 1, and in both cases there is no
  distance: never 0, never a made-up large one. Who averages must say over how many volumes, and count
  `missing` and `spurious` structures apart.
* ``released``: what the authors' code computes, kept for tables that must be compared like with like. ASD
  runs from prediction to reference only, HD95 is the 95th percentile of the pooled distances, a missed
  structure scores (Dice 0, ASD 0, HD95 0), a false positive on an absent one (Dice 1, ASD 0, HD95 0), and an
  absent structure rightly left out (Dice 0, ASD 0, HD95 0). That code gives distances in voxels, and has no
  surface Dice: here it is the one of ``arco``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError

Convention = Literal["arco", "released"]
CONVENTIONS: tuple[Convention, ...] = ("arco", "released")
TOLERANCE_MM = 2.0
"""Of the surface Dice by default: about one voxel in the plane of a cardiac scan."""

_BoolVolume = npt.NDArray[np.bool_]
_Distances = tuple[float, float]
_VOXEL = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One structure of one volume.

    Distances are None where one of the two surfaces does not exist; those in mm, and volumes, also where the
    size of a voxel is not known.
    """

    class_name: str
    dice: float
    """Between 0 and 1."""
    surface_dice: float | None
    """Between 0 and 1; None where the size of a voxel is not known."""
    asd_mm: float | None
    hd95_mm: float | None
    asd_voxel: float | None
    hd95_voxel: float | None
    predicted_voxels: int
    reference_voxels: int
    voxel_mm3: float | None
    """Volume of a voxel, if known."""

    @property
    def predicted_ml(self) -> float | None:
        """Volume of the prediction."""
        return None if self.voxel_mm3 is None else self.predicted_voxels * self.voxel_mm3 / 1000

    @property
    def reference_ml(self) -> float | None:
        """Volume of the reference."""
        return None if self.voxel_mm3 is None else self.reference_voxels * self.voxel_mm3 / 1000

    @property
    def volume_error_voxel(self) -> int:
        """Volume of the prediction minus that of the reference."""
        return self.predicted_voxels - self.reference_voxels

    @property
    def abs_volume_error_voxel(self) -> int:
        """Without its sign, so that too large and too small do not cancel out in a mean."""
        return abs(self.volume_error_voxel)

    @property
    def volume_error_ml(self) -> float | None:
        """Volume of the prediction minus that of the reference."""
        return None if self.voxel_mm3 is None else self.volume_error_voxel * self.voxel_mm3 / 1000

    @property
    def abs_volume_error_ml(self) -> float | None:
        """Without its sign, so that too large and too small do not cancel out in a mean."""
        return None if self.volume_error_ml is None else abs(self.volume_error_ml)

    @property
    def missing(self) -> bool:
        """The reference has the structure and the prediction has not a voxel of it."""
        return self.reference_voxels > 0 and self.predicted_voxels == 0

    @property
    def spurious(self) -> bool:
        """The prediction has the structure and the reference has not a voxel of it."""
        return self.predicted_voxels > 0 and self.reference_voxels == 0


def score_case(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    spacing_mm: Sequence[float] | None,
    classes: Sequence[str],
    *,
    convention: Convention = "arco",
    tolerance_mm: float = TOLERANCE_MM,
) -> list[ClassScore]:
    """Score every foreground class of one volume.

    Args:
        prediction: class indices, (X, Y, Z).
        reference: class indices, (X, Y, Z).
        spacing_mm: size of a voxel along X, Y and Z in mm; None where it is not known.
        classes: class names, background first; the background is not scored.
        convention: `arco` or `released`, see the module's docstring.
        tolerance_mm: of the surface Dice.

    Raises:
        DataError: the shapes differ, a value is not a class, or spacing or tolerance are impossible.
    """
    spacing_mm = None if spacing_mm is None else tuple(float(s) for s in spacing_mm)
    _check(prediction, reference, spacing_mm, classes, convention)
    check_tolerance(tolerance_mm)
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes to itself.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        return [
            _score_class(prediction == index, reference == index, spacing_mm, name, convention, tolerance_mm)
            for index, name in enumerate(classes)
            if index > 0
        ]


def check_tolerance(tolerance_mm: float) -> None:
    """Raise `DataError` unless surfaces can be `tolerance_mm` apart."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise DataError(f"tolerance {tolerance_mm:g} mm: must be a number from 0.")


def _check(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    spacing_mm: Sequence[float] | None,
    classes: Sequence[str],
    convention: str,
) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise DataError(
            f"prediction {prediction.shape} and reference {reference.shape}: "
            "must be volumes of one shape (X, Y, Z)."
        )
    if spacing_mm is not None and (
        len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm)
    ):
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
    spacing_mm: tuple[float, ...] | None,
    name: str,
    convention: Convention,
    tolerance_mm: float,
) -> ClassScore:
    predicted, present = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    voxel: _Distances | None = None
    mm: _Distances | None = None
    surface_dice: float | None = 1.0 if predicted == present == 0 else 0.0
    if predicted and present:
        from monai.metrics import compute_dice  # MONAI takes seconds to import; so below

        box = _union_box(prediction, reference)
        pair = _as_batch(prediction[box]), _as_batch(reference[box])
        dice = float(compute_dice(*pair))
        voxel = _distances(*pair, _VOXEL, convention)
        if spacing_mm is not None:
            surface_dice = _surface_dice(*pair, spacing_mm, tolerance_mm)
            mm = voxel if spacing_mm == _VOXEL else _distances(*pair, spacing_mm, convention)
    elif convention == "arco":
        dice = 1.0 if predicted == present else 0.0
    else:
        dice = 1.0 if predicted else 0.0
        voxel = (0.0, 0.0)
        mm = None if spacing_mm is None else voxel
    return ClassScore(
        class_name=name,
        dice=dice,
        surface_dice=None if spacing_mm is None else surface_dice,
        asd_mm=mm[0] if mm else None,
        hd95_mm=mm[1] if mm else None,
        asd_voxel=voxel[0] if voxel else None,
        hd95_voxel=voxel[1] if voxel else None,
        predicted_voxels=predicted,
        reference_voxels=present,
        voxel_mm3=None if spacing_mm is None else math.prod(spacing_mm),
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


def _surface_dice(
    prediction: torch.Tensor, reference: torch.Tensor, spacing_mm: Sequence[float], tolerance_mm: float
) -> float:
    """Surface Dice of two non-empty masks (1, 1, X, Y, Z), by the area of their surface elements."""
    from monai.metrics import compute_surface_dice

    return float(
        compute_surface_dice(
            prediction,
            reference,
            [tolerance_mm],
            include_background=True,
            spacing=list(spacing_mm),
            use_subvoxels=True,
        )
    )


def _distances(
    prediction: torch.Tensor, reference: torch.Tensor, spacing: Sequence[float], convention: Convention
) -> _Distances:
    """(ASD, HD95) of two non-empty masks (1, 1, X, Y, Z), in the unit of `spacing`.

    By `released`, as medpy's `asd` (one-sided) and `hd95` (pooled), which the authors' code calls.
    """
    from monai.metrics.utils import get_edge_surface_distance

    _, (to_reference, to_prediction), _ = get_edge_surface_distance(
        prediction[0, 0], reference[0, 0], spacing=list(spacing), symmetric=True
    )
    both = torch.cat((to_reference, to_prediction))
    if convention == "released":
        return float(to_reference.mean()), _percentile_95(both)
    return float(both.mean()), max(_percentile_95(to_reference), _percentile_95(to_prediction))


def _percentile_95(distances: torch.Tensor) -> float:
    return float(np.percentile(distances.numpy(), 95))  # torch's quantile takes 2^24 numbers at most
