"""Values that are no class numbers become some, in little memory."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from arco_core.errors import DataError
from infra.datasets.relabel import Relabeled
from infra.datasets.volume import Volume
from infra.storage import Store

CLASSES = {500: 1, 600: 2, 205: 5}
RAW = Store("/nowhere")


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A volume as a `VolumeSource`."""

    voxels: np.ndarray
    paths: tuple[str, ...] = ("x",)

    def load(self, raw: Store) -> Volume:
        return Volume(path="x", voxels=self.voxels, affine=np.eye(4), sha256="")

    def digest(self, raw: Store) -> str:
        return ""


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint64, np.float32])
def test_values_become_classes(dtype: type) -> None:
    voxels = np.array([[[0, 500, 600], [205, 205, 0]]], dtype)
    relabeled = Relabeled(InMemory(voxels), CLASSES).load(RAW).voxels
    np.testing.assert_array_equal(relabeled, [[[0, 1, 2], [5, 5, 0]]])
    assert relabeled.dtype == np.uint8


@pytest.mark.parametrize(("wrong", "dtype"), [(7, np.int16), (-1, np.int16), (7, np.uint8), (0.5, np.float32),
                                              (np.nan, np.float32), (np.inf, np.float64)])  # fmt: skip
def test_other_values_are_refused(wrong: float, dtype: type) -> None:
    voxels = np.zeros((2, 3, 4), dtype)
    voxels[1, 1, 1:3] = wrong
    with pytest.raises(DataError, match=rf"^x has 2 voxels of no class, one with the value {wrong:g}; its "):
        Relabeled(InMemory(voxels), CLASSES).load(RAW)


def test_memory() -> None:
    voxels = np.random.default_rng(0).choice(np.array([0, *CLASSES], np.int16), (64, 64, 32))
    tracemalloc.start()
    Relabeled(InMemory(voxels), CLASSES).load(RAW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4.1 * voxels.size
