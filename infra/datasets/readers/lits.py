"""LiTS, the Liver Tumor Segmentation challenge: abdominal CT.

`volume-N.nii` and `segmentation-N.nii`, anywhere below the raw folder; the challenge's own test scans,
`test-volume-N.nii`, are left alone. Scans and annotations agree voxel by voxel, but the headers of some
annotations do not say so (github.com/MIC-DKFZ/nnUNet/issues/2751), so the scans' count. The headers of the
scans 28 to 47 state no true voxel size (github.com/PatrickChrist/LITS-CHALLENGE/issues/14).
"""

from __future__ import annotations

import re

from infra.datasets.nifti import NiftiFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.readers.pairs import pair_files

CLASSES = ("background", "liver", "lesion")
_FILE = re.compile(r"(.*/)?(volume|(?P<label>segmentation))-(?P<case>\d+)\.nii(\.gz)?")


class LitsReader:
    """Reads folders in the layout above."""

    name = "LiTS"
    layout = "volume-N.nii and segmentation-N.nii"
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_FILE.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = tuple(
            RawCase(
                case_id=f"volume-{number}",
                patient_id=f"volume-{number}",
                channels=(NiftiFile(image),),
                annotation=None if label is None else NiftiFile(label),
                label_affine=False,
            )
            for number, (image, label) in pair_files(raw, _FILE).items()
        )
        return RawDataset(name="LiTS", classes=CLASSES, channels=1, cases=cases)


READER = LitsReader()
