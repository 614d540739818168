"""Which part of a scan is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess import Geometry, prepare_image
from tests.arco_core.preprocess.volumes import affine_of, random_volume

SPACING = (2.0, 1.0, 4.0)  # along left-right, front-back, up-down


def crop_of(volume: np.ndarray, **settings: Any) -> dict[str, tuple[int, int]]:
    """The kept voxels along the axes of an L-P-I file."""
    config = DataConfig(image_size=(64, 64), percentiles=(0, 100), **settings)
    _, geometry = prepare_image(volume, affine_of("LPI", SPACING), config)
    return dict(zip(("z", "y", "x"), geometry.crop, strict=True))


def ct() -> np.ndarray:
    """Air of -1000 HU, a body of about 40 HU with a lung in it, a table below, and one noisy voxel."""
    volume = np.full((40, 50, 12), -1000, np.float32)
    volume[10:30, 15:35, 2:11] = 40 + random_volume((20, 20, 9)) / 10
    volume[14:20, 20:30, 4:9] = -850
    volume[2:38, 44:46] = 200
    volume[1, 1, 0] = 900
    return volume


def test_body_is_the_largest_bright_region() -> None:
    assert crop_of(ct(), crop="body") == {"x": (10, 30), "y": (15, 35), "z": (2, 11)}


def test_margin_is_in_millimetres_and_stays_within_the_scan() -> None:
    kept = crop_of(ct(), crop="body", crop_margin_mm=6.5)
    assert kept == {"x": (10 - 4, 30 + 4), "y": (15 - 7, 35 + 7), "z": (0, 12)}


def test_nonzero_is_the_box_of_all_voxels_that_are_not_zero() -> None:
    volume = np.zeros((40, 50, 12), np.int16)
    volume[3, 7, 5], volume[30, 9, 5] = 5, -5
    assert crop_of(volume, crop="nonzero") == {"x": (3, 31), "y": (7, 10), "z": (5, 6)}


def test_center_keeps_an_extent_in_millimetres_around_the_middle() -> None:
    kept = crop_of(random_volume((40, 50, 12)), crop="center", crop_extent_mm=(0.0, 20.0, 30.0))
    assert kept == {"x": (12, 27), "y": (15, 35), "z": (0, 12)}
    everything = crop_of(random_volume((40, 50, 12)), crop="center", crop_extent_mm=(1e3, 1e3, 1e3))
    assert everything == {"x": (0, 40), "y": (0, 50), "z": (0, 12)}


def test_channels_share_the_union_of_their_boxes() -> None:
    volume = np.zeros((40, 50, 12, 2), np.float32)
    volume[5:9, 5:9, 1:3, 0], volume[7, 20, 2, 1] = 3, 1
    volume[5, 5, 1] += 1
    assert crop_of(volume, crop="nonzero") == {"x": (5, 9), "y": (5, 21), "z": (1, 3)}


def test_intensities_are_those_of_the_kept_part() -> None:
    volume = np.zeros((40, 50, 12), np.float32)
    volume[8:24, 16:32, 2:10] = random_volume((16, 16, 8))
    config = DataConfig(image_size=(16, 16), crop="nonzero", intensity="zscore")
    slices, geometry = prepare_image(volume, affine_of("LPI", SPACING), config)
    assert slices.shape == (8, 1, 16, 16) and geometry.prepared_shape == (8, 16, 16)
    assert slices.mean() == pytest.approx(0, abs=1e-5) and slices.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("crop", "value"), [("nonzero", 0.0), ("body", 7.0)])
def test_nothing_to_keep_is_an_error(crop: str, value: float) -> None:
    with pytest.raises(DataError, match=f"data.crop = '{crop}' finds nothing"):
        crop_of(np.full((20, 20, 4), value), crop=crop)


def test_voxels_that_are_cropped_away_must_be_numbers_too() -> None:
    volume = ct()
    volume[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="1 of 24000 voxels are NaN"):
        crop_of(volume, crop="center", crop_extent_mm=(0.0, 20.0, 20.0))


def test_a_plan_without_voxels_keeps_everything() -> None:
    geometry = Geometry.plan((20, 24, 10), affine_of("PIR"), DataConfig(image_size=(32, 32), crop="body"))
    assert geometry.cropped_shape == geometry.canonical_shape == (24, 20, 10)
