"""Volumes and affines for the tests of the preparation."""

from __future__ import annotations

import itertools

import numpy as np
from nibabel import orientations

ORIENTATIONS = tuple(
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
)
"""All 48 ways in which a file's axes can lie."""


def random_volume(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def random_label(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def affine_of(codes: str, spacing: tuple[float, float, float] = (1.5, 1.2, 8.0)) -> np.ndarray:
    """An affine whose voxel axes point to `codes`, with `spacing` along the voxel axes."""
    axes = orientations.axcodes2ornt(tuple(codes))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (world_axis, flip) in enumerate(axes):
        affine[int(world_axis), voxel_axis] = flip * spacing[voxel_axis]
    affine[:3, 3] = (-30, 12, 7)
    return affine


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """A rotation (4, 4) about the three axes, in degrees: what makes a scan oblique."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(angles)):
        turn = np.eye(4)
        first, second = (a for a in range(3) if a != axis)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
