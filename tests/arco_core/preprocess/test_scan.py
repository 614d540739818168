"""Slices and back: every voxel of a label map must return to its place."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess import Geometry, prepare_image, prepare_label, restore_label
from tests.arco_core.preprocess.volumes import affine_of, random_label, random_volume

SHAPE = (20, 24, 10)


def test_image_and_label_stay_aligned() -> None:
    label = random_label(SHAPE)
    config = DataConfig(image_size=(32, 32), percentiles=(0.0, 100.0))
    slices, geometry = prepare_image(label.astype(np.float32), affine_of("PIR"), config)
    np.testing.assert_allclose(slices[:, 0] * 2, prepare_label(label, geometry))


def test_slices_do_not_depend_on_how_the_file_stores_the_volume() -> None:
    image = nib.Nifti1Image(random_volume(SHAPE), affine_of("RAS"))
    config = DataConfig(image_size=(32, 32))
    expected, _ = prepare_image(np.asarray(image.dataobj), image.affine, config)
    for codes in ("LPS", "SAR"):
        turn = orientations.ornt_transform(
            orientations.io_orientation(image.affine), orientations.axcodes2ornt(tuple(codes))
        )
        turned = image.as_reoriented(turn)
        slices, _ = prepare_image(np.asarray(turned.dataobj), turned.affine, config)
        np.testing.assert_array_equal(slices, expected)


def test_axial_slices_show_the_front_on_top_and_the_right_side_left() -> None:
    volume = np.zeros((16, 16, 4), np.float32)
    volume[15, 15, 0] = 1  # RAS: the patient's right-most, front-most voxel of the lowest slice
    config = DataConfig(image_size=(16, 16), percentiles=(0, 100))
    slices, _ = prepare_image(volume, affine_of("RAS"), config)
    assert np.argwhere(slices[:, 0] == 1).tolist() == [[3, 0, 0]]


def test_cropped_away_voxels_become_background_and_the_rest_is_exact() -> None:
    config = DataConfig(image_size=(16, 16))
    label = random_label((21, 24, 10)) + 1
    geometry = Geometry.plan(label.shape, affine_of("LPS"), config)
    restored = restore_label(prepare_label(label, geometry), geometry)
    inside = np.zeros(label.shape, bool)
    inside[2:18, 4:20] = True
    np.testing.assert_array_equal(restored[inside], label[inside])
    assert not restored[~inside].any()


@pytest.mark.parametrize(("fit", "spacing"), [("resize", ()), ("pad", (0.7, 0.7))])
def test_resampling_up_and_back_is_exact_by_nearest_neighbour(fit: str, spacing: tuple[float, ...]) -> None:
    config = DataConfig(image_size=(64, 64), fit=fit, spacing_mm=spacing)
    label = random_label(SHAPE)
    geometry = Geometry.plan(SHAPE, affine_of("LPS"), config)
    np.testing.assert_array_equal(restore_label(prepare_label(label, geometry), geometry), label)


def test_geometry_reports_spacings_and_survives_json() -> None:
    config = DataConfig(image_size=(64, 64), spacing_mm=(0.75, 0.75))
    geometry = Geometry.plan(SHAPE, affine_of("LPS"), config)
    assert geometry.voxel_spacing_mm == pytest.approx((1.5, 1.2, 8.0))
    assert geometry.resampled == (10, 38, 40)
    assert geometry.spacing_mm == pytest.approx((8.0, 1.2 * 24 / 38, 0.75))
    assert Geometry.from_json(geometry.to_json()) == geometry


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_size": (32, 32)}, list(range(10))),
        ({"image_size": (16, 32, 32)}, [0, 0, 0, *range(10), 9, 9, 9]),
        ({"image_size": (32, 32), "crop": "center", "crop_extent_mm": (48.0, 0, 0)}, [2, 3, 4, 5, 6, 7]),
        ({"image_size": (16, 16, 16), "spacing_mm": (4.0, 1.2, 1.5)}, [i // 2 for i in range(20)]),
    ],
    ids=["slices", "padded", "cropped", "resampled"],
)
def test_a_prepared_slice_is_found_in_the_scan(settings: dict[str, Any], expected: list[int]) -> None:
    _, geometry = prepare_image(random_volume(SHAPE), affine_of("LPI"), DataConfig(**settings))
    assert [geometry.original_depth(index) for index in range(geometry.size[0])] == expected


def test_minmax_maps_the_percentiles_and_pads_with_the_darkest_value() -> None:
    slices, _ = prepare_image(random_volume(SHAPE), affine_of("LPS"), DataConfig(image_size=(32, 32)))
    assert slices.dtype == np.float32 and slices.shape == (10, 1, 32, 32)
    assert slices.min() == 0 and slices.max() == 1
    assert (slices[:, :, :4] == 0).all()


def test_zscore_and_window() -> None:
    volume = random_volume(SHAPE)
    config = DataConfig(image_size=(16, 16), intensity="zscore")
    slices, _ = prepare_image(volume[:16, :16], affine_of("LPS"), config)
    assert slices.mean() == pytest.approx(0, abs=1e-5) and slices.std() == pytest.approx(1, abs=1e-5)
    config = DataConfig(image_size=(32, 32), intensity="window", window_hu=(0.0, 200.0))
    slices, _ = prepare_image(np.full(SHAPE, 50.0), affine_of("LPS"), config)
    assert (slices == 0.25).all()


@pytest.mark.parametrize("intensity", ["zscore", "minmax"])
@pytest.mark.parametrize("outlier", [3e38, 1e20, 1e9, -3e38, "both"])
def test_one_voxel_that_takes_the_whole_range_is_refused(intensity: str, outlier: Any) -> None:
    """The square of the largest overflows single precision, and all voxels would become the same."""
    volume = random_volume(SHAPE)
    volume[3, 3, 3] = 3e38 if outlier == "both" else outlier
    volume[4, 4, 4] = -3e38 if outlier == "both" else 100
    config = DataConfig(image_size=(32, 32), intensity=intensity, percentiles=(0.0, 100.0))
    with pytest.raises(DataError, match=r"the voxels reach from .* leave no contrast to the others: repair"):
        prepare_image(volume, affine_of("LPS"), config)


def test_a_few_bright_voxels_are_left_out_by_percentiles_and_windows() -> None:
    volume = random_volume(SHAPE)
    volume[3, 3, 3], volume[3, 3, 4] = 3e38, -3e38
    several: tuple[dict[str, Any], ...] = (
        {"percentiles": (0.5, 99.5)},
        {"intensity": "window", "window_hu": (0.0, 200.0)},
    )
    for settings in several:
        slices, _ = prepare_image(volume, affine_of("LPS"), DataConfig(image_size=(32, 32), **settings))
        assert np.isfinite(slices).all() and slices.std() > 0.1


def test_channels_are_scaled_each_for_itself() -> None:
    volume = random_volume((*SHAPE, 2))
    volume[..., 1] *= 1000
    slices, _ = prepare_image(volume, affine_of("LPS"), DataConfig(image_size=(32, 32)))
    assert slices.shape == (10, 2, 32, 32)
    assert slices[:, 0].max() == slices[:, 1].max() == 1


def _bad_affine(kind: str) -> np.ndarray:
    affine = affine_of("LPS")
    if kind == "flat":
        affine[:3, 2] = 0
    elif kind == "nan":
        affine[0, 0] = np.nan
    return affine if kind != "shape" else affine[:3]


@pytest.mark.parametrize("kind", ["flat", "nan", "shape"])
def test_unusable_affine_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match="affine"):
        Geometry.plan(SHAPE, _bad_affine(kind), DataConfig())


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.zeros((4, 4)), "shape"),
        (np.zeros((4, 4, 4, 1, 3)), "shape"),
        (np.zeros((4, 0, 4)), "none of them empty"),
        (np.full((4, 4, 4), 7.0), "no contrast"),
        (np.where(np.arange(64).reshape(4, 4, 4) == 3, np.inf, 1.0), "1 of 64 voxels are NaN or infinite"),
    ],
)
def test_unusable_volume_is_refused(volume: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_image(volume, np.eye(4), DataConfig(image_size=(16, 16)))


@pytest.mark.parametrize(
    ("shape", "mm", "settings", "message"),
    [
        ((64, 64, 20), 900, {"spacing_mm": (1.0, 1.0)},
         r"\(20, 64, 64\) voxels of 8 x 900 x 900 mm .* would take \(20, 57600, 57600\) voxels at data\.spa"),
        ((64, 64, 20), 900, {"spacing_mm": (8.0, 1.0, 1.0), "image_size": (16, 16, 16)}, "57600"),
        ((1, 1, 10**6), 1, {"fit": "resize"}, r"\(1000000, 256, 256\) voxels, more than 1073741824: "),
        ((1, 1, 10**6), 1, {}, r"\(1000000, 256, 256\)"),
        ((1, 1, 10**6), 1, {"image_size": (80, 112, 112)}, r"\(1000000, 112, 112\)"),
    ],
)  # fmt: skip
def test_a_grid_that_no_memory_holds_is_refused_before_it_is_taken(
    shape: tuple[int, int, int], mm: float, settings: dict[str, Any], message: str
) -> None:
    volume = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            prepare_image(volume, np.diag([-mm, -mm, 8, 1]), DataConfig(**settings))
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_a_scan_may_be_as_large_as_its_own_grid() -> None:
    shape = (2048, 2048, 512)
    geometry = Geometry.plan(shape, affine_of("LPI"), DataConfig(image_size=(16, 16, 16)))
    assert sorted(geometry.size) == sorted(shape)


def test_wrong_shapes_are_refused() -> None:
    geometry = Geometry.plan(SHAPE, affine_of("LPS"), DataConfig(image_size=(32, 32)))
    with pytest.raises(DataError, match="same grid"):
        prepare_label(random_label((20, 24, 9)), geometry)
    with pytest.raises(DataError, match="does not belong"):
        restore_label(random_label((10, 32, 16)), geometry)


def test_every_pair_of_sizes_fits_there_and_back() -> None:
    for old, new in itertools.product(range(1, 35), (16, 32)):
        label = random_label((old, 5, 3))
        geometry = Geometry.plan(label.shape, affine_of("LPI"), DataConfig(image_size=(16, new)))
        restored = restore_label(prepare_label(label, geometry), geometry)
        kept = restored == label
        assert kept.all() if old <= new else kept[(old - new) // 2 :][:new].all()
