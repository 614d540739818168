"""The sample table: one row a 2D slice, as Arrow binary columns.

Images are float16, labels uint8, both as raw bytes in C order; their shapes are in the schema's
metadata. Plain binary columns are read several times faster than tensor extension types, because
a whole column decodes to one array without copying.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arco_core.errors import DataError

IMAGE_DTYPE = np.dtype("<f2")
LABEL_DTYPE = np.dtype("u1")
_SHAPE_KEY = b"arco.image_shape"
_DTYPE_KEY = b"arco.image_dtype"


def sample_schema(image_shape: tuple[int, int, int]) -> pa.Schema:
    """Schema of a table whose images have `image_shape` (C, H, W) and labels (H, W)."""
    fields = [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.binary()),
        pa.field("spacing", pa.list_(pa.float32(), 2), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
    ]
    shape = ",".join(str(side) for side in image_shape)
    return pa.schema(fields, metadata={_SHAPE_KEY: shape.encode(), _DTYPE_KEY: IMAGE_DTYPE.name.encode()})


def image_shape(schema: pa.Schema) -> tuple[int, int, int]:
    """Shape (C, H, W) of the images of a table with this schema.

    Raises `DataError` for a schema that is not a sample table's.
    """
    metadata = schema.metadata or {}
    if metadata.get(_DTYPE_KEY) != IMAGE_DTYPE.name.encode() or _SHAPE_KEY not in metadata:
        raise DataError(
            f"not a table of {IMAGE_DTYPE.name} samples: its schema's metadata has the keys "
            f"{sorted(key.decode() for key in metadata)}; prepare the dataset again"
        )
    channels, height, width = (int(side) for side in metadata[_SHAPE_KEY].split(b","))
    return channels, height, width


def encode_case(
    *,
    case_id: str,
    patient_id: str,
    slices: npt.NDArray[np.floating[Any]],
    label: npt.NDArray[np.uint8] | None,
    spacing_mm: tuple[float, float],
    source_sha256: str,
) -> pa.Table:
    """The rows of one case: `slices` (S, C, H, W) and, when annotated, `label` (S, H, W).

    `spacing_mm` is the pixel size along rows and columns. Images lose precision to float16.
    Raises `DataError` when shapes disagree or an intensity does not fit float16.
    """
    count, channels, height, width = slices.shape
    if label is not None and label.shape != (count, height, width):
        raise DataError(f"case {case_id!r}: labels {label.shape} do not match slices {slices.shape}")
    largest = float(np.abs(slices).max())
    if largest > float(np.finfo(IMAGE_DTYPE).max):
        raise DataError(f"case {case_id!r}: intensity {largest:g} exceeds float16; scale intensities first")
    spacing = pa.array([spacing_mm] * count, pa.list_(pa.float32(), 2))
    labels = pa.nulls(count, pa.binary()) if label is None else _to_binary(label.astype(LABEL_DTYPE))
    columns = [
        pa.array([case_id] * count, pa.string()),
        pa.array([patient_id] * count, pa.string()),
        pa.array(np.arange(count, dtype=np.int32)),
        _to_binary(slices.astype(IMAGE_DTYPE)),
        labels,
        spacing,
        pa.array([source_sha256] * count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=sample_schema((channels, height, width)))


def decode_images(table: pa.Table) -> npt.NDArray[np.float16]:
    """Images (N, C, H, W) of a table, a view of its memory where it has one chunk: do not write."""
    return _from_binary(table.column("image"), IMAGE_DTYPE, image_shape(table.schema))


def decode_labels(table: pa.Table) -> npt.NDArray[np.uint8]:
    """Labels (N, H, W) of a table. Raises `DataError` when a row has none."""
    column = table.column("label")
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} rows have no label: read annotated cases only")
    return _from_binary(column, LABEL_DTYPE, image_shape(table.schema)[1:])


def _to_binary(array: npt.NDArray[Any]) -> pa.Array:
    """(N, ...) to N binary values, without copying the numbers."""
    data = np.ascontiguousarray(array)
    count, width = data.shape[0], data[0].nbytes
    if count * width > np.iinfo(np.int32).max:
        raise DataError(
            f"{count} samples of {width} bytes exceed the 2 GiB of one Arrow column: split the case"
        )
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _from_binary(column: pa.ChunkedArray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    chunks = [_chunk_array(chunk, dtype, shape) for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.empty((0, *shape), dtype)
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _chunk_array(chunk: pa.Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    _, offset_buffer, data = chunk.buffers()
    start, count = chunk.offset, len(chunk)
    offsets = np.frombuffer(offset_buffer, np.int32, count=start + count + 1)[start:]
    width = int(np.prod(shape)) * dtype.itemsize
    if not (np.diff(offsets) == width).all():
        raise DataError(
            f"a sample is not {width} bytes long, as {shape} of {dtype.name} needs: the shard is damaged"
        )
    values = np.frombuffer(data, dtype, count=count * width // dtype.itemsize, offset=int(offsets[0]))
    return values.reshape(count, *shape)
