"""What is written of a scan, and the folder that remembers which scans are done.

<case>.nii.gz            mask, class indices
<case>.dcm               DICOM segmentation, of a DICOM series
entropy/<case>.nii.gz    likewise disagreement/ and probabilities/, where asked for
records/<case>.json      written last: the scan is done
predictions.csv          volumes of all scans, and what failed
prediction.json          what made all this; another model's predictions go to another folder
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from arco_core.inference import MAPS
from components.predict.scans import Scan, Segmented
from infra.datasets.nifti import scale_affine, unit_mm
from infra.storage import AlreadyExists, NotFound, Store

DESCRIPTION, TABLE, RECORDS = "prediction.json", "predictions.csv", "records"
NIFTI_SUFFIXES = (".nii.gz", ".nii")
_READERS = 16
"""Records read at a time: each is a small object, whose latency counts."""
_GZIP_LEVEL = 1
"""Masks get a tenth larger than at the default level, and are written five times faster."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A scan that is done."""

    case_id: str
    tag: str
    seconds: float
    volumes_ml: Mapping[str, float]
    files: tuple[str, ...]

    def write(self, store: Store) -> None:
        """Mark the scan as done."""
        store.write_bytes(f"{RECORDS}/{self.case_id}.json", json.dumps(asdict(self)).encode())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a scan: a record, or the reason why there is none."""

    case_id: str
    record: Record | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """A folder of predictions of one model with one set of options."""

    store: Store
    description: Mapping[str, Any] = field(default_factory=dict)

    def claim(self, scans: str) -> None:
        """Make the folder, or continue it. Raises `DataError` where it holds anything else."""
        source = Store(scans).url
        if f"{self.store.url}/".startswith(f"{source}/"):
            raise DataError(
                f"{self.store.url} lies in the folder of the scans, where masks would be taken for scans the "
                "next time: name a folder elsewhere."
            )
        content = json.dumps(self.description, indent=2) + "\n"
        if not self.store.exists(DESCRIPTION):
            files = [entry.path for entry in self.store.entries()]
            visible = [path for path in files if not path.rpartition("/")[2].startswith(".")]
            if visible:
                raise DataError(
                    f"{self.store.url} holds other files ({visible[0]}, …): name a new or an empty folder."
                )
            self.store.check_writable()
            try:
                self.store.put_if_absent(DESCRIPTION, content.encode())
            except AlreadyExists:
                self._check_same()
        else:
            self._check_same()

    def records(self, scans: Sequence[Scan]) -> dict[str, Record]:
        """Records of those of `scans` that are done and have not changed since, by case."""
        known = {entry.path for entry in self.store.entries(RECORDS)}
        begun = [scan for scan in scans if scan.tag and f"{RECORDS}/{scan.case_id}.json" in known]
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self._record, begun)
        return {r.case_id: r for r, scan in zip(found, begun, strict=True) if r and r.tag == scan.tag}

    def write_table(self, outcomes: Sequence[Outcome], structures: Sequence[str]) -> None:
        """`predictions.csv`, a row a scan."""
        sink = io.StringIO()
        writer = csv.writer(sink)
        writer.writerow(["case", "status", "seconds", *(f"{name}_ml" for name in structures), "message"])
        for outcome in sorted(outcomes, key=lambda o: o.case_id):
            record = outcome.record
            values: list[str] = [""] * (1 + len(structures))
            if record is not None:
                volumes = (f"{record.volumes_ml[name]:.3f}" for name in structures)
                values = [f"{record.seconds:.2f}", *volumes]
            status = "failed" if record is None else "done"
            writer.writerow([outcome.case_id, status, *values, outcome.message])
        self.store.write_bytes(TABLE, sink.getvalue().encode())

    def _record(self, scan: Scan) -> Record | None:
        try:
            values = json.loads(self.store.read_bytes(f"{RECORDS}/{scan.case_id}.json"))
            return Record(**{**values, "files": tuple(values["files"])})
        except (NotFound, KeyError, TypeError, ValueError):  # not a record of ours: the scan is done again
            return None

    def _check_same(self) -> None:
        try:
            found = json.loads(self.store.read_bytes(DESCRIPTION))
        except ValueError as error:
            raise DataError(
                f"{self.store.join(DESCRIPTION)} is not JSON ({error}): name another folder."
            ) from error
        unlike = [key for key in self.description if found.get(key) != self.description[key]]
        if unlike:
            key = unlike[0]
            raise DataError(
                f"{self.store.url} holds other predictions ({key} is {found.get(key)!r} there, "
                f"{self.description[key]!r} here): name another folder, or remove that one."
            )


def nifti_bytes(array: npt.NDArray[Any], scan: Segmented, suffix: str = ".nii.gz") -> bytes:
    """A map (X, Y, Z) or (K, X, Y, Z) as NIfTI on the scan's grid, with the numbers of a NIfTI scan's header.

    Affine and its codes, voxel size and units are the scan's: `scan.affine` is in mm, its file's need not be.
    What its header says in words is not copied: it may name the patient.
    Classes (K) become the fourth axis.
    """
    voxels = array if array.ndim == 3 else np.moveaxis(array, 0, -1)
    if scan.header is None:
        image = nib.Nifti1Image(voxels, scan.affine)
        image.set_qform(scan.affine, code="scanner")
        image.header.set_xyzt_units("mm")
    else:
        header = scan.header.copy()
        header.set_data_dtype(voxels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0  # display range: the scan's would hide the labels
        fields = header.structarr.dtype
        for field in fields.names:
            if fields[field].kind == "S" and field != "magic":
                header[field] = b""
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(voxels, scale_affine(scan.affine, 1 / (unit_mm(header) or 1.0)), header)
    image.header["descrip"] = b"ARCO segmentation"
    content: bytes = image.to_bytes()
    return gzip.compress(content, _GZIP_LEVEL, mtime=0) if suffix.endswith(".gz") else content


def map_images(scan: Segmented, suffix: str = ".nii.gz") -> dict[str, bytes]:
    """NIfTI files of the maps that were made, by the maps' names."""
    maps = {name: getattr(scan.result, name) for name in MAPS}
    return {name: nifti_bytes(array, scan, suffix) for name, array in maps.items() if array is not None}


def volumes_ml(scan: Segmented, classes: Sequence[str]) -> dict[str, float]:
    """Volume of each structure, in millilitres."""
    voxel_ml = float(abs(np.linalg.det(scan.affine[:3, :3]))) / 1000
    counts = np.bincount(scan.result.mask.ravel(), minlength=len(classes))
    return {name: float(counts[index]) * voxel_ml for index, name in enumerate(classes) if index > 0}
