"""A published model, and scans for it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from arco_core.config import DataConfig, NetworkConfig
from arco_core.model_package import PublishedModel, save_package
from arco_core.networks import build_network

NETWORK = NetworkConfig(features=(4, 8), dropout=(0.0, 0.0))


def publish(
    folder: Path, channels: int = 1, size: tuple[int, ...] = (32, 32), *, teacher: bool = False
) -> Path:
    """A model with random weights and fitting statistics, so that it finds all classes.

    Its teacher is almost the same network.
    """
    torch.manual_seed(1)
    config = NETWORK if len(size) == 2 else dataclasses.replace(NETWORK, kind="vnet")
    network = build_network(channels, 3, config)
    torch.nn.init.normal_(network.head.weight)
    with torch.no_grad():
        for _ in range(50):
            network(torch.rand(8, channels, *size))
    average = copy.deepcopy(network)
    with torch.no_grad():
        average.head.weight.mul_(1.05)
    save_package(
        folder,
        PublishedModel(
            network=network,
            teacher=average if teacher else None,
            data_config=DataConfig(image_size=size, classes=("background", "a", "b")),
            network_config=config,
            classes=("background", "a", "b"),
            channels=channels,
        ),
        metrics={},
        provenance={},
    )
    return folder


def write_scan(path: Path, shape: tuple[int, ...] = (20, 24, 6)) -> Path:
    """An oblique scan with scaling, display range and both transforms set."""
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    rotation = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([1.25, 1.5, 8.0])
    affine[:3, 3] = (-30.0, 12.5, 99.0)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="aligned")
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2.0, -100.0)
    image.header["cal_max"] = 1500
    nib.save(image, path)
    return path
