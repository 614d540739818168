"""Resampling against an independent implementation, and what it must not do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from arco_core.preprocess.grid import resample_linear, resample_nearest
from tests.arco_core.preprocess.volumes import random_label, random_volume

Shape = tuple[int, int, int]


def centers(shape: Shape, size: Shape) -> np.ndarray:
    """Voxel coordinates in `shape` of the voxel centres of `size`, both over one extent."""
    axes = [(np.arange(n) + 0.5) * s / n - 0.5 for s, n in zip(shape, size, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("size", [(7, 9, 11), (12, 20, 11), (7, 20, 31), (15, 9, 11), (1, 1, 1)])
def test_finer_grids_interpolate_linearly(size: Shape) -> None:
    volume = random_volume((7, 9, 11))
    larger = tuple(max(new, old) for new, old in zip(size, volume.shape, strict=True))
    expected = ndimage.map_coordinates(volume, centers(volume.shape, larger), order=1, mode="nearest")
    np.testing.assert_allclose(resample_linear(volume, larger), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(7, 9, 11), (3, 9, 11), (5, 4, 30), (14, 18, 22), (1, 1, 1)])
def test_nearest_takes_the_nearest_centre(size: Shape) -> None:
    label = random_label((7, 9, 11))
    # Half an ulp of a voxel to the right decides ties as documented.
    expected = ndimage.map_coordinates(label, centers(label.shape, size) + 1e-9, order=0, mode="nearest")
    np.testing.assert_array_equal(resample_nearest(label, size), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_coarser_grids_do_not_alias(axis: int) -> None:
    """Stripes finer than the new voxels average out; picking single voxels would keep some of them."""
    stripes = np.indices((40, 40, 40))[axis] % 2 * np.float32(100)
    size = tuple(9 if a == axis else 40 for a in range(3))
    assert resample_linear(stripes, size).std() < 5


def test_a_linear_ramp_stays_one_in_every_direction() -> None:
    """The resampled grid covers the extent of the old one, centre for centre, also where it is coarser."""
    shape, size = (30, 24, 20), (12, 36, 20)
    coordinates = centers(shape, size)
    ramp = np.indices(shape).astype(np.float32)
    for axis in range(3):
        resampled = resample_linear(ramp[axis], size)
        inner = (slice(2, -2),) * 3  # the filter reaches over the borders
        np.testing.assert_allclose(resampled[inner], coordinates[axis][inner], atol=0.05)


def test_the_same_grid_changes_nothing() -> None:
    volume = random_volume((5, 6, 7))
    np.testing.assert_array_equal(resample_linear(volume, (5, 6, 7)), volume)
    for axis in range(3):  # and an axis that keeps its size is left alone
        size = tuple(9 if a == axis else side for a, side in enumerate(volume.shape))
        constant = np.broadcast_to(volume.take([0], axis), volume.shape)
        expected = np.repeat(volume.take([0], axis), 9, axis)
        np.testing.assert_allclose(resample_linear(constant, size), expected, rtol=1e-6)
