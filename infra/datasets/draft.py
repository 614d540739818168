"""What a version will be: who is in which split, who is labelled first, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from arco_core.config import DataConfig
from infra.datasets.append import Scan, find_parent, preparation_settings, settled_patients
from infra.datasets.convert import Digests
from infra.datasets.manifest import FORMAT
from infra.datasets.packing import Failure
from infra.datasets.readers.base import RawDataset
from infra.datasets.splits import LabelGroups, Splits, group_labels, split_patients
from infra.datasets.validate import check_spacing, resolve_classes
from infra.datasets.version import DatasetVersion
from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A version without its samples."""

    version: str
    """12 hexadecimal digits over format, settings, scans, splits and what was left out: equal drafts are of
    equal versions, wherever they are prepared."""
    splits: Splits
    label_groups: LabelGroups


def draft_version(
    scans: Sequence[Scan],
    failures: Iterable[Failure],
    dataset: RawDataset,
    config: DataConfig,
    parent: DatasetVersion | None,
) -> Draft:
    """The version that holds `scans`, and goes on from `parent`. Raises as `split_patients`."""
    splits, groups = arrange(scans, dataset, config, parent)
    identity = {
        "format": FORMAT,
        "settings": preparation_settings(config),
        "channels": dataset.channels,
        "scans": sorted((s.case_id, s.patient_id, s.digests.image, s.digests.label or "") for s in scans),
        "splits": splits,
        "label_groups": groups,
        "skipped": sorted(failure.case_id for failure in failures),
    }
    version = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return Draft(version=version, splits=splits, label_groups=groups)


def preview(store: Store, dataset: RawDataset, config: DataConfig) -> tuple[Splits, LabelGroups]:
    """Splits and order of labels as a preparation of `dataset` would make them, from names alone.

    Raises `DataError` as the preparation would for its patients, classes and settings.
    """
    config = replace(config, classes=resolve_classes(config.classes, dataset.classes))
    check_spacing(config, dataset.spacing_known)
    scans = [
        Scan(
            case_id=case.case_id,
            patient_id=case.patient_id,
            digests=Digests(case_id=case.case_id, image="", label=None if case.annotation is None else ""),
        )
        for case in dataset.cases
    ]
    parent = find_parent(store, config, dataset.channels, None)
    if parent is not None and {e.patient_id for e in parent.cases}.isdisjoint(s.patient_id for s in scans):
        parent = None
    return arrange(scans, dataset, config, parent)


def arrange(
    scans: Sequence[Scan], dataset: RawDataset, config: DataConfig, parent: DatasetVersion | None
) -> tuple[Splits, LabelGroups]:
    """Splits, and the order of labels, of the patients of `scans`."""
    patients = {scan.patient_id for scan in scans}
    annotated = {scan.patient_id for scan in scans if scan.annotated}
    held_out = {split: patients.intersection(part) for split, part in dataset.held_out.items()}
    settled = {} if parent is None else settled_patients(parent, scans)
    splits = split_patients(patients, annotated, config, held_out, settled)
    earlier = () if parent is None else parent.manifest.label_groups
    groups = group_labels(annotated.intersection(splits["train"]), dataset.labeled_order, earlier)
    return splits, groups
