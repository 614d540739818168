"""The 2018 Left Atrium challenge in the HDF5 files of the semi-supervised literature, with its lists.

`<patient>/mri_norm2.h5` with the datasets `image` and `label` (X, Y, Z), anywhere below the raw folder, and
`train.list` and `test.list`, a patient a line. The literature labels the first patients of `train.list` and
scores on those of `test.list`, which are the validation patients here. Patients in neither list are left out.
"""

from __future__ import annotations

import re

from arco_core.errors import DataError
from infra.datasets.hdf5 import Hdf5Volume
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder

CLASSES = ("background", "left atrium")
_FILE = re.compile(r"(.*/)?(?P<case>[^/]+)/mri_norm2\.h5")
_DIRECTIONS = (-1, -1, 1)
"""Not stored; those of the challenge's files, left, posterior and superior."""


class LaHdf5Reader:
    """Reads folders in the layout above."""

    name = "Left Atrium 2018 in HDF5"
    layout = "<patient>/mri_norm2.h5, train.list, test.list"
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_FILE.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        paths: dict[str, str] = {}
        for match in filter(None, map(_FILE.fullmatch, raw.paths)):
            if match["case"] in paths:
                raise DataError(
                    f"case {match['case']!r} exists more than once: {paths[match['case']]}, {match.string}; "
                    "remove one"
                )
            paths[match["case"]] = match.string
        train, test = (_listed(raw, f"{name}.list", paths) for name in ("train", "test"))
        both = sorted(set(train) & set(test))
        if both:
            raise DataError(f"{both[0]} is in train.list and in test.list: leave it in one")
        chosen = {*train, *test} or set(paths)
        unlisted = len(paths) - len(chosen)
        cases = tuple(_case(patient, paths[patient]) for patient in sorted(chosen))
        return RawDataset(
            name="LA",
            classes=CLASSES,
            channels=1,
            cases=cases,
            held_out={"validation": test, "test": ()} if test else {},
            labeled_order=train,
            spacing_known=False,
            notes=(f"{unlisted} scans are in none of the lists and are left out",) if unlisted else (),
        )


def _case(patient: str, path: str) -> RawCase:
    image, label = (
        Hdf5Volume(path, key, axes=(0, 1, 2), directions=_DIRECTIONS) for key in ("image", "label")
    )
    return RawCase(case_id=patient, patient_id=patient, channels=(image,), annotation=label)


def _listed(raw: RawFolder, name: str, paths: dict[str, str]) -> tuple[str, ...]:
    """The patients in the list `name`, wherever it lies; none where there is none."""
    lists = [path for path in raw.paths if path.rpartition("/")[2] == name]
    if len(lists) > 1:
        raise DataError(f"{', '.join(lists)}: there may be one {name} only")
    patients: dict[str, None] = {}
    for path in lists:
        for line in raw.store.read_bytes(path).decode("utf-8", errors="replace").split():
            if line not in paths:
                raise DataError(
                    f"{path} names {line[:80]!r}, which has no mri_norm2.h5: add it, or remove the line"
                )
            patients[line] = None
    return tuple(patients)


READER = LaHdf5Reader()
