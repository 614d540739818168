"""Slices to probabilities, and scans to masks on their own grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from arco_core.config import DataConfig, InferenceConfig, NetworkConfig
from arco_core.errors import DataError
from arco_core.inference import (
    MAPS,
    predict_slices,
    predict_windows,
    segment_scan,
    segment_volume,
    slices_per_batch,
)
from arco_core.model_package import PublishedModel
from arco_core.networks import build_network
from arco_core.networks.unet import UNet
from arco_core.preprocess import prepare_image, restore_label


class Bands(nn.Module):
    """Class 2 above 0.75, class 1 above 0.25, class 0 below: a segmentation that can be foretold."""

    def __init__(self, channel: int = 0) -> None:
        super().__init__()
        self.channel = channel
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        value = x[:, self.channel]
        return torch.stack([torch.full_like(value, 0.25), value, 3 * value - 1.5], dim=1)


def bands_model(channels: int = 1, **data: Any) -> PublishedModel:
    return PublishedModel(
        network=Bands(channels - 1),
        data_config=DataConfig(**{"image_size": (32, 32), "percentiles": (0.0, 100.0)} | data),
        network_config=NetworkConfig(),
        classes=("background", "dim", "bright"),
        channels=channels,
    )


def scan(shape: tuple[int, ...] = (20, 30, 7)) -> np.ndarray:
    """Blocks of 0, 500 and 1000."""
    volume = np.zeros(shape, np.int16)
    volume[4:12, 6:20, 1:5] = 500
    volume[6:9, 8:14, 2:4] = 1000
    return volume


def expected(volume: np.ndarray) -> np.ndarray:
    return (volume // 500).astype(np.uint8)


def test_probabilities_are_the_networks_softmax_in_evaluation_mode() -> None:
    network = UNet(1, 3, NetworkConfig(features=(4, 8), dropout=(0.5, 0.5))).train()
    slices = np.random.default_rng(0).normal(size=(5, 1, 16, 16)).astype(np.float32)
    probabilities = predict_slices(network, slices, batch=2)
    assert network.training
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (5, 3, 16, 16)
    with torch.inference_mode():
        whole = network.eval()(torch.from_numpy(slices)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, whole, atol=1e-6)


def test_a_batch_is_never_larger_than_asked() -> None:
    network = Bands()
    predict_slices(network, np.zeros((7, 1, 16, 16), np.float32), batch=3)
    assert network.batches == [3, 3, 1]


@pytest.mark.parametrize(
    ("side", "device", "batches"),
    [(16, "cpu", 16), (96, "cpu", 14), (192, "cpu", 3), (256, "cpu", 2), (512, "cpu", 1), (512, "cuda", 16)],
)
def test_fewer_large_slices_go_through_a_cpu_at_a_time(side: int, device: str, batches: int) -> None:
    assert slices_per_batch((side, side), device) == batches


def test_a_batch_follows_the_size_of_its_slices() -> None:
    network = Bands()
    predict_slices(network, np.zeros((5, 1, 192, 192), np.float32))
    assert network.batches == [3, 2]


def test_the_mode_is_put_back_after_an_error() -> None:
    network = UNet(1, 2, NetworkConfig(features=(4, 8), dropout=(0.0, 0.0))).train()
    with pytest.raises(ValueError, match="multiples of 2"):
        predict_slices(network, np.zeros((1, 1, 15, 16), np.float32))
    assert network.training


@pytest.mark.parametrize("shape", [(0, 1, 16, 16), (4, 16, 16)])
def test_no_slices_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least one slice"):
        predict_slices(Bands(), np.zeros(shape, np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "affine",
    [np.eye(4), np.diag([-1.0, -1.0, 3.0, 1.0]), np.eye(4)[[2, 0, 1, 3]]],
    ids=["RAS", "LPS", "permuted"],
)
def test_mask_lies_on_the_scans_own_grid(affine: np.ndarray, axis: int) -> None:
    volume = scan()
    mask = segment_volume(bands_model(slice_axis=axis), volume, affine).mask
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected(volume))


def test_voxels_cropped_away_are_background() -> None:
    volume = np.full((60, 20, 4), 1000, np.int16)
    volume[0] = 0
    mask = segment_volume(bands_model(), volume, np.eye(4)).mask
    assert mask.shape == volume.shape
    assert mask[30].all() and not mask[:10].any() and not mask[-10:].any()


def test_channels_reach_the_network_in_order() -> None:
    volume = np.stack([scan()[::-1], scan()], axis=-1)
    assert np.array_equal(segment_volume(bands_model(channels=2), volume, np.eye(4)).mask, expected(scan()))


def test_a_single_fourth_axis_is_one_channel() -> None:
    assert np.array_equal(segment_volume(bands_model(), scan()[..., None], np.eye(4)).mask, expected(scan()))


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((20, 30, 7, 4), 1, r"4 channel\(s\), and the model was trained on 1: pick one volume"),
        ((20, 30, 7), 2, r"1 channel\(s\), and the model was trained on 2: stack the 2 channels"),
        ((20, 30), 1, r"must be \(X, Y, Z\)"),
        ((20, 30, 7, 1, 3), 1, r"must be \(X, Y, Z\)"),
    ],
)
def test_wrong_number_of_channels_is_named(shape: tuple[int, ...], channels: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        segment_volume(bands_model(channels=channels), np.zeros(shape, np.int16), np.eye(4))


PATCH = (16, 32, 16)


def small_vnet() -> nn.Module:
    torch.manual_seed(0)
    network = build_network(1, 3, NetworkConfig(kind="vnet", features=(4, 8), dropout=(0.5, 0.0)))
    nn.init.normal_(network.head.weight)
    return network


def blended(network: nn.Module, volume: np.ndarray, starts: list[list[int]], width: float) -> np.ndarray:
    """The weighted mean of all windows, in float64, window by window; `width` in standard deviations."""
    total, weights = np.zeros((3, *volume.shape[1:])), np.zeros(volume.shape[1:])
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / n * width) ** 2) for n in PATCH]
    gauss = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    gauss = np.maximum(gauss / gauss.max(), 1e-3)
    for start in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
        window = tuple(slice(s, s + n) for s, n in zip(start, PATCH, strict=True))
        with torch.inference_mode():
            part = network(torch.from_numpy(volume[(slice(None), *window)])[None]).softmax(1)[0]
        total[(slice(None), *window)] += gauss * part.double().numpy()
        weights[window] += gauss
    return total / weights


def test_windows_are_blended_with_gaussian_weights() -> None:
    network = small_vnet().train()
    volume = np.random.default_rng(0).normal(size=(1, 24, 40, 16)).astype(np.float32)
    probabilities = predict_windows(network, volume, PATCH, overlap=0.5)
    assert network.training and probabilities.dtype == np.float32
    expected = blended(network.eval(), volume, [[0, 8], [0, 8], [0]], width=8)
    # MONAI integrates its Gaussian over voxels, which is another one by a percent; equal weights are far off.
    np.testing.assert_allclose(probabilities, expected, atol=1e-2)
    assert np.abs(probabilities - blended(network, volume, [[0, 8], [0, 8], [0]], width=0)).max() > 0.1
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_one_window_is_the_networks_own_softmax() -> None:
    network = small_vnet().eval()
    volume = np.random.default_rng(0).normal(size=(1, *PATCH)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(volume)[None]).softmax(1)[0].numpy()
    np.testing.assert_allclose(predict_windows(network, volume, PATCH, overlap=0.5), expected, atol=1e-6)


def test_more_overlap_takes_more_windows_and_no_batch_is_larger_than_asked() -> None:
    volume = np.zeros((1, 48, 64, 32), np.float32)
    windows = []
    for overlap in (0.0, 0.5, 0.75):
        network = Bands()
        predict_windows(network, volume, PATCH, overlap=overlap, batch=3)
        windows.append(sum(network.batches))
        assert max(network.batches) == 3
    assert windows == [3 * 2 * 2, 5 * 3 * 3, 9 * 5 * 5]


@pytest.mark.parametrize("shape", [(1, 15, 32, 16), (16, 32, 16)])
def test_a_volume_without_a_patch_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="a volume of shape"):
        predict_windows(Bands(), np.zeros(shape, np.float32), PATCH, overlap=0.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(20, 30, 7), (40, 50, 33)])
@pytest.mark.parametrize(
    "affine",
    [np.eye(4), np.diag([-1.0, -1.0, 3.0, 1.0]), np.eye(4)[[2, 0, 1, 3]]],
    ids=["RAS", "LPS", "permuted"],
)
def test_mask_of_a_3d_model_lies_on_the_scans_own_grid(
    affine: np.ndarray, shape: tuple[int, ...], axis: int
) -> None:
    volume = scan(shape)
    mask = segment_volume(bands_model(image_size=PATCH, slice_axis=axis), volume, affine).mask
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected(volume))


def ball(shape: tuple[int, ...], radius: float) -> np.ndarray:
    """A smooth bright ball around the middle: 500 on its surface, so that class 1 begins there."""
    middle = [(side - 1) / 2 for side in shape]
    distance = np.sqrt(sum((x - m) ** 2 for x, m in zip(np.indices(shape), middle, strict=True)))
    return np.clip(500 + 100 * (radius - distance), 0, 1000).astype(np.float32)


class Half(nn.Module):
    """Class 1 with the probability that the intensity is."""

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, 0].clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - value).log(), value.log()], dim=1)


class Third(nn.Module):
    """Less sure of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        value = (x[:, 0] / 3).clamp(1e-6, 1 - 1e-6)
        return torch.stack([(1 - value).log(), value.log()], dim=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": (32, 32), "fit": "resize"},
        {"image_size": (32, 16), "spacing_mm": (2.0, 2.0)},
        {"image_size": (16, 16, 16), "spacing_mm": (1.7, 2.0, 2.0)},
        {"image_size": (16, 16, 16), "spacing_mm": (2.0, 1.0, 1.5), "crop": "nonzero"},
    ],
    ids=["resized", "resampled and cropped", "volume", "cropped volume"],
)
def test_probabilities_are_resampled_to_the_scans_grid_not_labels(settings: dict[str, Any]) -> None:
    """What the network knows of the border survives: nearest neighbour would leave steps of two voxels."""
    volume = ball((52, 60, 40), 13.3)
    config = DataConfig(percentiles=(0.0, 100.0), **settings)
    images, geometry = prepare_image(volume, np.diag([-1.0, 1, 1, 1]), config)
    mask = segment_scan(Half(), images, geometry, config.image_size, InferenceConfig())
    reference = volume > 500
    dice = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
    with torch.inference_mode():
        labels = np.stack([Half()(torch.from_numpy(image)[None])[0].argmax(0).numpy() for image in images])
    nearest = restore_label(labels.astype(np.uint8), geometry)
    dice_nearest = 2 * (nearest & reference).sum() / (nearest.sum() + reference.sum())
    assert mask.shape == volume.shape and mask.dtype == np.uint8
    assert dice > 0.985 and dice > dice_nearest + 0.01


