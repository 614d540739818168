"""Class probabilities of prepared slices and volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from arco_core.errors import DataError

_SLICES_PER_BATCH = 16
"""At most; see `slices_per_batch`."""
_PIXELS_PER_BATCH = 2**17
"""Of a batch on a CPU: more fall out of its cache between layers (docs/predict.md has the figures)."""
PATCHES_PER_BATCH = 2
_FLIP_AXES = {"d": -3, "h": -2, "w": -1}


def slices_per_batch(size: Sequence[int], device: torch.device | str = "cpu") -> int:
    """How many slices of `size` (H, W) go through a network at a time: 16, on a CPU fewer of large ones."""
    if torch.device(device).type != "cpu":
        return _SLICES_PER_BATCH
    return min(_SLICES_PER_BATCH, max(1, _PIXELS_PER_BATCH // math.prod(size)))


def predict_slices(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    *,
    flips: str = "",
    batch: int | None = None,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float32]:
    """Class probabilities (S, K, H, W) of slices (S, C, H, W), in evaluation mode, without gradients.

    The network must be on `device`; its training mode is put back afterwards. `flips` are the axes of
    `InferenceConfig.flips`; `batch` is `slices_per_batch` unless given.

    Raises:
        DataError: `slices` is empty or not four-dimensional, or `flips` names the depth.
    """
    batches = slice_probabilities(network, slices, flips=flips, batch=batch, device=device)
    return np.concatenate([p.cpu().numpy() for p in batches])


def slice_probabilities(
    network: nn.Module,
    slices: npt.NDArray[np.float32],
    *,
    flips: str = "",
    batch: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """As `predict_slices`, a batch (<= batch, K, H, W) at a time, left on `device`."""
    if slices.ndim != 4 or len(slices) == 0:
        raise DataError(
            f"slices of shape {slices.shape}: must be (slices, channels, H, W), at least one slice."
        )
    if "d" in flips:
        raise DataError(f"flips {flips!r}: a model of slices knows no depth; name axes of 'hw'.")
    classify = _classifier(network, flips)
    batch = batch or slices_per_batch(slices.shape[2:], device)
    with _evaluating(network):
        for start in range(0, len(slices), batch):
            part = np.ascontiguousarray(slices[start : start + batch], np.float32)
            with torch.inference_mode():  # not around the yield: two generators would end each other's modes
                probabilities = classify(torch.from_numpy(part).to(device))
            yield probabilities


def predict_windows(
    network: nn.Module,
    volume: npt.NDArray[np.float32],
    patch: Sequence[int],
    *,
    overlap: float,
    flips: str = "",
    batch: int = PATCHES_PER_BATCH,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float32]:
    """Class probabilities (K, D, H, W) of a volume (C, D, H, W), in evaluation mode, without gradients.

    Windows of `patch` overlap by the share `overlap` of their sides; where they do, probabilities are
    averaged with Gaussian weights around each window's centre (standard deviation an eighth of the side),
    as in nnU-Net (Isensee et al., Nature Methods 2021). Only `batch` windows at a time are on `device`.
    Each is mirrored along the axes of `flips`, see `InferenceConfig.flips`.

    Raises:
        DataError: `volume` is not four-dimensional, or smaller than a patch.
    """
    if volume.ndim != 4 or any(side < least for side, least in zip(volume.shape[1:], patch, strict=True)):
        raise DataError(
            f"a volume of shape {volume.shape}: must be (channels, D, H, W), no side below {tuple(patch)}."
        )
    from monai.inferers import sliding_window_inference  # MONAI takes seconds to import

    with _evaluating(network), torch.inference_mode():
        probabilities = sliding_window_inference(
            torch.from_numpy(np.ascontiguousarray(volume, np.float32))[None],
            tuple(patch),
            batch,
            _classifier(network, flips),
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
    return np.asarray(probabilities[0].numpy(), dtype=np.float32)


def _classifier(network: nn.Module, flips: str) -> Callable[[Tensor], Tensor]:
    """Images (B, C, *S) to class probabilities (B, K, *S), averaged over mirror images along `flips`."""
    axes = [_FLIP_AXES[letter] for letter in flips]
    mirrors = list(chain.from_iterable(combinations(axes, count) for count in range(1, len(axes) + 1)))

    def classify(images: Tensor) -> Tensor:
        total: Tensor = network(images).softmax(dim=1)
        for mirror in mirrors:
            total = total + network(images.flip(mirror)).softmax(dim=1).flip(mirror)
        return total / (len(mirrors) + 1) if mirrors else total

    return classify


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
