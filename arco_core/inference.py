"""From a scan to a mask: slices or overlapping windows through the network, and back to the scan's grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from arco_core.config import InferenceConfig
from arco_core.errors import DataError
from arco_core.preprocess import prepare_image, restore_label

if TYPE_CHECKING:
    from arco_core.model_package import PublishedModel

SLICES_PER_BATCH = 16
PATCHES_PER_BATCH = 2


def predict_slices(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    *,
    batch: int = SLICES_PER_BATCH,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float32]:
    """Class probabilities (S, K, H, W) of slices (S, C, H, W), in evaluation mode, without gradients.

    The network must be on `device`; its training mode is put back afterwards.

    Raises:
        DataError: `slices` is empty or not four-dimensional.
    """
    return np.concatenate([p.cpu().numpy() for p in _probabilities(network, slices, batch, device)])


def segment_slices(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    *,
    batch: int = SLICES_PER_BATCH,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.uint8]:
    """The most probable class (S, H, W) of each pixel; keeps no probabilities, so memory stays small.

    Raises:
        DataError: as `predict_slices`.
    """
    batches = _probabilities(network, slices, batch, device)
    return np.concatenate([p.argmax(dim=1).to(torch.uint8).cpu().numpy() for p in batches])


def predict_windows(
    network: nn.Module,
    volume: npt.NDArray[np.float32],
    patch: Sequence[int],
    *,
    overlap: float,
    batch: int = PATCHES_PER_BATCH,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float32]:
    """Class probabilities (K, D, H, W) of a volume (C, D, H, W), in evaluation mode, without gradients.

    Windows of `patch` overlap by the share `overlap` of their sides; where they do, probabilities are
    averaged with Gaussian weights around each window's centre (standard deviation an eighth of the side),
    as in nnU-Net (Isensee et al., Nature Methods 2021). Only `batch` windows at a time are on `device`.

    Raises:
        DataError: `volume` is not four-dimensional, or smaller than a patch.
    """
    if volume.ndim != 4 or any(side < least for side, least in zip(volume.shape[1:], patch, strict=True)):
        raise DataError(
            f"a volume of shape {volume.shape}: must be (channels, D, H, W), no side below {tuple(patch)}."
        )
    with _evaluating(network), torch.inference_mode():
        probabilities = sliding_window_inference(
            torch.from_numpy(np.ascontiguousarray(volume, np.float32))[None],
            tuple(patch),
            batch,
            lambda windows: network(windows).softmax(dim=1),
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
    return np.asarray(probabilities[0].numpy(), dtype=np.float32)


def segment_prepared(
    network: nn.Module,
    images: npt.NDArray[np.float32],
    image_size: Sequence[int],
    inference: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.uint8]:
    """Class indices (N, *S) of a prepared scan: slices (N, C, H, W), or volumes (N, C, D, H, W).

    `image_size` is that of a slice or of a patch.

    Raises:
        DataError: as `predict_slices` and `predict_windows`.
    """
    if len(image_size) == 2:
        return segment_slices(network, images, device=device)
    mask = np.empty((len(images), *images.shape[2:]), np.uint8)
    for volume, classes in zip(images, mask, strict=True):
        probabilities = predict_windows(network, volume, image_size, overlap=inference.overlap, device=device)
        for depth in range(classes.shape[0]):  # at once, argmax would take 8 bytes a voxel
            classes[depth] = probabilities[:, depth].argmax(0)
    return mask


def segment_volume(
    model: PublishedModel,
    volume: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64],
    *,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.uint8]:
    """Class indices (X, Y, Z) of a scan (X, Y, Z) or (X, Y, Z, C), on the scan's own grid.

    Args:
        model: the network, and the preprocessing that it was trained with.
        volume: intensities as stored in the scan.
        affine: voxel indices to patient coordinates in mm, (4, 4).
        device: where the network is.

    Raises:
        DataError: the scan cannot be prepared, or has not the channels that the model was trained on.
    """
    _check_channels(volume, model.channels)
    images, geometry = prepare_image(volume, affine, model.data_config)
    mask = segment_prepared(
        model.network, images, model.data_config.image_size, model.inference_config, device=device
    )
    return restore_label(mask, geometry)


def _check_channels(volume: npt.NDArray[np.generic], channels: int) -> None:
    if volume.ndim not in (3, 4):
        raise DataError(f"the scan has shape {volume.shape}: must be (X, Y, Z) or (X, Y, Z, channels).")
    found = volume.shape[3] if volume.ndim == 4 else 1
    if found != channels:
        way_out = (
            "pick one volume of the series"
            if channels == 1
            else f"stack the {channels} channels along the fourth axis"
        )
        raise DataError(
            f"the scan has shape {volume.shape}, {found} channel(s), "
            f"and the model was trained on {channels}: {way_out}."
        )


def _probabilities(
    network: nn.Module, slices: npt.NDArray[np.float32], batch: int, device: torch.device | str
) -> Iterator[torch.Tensor]:
    """Probabilities (<= batch, K, H, W), on `device`, of consecutive slices."""
    if slices.ndim != 4 or len(slices) == 0:
        raise DataError(
            f"slices of shape {slices.shape}: must be (slices, channels, H, W), at least one slice."
        )
    with _evaluating(network), torch.inference_mode():
        for start in range(0, len(slices), batch):
            part = np.ascontiguousarray(slices[start : start + batch], np.float32)
            yield network(torch.from_numpy(part).to(device)).softmax(dim=1)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
