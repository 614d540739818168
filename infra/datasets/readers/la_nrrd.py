"""The 2018 Left Atrium challenge as released: a folder a patient, late gadolinium-enhanced MR in NRRD.

`<patient>/lgemri.nrrd` and `<patient>/laendo.nrrd` (the cavity, 255), anywhere below the raw folder; the wall
(`lawall.nrrd`) is not read. Patients below `Testing Set/` are the test patients where they are annotated, and
left alone where they are not.
"""

from __future__ import annotations

import re

from infra.datasets.nrrd import NrrdFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.readers.pairs import pair_files
from infra.datasets.relabel import Relabeled

CLASSES = ("background", "left atrium")
VALUES = {255: 1, 1: 1}
_FILE = re.compile(r"(.*/)?(?P<case>[^/]+)/(lgemri|(?P<label>laendo))\.nrrd")


class LaNrrdReader:
    """Reads folders in the layout above."""

    name = "Left Atrium 2018 in NRRD"
    layout = "<patient>/lgemri.nrrd and <patient>/laendo.nrrd, below Training Set/ and Testing Set/"
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_FILE.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = []
        tested: set[str] = set()
        for patient, (image, label) in pair_files(raw, _FILE).items():
            if "Testing Set" in image.split("/")[:-2]:
                if label is None:
                    continue
                tested.add(patient)
            annotation = None if label is None else Relabeled(NrrdFile(label), VALUES)
            cases.append(
                RawCase(
                    case_id=patient, patient_id=patient, channels=(NrrdFile(image),), annotation=annotation
                )
            )
        held_out = {"test": tuple(sorted(tested))} if tested else {}
        return RawDataset(name="LA", classes=CLASSES, channels=1, cases=tuple(cases), held_out=held_out)


READER = LaNrrdReader()
