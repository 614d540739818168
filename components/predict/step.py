"""Prediction: which scans, where to, and by whom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from arco_core.errors import DataError
from arco_core.inference import MapName
from arco_core.model_package import PublishedModel
from components.predict.model import ModelSpec, to_device
from components.predict.outputs import (
    NIFTI_SUFFIXES,
    Outcome,
    OutputFolder,
    Record,
    map_images,
    nifti_bytes,
    volumes_ml,
)
from components.predict.scans import Scan, find_scans, scan_url
from components.predict.worker import Worker, dicom_bytes
from infra.actors import run_on_actors
from infra.progress import Progress
from infra.ray_session import ray_session
from infra.storage import Store

DICOM_SUFFIX = ".dcm"
_FORMAT = "arco-prediction"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What came of a call."""

    output: str
    """URL of the mask, or of the folder."""
    done: dict[str, Record] = field(default_factory=dict)
    """By case, also those that an earlier call did."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by case."""
    skipped: int = 0
    """How many of `done` an earlier call did."""


def predict(
    *,
    model: str,
    scans: str,
    output: str,
    split: str | None = None,
    maps: Sequence[MapName] = (),
    flips: str | None = None,
    workers: int | None = None,
    dicom: bool = True,
) -> Prediction:
    """Segment `scans` and write masks on the scans' own grids; see docs/predict.md for what is written.

    Where `output` is a file, it is the mask of the only scan, with its maps beside it, replaced as a whole or
    not at all. Else it is a folder; scans in it that are done and have not changed are left alone, and a scan
    that cannot be segmented is told and left out.

    Args:
        model: folder or URL of a published model.
        scans: a file, a folder or a URL of either, or a dataset version.
        output: file (`.nii`, `.nii.gz`, or `.dcm` of a DICOM series) or folder, or a URL of either.
        split: of a dataset version, only `train`, `validation` or `test`.
        maps: what to write besides masks.
        flips: axes to average mirror images along, instead of the model's own (`inference.flips`).
        workers: actors on Ray Data, 0 for none: one scan after the other in this process. By default as
            many as Ray has GPUs, or else cores; none for a single scan.
        dicom: write a DICOM segmentation of a DICOM series, besides NIfTI.

    Raises:
        ConfigError: impossible flips.
        DataError: no scans, scans that the model cannot segment, or an output that cannot be; a single scan
            that cannot be segmented.
        ModelPackageError: `model` is not a published model, or damaged.
        StoreError: a store that cannot be read or written.
    """
    spec = ModelSpec.find(model, flips=flips, maps=maps)
    published = spec.open()
    found = find_scans(scans, published, split=split)
    suffix = _file_suffix(output)
    if suffix is not None:
        return _predict_one(found, output, suffix, published, spec, maps)
    if len(found) == 1 and scan_url(found[0]) == Store(scans).url:
        raise DataError(f"{output}: the mask's name must end with .nii.gz or .nii.")
    folder = OutputFolder(store=Store(output), description=_describe(spec, published, scans, maps, dicom))
    folder.claim(scans)
    done = folder.records(found)
    left = [scan for scan in found if scan.case_id not in done]
    worker = Worker(model=spec, output=folder.store, maps=tuple(maps), dicom=dicom)
    outcomes = [Outcome(case_id=case, record=record) for case, record in done.items()]
    with Progress("predict", len(found), "scans") as bar:
        for outcome in _run(worker, left, workers):
            outcomes.append(outcome)
            if outcome.record is None:
                bar.warn(f"{outcome.case_id}: {outcome.message}")
            bar.update(len(outcomes))
    folder.write_table(outcomes, published.classes[1:])
    return Prediction(
        output=folder.store.url,
        done={o.case_id: o.record for o in outcomes if o.record is not None},
        failed={o.case_id: o.message for o in outcomes if o.record is None},
        skipped=len(done),
    )


