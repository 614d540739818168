"""NRRD files: voxels in the file, a geometry, and nothing that it cannot hold."""

from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pytest

from arco_core.errors import DataError
from infra.datasets.nrrd import decode_nrrd

from .raw_files import (
    nrrd_bytes,
    scan,
)

IMAGE, _ = scan(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": None}, "does not say how it lies in the patient"),
        ({"space": "scanner-xyz"}, "does not say how it lies in the patient"),
        ({"space_directions": None}, "does not say how it lies in the patient"),
        ({"space_directions": "none (1,0,0) (0,1,0)"}, "must measure"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "maps voxels onto a plane"),
        ({"space_units": '"SECRET" "mm" "mm"'}, "does not measure its space in units that are known"),
        ({"space_units": '"mm" "mm"'}, "does not measure its space in units that are known"),
        ({"sizes": "24 20"}, r"has the shape \[24, 20\]"),
        ({"sizes": "24 20 -5"}, r"has the shape \[24, 20, -5\]"),
        ({"sizes": "24 20 6"}, "not a readable NRRD"),
        ({"sizes": "4000 4000 4000"}, "would take up to 476.8 GiB"),
        ({"sizes": "700 700 700"}, "truncated or damaged"),
        ({"type": "block"}, "not a readable NRRD"),
        ({"type": "SECRET"}, "not a readable NRRD"),
        ({"encoding": "bzip2"}, "neither raw nor gzipped"),
        ({"encoding": "ascii"}, "neither raw nor gzipped"),
        ({"data_file": "/etc/passwd"}, "keeps its voxels in another file"),
        ({"datafile": "LIST"}, "keeps its voxels in another file"),
        ({"byte_skip": "-1"}, "keeps its voxels in another file or place"),
        ({"space_origin": "SECRET"}, "not a readable NRRD"),
    ],
)
def test_nrrd(fields: dict[str, str | None], message: str) -> None:
    with pytest.raises(DataError, match=rf"^x\.nrrd .*{message}") as caught:
        decode_nrrd(nrrd_bytes(IMAGE, **fields), "x.nrrd")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(("unit", "mm"), [(None, 1.0), ("mm", 1.0), ("um", 0.001), ("cm", 10.0)])
def test_space_units(unit: str | None, mm: float) -> None:
    fields = {"space_units": None if unit is None else f'"{unit}" "{unit}" "mm"'}
    origin = {"space_origin": "(10,20,30)", "space_directions": "(50,0,0) (0,5,0) (0,0,1.25)"}
    affine = decode_nrrd(nrrd_bytes(IMAGE, **fields, **origin), "x.nrrd").affine
    np.testing.assert_allclose(np.diag(affine), [-50 * mm, -5 * mm, 1.25, 1])
    np.testing.assert_allclose(affine[:3, 3], [-10 * mm, -20 * mm, 30])


def test_nrrd_bomb_and_truncation() -> None:
    data = nrrd_bytes(IMAGE)
    header = data[: data.index(b"\n\n") + 2]
    bomb = header + gzip.compress(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than its header promises"):
            decode_nrrd(bomb, "x.nrrd")
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(DataError, match="truncated or damaged"):
        decode_nrrd(data[:-20], "x.nrrd")
    np.testing.assert_array_equal(decode_nrrd(nrrd_bytes(IMAGE, "raw"), "x.nrrd").voxels, IMAGE)
