"""DICOM series without annotations, one series a folder.

Slices end in `.dcm`, `.dicom` or `.ima`, or have no ending; other files are left alone. A series is named
by its folder. A series in a subfolder belongs to the patient that the first subfolder names; PatientID and
PatientName are never read.
"""

from __future__ import annotations

import re
from collections import defaultdict

from infra.datasets.dicom import PREFIX_BYTES, DicomSeries, is_dicom
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder

_SLICE = re.compile(r".*\.(dcm|dicom|ima)", re.IGNORECASE)
_BARE = re.compile(r"[^.]*|[0-9.]+|.*\.\d+")
"""Names without an ending, and UIDs, which look as if they had one."""
_NO_SLICES = ("DICOMDIR", "LICENSE", "LICENCE", "README", "VERSION", "LOCKFILE")


class DicomSeriesReader:
    """Reads folders in the layout above."""

    name = "unlabelled DICOM"
    layout = (
        "any folders of DICOM slices (.dcm, .ima or without an ending), one series a folder, all unlabelled"
    )
    generic = True

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`; of slices without an ending it looks into the first in the folder."""
        if any(_SLICE.fullmatch(path) for path in raw.paths):
            return True
        first = next((path for path in raw.paths if _is_slice(path)), None)
        if first is None:
            return False
        with raw.store.open_input(first) as file:
            return is_dicom(file.read(PREFIX_BYTES))

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        series: dict[str, list[str]] = defaultdict(list)
        for path in raw.paths:
            if _is_slice(path):
                series[path.rpartition("/")[0]].append(path)
        cases = []
        for folder, paths in series.items():
            case, patient = raw.scan_name(folder)
            scan = DicomSeries(tuple(paths))
            cases.append(RawCase(case_id=case, patient_id=patient, channels=(scan,), annotation=None))
        cases.sort(key=lambda scan: scan.case_id)
        return RawDataset(name=raw.name, classes=(), channels=1, cases=tuple(cases))


def _is_slice(path: str) -> bool:
    name = path.rpartition("/")[2]
    return bool(_SLICE.fullmatch(name) or _BARE.fullmatch(name)) and name.upper() not in _NO_SLICES


READER = DicomSeriesReader()