def _run(worker: Worker, scans: Sequence[Scan], workers: int | None) -> Iterator[Outcome]:
    """What comes of `scans`, as they finish."""
    if workers == 0 or not scans or (workers is None and len(scans) == 1):
        yield from map(worker.open(), scans)
        return
    with ray_session(workers=workers or 1):
        actors, gpus = _actors(workers, len(scans))
        for number, outcome in run_on_actors(worker.open, scans, actors=actors, gpus=gpus):
            case_id = scans[number].case_id
            yield outcome or Outcome(
                case_id=case_id, message="its worker died twice, as it does without memory"
            )


def _actors(workers: int | None, scans: int) -> tuple[int, float]:
    """How many actors, and the GPUs of each: one where the cluster has any."""
    import ray

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    wanted = workers or gpus or int(resources.get("CPU", 1))
    actors = max(1, min(wanted, scans))
    return actors, min(1.0, gpus / actors)


def _predict_one(
    scans: Sequence[Scan],
    output: str,
    suffix: str,
    model: PublishedModel,
    spec: ModelSpec,
    maps: Sequence[MapName],
) -> Prediction:
    """The mask of the only scan as the file `output`."""
    if len(scans) != 1:
        raise DataError(f"{output} is one file, and there are {len(scans)} scans: name a folder.")
    scan, target = scans[0], Store(output)
    folder, name = target.parent(), PurePosixPath(target.url).name
    _check_file(output, scan, suffix)
    segmented = scan.segment(model, maps, to_device(model))
    if suffix == DICOM_SUFFIX:
        if segmented.series is None:
            raise DataError(f"{output}: only a DICOM series has a DICOM segmentation; write .nii.gz instead.")
        content = dicom_bytes(segmented, segmented.series, model.classes, spec)
    else:
        content = nifti_bytes(segmented.result.mask, segmented, suffix)
    stem, kind = name.removesuffix(suffix), ".nii.gz" if suffix == DICOM_SUFFIX else suffix
    images = {f"{stem}_{m}{kind}": data for m, data in map_images(segmented, kind).items()}
    for path, data in {**images, name: content}.items():
        folder.write_bytes(path, data)
    record = Record(
        case_id=scan.case_id,
        tag=scan.tag,
        seconds=0.0,
        volumes_ml=volumes_ml(segmented, model.classes),
        files=(*images, name),
    )
    return Prediction(output=target.url, done={scan.case_id: record})


def _file_suffix(output: str) -> str | None:
    """How `output` ends where it names a file."""
    name = output.rpartition("/")[2]
    if name in NIFTI_SUFFIXES:
        raise DataError(f"{output}: the mask's name must end with .nii.gz or .nii, after a name.")
    return next((s for s in (*NIFTI_SUFFIXES, DICOM_SUFFIX) if name.endswith(s)), None)


def _check_file(output: str, scan: Scan, suffix: str) -> None:
    target = Store(output)
    local = target.parent().local_path(PurePosixPath(target.url).name)
    source = scan_url(scan)
    if source is not None and source == target.url:
        raise DataError(f"{output} is the scan: name another file.")
    if local is None:
        return
    if not local.parent.is_dir():
        raise DataError(f"{output}: the folder {local.parent} does not exist; create it first.")
    if local.is_dir():
        raise DataError(f"{output} is a folder: name a file in it, or leave out the {suffix}.")
    with contextlib.suppress(FileNotFoundError):  # a link to the scan, say
        if source is not None and "://" not in source and local.samefile(source):
            raise DataError(f"{output} is the scan: name another file.")


def _describe(
    spec: ModelSpec, model: PublishedModel, scans: str, maps: Sequence[MapName], dicom: bool
) -> dict[str, object]:
    """What must be the same for predictions to lie in one folder."""
    return {
        "format": _FORMAT,
        "scans": Store(scans).url,
        "model_sha256": spec.sha256,
        "model": spec.url,
        "overlap": model.inference_config.overlap,
        "flips": model.inference_config.flips,
        "maps": sorted(maps),
        "dicom": dicom,
        "classes": list(model.classes),
    }
