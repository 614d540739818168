"""Which reader a raw folder is for: the folder itself says it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Collection
from functools import cache

from arco_core.errors import DataError
from infra.datasets import readers
from infra.datasets.readers.base import RawDataset, RawFolder, Reader
from infra.storage import Store

_NOT_READERS = {"base", "detect"}


def read_raw(source: Store) -> RawDataset:
    """The scans below `source`, in whichever format they lie there.

    Raises `DataError` for a folder that is in no format or in several, or that breaks its format's rules.
    """
    folder = list_folder(source)
    dataset = _reader_of(folder).read(folder)
    if not dataset.spacing_known:
        note = "the scans do not say how large a voxel is: it counts as 1 mm, so figures in mm are in voxels"
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, note))
    return dataset


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


def list_folder(source: Store) -> RawFolder:
    """The files below `source`. Archives from a Mac also hold hidden `._name` files: left out."""
    paths = (path for path in source.list() if not any(part.startswith(".") for part in path.split("/")))
    return RawFolder(source, tuple(paths))


@cache
def all_readers() -> tuple[Reader, ...]:
    """The reader of every module of this package, by the modules' names."""
    names = sorted(m.name for m in pkgutil.iter_modules(readers.__path__) if m.name not in _NOT_READERS)
    return tuple(importlib.import_module(f"{readers.__name__}.{name}").READER for name in names)


def _reader_of(folder: RawFolder) -> Reader:
    matching = [reader for reader in all_readers() if reader.detect(folder)]
    if len(matching) == 1:
        return matching[0]
    known = "\n".join(f"  {r.name}: {r.layout}" for r in matching or all_readers())
    if matching:
        raise DataError(
            f"{folder.url} holds scans in several layouts; give each a folder of its own:\n{known}"
        )
    found = "scans in a layout that is not known" if folder.paths else "no scans"
    raise DataError(f"{folder.url} holds {found}; these are known:\n{known}")
