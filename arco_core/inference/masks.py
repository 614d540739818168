"""Masks of prepared scans, and of scans on their own grid.

Where preparing a scan resampled it, probabilities are resampled back and the most probable class taken
afterwards: a mask resampled by nearest neighbour would lose what the network knows of the borders
(docs/preprocessing.md has what that costs).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from arco_core.config import InferenceConfig
from arco_core.errors import DataError
from arco_core.inference.maps import MapName, Mask, Segmentation, disagreement_terms, entropy_terms
from arco_core.inference.probabilities import predict_windows, slice_probabilities
from arco_core.preprocess import Geometry, prepare_image
from arco_core.preprocess.grid import bilinear, fit, resample_linear, shared

if TYPE_CHECKING:
    from arco_core.model_package import PublishedModel

Images = npt.NDArray[np.float32]


def segment_scan(
    network: nn.Module,
    images: Images,
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
        inference: how probabilities are averaged.
        device: where the network is.

    Raises:
        DataError: the images do not belong to `geometry`, or as `predict_slices` and `predict_windows`.
    """
    _check_images(images, geometry)
    if geometry.image_axes == 2:
        cropped = _from_slices([network], images, geometry, inference, (), device)
    else:
        cropped = _from_windows([network], images, geometry, image_size, inference, (), device)
    return cropped.placed(geometry).mask


def segment_prepared(
    model: PublishedModel,
    images: Images,
    geometry: Geometry,
    *,
    maps: Collection[MapName] = (),
    device: torch.device | str = "cpu",
) -> Segmentation:
    """Mask and `maps`, on the scan's own grid, of a scan prepared as the model's was; see `segment_scan`.

    Raises:
        DataError: as `segment_scan`, or a disagreement is asked for of a model without a teacher.
    """
    _check_images(images, geometry)
    networks = [model.network]
    if "disagreement" in maps:
        if model.teacher is None:
            raise DataError(
                "the model has no teacher, so there is no disagreement to map: ask for the entropy instead."
            )
        networks.append(model.teacher)
    inference = model.inference_config
    if geometry.image_axes == 2:
        cropped = _from_slices(networks, images, geometry, inference, maps, device)
    else:
        size = model.data_config.image_size
        cropped = _from_windows(networks, images, geometry, size, inference, maps, device)
    return cropped.placed(geometry)


def segment_volume(
    model: PublishedModel,
    volume: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64],
    *,
    maps: Collection[MapName] = (),
    device: torch.device | str = "cpu",
) -> Segmentation:
    """Mask and `maps` of a scan (X, Y, Z) or (X, Y, Z, C), on the scan's own grid.

    Args:
        model: the networks, and the preprocessing that they were trained with.
        volume: intensities as stored in the scan.
        affine: voxel indices to patient coordinates in mm, (4, 4).
        maps: what to make besides the mask.
        device: where the networks are.

    Raises:
        DataError: the scan cannot be prepared, or has not the channels that the model was trained on; or as
            `segment_prepared`.
    """
    _check_channels(volume, model.channels)
    images, geometry = prepare_image(volume, affine, model.data_config)
    return segment_prepared(model, images, geometry, maps=maps, device=device)


def _from_slices(
    networks: Sequence[nn.Module],
    images: Images,
    geometry: Geometry,
    inference: InferenceConfig,
    maps: Collection[MapName],
    device: torch.device | str,
) -> Segmentation:
    """Of slices (N, C, H, W), on the grid of the crop; the second network is the one to disagree with."""
    streams = [slice_probabilities(n, images, flips=inference.flips, device=device) for n in networks]
    result: Segmentation | None = None
    start = 0
    for batch in zip(*streams, strict=True):
        student, *others = (_fitted(p, geometry) for p in batch)
        classes = student.shape[1]
        if result is None:
            result = Segmentation.empty(classes, geometry.cropped_shape, maps)
        part = slice(start, start + len(student))
        most_likely = student.max(dim=1).indices  # as argmax, whose kernel for CPUs is several times slower
        result.mask[part] = _array(most_likely.to(torch.uint8))
        if result.probabilities is not None:
            result.probabilities[:, part] = _array(student.swapaxes(0, 1))
        if result.entropy is not None:
            result.entropy[part] = _array(entropy_terms(student, classes).sum(dim=1))
        if result.disagreement is not None:
            result.disagreement[part] = _array(disagreement_terms(student, others[0]).sum(dim=1))
        start = part.stop
    if result is None:
        raise DataError("a scan without slices")
    return result


def _from_windows(
    networks: Sequence[nn.Module],
    images: Images,
    geometry: Geometry,
    image_size: Sequence[int],
    inference: InferenceConfig,
    maps: Collection[MapName],
    device: torch.device | str,
) -> Segmentation:
    """Of one volume (1, C, D, H, W), on the grid of the crop; networks as for slices."""
    overlap, flips = inference.overlap, inference.flips
    volumes = [
        predict_windows(n, images[0], image_size, overlap=overlap, flips=flips, device=device)
        for n in networks
    ]
    classes = len(volumes[0])
    result = Segmentation.empty(classes, geometry.cropped_shape, maps)
    best = np.zeros(geometry.cropped_shape, np.float32)
    for index in range(classes):  # a class at a time: all at once need not fit
        student, *others = (_resampled(p[index], geometry, index) for p in volumes)
        np.copyto(result.mask, np.uint8(index), where=student > best)
        np.maximum(best, student, out=best)
        if result.probabilities is not None:
            result.probabilities[index] = student
        tensor = torch.from_numpy(student)
        if result.entropy is not None:
            result.entropy += _array(entropy_terms(tensor, classes))
        if result.disagreement is not None:
            result.disagreement += _array(disagreement_terms(tensor, torch.from_numpy(others[0])))
    return result


def _fitted(probabilities: Tensor, geometry: Geometry) -> Tensor:
    """(B, K, h, w), as before resampling, of prepared slices' probabilities (B, K, H, W)."""
    sides = geometry.resampled[1:]
    fitted = probabilities.new_zeros(*probabilities.shape[:2], *sides)
    fitted[:, 0] = 1  # what lies outside of the prepared slice is background
    source, target = shared(probabilities.shape[2:], sides)
    fitted[:, :, target[0], target[1]] = probabilities[:, :, source[0], source[1]]
    return fitted if sides == geometry.cropped_shape[1:] else bilinear(fitted, geometry.cropped_shape[1:])


def _resampled(channel: Images, geometry: Geometry, index: int) -> Images:
    """(d, h, w), as before resampling, of a prepared volume's probabilities (D, H, W) of class `index`."""
    fitted = fit(channel, geometry.resampled, fill=float(index == 0))
    return resample_linear(fitted, geometry.cropped_shape)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.cpu().numpy()
    return array


def _check_images(images: Images, geometry: Geometry) -> None:
    if (len(images), *images.shape[2:]) != geometry.prepared_shape:
        raise DataError(
            f"images of shape {images.shape} do not belong to a scan prepared as {geometry.prepared_shape}"
        )


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
