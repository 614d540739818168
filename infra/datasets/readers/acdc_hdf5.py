"""ACDC in the HDF5 layout of the semi-supervised literature, with its lists.

`data/slices/patientXXX_frameYY_slice_Z.h5` and `data/patientXXX_frameYY.h5`, each with the datasets
`image` and `label`; slices (rows, columns), volumes (slices, rows, columns). A volume's file is preferred
to its slices. The lists say who trains (`train_slices.list`, `train.list`), validates (`val.list`) and tests
(`test.list`); cases in none of them are left out. The literature labels the first patients of
`train_slices.list`: 23, 68 and 136 of its lines are one, three and seven patients.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from arco_core.errors import DataError
from infra.datasets.hdf5 import Hdf5Slices, Hdf5Volume
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.volume import VolumeSource

CLASSES = ("background", "RV", "Myo", "LV")
_CASE = r"(?P<case>(?P<patient>patient\d+)_frame\d+)"
_SLICE = re.compile(rf"data/slices/{_CASE}_slice_(?P<slice>\d+)\.h5")
_VOLUME = re.compile(rf"data/{_CASE}\.h5")
_LISTED = re.compile(rf"(?P<stem>{_CASE}(?P<slice>_slice_\d+)?)(\.h5)?")
_LISTS = {"train": ("train_slices.list", "train.list"), "validation": ("val.list",), "test": ("test.list",)}
_DIRECTIONS = (-1, -1, -1)
"""Not stored; with these, slices come out as they lie in the files."""


class AcdcHdf5Reader:
    """Reads folders in the layout above."""

    name = "ACDC in HDF5"
    layout = (
        "data/slices/patientXXX_frameYY_slice_Z.h5, data/patientXXX_frameYY.h5, "
        "train_slices.list, train.list, val.list, test.list"
    )
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(_SLICE.fullmatch(path) or _VOLUME.fullmatch(path) for path in raw.paths)

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        cases = {case.case_id: case for case in _cases(raw)}
        listed = {split: _listed(raw, names) for split, names in _LISTS.items()}
        listed = {split: entries for split, entries in listed.items() if entries}
        notes: tuple[str, ...] = ()
        if listed:
            _check_lists(listed, cases)
            wanted = {case for entries in listed.values() for case in entries}
            unlisted = cases.keys() - wanted
            if unlisted:
                notes = (f"{len(unlisted)} scans are in none of the lists and are left out",)
            cases = {name: case for name, case in cases.items() if name in wanted}
        held_out = {"test": _patients(listed.get("test", {}))} if listed else {}
        if "validation" in listed:
            held_out["validation"] = _patients(listed["validation"])
        return RawDataset(
            name="ACDC",
            classes=CLASSES,
            channels=1,
            cases=tuple(cases[name] for name in sorted(cases)),
            held_out=held_out,
            labeled_order=_patients(listed.get("train", {})),
            spacing_known=False,
            notes=notes,
        )


def _cases(raw: RawFolder) -> Iterable[RawCase]:
    slices: dict[str, dict[int, str]] = defaultdict(dict)
    patients: dict[str, str] = {}
    volumes: dict[str, str] = {}
    for path in raw.paths:
        if match := _SLICE.fullmatch(path):
            known = slices[match["case"]].setdefault(int(match["slice"]), path)
            if known != path:
                raise DataError(f"{known} and {path} are the same slice: remove one")
        elif match := _VOLUME.fullmatch(path):
            volumes[match["case"]] = path
        if match:
            patients[match["case"]] = match["patient"]
    for case, patient in patients.items():
        image, label = (_source(case, volumes, slices, key) for key in ("image", "label"))
        yield RawCase(case_id=case, patient_id=patient, channels=(image,), annotation=label)


def _source(
    case: str, volumes: Mapping[str, str], slices: Mapping[str, Mapping[int, str]], key: str
) -> VolumeSource:
    if case in volumes:
        return Hdf5Volume(volumes[case], key, axes=(2, 1, 0), directions=_DIRECTIONS)
    numbers = sorted(slices[case])
    missing = [before + 1 for before, number in pairwise(numbers) if number > before + 1]
    if missing or numbers[0] > 1:
        gap = f"lacks slice {missing[0]}" if missing else f"begins with slice {numbers[0]}"
        raise DataError(f"data/slices: {case} {gap}: copy the missing files, or the whole folder, again")
    return Hdf5Slices(tuple(slices[case][number] for number in numbers), key, directions=_DIRECTIONS)


def _listed(raw: RawFolder, names: Sequence[str]) -> dict[str, str]:
    """Patients of the cases in the first of the lists `names` that exists, in its order."""
    name = next((name for name in names if name in raw.paths), None)
    if name is None:
        return {}
    text = raw.store.read_bytes(name).decode("utf-8", errors="replace")
    entries: dict[str, str] = {}
    files = set(raw.paths)
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LISTED.fullmatch(line)
        if match is None:
            raise DataError(
                f"{raw.store.join(name)}: the line {line[:80]!r} is not a scan or slice such as "
                "patient001_frame01 or patient001_frame01_slice_1"
            )
        slice_file = f"data/slices/{match['stem']}.h5"
        if match["slice"] and slice_file not in files and f"data/{match['case']}.h5" not in files:
            raise DataError(f"{name} names {match['stem']}, but {slice_file} does not exist: copy it again")
        entries[match["case"]] = match["patient"]
    return entries


def _check_lists(listed: Mapping[str, Mapping[str, str]], cases: Mapping[str, RawCase]) -> None:
    seen: dict[str, str] = {}
    for split, entries in listed.items():
        for case, patient in entries.items():
            lists = " or ".join(_LISTS[split])
            if case not in cases:
                raise DataError(
                    f"{lists} names {case}, which has no file below data/: add the file or remove the line"
                )
            if seen.setdefault(patient, split) != split:
                raise DataError(
                    f"{patient} is listed for {seen[patient]} and for {split}: leave one patient in one list"
                )


def _patients(entries: Mapping[str, str]) -> tuple[str, ...]:
    """Patients in the order of their first case."""
    return tuple(dict.fromkeys(entries.values()))


READER = AcdcHdf5Reader()