def test_images_of_another_scan_are_refused() -> None:
    _, geometry = prepare_image(scan(), np.eye(4), DataConfig(image_size=(32, 32)))
    images = np.zeros((6, 1, 32, 32), np.float32)
    with pytest.raises(
        DataError, match=r"\(6, 1, 32, 32\) do not belong to a scan prepared as \(7, 32, 32\)"
    ):
        segment_scan(Bands(), images, geometry, (32, 32), InferenceConfig())


class Ramp(nn.Module):
    """Class 1 gains with the columns, so that a mirror image is judged otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        column = torch.linspace(-2, 2, x.shape[-1]).expand(x.shape[0], *x.shape[2:])
        return torch.stack([torch.zeros_like(column), column + x[:, 0]], dim=1)


@pytest.mark.parametrize(("flips", "axes"), [("w", [(3,)]), ("hw", [(2,), (3,), (2, 3)])])
def test_probabilities_are_averaged_over_mirror_images(flips: str, axes: list[tuple[int, ...]]) -> None:
    slices = np.random.default_rng(0).normal(size=(3, 1, 8, 16)).astype(np.float32)
    views = [predict_slices(Ramp(), slices)]
    for axis in axes:
        views.append(np.flip(predict_slices(Ramp(), np.flip(slices, axis).copy()), axis))
    averaged = predict_slices(Ramp(), slices, flips=flips)
    np.testing.assert_allclose(averaged, np.mean(views, axis=0), atol=1e-6)
    assert np.abs(averaged - views[0]).max() > 0.1


def test_windows_are_mirrored_too() -> None:
    volume = np.random.default_rng(0).normal(size=(1, *PATCH)).astype(np.float32)
    network = small_vnet()
    flipped = predict_windows(network, np.flip(volume, (1, 3)).copy(), PATCH, overlap=0.5, flips="dhw")
    again = np.flip(predict_windows(network, volume, PATCH, overlap=0.5, flips="dhw"), (1, 3))
    np.testing.assert_allclose(flipped, again, atol=1e-5)
    with pytest.raises(DataError, match="knows no depth"):
        predict_slices(Bands(), np.zeros((1, 1, 16, 16), np.float32), flips="d")


@pytest.mark.parametrize("size", [(32, 32), (16, 32, 16)], ids=["slices", "windows"])
def test_maps_belong_to_the_mask(size: tuple[int, ...]) -> None:
    """Against the definitions, on a scan that is cropped and resampled."""
    volume = ball((26, 30, 20), 8.0)
    config = DataConfig(
        image_size=size, spacing_mm=(1.5,) * len(size), percentiles=(0.0, 100.0), crop="nonzero"
    )
    volume[:3], volume[-3:] = 0, 0
    model = PublishedModel(
        network=Half(),
        teacher=Third(),
        data_config=config,
        network_config=NetworkConfig(),
        classes=("background", "ball"),
        channels=1,
    )
    found = segment_volume(model, volume, np.eye(4), maps=MAPS)
    swapped = dataclasses.replace(model, network=model.teacher, teacher=model.network)
    other = segment_volume(swapped, volume, np.eye(4), maps=MAPS)
    p, q = found.probabilities, other.probabilities
    assert p is not None and q is not None and p.shape == (2, *volume.shape)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(p.argmax(0), found.mask)
    np.testing.assert_array_equal(found.mask, segment_volume(model, volume, np.eye(4)).mask)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    entropy = -(special.xlogy(p, p)).sum(0)
    np.testing.assert_allclose(found.entropy, entropy / np.log(2), atol=1e-4)
    middle = (p + q) / 2
    jensen = -special.xlogy(middle, middle).sum(0) + (special.xlogy(p, p) + special.xlogy(q, q)).sum(0) / 2
    np.testing.assert_allclose(found.disagreement, jensen / np.log(2), atol=1e-4)
    np.testing.assert_allclose(found.disagreement, other.disagreement, atol=1e-5)
    assert found.entropy is not None and found.disagreement is not None
    for uncertainty in (found.entropy, found.disagreement):
        assert uncertainty[:2].max() == 0 and 0.05 < uncertainty.max() <= 1 + 1e-5  # sure of what is cropped


def test_no_disagreement_without_a_teacher() -> None:
    with pytest.raises(DataError, match="has no teacher"):
        segment_volume(bands_model(), scan(), np.eye(4), maps=["disagreement"])
