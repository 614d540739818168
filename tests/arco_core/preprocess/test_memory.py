"""Preparing a scan takes a stated number of bytes a voxel, whatever the scan."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from arco_core.config import DataConfig
from arco_core.preprocess import prepare_image, prepare_label, restore_label


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"image_size": (64, 64), "intensity": "window"}, 12),
        ({"image_size": (64, 64)}, 12),
        ({"image_size": (16, 16, 16), "intensity": "zscore"}, 12),
        ({"image_size": (16, 16, 16), "crop": "body"}, 14),
    ],
    ids=["window", "minmax", "zscore", "body"],
)
def test_peak_while_a_scan_is_prepared(settings: dict[str, Any], allowed: int) -> None:
    """Output included, the scan itself not. Resampling is torch's, which is not traced."""
    volume = np.random.default_rng(0).integers(-1000, 1000, (64, 64, 96)).astype(np.int16)
    config = DataConfig(**settings)
    tracemalloc.start()
    _, geometry = prepare_image(volume, np.diag([-1, 1, 1, 1]), config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / volume.size < allowed + 0.2
    tracemalloc.start()
    label = (volume > 0).astype(np.uint8)
    restore_label(prepare_label(label, geometry), geometry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / volume.size < 5
