"""Where MONAI's transforms do the same, they give the same: docs/preprocessing.md says where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    NormalizeIntensity,
    Orientationd,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Spacing,
)

from arco_core.config import DataConfig
from arco_core.preprocess import Geometry
from arco_core.preprocess.grid import resample_linear
from arco_core.preprocess.intensity import scale_intensity
from tests.arco_core.preprocess.volumes import ORIENTATIONS, affine_of, random_volume, rotation

SHAPE = (9, 12, 7)
CONFIG = DataConfig(image_size=(32, 32))


def with_affine(volume: np.ndarray, affine: np.ndarray) -> MetaTensor:
    """MONAI's form of a volume (X, Y, Z): one channel, and an affine."""
    return MetaTensor(torch.from_numpy(volume[None].copy()), affine=torch.from_numpy(affine.copy()))


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (20.0, -10.0, 30.0)], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_orientation(codes: str, turn: tuple[float, float, float]) -> None:
    """Ours are the axes of L-P-I from slow to fast: slices, rows, columns."""
    volume, affine = random_volume(SHAPE), rotation(turn) @ affine_of(codes)
    turned = Orientationd("image", axcodes="LPI", labels=None)({"image": with_affine(volume, affine)})[
        "image"
    ]
    ours = Geometry.native(SHAPE, affine, CONFIG).to_canonical(volume)
    np.testing.assert_array_equal(ours, turned[0].numpy().transpose(2, 1, 0))


@pytest.mark.parametrize("spacing", [(0.75, 0.6, 8.0), (0.5, 0.4, 2.0), (1.5, 1.2, 4.0)])
def test_spacing_of_finer_grids(spacing: tuple[float, float, float]) -> None:
    """Over the same extent, as `scale_extent` has it; on coarser grids MONAI aliases by default."""
    volume, own = random_volume(SHAPE), (1.5, 1.2, 8.0)
    resample = Spacing(
        spacing, mode="bilinear", padding_mode="border", scale_extent=True, dtype=torch.float64
    )
    expected = resample(with_affine(volume, np.diag([*own, 1.0])))[0].numpy()
    size = tuple(round(side * old / new) for side, old, new in zip(SHAPE, own, spacing, strict=True))
    np.testing.assert_allclose(resample_linear(volume, size), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "transform"),
    [
        ({"intensity": "window", "window_hu": (80.0, 125.0)}, ScaleIntensityRange(80, 125, 0, 1, clip=True)),
        ({"intensity": "zscore"}, NormalizeIntensity()),
        ({"percentiles": (0.5, 99.5)}, ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True)),
        ({"percentiles": (0.0, 100.0)}, ScaleIntensityRangePercentiles(0, 100, 0, 1, clip=True)),
    ],
    ids=["window", "zscore", "percentiles", "minmax"],
)
def test_intensity(settings: dict[str, Any], transform: Any) -> None:
    volume = random_volume(SHAPE)
    expected = transform(torch.from_numpy(volume[None].copy()))[0].numpy()
    ours = scale_intensity(volume, DataConfig(image_size=(32, 32), **settings))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
