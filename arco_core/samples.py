"""The sample table: one row a 2D slice or a 3D brick, as Arrow binary columns.

Images are float16, labels uint8, both as raw bytes in C order. Slices all have one shape, which is in the
schema's metadata; bricks have a shape each, in the row, and the metadata has the patch that they were cut
for. Plain binary columns are read several times faster than tensor extension types, because a whole column
decodes to one array without copying.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arco_core.bricks import Brick, BrickPlace, brick_places
from arco_core.errors import DataError

IMAGE_DTYPE = np.dtype("<f2")
LABEL_DTYPE = np.dtype("u1")
_SHAPE_KEY = b"arco.image_shape"
_DTYPE_KEY = b"arco.image_dtype"


def sample_schema(image_shape: tuple[int, ...]) -> pa.Schema:
    """Schema of a table of slices (C, H, W), or of bricks for patches (C, D, H, W)."""
    axes = len(image_shape) - 1
    fields = [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.binary()),
        pa.field("spacing", pa.list_(pa.float32(), axes), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
    ]
    if axes == 3:
        fields += [
            pa.field("brick_start", pa.list_(pa.int32(), 3), nullable=False),
            pa.field("brick_shape", pa.list_(pa.int32(), 3), nullable=False),
        ]
    shape = ",".join(str(side) for side in image_shape)
    return pa.schema(fields, metadata={_SHAPE_KEY: shape.encode(), _DTYPE_KEY: IMAGE_DTYPE.name.encode()})


def image_shape(schema: pa.Schema) -> tuple[int, ...]:
    """Shape (C, H, W) of a table's slices, or (C, D, H, W) of the patches that its bricks are for.

    Raises `DataError` for a schema that is not a sample table's.
    """
    metadata = schema.metadata or {}
    if metadata.get(_DTYPE_KEY) != IMAGE_DTYPE.name.encode() or _SHAPE_KEY not in metadata:
        raise DataError(
            f"not a table of {IMAGE_DTYPE.name} samples: its schema's metadata has the keys "
            f"{sorted(key.decode() for key in metadata)}; prepare the dataset again"
        )
    return tuple(int(side) for side in metadata[_SHAPE_KEY].split(b","))


def encode_case(
    *,
    case_id: str,
    patient_id: str,
    images: npt.NDArray[np.floating[Any]],
    label: npt.NDArray[np.uint8] | None,
    image_size: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    source_sha256: str,
) -> pa.Table:
    """The rows of one prepared case.

    Args:
        case_id: of the case, as `patient_id` and `source_sha256`.
        patient_id: see above.
        images: slices (S, C, H, W), or one volume (1, C, D, H, W), which is cut into bricks.
        label: (S, H, W) or (1, D, H, W), where the case is annotated.
        image_size: (H, W) of a slice, or (D, H, W) of a patch.
        spacing_mm: voxel size along the sides of `image_size`.
        source_sha256: see above.

    Images lose precision to float16.
    Raises `DataError` when shapes disagree or an intensity does not fit float16.
    """
    if label is not None and label.shape != (len(images), *images.shape[2:]):
        raise DataError(f"case {case_id!r}: labels {label.shape} do not match images {images.shape}")
    largest = max(float(images.max()), -float(images.min()))
    if largest > float(np.finfo(IMAGE_DTYPE).max):
        raise DataError(f"case {case_id!r}: intensity {largest:g} exceeds float16; scale intensities first")
    places = brick_places(images.shape[2:], image_size) if images.ndim == 5 else []
    if places:
        image_column = _bricks(images[0], [(slice(None), *place.slices) for place in places], IMAGE_DTYPE)
        labels = None if label is None else _bricks(label[0], [p.slices for p in places], LABEL_DTYPE)
    else:
        image_column = _to_binary(images.astype(IMAGE_DTYPE))
        labels = None if label is None else _to_binary(label.astype(LABEL_DTYPE))
    count = len(places) or len(images)
    columns = [
        pa.array([case_id] * count, pa.string()),
        pa.array([patient_id] * count, pa.string()),
        pa.array(np.arange(count, dtype=np.int32)),
        image_column,
        pa.nulls(count, pa.binary()) if labels is None else labels,
        pa.array([spacing_mm] * count, pa.list_(pa.float32(), len(spacing_mm))),
        pa.array([source_sha256] * count, pa.string()),
    ]
    for sides in ([p.start for p in places], [p.shape for p in places]) if places else ():
        columns.append(pa.array(sides, pa.list_(pa.int32(), 3)))
    return pa.Table.from_arrays(columns, schema=sample_schema((images.shape[1], *image_size)))


def decode_images(table: pa.Table) -> npt.NDArray[np.float16]:
    """Slices (N, C, H, W) of a table, a view of its memory where it has one chunk: do not write."""
    return _from_binary(table.column("image"), IMAGE_DTYPE, image_shape(table.schema))


def decode_labels(table: pa.Table) -> npt.NDArray[np.uint8]:
    """Labels (N, H, W) of a table of slices. Raises `DataError` when a row has none."""
    return _from_binary(_annotated(table), LABEL_DTYPE, image_shape(table.schema)[1:])


def decode_bricks(table: pa.Table, *, labels: bool) -> list[Brick]:
    """The bricks of a table, views of its memory: do not write.

    With `labels` theirs too, which raises `DataError` when a row has none.
    """
    channels = image_shape(table.schema)[0]
    annotations = _annotated(table) if labels else [None] * len(table)
    bricks = []
    for start, sides, image, label in zip(
        table["brick_start"].to_pylist(),
        table["brick_shape"].to_pylist(),
        table["image"],
        annotations,
        strict=True,
    ):
        place = BrickPlace(start=tuple(start), shape=tuple(sides))
        voxels = _sample(image.as_buffer(), IMAGE_DTYPE, (channels, *place.shape))
        classes = None if label is None else _sample(label.as_buffer(), LABEL_DTYPE, place.shape)
        bricks.append(Brick(place=place, image=voxels, label=classes))
    return bricks


def _annotated(table: pa.Table) -> pa.ChunkedArray:
    column = table.column("label")
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} rows have no label: read annotated cases only")
    return column


def _bricks(
    volume: npt.NDArray[Any], places: Iterable[tuple[slice, ...]], dtype: np.dtype[Any]
) -> pa.ChunkedArray:
    """The parts of `volume` at `places`, a chunk each: together they may exceed a chunk's 2 GiB."""
    return pa.chunked_array([_to_binary(volume[place][np.newaxis].astype(dtype)) for place in places])


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
        raise _damaged(dtype, shape, width)
    values = np.frombuffer(data, dtype, count=count * width // dtype.itemsize, offset=int(offsets[0]))
    return values.reshape(count, *shape)


def _sample(data: pa.Buffer, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    width = int(np.prod(shape)) * dtype.itemsize
    if data.size != width:
        raise _damaged(dtype, shape, width)
    return np.frombuffer(data, dtype).reshape(shape)


def _damaged(dtype: np.dtype[Any], shape: tuple[int, ...], width: int) -> DataError:
    return DataError(
        f"a sample is not {width} bytes long, as {shape} of {dtype.name} needs: the shard is damaged"
    )
