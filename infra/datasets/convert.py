"""One case: its files' hashes, and its samples. These functions are the tasks of `prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from arco_core.config import DataConfig
from arco_core.preprocess import Geometry, prepare_image, prepare_label
from arco_core.samples import encode_case
from infra.datasets.content import content_digest
from infra.datasets.readers.base import RawCase
from infra.datasets.validate import check_label, stack_channels
from infra.datasets.volume import sha256
from infra.storage import Store

REFERENCE_SCHEMA = pa.schema(
    [pa.field("case_id", pa.string(), nullable=False), pa.field("label", pa.binary(), nullable=False)]
)
"""An annotation on the scan's own grid: uint8, C order; its shape is in the case's geometry."""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """sha256 of a case's image and of its annotation."""

    case_id: str
    image: str
    label: str | None


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """The samples of one case, and its annotation on its own grid when it has one."""

    case_id: str
    samples: pa.Table
    reference: pa.Table | None
    geometry: Geometry
    digests: Digests
    """Of the bytes that became samples."""
    content_sha256: str
    """See `infra.datasets.content.content_digest`."""


def hash_case(raw: Store, case: RawCase) -> Digests:
    """Hash the files of `case` below `raw`."""
    image = _image_digest([channel.digest(raw) for channel in case.channels])
    label = None if case.annotation is None else case.annotation.digest(raw)
    return Digests(case_id=case.case_id, image=image, label=label)


def convert_case(raw: Store, case: RawCase, *, config: DataConfig, channels: int) -> PreparedCase:
    """Read, check and prepare `case`; `config.classes` names the classes.

    Raises `DataError` for a scan or an annotation that breaks a rule.
    """
    images = [channel.load(raw) for channel in case.channels]
    source_sha256 = _image_digest([image.sha256 for image in images])
    voxels = stack_channels(images, channels)
    prepared, geometry = prepare_image(voxels, images[0].affine, config)
    annotation = label_sha256 = None
    if case.annotation is not None:
        label = case.annotation.load(raw)
        label_sha256 = label.sha256
        annotation = check_label(label, images[0], config.classes, own_affine=case.label_affine)
    samples = encode_case(
        case_id=case.case_id,
        patient_id=case.patient_id,
        images=prepared,
        label=None if annotation is None else prepare_label(annotation, geometry),
        image_size=config.image_size,
        spacing_mm=geometry.spacing_mm[-geometry.image_axes :],
        source_sha256=source_sha256,
    )
    reference = None
    if annotation is not None:
        columns = {"case_id": [case.case_id], "label": [annotation.tobytes()]}
        reference = pa.table(columns, schema=REFERENCE_SCHEMA)
    return PreparedCase(
        case_id=case.case_id,
        samples=samples,
        reference=reference,
        geometry=geometry,
        digests=Digests(case_id=case.case_id, image=source_sha256, label=label_sha256),
        content_sha256=content_digest(voxels, images[0].affine),
    )


def _image_digest(channels: Sequence[str]) -> str:
    """The digest of one channel, or one over those of several."""
    return channels[0] if len(channels) == 1 else sha256(" ".join(channels).encode())
