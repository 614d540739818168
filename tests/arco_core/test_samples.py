"""The sample table keeps what it is given, whatever way it is sliced and chunked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from arco_core.errors import DataError
from arco_core.samples import decode_images, decode_labels, encode_case, image_shape, sample_schema

RNG = np.random.default_rng(0)
SLICES = RNG.random((7, 2, 16, 32)).astype(np.float32)
LABEL = RNG.integers(0, 4, (7, 16, 32)).astype(np.uint8)


def encode(slices: np.ndarray = SLICES, label: np.ndarray | None = LABEL) -> pa.Table:
    return encode_case(
        case_id="a",
        patient_id="p",
        images=slices,
        label=label,
        image_size=(16, 32),
        spacing_mm=(1.5, 1.25),
        source_sha256="0" * 64,
    )


def test_round_trip() -> None:
    table = encode()
    assert table.schema.equals(sample_schema((2, 16, 32)), check_metadata=True)
    assert image_shape(table.schema) == (2, 16, 32)
    np.testing.assert_array_equal(decode_images(table), SLICES.astype(np.float16))
    np.testing.assert_array_equal(decode_labels(table), LABEL)
    assert table["index"].to_pylist() == list(range(7))
    assert table["spacing"][3].as_py() == [1.5, 1.25]


def test_slices_and_chunks_of_a_table_decode_alike() -> None:
    table = encode()
    np.testing.assert_array_equal(decode_images(table.slice(2, 3)), SLICES[2:5].astype(np.float16))
    np.testing.assert_array_equal(decode_labels(table.slice(5)), LABEL[5:])
    joined = pa.concat_tables([table.slice(4), table.slice(0, 2), table.slice(3, 0)])
    np.testing.assert_array_equal(decode_labels(joined), LABEL[[4, 5, 6, 0, 1]])
    assert decode_images(table.slice(0, 0)).shape == (0, 2, 16, 32)


def test_decoding_copies_nothing() -> None:
    table = encode()
    images = decode_images(table)
    data = table["image"].chunk(0).buffers()[2]
    assert images.__array_interface__["data"][0] == data.address


def test_unlabelled_case() -> None:
    table = encode(label=None)
    assert table["label"].null_count == 7
    with pytest.raises(DataError, match="7 of 7 rows have no label"):
        decode_labels(table)


@pytest.mark.parametrize(
    ("slices", "label", "message"),
    [(SLICES, LABEL[:6], "do not match"), (SLICES * 1e5, LABEL, "exceeds float16")],
)
def test_bad_case_is_refused(slices: np.ndarray, label: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(slices, label)


def test_foreign_or_damaged_table_is_refused() -> None:
    table = encode()
    with pytest.raises(DataError, match="not a table of float16 samples"):
        decode_images(table.replace_schema_metadata(None))
    short = pa.array([value.as_py()[:-1] for value in table["image"]], pa.binary())
    with pytest.raises(DataError, match="damaged"):
        decode_images(table.set_column(3, table.schema.field("image"), short))
