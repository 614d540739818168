"""One slice of every case with what each model drew on it: the pictures behind a report.

A run keeps them, so that a report can show any case, and can set models of several runs side by side without
segmenting anything again. The slice is the one where the reference is largest: no model has a say in it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arco_core.errors import DataError
from infra.datasets import CaseEntry

Plane = npt.NDArray[np.uint8]
DrawnBy = tuple[str, int]
"""Method and seed."""

_SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("layer", pa.string()),  # image, reference or prediction
        ("method", pa.string()),
        ("seed", pa.int32()),
        ("slice_number", pa.int32()),
        ("slices", pa.int32()),
        ("column_mm", pa.float64()),
        ("row_mm", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixels", pa.binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class CaseSlice:
    """A slice of a prepared case."""

    case_id: str
    slice_number: int
    """In the scan, from 1."""
    slices: int
    pixel_mm: tuple[float, float]
    """Size of a pixel along columns and rows (x, y)."""
    image: Plane
    """Grey values (H, W), of several channels the first."""
    reference: Plane
    """Class indices (H, W)."""
    predictions: dict[DrawnBy, Plane] = field(default_factory=dict)
    """Class indices (H, W)."""


def cut_slice(
    case: CaseEntry,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    predictions: Mapping[DrawnBy, npt.NDArray[np.uint8]],
) -> CaseSlice:
    """The slice to keep of a case, as prepared and as segmented.

    Args:
        case: where it comes from.
        images: slices (S, C, H, W), or one volume (1, C, D, H, W).
        labels: (S, H, W) or (1, D, H, W).
        predictions: in the shape of `labels`.
    """
    volumetric = images.ndim == 5
    planes = images[0].swapaxes(0, 1) if volumetric else images
    reference = labels[0] if volumetric else labels
    index = int(np.argmax((reference > 0).sum(axis=(1, 2))))
    _, row_mm, column_mm = case.geometry.spacing_mm
    return CaseSlice(
        case_id=case.case_id,
        slice_number=case.geometry.original_depth(index) + 1,
        slices=case.geometry.canonical_shape[0],
        pixel_mm=(column_mm, row_mm),
        image=_to_grey(planes[:, 0])[index],
        reference=reference[index],
        predictions={by: (p[0] if volumetric else p)[index] for by, p in predictions.items()},
    )


class SliceWriter:
    """Collects slices, compressed, a row group a case."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, _SCHEMA, compression="zstd")

    def add(self, cut: CaseSlice) -> None:
        """Keep `cut`."""
        layers: list[tuple[str, str | None, int | None, Plane]] = [
            ("image", None, None, cut.image),
            ("reference", None, None, cut.reference),
            *(("prediction", method, seed, plane) for (method, seed), plane in cut.predictions.items()),
        ]
        rows = [
            {
                "case_id": cut.case_id, "layer": layer, "method": method, "seed": seed,
                "slice_number": cut.slice_number, "slices": cut.slices,
                "column_mm": cut.pixel_mm[0], "row_mm": cut.pixel_mm[1],
                "height": plane.shape[0], "width": plane.shape[1], "pixels": plane.tobytes(),
            }
            for layer, method, seed, plane in layers
        ]  # fmt: skip
        self._writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))

    def finish(self) -> bytes:
        """The table; nothing can be added any more."""
        self._writer.close()
        return self._sink.getvalue()


def read_slice(data: bytes, case_id: str, source: str) -> CaseSlice:
    """The slice of one case. Raises `DataError`, naming `source`, when `data` does not hold it."""
    try:
        table = pq.read_table(
            io.BytesIO(data), filters=[("case_id", "=", case_id)], use_threads=False, pre_buffer=False
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"{source} holds no slices ({error}): evaluate the run again.") from error
    rows = table.to_pylist()
    if not rows:
        raise DataError(f"{source} has no slice of {case_id}: evaluate the run again.")
    by_layer = {row["layer"]: row for row in rows}
    image = by_layer["image"]
    return CaseSlice(
        case_id=case_id,
        slice_number=image["slice_number"],
        slices=image["slices"],
        pixel_mm=(image["column_mm"], image["row_mm"]),
        image=_plane(image),
        reference=_plane(by_layer["reference"]),
        predictions={(r["method"], r["seed"]): _plane(r) for r in rows if r["layer"] == "prediction"},
    )


def _plane(row: Mapping[str, Any]) -> Plane:
    return np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], row["width"])


def _to_grey(volume: npt.NDArray[np.float32]) -> Plane:
    """Intensities as grey values, the extremes of the whole volume clipped."""
    low, high = np.percentile(volume, (0.5, 99.5))
    return np.round(255 * np.clip((volume - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
