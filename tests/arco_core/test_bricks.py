"""Volumes cut into bricks, and patches out of those."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arco_core.bricks import Brick, assemble, brick_places
from arco_core.errors import DataError
from arco_core.samples import decode_bricks, decode_images, encode_case, image_shape

PATCH = (16, 32, 16)
RNG = np.random.default_rng(0)
VOLUME = RNG.random((1, 2, 40, 70, 20)).astype(np.float32)
LABEL = RNG.integers(0, 4, (1, 40, 70, 20)).astype(np.uint8)


def encode(images: np.ndarray = VOLUME, label: np.ndarray | None = LABEL) -> pa.Table:
    return encode_case(
        case_id="a",
        patient_id="p",
        images=images,
        label=label,
        image_size=PATCH,
        spacing_mm=(3.0, 1.5, 1.25),
        source_sha256="0" * 64,
    )


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.sampled_from((16, 48, 112))] * 3), st.tuples(*[st.integers(0, 500)] * 3))
def test_bricks_cover_the_volume_are_bounded_and_share_half_a_patch(
    patch: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    size = tuple(side + extra for side, extra in zip(patch, more, strict=True))
    places = brick_places(size, patch)
    stored = largest = 1.0
    for axis in range(3):
        spans = sorted({(p.start[axis], p.start[axis] + p.shape[axis]) for p in places})
        assert spans[0][0] == 0 and spans[-1][1] == size[axis]
        assert all(patch[axis] <= stop - start <= 2 * patch[axis] for start, stop in spans)
        shared = [before[1] - after[0] for before, after in itertools.pairwise(spans)]
        assert all(patch[axis] // 2 <= s < 3 * patch[axis] / 2 for s in shared)
        stored *= sum(stop - start for start, stop in spans) / size[axis]
        largest *= 4 / 3 + 1 / patch[axis]  # a third, and rounding
        if size[axis] <= 2 * patch[axis]:
            assert len(spans) == 1
    assert len(places) == len({p.start for p in places})
    assert stored == pytest.approx(sum(math.prod(p.shape) for p in places) / math.prod(size))
    assert stored < largest


def test_an_epoch_takes_as_many_patches_as_the_brick_holds() -> None:
    (whole,) = brick_places((32, 64, 32), PATCH)
    (least,) = brick_places(PATCH, PATCH)
    assert (whole.patches(PATCH), least.patches(PATCH)) == (8, 1)


def test_volume_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(DataError, match=r"a volume of \(16, 31, 16\) voxels has no patch of \(16, 32, 16\)"):
        brick_places((16, 31, 16), PATCH)


def test_table_round_trip() -> None:
    table = encode()
    assert image_shape(table.schema) == (2, *PATCH)
    assert table["index"].to_pylist() == list(range(len(table))) and len(table) == 4
    assert table["spacing"][0].as_py() == [3.0, 1.5, 1.25]
    bricks = decode_bricks(table, labels=True)
    image, label = assemble(bricks)
    np.testing.assert_array_equal(image, VOLUME[0].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(label, LABEL[0])
    assert bricks[0].image.base is not None  # a view of the table
    assert [b.label for b in decode_bricks(table, labels=False)] == [None] * 4


def test_rows_survive_a_file_and_its_chunks(tmp_path: pytest.TempPathFactory) -> None:
    path = f"{tmp_path}/bricks.parquet"
    pq.write_table(encode(), path, row_group_size=1)
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 4
        read = file.read_row_groups([3, 1])
    first, second = decode_bricks(read, labels=True)
    for brick, number in ((first, 3), (second, 1)):
        place = brick_places(VOLUME.shape[2:], PATCH)[number]
        assert brick.place == place
        np.testing.assert_array_equal(brick.label, LABEL[0][place.slices])


def test_missing_bricks_are_told() -> None:
    bricks = decode_bricks(encode(), labels=True)
    with pytest.raises(DataError, match=r"3 bricks leave .* voxels of their volume open"):
        assemble(bricks[1:])
    with pytest.raises(DataError, match="0 bricks"):
        assemble([])


def test_unlabelled_and_damaged_tables_are_refused() -> None:
    with pytest.raises(DataError, match="4 of 4 rows have no label"):
        decode_bricks(encode(label=None), labels=True)
    table = encode()
    short = pa.array([value.as_py()[:-1] for value in table["image"]], pa.binary())
    with pytest.raises(DataError, match="damaged"):
        decode_bricks(table.set_column(3, table.schema.field("image"), short), labels=False)
    with pytest.raises(DataError, match="damaged"):
        decode_images(table)


def test_a_patch_is_the_same_part_of_image_and_label_and_every_place_is_drawn_alike() -> None:
    shape = (18, 33, 16)
    (place,) = brick_places(shape, PATCH)
    position = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    image = np.stack([position % 2048, position // 2048]).astype(np.float16)  # exact in float16
    brick = Brick(place=place, image=image, label=(position % 251).astype(np.uint8))
    rng = np.random.default_rng(0)
    counts = np.zeros((3, 2, 1), int)
    for _ in range(600):
        patch, label = brick.cut(PATCH, rng)
        values = patch[0].astype(np.int64) + 2048 * patch[1].astype(np.int64)
        start = np.unravel_index(values[0, 0, 0], shape)
        window = tuple(slice(s, s + side) for s, side in zip(start, PATCH, strict=True))
        np.testing.assert_array_equal(values, position[window])
        np.testing.assert_array_equal(label, position[window] % 251)
        counts[start] += 1
    assert (abs(counts - 100) < 40).all()
