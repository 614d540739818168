"""The slice of a case that a run keeps."""

from __future__ import annotations

import numpy as np
import pytest

from arco_core.errors import DataError
from components.evaluate.slices import SliceWriter, cut_slice, read_slice
from infra.datasets import DatasetVersion
from tests.components.evaluate.runs import make_slice


def test_written_and_read_back_by_case() -> None:
    writer = SliceWriter()
    for case in ("p", "q"):
        writer.add(make_slice(case, [("arco-sg", 0), ("supervised", 1)]))
    data = writer.finish()
    expected, cut = make_slice("q", [("arco-sg", 0), ("supervised", 1)]), read_slice(data, "q", "run")
    assert (cut.case_id, cut.slice_number, cut.slices, cut.pixel_mm) == ("q", 3, 9, (1.0, 2.0))
    assert np.array_equal(cut.image, expected.image) and np.array_equal(cut.reference, expected.reference)
    assert set(cut.predictions) == {("arco-sg", 0), ("supervised", 1)}
    assert np.array_equal(cut.predictions["supervised", 1], expected.predictions["supervised", 1])


def test_an_unknown_case_and_another_file() -> None:
    writer = SliceWriter()
    writer.add(make_slice("p", []))
    with pytest.raises(DataError, match="run has no slice of x: evaluate the run again"):
        read_slice(writer.finish(), "x", "run")
    with pytest.raises(DataError, match="run holds no slices"):
        read_slice(b"nothing", "x", "run")


@pytest.mark.parametrize("volumetric", [False, True])
def test_the_slice_where_the_reference_is_largest(volumetric: bool, tiny_dataset: str) -> None:
    """Slices (S, C, H, W) and a volume (1, C, D, H, W) give the same."""
    case = DatasetVersion.open(tiny_dataset).cases[0]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 1, 8, 8)).astype(np.float32)
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1, 2:4, 2:4], labels[2, 2:6, 2:6] = 1, 2
    prediction = rng.integers(0, 3, (4, 8, 8), np.uint8)
    if volumetric:
        arguments = images.swapaxes(0, 1)[None], labels[None], {("arco-sg", 0): prediction[None]}
    else:
        arguments = images, labels, {("arco-sg", 0): prediction}
    cut = cut_slice(case, *arguments)
    assert (cut.slice_number, cut.slices) == (3, 4)
    assert np.array_equal(cut.reference, labels[2])
    assert np.array_equal(cut.predictions["arco-sg", 0], prediction[2])
    assert cut.image.min() >= 0 and np.corrcoef(cut.image.ravel(), images[2, 0].ravel())[0, 1] > 0.99
    assert cut.pixel_mm == (1.5, 1.5)
