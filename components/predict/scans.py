"""The scans to segment: files, folders of any layout that preparation reads, or a dataset version."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError
from arco_core.inference import MapName, Segmentation, segment_prepared, segment_volume
from arco_core.model_package import PublishedModel
from infra.datasets import DatasetVersion
from infra.datasets.dicom import DicomSeries
from infra.datasets.manifest import MANIFEST
from infra.datasets.nifti import NiftiFile, decode_with_header
from infra.datasets.nrrd import NrrdFile
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import read_raw
from infra.datasets.validate import stack_channels
from infra.datasets.volume import Volume, VolumeSource
from infra.storage import ObjectInfo, Store

SUFFIXES = (".nii.gz", ".nii", ".nrrd")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What came of a scan, and what its outputs take over from it."""

    result: Segmentation
    affine: npt.NDArray[np.float64]
    """Voxel indices to millimetres (RAS+)."""
    raw: Store
    """Where it lies."""
    header: Any = None
    """nibabel's header of a NIfTI scan."""
    series: DicomSeries | None = None


class Scan(Protocol):
    """A scan that can be segmented. Can be pickled."""

    @property
    def case_id(self) -> str:
        """Names the outputs."""
        ...

    @property
    def tag(self) -> str:
        """Changes when the scan does; empty where nothing tells."""
        ...

    def segment(self, model: PublishedModel, maps: Sequence[MapName], device: torch.device) -> Segmented:
        """Read and segment it. Raises `DataError` or `StoreError`, naming the scan."""
        ...


@dataclass(frozen=True, kw_only=True)
class RawScan:
    """A scan in files of its own."""

    raw: Store
    case: RawCase
    tag: str

    @property
    def case_id(self) -> str:
        """See `Scan`."""
        return self.case.case_id

    def segment(self, model: PublishedModel, maps: Sequence[MapName], device: torch.device) -> Segmented:
        """See `Scan`."""
        first, *others = self.case.channels
        header = None
        if isinstance(first, NiftiFile):
            volume, header = decode_with_header(self.raw.read_bytes(first.path), first.path)
        else:
            volume = first.load(self.raw)
        result = self._segment([volume, *(o.load(self.raw) for o in others)], model, maps, device)
        series = first if isinstance(first, DicomSeries) else None
        return Segmented(result=result, affine=volume.affine, header=header, series=series, raw=self.raw)

    def _segment(
        self, volumes: list[Volume], model: PublishedModel, maps: Sequence[MapName], device: torch.device
    ) -> Segmentation:
        voxels = volumes[0].voxels if len(volumes) == 1 else stack_channels(volumes, model.channels)
        try:
            return segment_volume(model, voxels, volumes[0].affine, maps=maps, device=device)
        except DataError as error:
            raise DataError(f"{self.raw.join(volumes[0].path)}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PreparedScan:
    """A case of a dataset version."""

    version: str
    """Its URL."""
    case_id: str
    tag: str

    def segment(self, model: PublishedModel, maps: Sequence[MapName], device: torch.device) -> Segmented:
        """See `Scan`."""
        version = _open_version(self.version)
        geometry = version.case(self.case_id).geometry
        images, _ = version.read_case(self.case_id)
        result = segment_prepared(model, images, geometry, maps=maps, device=device)
        return Segmented(
            result=result, affine=np.asarray(geometry.affine, np.float64), raw=Store(self.version)
        )


def find_scans(url: str, model: PublishedModel, *, split: str | None = None) -> list[Scan]:
    """The scans at `url`, by case: a file, or all of a folder in a layout of docs/data.md or of a version.

    Args:
        url: of the file, the folder or the dataset version.
        model: what will segment them.
        split: of a version, only `train`, `validation` or `test`.

    Raises:
        DataError: there is nothing, or nothing that `model` can segment; or a split of what has none.
        StoreError: it cannot be read.
    """
    folder = Store(url)
    if folder.exists(MANIFEST):
        return list(_prepared(folder.url, model, split))
    if split is not None:
        raise DataError(f"--split {split}: {url} is no dataset version, and only those have splits.")
    if url.endswith(SUFFIXES):
        return [_single(folder)]
    files = {entry.path: entry for entry in folder.entries()}
    if not files:
        raise _nothing(folder, url)
    cases = _with_channels(read_raw(folder, files).cases, model.channels)
    return [RawScan(raw=folder, case=case, tag=_tag(case, files)) for case in cases]


def scan_url(scan: Scan) -> str | None:
    """URL of the file of a scan that is a single file."""
    if isinstance(scan, RawScan) and len(scan.case.image_paths) == 1:
        return scan.raw.join(scan.case.image_paths[0])
    return None


def _single(file: Store) -> Scan:
    folder, name = file.parent(), PurePosixPath(file.url).name
    if not folder.exists(name):
        raise DataError(f"{file.url}: there is no such file.")
    source: VolumeSource = NrrdFile(name) if name.endswith(".nrrd") else NiftiFile(name)
    case_id = next(name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))
    case = RawCase(case_id=case_id, patient_id=case_id, channels=(source,), annotation=None)
    return RawScan(raw=folder, case=case, tag="")


