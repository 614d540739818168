"""Augmentation: consistent between image and label, reproducible, and in the ranges it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arco_core.augment import RandomWarp, identity_grid, jitter, mix, random_affine, warp
from arco_core.config import AugmentConfig, ConfigError

STILL = {"rotation_degrees": 0.0, "crop_min": 1.0, "flip_probability": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeded(9))


def test_identity_grid_changes_nothing() -> None:
    x = images(2, 3, 16, 20)
    grid = identity_grid(16, 20, torch.device("cpu")).expand(2, -1, -1, -1)
    torch.testing.assert_close(warp(x, grid), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("settings", "flip"), [({}, False), ({"flip_probability": 1.0}, True)])
def test_affine_without_rotation_and_crop(settings: dict[str, float], flip: bool) -> None:
    x = images(3, 1, 16, 32)
    grid = random_affine(3, (16, 32), AugmentConfig(**{**STILL, **settings}), seeded())
    torch.testing.assert_close(warp(x, grid), x.flip(3) if flip else x, rtol=0, atol=1e-5)


def test_rotation_keeps_distances_on_a_rectangular_image() -> None:
    """A disc stays a disc: the rotation is in pixels, not in the stretched coordinates of the grid."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    disc = (((y - 15.5) ** 2 + (x - 31.5) ** 2) < 100).float()[None, None].expand(8, -1, -1, -1)
    config = AugmentConfig(**{**STILL, "rotation_degrees": 90.0})
    turned = warp(disc, random_affine(8, (32, 64), config, seeded()), nearest=True)
    assert (turned - disc).abs().mean() < 0.02


def test_image_and_label_move_together() -> None:
    labels = torch.zeros(6, 1, 32, 32)
    labels[:, :, 8:20, 5:25] = 1.0
    grid = random_affine(6, (32, 32), AugmentConfig(), seeded())
    as_image, as_label = warp(labels, grid), warp(labels, grid, nearest=True)
    assert set(as_label.unique().tolist()) <= {0.0, 1.0}
    assert ((as_image > 0.5).float() - as_label).abs().mean() < 0.02
    assert (as_label - labels).abs().mean() > 0.02


@pytest.mark.parametrize(("settings", "flip"), [({}, False), ({"flip_probability": 1.0}, True)])
def test_affine_of_patches_without_rotation_and_crop(settings: dict[str, float], flip: bool) -> None:
    x = images(3, 1, 8, 16, 32)
    grid = random_affine(3, (8, 16, 32), AugmentConfig(**{**STILL, **settings}), seeded())
    torch.testing.assert_close(warp(x, grid), x.flip(4) if flip else x, rtol=0, atol=1e-5)


def test_patches_turn_about_the_through_plane_axis() -> None:
    """Every plane turns alike, and nothing moves from one plane to another."""
    plane = images(4, 1, 16, 16)
    depth = torch.arange(8.0)[None, None, :, None, None]
    config = AugmentConfig(**{**STILL, "rotation_degrees": 90.0})
    turned = warp(plane[:, :, None] + depth, random_affine(4, (8, 16, 16), config, seeded()), border=True)
    shifted = turned - depth
    torch.testing.assert_close(shifted, shifted[:, :, :1].expand_as(shifted), rtol=0, atol=1e-4)
    assert (shifted[:, :, 0] - plane).abs().mean() > 0.05


def test_a_crop_of_patches_keeps_its_share_of_every_axis() -> None:
    axes = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), torch.arange(24.0), indexing="ij")
    place = torch.stack(axes)[None].expand(6, -1, -1, -1, -1)
    config = AugmentConfig(rotation_degrees=0.0, flip_probability=0.0, crop_min=0.5)
    moved = warp(place, random_affine(6, (24, 24, 24), config, seeded())).flatten(2)
    lowest, highest = moved.min(2).values, moved.max(2).values
    kept = (highest - lowest) / 23.0
    torch.testing.assert_close(kept, kept[:, :1].expand(-1, 3), rtol=0, atol=1e-4)
    assert kept.min() >= 0.5 and kept.max() <= 1.0 and lowest.min() >= 0.0
    assert lowest.std(0).min() > 0.5  # at a random place on every axis


