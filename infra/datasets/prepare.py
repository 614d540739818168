"""Raw scans to a dataset version.

Two passes over the cases, each a stream with one case in memory a worker: the first hashes the
files, which gives the version its name and finds out whether it exists already; the second turns
scans into samples, which the driver packs into shards. `manifest.json` is written last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import arco_core
from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess import Geometry
from infra.datasets.convert import Digests, PreparedCase, convert_case, hash_case
from infra.datasets.manifest import CASES, FORMAT, MANIFEST, Counts, Manifest, Shard
from infra.datasets.readers.base import RawCase, RawDataset
from infra.datasets.readers.detect import leave_out, read_raw
from infra.datasets.runner import Failure, run_cases
from infra.datasets.shards import Placement, ShardWriter
from infra.datasets.splits import split_patients
from infra.datasets.validate import check_no_copies, resolve_classes
from infra.datasets.version import CaseEntry, DatasetVersion, encode_cases
from infra.storage import AlreadyExists, Store

T = TypeVar("T")
OnCase = Callable[[int, int], None]
"""Told how many cases of how many are done."""
OnNote = Callable[[str], None]
"""Told what the user should know about the raw folder, a sentence at a time."""


def prepare_dataset(
    raw: str,
    store: Store,
    config: DataConfig,
    *,
    use_ray: bool = True,
    on_case: OnCase | None = None,
    on_note: OnNote | None = None,
) -> DatasetVersion:
    """Prepare the scans below the URL `raw` as a version below `datasets/` of `store`.

    The same scans and settings give the same version, which is reused where it exists. With
    `use_ray` the cases run as Ray Data tasks on a Ray that is already initialised.
    Raises `DataError` for bad input (all bad cases in one message) and
    `StoreError` for a store that cannot be written; versions that exist are never touched.
    """
    store.check_writable()
    source = Store(raw)
    dataset = leave_out(read_raw(source), config.exclude)
    if on_note is not None:
        for note in dataset.notes:
            on_note(note)
    config = dataclasses.replace(config, classes=resolve_classes(config.classes, dataset.classes))
    patients = {case.patient_id for case in dataset.cases}
    annotated = {case.patient_id for case in dataset.cases if case.annotation is not None}
    splits = split_patients(patients, annotated, config, dataset.held_out)

    digests = _hash_cases(source, dataset, use_ray)
    check_no_copies(
        {k: d.image for k, d in digests.items()}, {c.case_id: c.patient_id for c in dataset.cases}
    )
    version = _version_id(dataset, digests, config)
    home = Store(store.join("datasets", config.name))
    if not home.exists(f"{version}/{MANIFEST}"):
        convert = partial(convert_case, source, config=config, channels=dataset.channels)
        prepared = run_cases(convert, dataset.cases, use_ray=use_ray)
        packed = _pack(
            home, version, _usable(prepared, len(dataset.cases), on_case), dataset, digests, splits
        )
        _publish(home, version, packed, source=source, dataset=dataset, config=config, splits=splits)
    return DatasetVersion.open(home.join(version))


def _hash_cases(source: Store, dataset: RawDataset, use_ray: bool) -> dict[str, Digests]:
    results = run_cases(partial(hash_case, source), dataset.cases, use_ray=use_ray)
    return {d.case_id: d for d in _usable(results, len(dataset.cases), None)}


def _usable(results: Iterator[T | Failure], total: int, on_case: OnCase | None) -> Iterator[T]:
    """The results without failures, which are raised together after the last one."""
    failures: list[Failure] = []
    for done, result in enumerate(results, 1):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            yield result
        if on_case is not None:
            on_case(done, total)
    if failures:
        lines = [f"  {failure.case_id}: {failure.message}" for failure in failures[:10]]
        more = [f"  … and {len(failures) - 10} more"] if len(failures) > 10 else []
        raise DataError("\n".join([f"{len(failures)} of {total} cases cannot be used:", *lines, *more]))


def _version_id(dataset: RawDataset, digests: Mapping[str, Digests], config: DataConfig) -> str:
    scans = [
        (c.case_id, c.patient_id, digests[c.case_id].image, digests[c.case_id].label) for c in dataset.cases
    ]
    identity = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "scans": scans,
        "held_out": {split: sorted(part) for split, part in dataset.held_out.items()},
        "labeled_order": dataset.labeled_order,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Packed:
    cases: tuple[CaseEntry, ...]
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Placed:
    """A case whose shard may not have its final name yet."""

    case_id: str
    geometry: Geometry
    rows: int
    samples: Placement
    reference: Placement | None


def _pack(
    store: Store,
    folder: str,
    prepared: Iterator[PreparedCase],
    dataset: RawDataset,
    digests: Mapping[str, Digests],
    splits: Mapping[str, tuple[str, ...]],
) -> _Packed:
    placed: list[_Placed] = []
    with ExitStack() as stack:
        labeled = stack.enter_context(ShardWriter(store, folder, "labeled"))
        unlabeled = stack.enter_context(ShardWriter(store, folder, "unlabeled"))
        references = stack.enter_context(ShardWriter(store, folder, "references"))
        for case in prepared:
            if case.source_sha256 != digests[case.case_id].image:
                raise DataError(
                    f"case {case.case_id} changed while it was prepared: run again when it is whole"
                )
            samples = unlabeled if case.reference is None else labeled
            placed.append(
                _Placed(
                    case_id=case.case_id,
                    geometry=case.geometry,
                    rows=case.samples.num_rows,
                    samples=samples.add(case.samples),
                    reference=None if case.reference is None else references.add(case.reference),
                )
            )
    split_of = {patient: split for split, members in splits.items() for patient in members}
    raw = {case.case_id: case for case in dataset.cases}
    entries = []
    for item in placed:
        annotated = item.reference is not None
        samples = labeled if annotated else unlabeled
        entries.append(_entry(item, raw[item.case_id], samples, references, digests, split_of))
    return _Packed(cases=tuple(entries), shards=(*labeled.shards, *unlabeled.shards, *references.shards))


def _entry(
    item: _Placed,
    raw: RawCase,
    samples: ShardWriter,
    references: ShardWriter,
    digests: Mapping[str, Digests],
    split_of: Mapping[str, str],
) -> CaseEntry:
    reference = item.reference
    return CaseEntry(
        case_id=item.case_id,
        patient_id=raw.patient_id,
        split=split_of[raw.patient_id],
        annotated=reference is not None,
        shard=samples.shards[item.samples.shard].path,
        row_groups=item.samples.row_groups,
        rows=item.rows,
        reference_shard=None if reference is None else references.shards[reference.shard].path,
        reference_row_groups=() if reference is None else reference.row_groups,
        geometry=item.geometry,
        source_images=raw.image_paths,
        source_labels=raw.label_paths,
        source_sha256=digests[item.case_id].image,
    )


def _publish(
    store: Store,
    folder: str,
    packed: _Packed,
    *,
    source: Store,
    dataset: RawDataset,
    config: DataConfig,
    splits: dict[str, tuple[str, ...]],
) -> None:
    """Write the cases, then the manifest. Losing to a writer of the same version is no error."""
    cases = encode_cases(packed.cases)
    store.write_bytes(f"{folder}/{CASES}", cases)
    manifest = Manifest(
        name=config.name,
        version=folder,
        source=source.url,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=arco_core.__version__,
        classes=config.classes,
        channels=dataset.channels,
        labeled_order=dataset.labeled_order,
        spacing_known=dataset.spacing_known,
        data=config,
        splits=splits,
        counts=_count(packed.cases),
        shards=packed.shards,
        cases_sha256=hashlib.sha256(cases).hexdigest(),
    )
    try:
        store.put_if_absent(f"{folder}/{MANIFEST}", manifest.to_json())
    except AlreadyExists:
        return  # the other writer's version has the same name because it has the same content


def _count(cases: Sequence[CaseEntry]) -> Counts:
    annotated = [case for case in cases if case.annotated]
    return Counts(
        cases=len(cases),
        annotated_cases=len(annotated),
        annotated_patients=len({case.patient_id for case in annotated}),
        samples=sum(case.rows for case in cases),
    )
