"""A label map there and back: every voxel where nothing is resampled, the nearest-neighbour limit elsewhere.

The limit is computed here on its own, from the distances between all voxel centres along an axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arco_core.config import DataConfig
from arco_core.preprocess import Geometry, prepare_image, prepare_label, restore_label
from tests.arco_core.preprocess.volumes import ORIENTATIONS, affine_of, random_label, random_volume, rotation

SPACINGS = st.sampled_from((0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.1, 8.0))


def there_and_back(label: np.ndarray, affine: np.ndarray, config: DataConfig) -> np.ndarray:
    geometry = Geometry.from_json(Geometry.plan(label.shape, affine, config).to_json())
    return restore_label(prepare_label(label, geometry), geometry)


def nearest(asking: int, answering: int) -> np.ndarray:
    """For each of `asking` voxels over an extent, the nearest of `answering` centres; of two, the later."""
    own = (2 * np.arange(asking) + 1) * answering  # centres, in units of extent / (2 * asking * answering)
    others = (2 * np.arange(answering) + 1) * asking
    distance = np.abs(own[:, None] - others)
    return answering - 1 - distance[:, ::-1].argmin(1)


def limit(label: np.ndarray, affine: np.ndarray, resampled: list[int]) -> np.ndarray:
    """What a nearest-neighbour round trip over `resampled` voxels along the file's axes can keep.

    Of two centres at one distance the later in the canonical direction counts: left, posterior, inferior.
    """
    for axis, (side, new) in enumerate(zip(label.shape, resampled, strict=True)):
        column = affine[:3, axis]
        canonical = np.flip(label, axis) if column[np.abs(column).argmax()] > 0 else label
        looked_up = np.take(canonical, nearest(new, side)[nearest(side, new)], axis)
        label = np.flip(looked_up, axis) if canonical is not label else looked_up
    return label


@st.composite
def scans(draw: st.DrawFn, largest: int = 20) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """A label map, its affine (any orientation, anisotropic, often oblique) and its spacing."""
    shape = draw(st.tuples(*[st.integers(1, largest)] * 3))
    spacing = draw(st.tuples(*[SPACINGS] * 3))
    angles = draw(st.sampled_from(((0, 0, 0), (12, -7, 20), (-30, 5, 3))))
    affine = rotation(angles) @ affine_of(draw(st.sampled_from(ORIENTATIONS)), spacing)
    return random_label(shape, draw(st.integers(0, 9))), affine, spacing


@pytest.mark.parametrize("sizes", [(32, 32), (16, 32, 16)], ids=["slices", "volume"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_returns_exactly(codes: str, sizes: tuple[int, ...]) -> None:
    label = random_label((9, 14, 5))
    for slice_axis in range(3):
        config = DataConfig(image_size=sizes, slice_axis=slice_axis)
        np.testing.assert_array_equal(there_and_back(label, affine_of(codes), config), label)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_of_one_scan_is_prepared_alike(codes: str) -> None:
    """The same patient, stored 48 ways: each voxel is put where its position in millimetres says."""
    volume, affine = random_volume((6, 7, 8)), affine_of("LPI", (2.0, 1.0, 1.5))
    turned_affine = affine_of(codes, (1.0, 1.0, 1.0))
    axes = np.abs(turned_affine[:3, :3]).argmax(0)
    shape = tuple(volume.shape[axis] for axis in axes)
    signs = [-1 if code in "LPI" else 1 for code in codes]
    steps = np.array((2.0, 1.0, 1.5))[axes] * signs
    turned_affine[:3, :3] = np.eye(3)[:, axes] * steps
    corner = [
        affine[a, 3] + (0 if s < 0 else affine[a, a] * (volume.shape[a] - 1))
        for a, s in zip(axes, signs, strict=True)
    ]
    turned_affine[axes, 3] = corner
    turned = np.empty(shape, np.float32)
    for voxel in np.ndindex(shape):
        source = np.linalg.solve(affine, turned_affine @ [*voxel, 1])[:3]
        turned[voxel] = volume[tuple(source.round().astype(int))]
    for sizes in ((16, 16), (16, 16, 16)):
        config = DataConfig(image_size=sizes, intensity="zscore")
        expected, _ = prepare_image(volume, affine, config)
        np.testing.assert_array_equal(prepare_image(turned, turned_affine, config)[0], expected)


@settings(max_examples=60, deadline=None)
@given(scan=scans(), axis=st.integers(0, 2), sizes=st.sampled_from(((32, 32), (48, 32), (32, 16, 48))))
def test_without_resampling_every_voxel_returns(
    scan: tuple[np.ndarray, np.ndarray, tuple[float, ...]], axis: int, sizes: tuple[int, ...]
) -> None:
    label, affine, _ = scan
    config = DataConfig(image_size=sizes, slice_axis=axis)
    np.testing.assert_array_equal(there_and_back(label, affine, config), label)


@settings(max_examples=80, deadline=None)
@given(
    scan=scans(),
    axis=st.integers(0, 2),
    wanted=st.tuples(SPACINGS, SPACINGS, SPACINGS),
    volumetric=st.booleans(),
)
def test_resampling_reaches_the_nearest_neighbour_limit(
    scan: tuple[np.ndarray, np.ndarray, tuple[float, ...]],
    axis: int,
    wanted: tuple[float, float, float],
    volumetric: bool,
) -> None:
    label, affine, spacing = scan
    sizes: tuple[int, ...] = (16, 16, 16) if volumetric else (800, 800)  # larger than any resampled slice
    config = DataConfig(image_size=sizes, slice_axis=axis, spacing_mm=wanted[-len(sizes) :])
    depth, (column, row) = axis, [a for a in range(3) if a != axis]
    of_world = dict(zip((depth, row, column), (wanted if volumetric else (None, *wanted[1:])), strict=True))
    resampled = []
    for file_axis, (side, old) in enumerate(zip(label.shape, spacing, strict=True)):
        world = int(np.abs(affine[:3, file_axis]).argmax())
        new = of_world[world]
        resampled.append(side if new is None else max(1, round(side * old / new)))
    np.testing.assert_array_equal(there_and_back(label, affine, config), limit(label, affine, resampled))


@settings(max_examples=40, deadline=None)
@given(scan=scans(), sizes=st.sampled_from(((16, 16), (32, 16), (48, 48))))
def test_resized_slices_reach_the_nearest_neighbour_limit(
    scan: tuple[np.ndarray, np.ndarray, tuple[float, ...]], sizes: tuple[int, int]
) -> None:
    label, affine, _ = scan
    config = DataConfig(image_size=sizes, fit="resize")
    side_of_world = {0: sizes[1], 1: sizes[0], 2: None}
    worlds = [int(np.abs(affine[:3, a]).argmax()) for a in range(3)]
    resampled = [side_of_world[w] or side for w, side in zip(worlds, label.shape, strict=True)]
    np.testing.assert_array_equal(there_and_back(label, affine, config), limit(label, affine, resampled))


@settings(max_examples=40, deadline=None)
@given(scan=scans(largest=40), crop=st.sampled_from(("center", "nonzero", "body")), volumetric=st.booleans())
def test_a_crop_keeps_its_box_and_the_rest_is_background(
    scan: tuple[np.ndarray, np.ndarray, tuple[float, ...]], crop: str, volumetric: bool
) -> None:
    label, affine, _ = scan
    label = label + 1
    more: dict[str, Any] = (
        {"crop_extent_mm": (9.0, 0.0, 14.0)} if crop == "center" else {"crop_margin_mm": 2.0}
    )
    sizes = (48, 48, 48) if volumetric else (48, 48)
    config = DataConfig(image_size=sizes, crop=crop, intensity="window", **more)
    image = np.zeros(label.shape, np.float32)
    image[tuple(slice(side // 3, side // 3 + max(1, side // 2)) for side in label.shape)] = 7
    assume(np.ptp(image) > 0)  # an empty image is refused, see test_crop
    _, geometry = prepare_image(image, affine, config)
    restored = restore_label(prepare_label(label, geometry), geometry)
    kept = restored > 0
    np.testing.assert_array_equal(restored[kept], label[kept])
    assert kept.sum() == np.prod(geometry.cropped_shape)
    if crop != "center":
        assert kept[image == 7].all()
