"""Segment one scan with a published model."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError
from arco_core.inference import segment_volume
from arco_core.model_package import DESCRIPTION, WEIGHTS, ModelPackageError, load_package
from infra.datasets.nifti import decode_with_header
from infra.storage import Store

_SUFFIXES = (".nii.gz", ".nii")


def predict(*, model: str, scan: Path, output: Path) -> dict[str, float]:
    """Write the mask of `scan` to `output`, and return the volume of each structure in ml.

    The mask (uint8) lies on the scan's own grid and has its affine, voxel size and units. It replaces
    `output` as a whole, or not at all.

    Args:
        model: folder or URL of a published model.
        scan: NIfTI file; (X, Y, Z), or (X, Y, Z, channels) for a model of several channels.
        output: `.nii` or `.nii.gz`, in a folder that exists.

    Raises:
        DataError: the scan cannot be read or does not fit the model, or `output` cannot be written.
        ModelPackageError: `model` is not a published model, or damaged.
        StoreError: `model` is at a URL that cannot be read.
    """
    suffix = _check_output(output, scan)
    image = read_scan(scan)
    with _local_folder(model) as folder:
        published = load_package(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    published.network.to(device)
    voxels = np.asanyarray(image.dataobj)
    try:
        mask = segment_volume(published, voxels, image.affine, device=device)
    except DataError as error:
        raise DataError(f"{scan}: {error}") from error
    _write(_mask_image(mask, image), output, suffix)
    voxel_ml = float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000
    return {
        name: float(np.count_nonzero(mask == index)) * voxel_ml
        for index, name in enumerate(published.classes)
        if index > 0
    }


def read_scan(path: Path) -> nib.Nifti1Image:
    """The NIfTI image at `path`, in memory. Raises `DataError`, naming the file and what is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if not path.name.endswith(_SUFFIXES):
        raise DataError(f"{path} is not NIfTI by its name: convert it to NIfTI (.nii or .nii.gz).")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    volume, header = decode_with_header(data, str(path))
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return image_class(volume.voxels, volume.affine, header)


def _check_output(output: Path, scan: Path) -> str:
    """The suffix of `output`, which must be a place for a mask."""
    suffix = next((s for s in _SUFFIXES if output.name.endswith(s) and output.name != s), None)
    if suffix is None:
        raise DataError(f"{output}: the mask's name must end with .nii.gz or .nii.")
    if not output.parent.is_dir():
        raise DataError(f"{output}: the folder {output.parent} does not exist; create it first.")
    if output.is_dir() or (output.exists() and scan.exists() and output.samefile(scan)):
        raise DataError(f"{output} is {'a folder' if output.is_dir() else 'the scan'}: name another file.")
    return suffix


@contextmanager
def _local_folder(model: str) -> Iterator[Path]:
    """A folder with description and weights of a published model, downloaded if it is not on this machine."""
    store = Store(model)
    local = store.local_path(DESCRIPTION)
    if local is not None:
        yield local.parent
        return
    if not store.exists(DESCRIPTION):
        raise ModelPackageError(
            f"{model} is not a published model: it has no {DESCRIPTION}. Give a run's `model` folder."
        )
    with tempfile.TemporaryDirectory() as scratch:
        for name in (DESCRIPTION, WEIGHTS):
            (Path(scratch) / name).write_bytes(store.read_bytes(name))
        yield Path(scratch)


def _mask_image(mask: npt.NDArray[np.uint8], scan: nib.Nifti1Image) -> nib.Nifti1Image:
    """`mask` with the scan's header: affine and its codes, voxel size, units."""
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # display range: the scan's would hide the labels
    header["descrip"] = b"ARCO segmentation"
    return type(scan)(mask, scan.affine, header)


def _write(image: nib.Nifti1Image, output: Path, suffix: str) -> None:
    partial = output.parent / f".{uuid.uuid4().hex}{suffix}"
    try:
        nib.save(image, partial)
        os.replace(partial, output)
    except OSError as error:
        raise DataError(
            f"{output} cannot be written ({error}): choose a folder that is writable and has room."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