def test_patches_and_their_labels_move_together() -> None:
    labels = torch.zeros(4, 1, 16, 24, 24)
    labels[:, :, 4:12, 6:16, 4:18] = 1.0
    grid = random_affine(4, (16, 24, 24), AugmentConfig(), seeded())
    as_image, as_label = warp(labels, grid), warp(labels, grid, nearest=True)
    assert set(as_label.unique().tolist()) <= {0.0, 1.0}
    assert ((as_image > 0.5).float() - as_label).abs().mean() < 0.03
    assert (as_label - labels).abs().mean() > 0.02


def test_warp_scales_and_jitters() -> None:
    still = RandomWarp(scale=(1.0, 1.0), jitter=0.0).grid(8, (16, 16), seeded())
    x = images(8, 1, 16, 16)
    moved = warp(x, still)
    for image, out in zip(x, moved, strict=True):  # each is left alone or mirrored
        assert torch.allclose(out, image, atol=1e-5) or torch.allclose(out, image.flip(2), atol=1e-5)
    jittered = RandomWarp(scale=(1.0, 1.0), jitter=0.05).grid(8, (16, 16), seeded())
    shift = (jittered - still).abs()
    assert 0.005 < shift.mean() < 0.05


def test_jitter_respects_strengths() -> None:
    x = images(4, 1, 16, 16)
    off = AugmentConfig(jitter_probability=0.0, blur_probability=0.0, noise=0.0)
    assert torch.equal(jitter(x, off, seeded()), x)
    changed = jitter(x, AugmentConfig(), seeded())
    assert changed.shape == x.shape and (changed - x).abs().mean() > 0.01


def test_jitter_of_patches_blurs_along_every_axis() -> None:
    x = torch.zeros(2, 1, 9, 9, 9)
    x[:, :, 4, 4, 4] = 1.0
    blur = AugmentConfig(jitter_probability=0.0, blur_probability=1.0, noise=0.0)
    out = jitter(x, blur, seeded())
    torch.testing.assert_close(out.sum((1, 2, 3, 4)), torch.ones(2))
    for turned in (out.transpose(2, 3), out.transpose(2, 4), out.flip(2)):
        torch.testing.assert_close(turned, out)
    assert (out[:, 0, 3, 4, 4] > 0).all() and torch.equal(jitter(x, blur, seeded()), out)


@pytest.mark.parametrize("size", [(24, 24), (8, 24, 24)])
@pytest.mark.parametrize("mode", ["cutmix", "classmix"])
def test_mixed_pixels_come_whole_from_the_next_image(mode: str, size: tuple[int, ...]) -> None:
    """Image, label and confidence are pasted by the same mask."""
    labels = torch.randint(0, 4, (5, *size), generator=seeded(1))
    number = torch.arange(5).view(-1, *[1] * len(size)).expand(5, *size)
    code = number.float()
    mixed, new_labels, confidence = mix(mode, code[:, None], labels, code, classes=4, generator=seeded())
    assert torch.equal(mixed[:, 0], confidence)
    source = mixed[:, 0].long()
    expected = labels.gather(0, source)
    assert torch.equal(new_labels, expected)
    pasted = source != number
    assert torch.equal(source[pasted], ((number + 1) % 5)[pasted])
    assert 0.2 < pasted.float().mean() < 0.8


def test_classmix_pastes_whole_classes() -> None:
    labels = torch.arange(4).repeat_interleave(36).view(1, 12, 12).repeat(2, 1, 1)
    code = torch.arange(2.0)[:, None, None].expand(2, 12, 12)
    mixed, _, _ = mix("classmix", code[:, None], labels, code, classes=4, generator=seeded())
    for k in range(4):
        assert len(mixed[0, 0][labels[0] == k].unique()) == 1
    assert (mixed[0] == 1.0).float().mean() == 0.5


@pytest.mark.parametrize("size", [(32, 32), (32, 32, 32)])
def test_cutout_erases_half_and_its_confidence(size: tuple[int, ...]) -> None:
    x, labels = torch.ones(4, 1, *size), torch.ones(4, *size, dtype=torch.long)
    out, kept, confidence = mix("cutout", x, labels, torch.ones(4, *size), classes=2, generator=seeded())
    assert torch.equal(out[:, 0], confidence) and torch.equal(kept, labels)
    assert 0.4 < (out == 0).float().mean() < 0.6


def test_unknown_mix() -> None:
    with pytest.raises(ConfigError, match="cutmix"):
        mix(
            "cutmx",
            images(1, 1, 4, 4),
            torch.zeros(1, 4, 4).long(),
            images(1, 4, 4),
            classes=2,
            generator=seeded(),
        )
