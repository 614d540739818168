"""What segments one scan after the other: in this process, or held by an actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from arco_core.errors import ArcoError, StoreError
from arco_core.inference import MapName
from components.predict.model import ModelSpec, to_device
from components.predict.outputs import Outcome, Record, map_images, nifti_bytes, volumes_ml
from components.predict.scans import Scan, Segmented
from infra.datasets.dicom import DicomSeries
from infra.datasets.dicom_seg import encode_segmentation
from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class Worker:
    """How scans become files in a folder. Can be pickled; `open` sets it up where it works."""

    model: ModelSpec
    output: Store
    maps: tuple[MapName, ...]
    dicom: bool
    """Write a DICOM segmentation of a DICOM series."""

    def open(self) -> Callable[[Scan], Outcome]:
        """Load the model, and return what segments a scan, writes its files and says what came of it."""
        model = self.model.open()
        device = to_device(model)

        def work(scan: Scan) -> Outcome:
            start = time.perf_counter()
            try:
                segmented = scan.segment(model, self.maps, device)
                files = self._files(scan, segmented, model.classes)
            except Exception as error:  # whatever is wrong with one scan, the others go on
                return Outcome(case_id=scan.case_id, message=_reason(error))
            for name, content in files.items():  # an output that cannot be written ends it all
                self.output.write_bytes(name, content)
            record = Record(
                case_id=scan.case_id,
                tag=scan.tag,
                seconds=time.perf_counter() - start,
                volumes_ml=volumes_ml(segmented, model.classes),
                files=tuple(files),
            )
            record.write(self.output)
            return Outcome(case_id=scan.case_id, record=record)

        return work

    def _files(self, scan: Scan, segmented: Segmented, classes: tuple[str, ...]) -> dict[str, bytes]:
        case = scan.case_id
        files = {f"{case}.nii.gz": nifti_bytes(segmented.result.mask, segmented)}
        if self.dicom and segmented.series is not None:
            files[f"{case}.dcm"] = dicom_bytes(segmented, segmented.series, classes, self.model)
        return files | {f"{name}/{case}.nii.gz": data for name, data in map_images(segmented).items()}


def dicom_bytes(
    segmented: Segmented, series: DicomSeries, classes: tuple[str, ...], model: ModelSpec
) -> bytes:
    """The mask of a DICOM series as a DICOM segmentation. Raises `DataError` as `encode_segmentation`."""
    mask, version = segmented.result.mask, model.sha256[:12]
    return encode_segmentation(segmented.raw, series, mask, classes, model_version=version)


def _reason(error: Exception) -> str:
    if isinstance(error, (ArcoError, StoreError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