def _nothing(folder: Store, url: str) -> DataError:
    name = PurePosixPath(folder.url.partition("://")[2] or folder.url).name
    is_bucket = folder.url == f"s3://{name}"
    if is_bucket or not folder.parent().exists(name):
        return DataError(f"{url}: there is no such file, and no folder with files in it.")
    return DataError(
        f"{url} is not NIfTI by its name: convert it to NIfTI (.nii or .nii.gz), or give the folder of a "
        "DICOM series."
    )


def _prepared(url: str, model: PublishedModel, split: str | None) -> list[PreparedScan]:
    version = _open_version(url)
    ours, theirs = ({**vars(c), "name": "", "exclude": (), "max_failures": 0} for c in (
        model.data_config, version.data_config
    ))  # fmt: skip
    unlike = sorted(k for k in ours if ours[k] != theirs[k] and k not in _ONLY_SPLITS)
    if unlike or version.channels != model.channels:
        what = ", ".join(f"data.{key}" for key in unlike) or f"its {version.channels} channels"
        raise DataError(
            f"{url} was prepared for another model ({what} differ): give the folder of the raw scans "
            f"({version.manifest.source}) instead."
        )
    patients = None if split is None else set(version.patients(split))
    cases = [case for case in version.cases if patients is None or case.patient_id in patients]
    if not cases:
        raise DataError(f"{url} has no patients in the split {split!r}.")
    return [PreparedScan(version=url, case_id=c.case_id, tag=c.content_sha256) for c in cases]


_ONLY_SPLITS = ("validation_fraction", "test_fraction", "split_seed", "classes")
"""Settings that change nothing about an image."""


def _with_channels(cases: Sequence[RawCase], channels: int) -> list[RawCase]:
    """For a model of several channels, `a_0000`, `a_0001`, … as channels of one case, as in nnU-Net."""
    if channels == 1:
        return list(cases)
    grouped: dict[str, list[RawCase]] = defaultdict(list)
    for case in cases:
        match = _CHANNEL.fullmatch(case.case_id) if len(case.channels) == 1 else None
        grouped[match["case"] if match else case.case_id].append(case)
    return [
        members[0]
        if len(members) == 1 and members[0].case_id == name
        else dataclasses.replace(
            members[0], case_id=name, channels=tuple(member.channels[0] for member in members)
        )
        for name, members in sorted(grouped.items())
    ]


def _tag(case: RawCase, files: dict[str, ObjectInfo]) -> str:
    tags = [files[path].tag for path in case.image_paths]
    return " ".join(tags) if all(tags) else ""


@lru_cache(maxsize=2)
def _open_version(url: str) -> DatasetVersion:
    return DatasetVersion.open(url)
