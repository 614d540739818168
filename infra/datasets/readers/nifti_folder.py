"""A plain folder of NIfTI scans without annotations.

Every `.nii` or `.nii.gz` file is a scan, named by its path. A file in a subfolder belongs to the patient that
the first subfolder names; other files are their own patients.
"""

from __future__ import annotations

from infra.datasets.nifti import NiftiFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder

_SUFFIXES = (".nii.gz", ".nii")


class NiftiFolderReader:
    """Reads folders in the layout above."""

    name = "unlabelled NIfTI"
    layout = "any .nii or .nii.gz files, all unlabelled; a subfolder is a patient"
    generic = True

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(path.endswith(_SUFFIXES) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = []
        for path in raw.paths:
            suffix = next((s for s in _SUFFIXES if path.endswith(s)), None)
            if suffix is not None:
                case, patient = raw.scan_name(path.removesuffix(suffix))
                scan = RawCase(case_id=case, patient_id=patient, channels=(NiftiFile(path),), annotation=None)
                cases.append(scan)
        cases.sort(key=lambda scan: scan.case_id)
        return RawDataset(name=raw.name, classes=(), channels=1, cases=tuple(cases))


READER = NiftiFolderReader()
