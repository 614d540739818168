"""Masks of prepared scans, and of scans on their own grid.

Where preparing a scan resampled it, probabilities are resampled back and the most probable class taken
afterwards: a mask resampled by nearest neighbour would lose what the network knows of the borders
(docs/preprocessing.md has what that costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from arco_core.config import InferenceConfig
from arco_core.errors import DataError
from arco_core.inference.probabilities import predict_windows, slice_probabilities
from arco_core.preprocess import Geometry, place_label, prepare_image
from arco_core.preprocess.grid import bilinear, fit, resample_linear, shared

if TYPE_CHECKING:
    from arco_core.model_package import PublishedModel

Mask = npt.NDArray[np.uint8]


def segment_scan(
    network: nn.Module,
    images: npt.NDArray[np.float32],
    geometry: Geometry,
    image_size: Sequence[int],
    inference: InferenceConfig,
    *,
    device: torch.device | str = "cpu",
) -> Mask:
    """Class indices (X, Y, Z), on the scan's own grid, of a prepared scan; background where it was cropped.

    Args:
        network: on `device`.
        images: slices (N, C, H, W), or one volume (1, C, D, H, W).
        geometry: how they were prepared.
        image_size: of a slice, or of a patch.
        inference: how volumes are predicted patch by patch.
        device: where the network is.

    Raises:
        DataError: the images do not belong to `geometry`, or as `predict_slices` and `predict_windows`.
    """
    if (len(images), *images.shape[2:]) != geometry.prepared_shape:
        raise DataError(
            f"images of shape {images.shape} do not belong to a scan prepared as {geometry.prepared_shape}"
        )
    if geometry.image_axes == 2:
        slices = slice_probabilities(network, images, device=device)
        return place_label(np.concatenate([_slice_classes(p, geometry) for p in slices]), geometry)
    probabilities = predict_windows(network, images[0], image_size, overlap=inference.overlap, device=device)
    return place_label(_volume_classes(probabilities, geometry), geometry)


def segment_volume(
    model: PublishedModel,
    volume: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64],
    *,
    device: torch.device | str = "cpu",
) -> Mask:
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
    return segment_scan(
        model.network,
        images,
        geometry,
        model.data_config.image_size,
        model.inference_config,
        device=device,
    )


def _slice_classes(probabilities: Tensor, geometry: Geometry) -> Mask:
    """Classes (B, h, w), as before resampling, of prepared slices' probabilities (B, K, H, W)."""
    sides = geometry.resampled[1:]
    fitted = probabilities.new_zeros(*probabilities.shape[:2], *sides)
    fitted[:, 0] = 1  # what lies outside of the prepared slice is background
    source, target = shared(probabilities.shape[2:], sides)
    fitted[:, :, target[0], target[1]] = probabilities[:, :, source[0], source[1]]
    if sides != geometry.cropped_shape[1:]:
        fitted = bilinear(fitted, geometry.cropped_shape[1:])
    return np.asarray(fitted.argmax(dim=1).to(torch.uint8).cpu().numpy())


def _volume_classes(probabilities: npt.NDArray[np.float32], geometry: Geometry) -> Mask:
    """Classes (d, h, w), as before resampling, of a prepared volume's probabilities (K, D, H, W)."""
    mask = np.zeros(geometry.cropped_shape, np.uint8)
    best = np.zeros(geometry.cropped_shape, np.float32)
    for index, channel in enumerate(probabilities):  # a class at a time: all at once need not fit
        fitted = fit(channel, geometry.resampled, fill=float(index == 0))
        resampled = resample_linear(fitted, geometry.cropped_shape)
        np.copyto(mask, np.uint8(index), where=resampled > best)
        np.maximum(best, resampled, out=best)
    return mask


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
