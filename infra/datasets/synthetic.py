"""The demo cohort: synthetic cardiac scans, a few of them annotated, as a folder of NIfTI files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from infra.datasets.phantom import CLASSES, make_phantom

PATIENTS = 40
LABELED = 11


def write_cohort(out: Path, *, patients: int = PATIENTS, labeled: int = LABELED, seed: int = 0) -> Path:
    """Write `patients` scans, the first `labeled` of them annotated, in the Decathlon layout.

    The same arguments give the same bytes; a folder that holds this cohort already is left alone.
    `dataset.json` is written last. Raises `DataError` for impossible numbers, or a folder with
    other content.
    """
    if not 1 <= labeled <= patients:
        raise DataError(f"labeled = {labeled} of {patients} patients: must lie between 1 and the patients")
    description = _description(patients, labeled, seed)
    if _holds(out, description):
        return out
    streams = np.random.SeedSequence(seed).spawn(patients)
    for number, stream in enumerate(streams, 1):
        phantom = make_phantom(np.random.default_rng(stream))
        annotated = number <= labeled
        name = f"demo_{number:03d}.nii.gz"
        x, y, z = phantom.spacing_mm
        affine = np.diag([-x, -y, z, 1.0])  # columns run to the patient's left, rows to the back
        _save(phantom.image, affine, out / ("imagesTr" if annotated else "imagesUn") / name)
        if annotated:
            _save(phantom.label, affine, out / "labelsTr" / name)
    (out / "dataset.json").write_text(description)
    return out


def _description(patients: int, labeled: int, seed: int) -> str:
    origin = f"Synthetic short-axis cardiac scans ({patients} patients, seed {seed}); no real patient"
    values = {
        "name": "demo",
        "description": origin,
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {str(value): name for value, name in enumerate(CLASSES)},
        "numTraining": labeled,
        "numUnlabeled": patients - labeled,
        "numTest": 0,
    }
    return json.dumps(values, indent=1)


def _holds(out: Path, description: str) -> bool:
    """Whether `out` holds exactly this cohort. Raises `DataError` when it holds something else."""
    try:
        if (out / "dataset.json").exists():
            if (out / "dataset.json").read_text() == description:
                return True
            raise DataError(f"{out} holds another dataset already: choose an empty folder, or remove it")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be used: {error}; choose a folder that this user may write") from error
    return False


def _save(voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
