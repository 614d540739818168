"""Which reader a raw folder is for: the folder itself says it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache

from arco_core.errors import DataError
from infra.datasets import readers
from infra.datasets.readers.base import RawDataset, RawFolder, Reader
from infra.datasets.readers.leftovers import note_leftovers
from infra.datasets.readers.listing import list_folder
from infra.storage import Store

UNLABELED = "imagesUn"
"""A subfolder of scans without annotations, in any format that needs none, beside scans of every format."""
_LISTED = ("imagesTr", "labelsTr", "labelsTs", UNLABELED)
"""Subfolders that hold nothing but scans."""
_NOT_READERS = {"base", "description", "detect", "leftovers", "listing", "pairs"}
_SPACING_NOTE = "the scans do not say how large a voxel is: it counts as 1 mm, so figures in mm are in voxels"


def read_raw(source: Store, files: Iterable[str] | None = None) -> RawDataset:
    """The scans below `source`, in whichever format they lie there, with those below `imagesUn/`.

    `files` are the paths below `source`, for a caller that has listed them already.

    Raises `DataError` for a folder that is in no format or in several, or that breaks its format's rules.
    """
    folder = list_folder(source, files)
    main = [path for path in folder.paths if not path.startswith(f"{UNLABELED}/")]
    if folder.paths and not main:  # the user means its scans
        return _checked(_read_generic(folder, folder.paths), folder)
    reader = _reader_of(folder, RawFolder(source, tuple(main)))
    dataset = reader.read(folder)
    unlabeled, used = folder.below(UNLABELED), {p for case in dataset.cases for p in case.image_paths}
    rest = [path for path in unlabeled if path not in used]
    if not reader.generic and rest:
        some_taken = len(rest) < len(unlabeled)
        added = () if some_taken and not _generic_readers(folder, rest) else _read_generic(folder, rest).cases
        cases = sorted((*dataset.cases, *added), key=lambda case: case.case_id)
        dataset = dataclasses.replace(dataset, cases=tuple(cases))
    return _checked(dataset, folder)


def leave_out(dataset: RawDataset, exclude: Collection[str]) -> RawDataset:
    """`dataset` without the cases and patients that `exclude` names."""
    names = set(exclude)
    kept = tuple(c for c in dataset.cases if not names & {c.case_id, c.patient_id})
    absent = names.difference(*({c.case_id, c.patient_id} for c in dataset.cases))
    notes = dataset.notes
    if absent:
        notes += (f"data.exclude names {', '.join(sorted(absent))}, of which there is no scan",)
    patients = {case.patient_id for case in kept}
    held_out = {s: tuple(p for p in part if p in patients) for s, part in dataset.held_out.items()}
    order = tuple(p for p in dataset.labeled_order if p in patients)
    return dataclasses.replace(dataset, cases=kept, notes=notes, held_out=held_out, labeled_order=order)


@cache
def all_readers() -> tuple[Reader, ...]:
    """The reader of every module of this package, by the modules' names."""
    names = sorted(m.name for m in pkgutil.iter_modules(readers.__path__) if m.name not in _NOT_READERS)
    return tuple(importlib.import_module(f"{readers.__name__}.{name}").READER for name in names)


def _reader_of(folder: RawFolder, main: RawFolder) -> Reader:
    """The one reader that recognises `main`; a generic one only where no other does."""
    specific = [reader for reader in all_readers() if not reader.generic and reader.detect(main)]
    matching = specific or [reader for reader in all_readers() if reader.generic and reader.detect(main)]
    if len(matching) == 1:
        return matching[0]
    known = "\n".join(f"  {r.name}: {r.layout}" for r in matching or all_readers())
    if matching:
        raise DataError(f"{folder.url} holds scans in several layouts; give each its own folder:\n{known}")
    found = "scans in no layout that is known" if folder.paths else "no scans"
    raise DataError(f"{folder.url} holds {found}; the layouts are:\n{known}")


def _generic_readers(folder: RawFolder, paths: Sequence[str]) -> list[Reader]:
    part = RawFolder(folder.store, tuple(paths), UNLABELED)
    return [reader for reader in all_readers() if reader.generic and reader.detect(part)]


def _read_generic(folder: RawFolder, paths: Sequence[str]) -> RawDataset:
    """The scans in `paths`, of every generic format."""
    part = RawFolder(folder.store, tuple(paths), UNLABELED)
    found = [reader.read(part) for reader in _generic_readers(folder, paths)]
    cases = sorted((case for dataset in found for case in dataset.cases), key=lambda case: case.case_id)
    if not cases:
        raise DataError(
            f"{folder.url}/{UNLABELED} holds no scan: NIfTI files or folders of DICOM slices belong there"
        )
    return dataclasses.replace(found[0], cases=tuple(cases))


def _checked(dataset: RawDataset, folder: RawFolder) -> RawDataset:
    counts = Counter(case.case_id for case in dataset.cases)
    twice = sorted(case for case, count in counts.items() if count > 1)
    if twice:
        paths = (p for c in dataset.cases if c.case_id == twice[0] for p in c.image_paths[:1])
        raise DataError(f"case {twice[0]!r} exists more than once: {', '.join(paths)}; rename or remove one")
    if not dataset.cases:
        raise DataError(
            f"{folder.url} holds no scans to train on: the challenge's own test scans are left alone"
        )
    notes = dataset.notes + note_leftovers(dataset, folder, _LISTED)
    if not dataset.spacing_known:
        notes += (_SPACING_NOTE,)
    return dataclasses.replace(dataset, notes=notes)
