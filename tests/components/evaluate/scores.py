"""Scores of made-up cases."""

from __future__ import annotations

from arco_core.metrics import ClassScore
from components.evaluate.scoring import CaseScore, CheckpointName


def score(
    method: str,
    seed: int,
    case: str,
    name: str,
    dice: float,
    distance: float | None = 1.0,
    *,
    missing: bool = False,
    patient: str | None = None,
    checkpoint: CheckpointName = "last",
    labeled: int = 2,
) -> CaseScore:
    """A structure's score; the patient is the case unless told, all distances are `distance`."""
    return CaseScore(
        method=method, labeled=labeled, seed=seed, checkpoint=checkpoint,
        patient_id=patient or case, case_id=case,
        score=ClassScore(
            class_name=name, dice=dice, surface_dice=dice,
            asd_mm=distance, hd95_mm=distance, asd_voxel=distance, hd95_voxel=distance,
            predicted_voxels=0 if missing else 30, reference_voxels=20, voxel_mm3=2.0,
        ),
    )  # fmt: skip
