"""Augmentation against independent implementations: scipy's interpolation, splines, filters; plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from arco_core.augment import RandomWarp, identity_grid, invert, jitter, mix, random_affine, warp
from arco_core.augment.intensity import blur
from arco_core.config import AugmentConfig, load
from arco_core.stages import build_stage

SIZES = pytest.mark.parametrize("size", [(24, 36), (10, 16, 20)], ids=["2d", "3d"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 9) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def smooth(batch: int, size: tuple[int, ...], pixels: float = 3.0) -> Tensor:
    """Images of spread 1 without detail finer than some pixels."""
    noise = np.random.default_rng(0).normal(size=(batch, 1, *size))
    blurred = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, *[pixels] * len(size))))
    return blurred / blurred.std()


def places(grid: Tensor) -> np.ndarray:
    """The pixel coordinates (B, axes, *S) that a grid reads from, in the order of the axes."""
    size = np.array(grid.shape[1:-1])
    pixels = (grid.double().numpy()[..., ::-1] + 1) / 2 * (size - 1)
    return np.moveaxis(pixels, -1, 1)


@SIZES
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("border", [False, True])
def test_warp_reads_where_scipy_reads(size: tuple[int, ...], nearest: bool, border: bool) -> None:
    x = images(4, 2, *size)
    grid = random_affine(4, size, AugmentConfig(rotation_degrees=60.0), seeded())
    read = warp(x, grid, nearest=nearest, border=border).numpy()
    mode = "nearest" if border else "grid-constant"
    for image, where, out in zip(x.numpy(), places(grid), read, strict=True):
        for channel, got in zip(image, out, strict=True):
            expected = ndimage.map_coordinates(channel, where, order=0 if nearest else 1, mode=mode)
            np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (6, 40, 60)], ids=["2d", "3d"])
def test_rotation_crop_and_flip_are_scipys(size: tuple[int, ...]) -> None:
    """The grid is one affine map of pixels: a similarity within the plane, a scaling and shift through it."""
    grids = random_affine(9, size, AugmentConfig(rotation_degrees=30.0, crop_min=0.6), seeded(1))
    x = smooth(9, size)
    read = warp(x, grids, border=True).numpy()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1).reshape(-1, len(size))
    seen = set()
    for image, where, out in zip(x.numpy()[:, 0], places(grids), read[:, 0], strict=True):
        design = np.column_stack([index, np.ones(len(index))])
        solution, residual, *_ = np.linalg.lstsq(design, where.reshape(len(size), -1).T, rcond=None)
        assert residual.max() < 1e-6
        matrix, offset = solution[:-1].T, solution[-1]
        plane = matrix[-2:, -2:]
        scale = np.sqrt(abs(np.linalg.det(plane)))
        np.testing.assert_allclose(plane @ plane.T, scale**2 * np.eye(2), atol=1e-5)  # angles are kept
        assert 0.6 <= scale <= 1.0
        if len(size) == 3:
            np.testing.assert_allclose(matrix[0], [scale, 0, 0], atol=1e-5)
        seen.add(float(np.sign(np.linalg.det(plane))))
        expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(out, expected, atol=1e-4)
    assert seen == {-1.0, 1.0}  # mirrored and not


@SIZES
def test_labels_follow_images_that_equal_them(size: tuple[int, ...]) -> None:
    """Through the stage's own weak view: where the image still is one class, the label is that class."""
    axes = len(size)
    config = load(
        preset="paper" if axes == 2 else "la", overrides=["network.features=[4,8]", "network.dropout=[0,0]"]
    )
    stage = build_stage("supervised", config, channels=1, classes=4)
    blocks = torch.randint(0, 4, (6, *[-(-side // 6) for side in size]), generator=seeded(2))
    labels = blocks
    for axis in range(axes):
        labels = labels.repeat_interleave(6, axis + 1).narrow(axis + 1, 0, size[axis])
    for seed in range(5):
        moved, classes = stage.weak_view(labels[:, None].float(), seeded(seed), labels.to(torch.uint8))
        pure = (moved[:, 0] - moved[:, 0].round()).abs() < 1e-4
        # A blend of several classes can look like another one, but only beside an edge of the labels.
        flat = torch.ones_like(pure)
        for axis in range(axes):
            steps = classes.diff(dim=axis + 1) != 0
            flat.narrow(axis + 1, 0, steps.shape[axis + 1])[steps] = False
            flat.narrow(axis + 1, 1, steps.shape[axis + 1])[steps] = False
        sure = pure & flat
        assert sure.float().mean() > 0.1 and len(classes.unique()) == 4
        assert torch.equal(moved[:, 0][sure].round().long(), classes[sure])


def test_the_warp_is_a_thin_plate_spline() -> None:
    """Displacement of every pixel, against scipy's interpolator through the same control points."""
    size, jitter_size = (20, 31), 0.1
    plain = RandomWarp(scale=(1.0, 1.0), jitter=0.0).grid(3, size, seeded(4))
    grid = RandomWarp(scale=(1.0, 1.0), jitter=jitter_size).grid(3, size, seeded(4))
    noise = torch.rand(3, 25, 2, generator=seeded(4)) * 2 * jitter_size - jitter_size
    control = identity_grid(5, 5, torch.device("cpu")).view(-1, 2).double().numpy()
    pixels = identity_grid(*size, torch.device("cpu")).view(-1, 2).double().numpy()
    for number in range(3):
        spline = RBFInterpolator(
            control, noise[number].double().numpy(), kernel="thin_plate_spline", degree=1
        )
        expected = torch.from_numpy(spline(pixels)).view(*size, 2)
        mirrored = plain[number, 0, 0, 0] > 0
        moved = (grid - plain)[number].double()
        if mirrored:
            moved[..., 0] *= -1
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)


def inside(grid: Tensor, margin: float = 0.0) -> Tensor:
    """Pixels (B, *S) that `grid` reads from within the map."""
    return (grid.abs() <= 1.0 - margin).all(-1)


@SIZES
def test_an_affine_map_is_inverted_exactly(size: tuple[int, ...]) -> None:
    grid = random_affine(8, size, AugmentConfig(rotation_degrees=90.0, crop_min=0.5), seeded(5)).double()
    back = invert(grid, steps=0)
    points = grid.movedim(-1, 1)
    there = warp(points, back)  # the map at the inverse's places: the identity
    identity = torch.stack(
        torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in size], indexing="ij")[::-1]
    )
    sure = inside(back)
    assert 0.2 < sure.double().mean() < 1.0
    wrong = (there - identity).abs().amax(1)
    assert wrong[sure].max() < 1e-6


@pytest.mark.parametrize("bend", [0.01, 0.05])
def test_warped_and_unwarped_is_the_same_image_inside(bend: float) -> None:
    size = (96, 128)
    grid = RandomWarp(jitter=bend).grid(8, size, seeded(6)).double()
    back = invert(grid)
    pixel = 2.0 / (max(size) - 1)
    identity = identity_grid(*size, torch.device("cpu")).double()
    there = warp(grid.movedim(-1, 1), back).movedim(1, -1)
    sure = inside(back, margin=2 * pixel) & inside(identity.expand_as(back), margin=2 * pixel)
    assert (there - identity).abs().amax(-1)[sure].max() < 0.01 * pixel
    x = smooth(8, size, pixels=6.0)
    error = (warp(warp(x, grid), back) - x)[:, 0].abs()[sure]
    assert error.max() < 0.06 and error.mean() < 0.01  # of interpolating twice
    assert (warp(x, grid) - x)[:, 0].abs()[sure].mean() > 0.2  # there was something to undo


@SIZES
def test_blur_is_scipys(size: tuple[int, ...]) -> None:
    x = images(3, 2, *size)
    sigma = torch.tensor([0.2, 0.9, 1.7], dtype=torch.float64)
    got = blur(x, sigma, radius=5).numpy()
    for image, s, out in zip(x.numpy(), sigma.tolist(), got, strict=True):
        spread = (0, *[s] * len(size))
        expected = ndimage.gaussian_filter(image, spread, mode="nearest", radius=(0, *[5] * len(size)))
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_a_wide_blur_is_not_cut_off() -> None:
    config = AugmentConfig(jitter_probability=0.0, blur_probability=1.0, blur_sigma=4.0, noise=0.0)
    point = torch.zeros(64, 1, 65, 65)
    point[:, :, 32, 32] = 1.0
    y = torch.arange(65.0) - 32
    spread = (jitter(point, config, seeded(7)).sum((1, 2)) * y.square()).sum(1).sqrt()
    assert spread.max() > 3.5 and (spread > 2.0).float().mean() > 0.3


@SIZES
def test_colours_change_linearly_each_image_by_its_own_numbers(size: tuple[int, ...]) -> None:
    x = images(6, 2, *size).float()
    config = AugmentConfig(jitter_probability=1.0, blur_probability=0.0, noise=0.0)
    out = jitter(x, config, seeded(8))
    gains = []
    for before, after in zip(x.flatten(1), out.flatten(1), strict=True):
        gain, offset = np.polyfit(before.numpy(), after.numpy(), 1)
        torch.testing.assert_close(after, before * gain + offset, rtol=0, atol=1e-4)
        assert 0.6 <= gain <= 1.4
        assert abs(gain * before.mean() + offset - before.mean()) <= 0.4 * before.std() + 1e-5
        gains.append(gain)
    assert np.ptp(gains) > 0.1


@pytest.mark.parametrize("mode", ["cutmix", "classmix", "cutout"])
def test_mixing_is_what_a_loop_over_pixels_does(mode: str) -> None:
    """Image, label and confidence of every pixel come from one image, the own or the next one."""
    size, classes = (12, 14), 3
    labels = torch.randint(0, classes, (4, *size), generator=seeded(3))
    x, confidence = images(4, 2, *size).float() + 1.0, images(4, *size, seed=4).float() + 0.1
    out, mixed, sure = mix(mode, x, labels, confidence, classes=classes, generator=seeded(5))
    for b in range(4):
        other = (b + 1) % 4
        for i in range(size[0]):
            for j in range(size[1]):
                got = (out[b, :, i, j].tolist(), int(mixed[b, i, j]), float(sure[b, i, j]))
                own = (x[b, :, i, j].tolist(), int(labels[b, i, j]), float(confidence[b, i, j]))
                erased = ([0.0, 0.0], int(labels[b, i, j]), 0.0)
                pasted = (
                    x[other, :, i, j].tolist(),
                    int(labels[other, i, j]),
                    float(confidence[other, i, j]),
                )
                assert got in (own, erased if mode == "cutout" else pasted)


def test_places_are_not_rounded_to_the_maps_precision() -> None:
    """In bfloat16 a place along a side of 512 would be off by pixels."""
    x = smooth(2, (512, 512))
    grid = random_affine(2, (512, 512), AugmentConfig(), seeded())
    exact = warp(x, grid)
    rough = warp(x.bfloat16(), grid)
    assert rough.dtype == torch.bfloat16
    assert (rough.double() - exact).abs().max() < 0.02 * exact.abs().max()
