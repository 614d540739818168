"""Tiny files in exactly the layouts of published datasets and of hospitals."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AFFINE = np.array([[-1.5, 0, 0, 20], [0, -1.25, 0, 30], [0, 0, 8, -40], [0, 0, 0, 1]], float)
SHAPE = (24, 20, 5)


def scan(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Image (int16) and label (uint8), (X, Y, Z), alike for the same seed."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, SHAPE, dtype=np.uint8)
    return (rng.normal(0, 20, SHAPE) + 100 * label).astype(np.int16), label


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return path


def change_header(path: Path, change: Callable[[nib.Nifti1Header], object]) -> None:
    """Rewrite the header of an uncompressed or gzipped NIfTI file, its voxels as they are."""
    data = path.read_bytes()
    packed = data.startswith(b"\x1f\x8b")
    data = gzip.decompress(data) if packed else data
    header = nib.Nifti1Header(data[:348], check=False)
    change(header)
    data = header.binaryblock + data[348:]
    path.write_bytes(gzip.compress(data) if packed else data)


def write_hdf5(path: Path, image: np.ndarray, label: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, compression="gzip")
        file.create_dataset("label", data=label, compression="gzip")
    return path


def nrrd_bytes(voxels: np.ndarray, encoding: str = "gzip", **fields: str | None) -> bytes:
    """A NRRD file as the Left Atrium challenge has them; a field of None is left out."""
    kind = {"u1": "unsigned char", "i2": "short", "f4": "float"}[voxels.dtype.str[1:]]
    known: dict[str, str | None] = {
        "type": kind,
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, voxels.shape)),
        "space directions": "(0.625,0,0) (0,0.625,0) (0,0,1.25)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space origin": "(0,0,0)",
    }
    known |= {name.replace("_", " "): value for name, value in fields.items()}
    lines = ["NRRD0004", "# Complete NRRD file format specification at:"]
    lines += [f"{name}: {value}" for name, value in known.items() if value is not None]
    body = voxels.tobytes(order="F")
    return "\n".join([*lines, "", ""]).encode() + (gzip.compress(body) if encoding == "gzip" else body)


def write_nrrd(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nrrd_bytes(voxels))
    return path


def dicom_slice(pixels: np.ndarray, position: tuple[float, float, float], series: str = "1.2.3") -> Dataset:
    """One CT slice (rows, columns) with the names that a hospital's files carry."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str((position, series))])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-ID"
    dataset.InstitutionName, dataset.ReferringPhysicianName = "SECRET HOSPITAL", "SECRET^DOCTOR"
    dataset.SeriesDescription, dataset.SeriesInstanceUID = "SECRET STUDY", series
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [1.25, 1.5]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = list(position)
    dataset.SliceThickness = 8.0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset


def dicom_series(image: np.ndarray) -> list[Dataset]:
    """The slices of `image` (X, Y, Z), which has the affine AFFINE."""
    values = image.astype(np.int16) + 1024
    return [dicom_slice(values[:, :, z].T, (-20.0, -30.0, -40.0 + 8 * z)) for z in range(image.shape[2])]


def write_dicom(folder: Path, slices: list[Dataset], name: str = "{:d}.dcm") -> Path:
    """Slices as files whose names do not follow their order in space."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(slices):
        dataset.save_as(folder / name.format((number * 7) % 11), enforce_file_format=True)
    return folder
