"""What each preset makes of a scan of its kind."""

from __future__ import annotations

import numpy as np
import pytest

from arco_core.config import load, preset_names
from arco_core.preprocess import prepare_image, prepare_label, restore_label
from tests.arco_core.preprocess.volumes import affine_of, random_label

SCANS = {
    "acdc": ((216, 256, 10), (1.56, 1.56, 10.0)),
    "demo": ((60, 48, 8), (1.5, 1.5, 8.0)),
    "generic": ((300, 240, 6), (1.0, 1.0, 3.0)),
    "hippocampus": ((35, 50, 35), (1.0, 1.0, 1.0)),
    "la": ((130, 120, 88), (0.625, 0.625, 0.625)),
    "lits": ((512, 512, 5), (0.7, 0.7, 5.0)),
    "mmwhs": ((320, 300, 8), (0.8, 0.8, 1.6)),
    "paper": ((256, 216, 6), (1.4, 1.4, 8.0)),
    "released": ((232, 256, 6), (1.4, 1.4, 8.0)),
}
"""Shape and spacing as the data have them, with fewer slices."""
OTHER = ((200, 180, 6), (1.0, 1.2, 5.0))


def scan(shape: tuple[int, int, int]) -> np.ndarray:
    """Intensities from -1000 to 1500, as a CT has."""
    return np.random.default_rng(0).uniform(-1000, 1500, shape).astype(np.float32)


@pytest.mark.parametrize("preset", preset_names())
def test_images_are_what_the_preset_says_and_labels_return(preset: str) -> None:
    shape, spacing = SCANS.get(preset, OTHER)
    config = load(preset=preset).data
    images, geometry = prepare_image(scan(shape), affine_of("LPS", spacing), config)
    if len(config.image_size) == 2:
        assert images.shape == (shape[2], 1, *config.image_size)
    else:
        assert images.shape[:2] == (1, 1) and np.all(np.array(images.shape[2:]) >= config.image_size)
    if config.intensity == "zscore":
        assert abs(images.mean()) < 0.1 and images.std() == pytest.approx(1, abs=0.1)
    else:
        assert images.min() >= 0 and images.max() == pytest.approx(1, abs=0.05)
    label = random_label(shape)
    restored = restore_label(prepare_label(label, geometry), geometry)
    assert restored.shape == shape
    if geometry.resampled == geometry.canonical_shape:
        kept = tuple(
            slice((side - kept) // 2, (side - kept) // 2 + kept)
            for side, kept in zip(shape, np.minimum(shape, geometry.size[::-1]), strict=True)
        )
        np.testing.assert_array_equal(restored[kept], label[kept])
    elif min(geometry.resampled[1:]) >= max(shape[:2]):
        np.testing.assert_array_equal(restored, label)  # finer voxels lose nothing
    else:
        assert 0 < (restored != label).mean() < 1


def test_lits_shows_soft_tissue() -> None:
    """-200 HU and below is 0, 250 HU and above is 1, and 25 HU in between is one half."""
    config = load(preset="lits", overrides=["data.fit=pad", "data.image_size=[16,16]"]).data
    volume = np.full((16, 16, 4), 25.0)
    for z, hounsfield in enumerate((-1000.0, -200.0, 250.0, 3000.0)):
        volume[0, 0, z] = hounsfield
    images, _ = prepare_image(volume, affine_of("LPI"), config)
    np.testing.assert_allclose(images[:, 0, 0, 0], [0, 0, 1, 1])
    np.testing.assert_allclose(images[:, 0, 1:], 0.5, rtol=1e-5)
