"""MM-WHS, the Multi-Modality Whole Heart Segmentation challenge: CT and MR of different patients.

`ct_train_1001_image.nii.gz` and `ct_train_1001_label.nii.gz`, `mr_train_…` alike, anywhere below the raw
folder; the challenge's own test scans (`ct_test_…`, `mr_test_…`) are left alone. A folder with both
modalities is one dataset: for one of them, give its folder (`ct_train`).
"""

from __future__ import annotations

import re

from infra.datasets.nifti import NiftiFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.readers.pairs import pair_files
from infra.datasets.relabel import Relabeled

CLASSES = ("background", "LV", "RV", "LA", "RA", "Myo", "AA", "PA")
VALUES = {500: 1, 600: 2, 420: 3, 421: 3, 550: 4, 205: 5, 820: 6, 850: 7}
"""Class by value. Some MR annotations have 421 where 420, the left atrium, is meant."""
_FILE = re.compile(r"(.*/)?(?P<case>(ct|mr)_train_\d+)_(image|(?P<label>label))\.nii(\.gz)?")


class MmwhsReader:
    """Reads folders in the layout above."""

    name = "MM-WHS"
    layout = "ct_train_N_image.nii.gz and ct_train_N_label.nii.gz, mr_train_… alike"
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_FILE.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = tuple(
            RawCase(
                case_id=case,
                patient_id=case,
                channels=(NiftiFile(image),),
                annotation=None if label is None else Relabeled(NiftiFile(label), VALUES),
            )
            for case, (image, label) in pair_files(raw, _FILE).items()
        )
        return RawDataset(name="MMWHS", classes=CLASSES, channels=1, cases=cases)


READER = MmwhsReader()
