"""ACDC as released: a folder a patient, with two annotated frames of a cine series.

`patientXXX/patientXXX_frameYY.nii.gz` and `…_frameYY_gt.nii.gz`, anywhere below the raw folder. The whole
series (`…_4d.nii.gz`) and `Info.cfg` are not read. Patients below `testing/` are the test patients where they
are annotated, and left alone where they are not.
"""

from __future__ import annotations

import re

from infra.datasets.nifti import NiftiFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.readers.pairs import pair_files

CLASSES = ("background", "RV", "Myo", "LV")
_FILE = re.compile(
    r"(.*/)?(?P<patient>patient\d+)/(?P<case>(?P=patient)_frame\d+)(?P<label>_gt)?\.nii(\.gz)?"
)


class AcdcReader:
    """Reads folders in the layout above."""

    name = "ACDC"
    layout = (
        "patientXXX/patientXXX_frameYY.nii.gz and patientXXX_frameYY_gt.nii.gz, below training/ and testing/"
    )
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_FILE.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = []
        tested: set[str] = set()
        for case, (image, label) in pair_files(raw, _FILE).items():
            patient = case.partition("_")[0]
            if "testing" in image.split("/")[:-2]:
                if label is None:
                    continue
                tested.add(patient)
            annotation = None if label is None else NiftiFile(label)
            cases.append(
                RawCase(case_id=case, patient_id=patient, channels=(NiftiFile(image),), annotation=annotation)
            )
        held_out = {"test": tuple(sorted(tested))} if tested else {}
        return RawDataset(name="ACDC", classes=CLASSES, channels=1, cases=tuple(cases), held_out=held_out)


READER = AcdcReader()
