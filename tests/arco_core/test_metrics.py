"""Scores against analytic cases, the definitions (by scipy), medpy and surface-distance."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import surface_distance
from medpy.metric import binary as medpy
from scipy import ndimage

from arco_core.errors import DataError
from arco_core.metrics import CONVENTIONS, ClassScore, Convention, score_case

Volume = npt.NDArray[np.uint8]
CLASSES = ("background", "structure")
ISOTROPIC = (1.0, 1.0, 1.0)


def empty(shape: tuple[int, int, int] = (24, 20, 16)) -> Volume:
    return np.zeros(shape, np.uint8)


def cube(start: tuple[int, int, int], side: int = 6) -> Volume:
    volume = empty()
    volume[tuple(slice(s, s + side) for s in start)] = 1
    return volume


def ball(radius_mm: float, spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> Volume:
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.asarray(sum(g**2 for g in grid) <= radius_mm**2, dtype=np.uint8)


def only(prediction: Volume, reference: Volume, **kwargs: Any) -> ClassScore:
    (score,) = score_case(prediction, reference, kwargs.pop("spacing_mm", ISOTROPIC), CLASSES, **kwargs)
    return score


def naive(prediction: Volume, reference: Volume, spacing: tuple[float, ...], convention: str) -> list[float]:
    """Dice, ASD, HD95 of two non-empty masks, from the definitions."""
    p, r = prediction > 0, reference > 0
    dice = 2 * int((p & r).sum()) / int(p.sum() + r.sum())
    surface_p, surface_r = (m & ~ndimage.binary_erosion(m) for m in (p, r))
    to_r = ndimage.distance_transform_edt(~surface_r, sampling=spacing)[surface_p]
    to_p = ndimage.distance_transform_edt(~surface_p, sampling=spacing)[surface_r]
    both = np.concatenate([to_r, to_p])
    if convention == "released":
        return [dice, float(to_r.mean()), float(np.percentile(both, 95))]
    return [dice, float(both.mean()), float(max(np.percentile(to_r, 95), np.percentile(to_p, 95)))]


ANISOTROPIC = (0.7, 1.3, 5.0)


def ragged(seed: int) -> tuple[Volume, Volume]:
    """Prediction and reference: blobs of several parts, which touch the border and overlap."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(22, 18, 12)), 2.0) for _ in range(2)]
    mixed = 0.6 * smooth[0] + 0.4 * smooth[1]
    prediction, reference = ((s > np.quantile(s, 0.8)).astype(np.uint8) for s in (smooth[0], mixed))
    return prediction, reference


@pytest.mark.parametrize("convention", ["arco", "released"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definitions_on_ragged_shapes(seed: int, convention: Convention) -> None:
    prediction, reference = ragged(seed)
    spacing = ANISOTROPIC
    score = only(prediction, reference, spacing_mm=spacing, convention=convention)
    mm, voxel = (naive(prediction, reference, s, convention) for s in (spacing, ISOTROPIC))
    assert [score.dice, score.asd_mm, score.hd95_mm] == pytest.approx(mm, rel=1e-5)
    assert [score.asd_voxel, score.hd95_voxel] == pytest.approx(voxel[1:], rel=1e-5)
    assert not score.missing


@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("seed", range(3))
def test_equals_medpy(seed: int, spacing: tuple[float, float, float]) -> None:
    """medpy's surfaces have the 6-neighbourhood by default; its `hd95` is what the authors' code calls."""
    prediction, reference = ragged(seed)
    own = only(prediction, reference, spacing_mm=spacing)
    released = only(prediction, reference, spacing_mm=spacing, convention="released")
    forward, backward = ((prediction, reference), (reference, prediction))
    pooled = np.concatenate([distances(*pair, spacing) for pair in (forward, backward)])
    assert own.dice == pytest.approx(medpy.dc(*forward))
    assert own.asd_mm == pytest.approx(pooled.mean(), rel=1e-5)
    assert released.asd_mm == pytest.approx(medpy.asd(*forward, voxelspacing=spacing), rel=1e-5)
    assert released.hd95_mm == pytest.approx(medpy.hd95(*forward, voxelspacing=spacing), rel=1e-5)
    assert released.asd_voxel == pytest.approx(medpy.asd(*forward), rel=1e-5)
    larger = max(np.percentile(distances(*pair, spacing), 95) for pair in (forward, backward))
    assert own.hd95_mm == pytest.approx(larger, rel=1e-5)


def distances(result: Volume, reference: Volume, spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """medpy's distances from the surface of one mask to that of the other."""
    found: npt.NDArray[np.float64] = medpy.__surface_distances(result, reference, spacing)
    return found


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # surface-distance's own
@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_equals_its_authors_implementation(
    seed: int, spacing: tuple[float, float, float]
) -> None:
    prediction, reference = ragged(seed)
    padded = (np.pad(v, 1).astype(bool) for v in (reference, prediction))
    surfaces = surface_distance.compute_surface_distances(*padded, spacing)
    for tolerance in (0.0, 0.5, 1.0, 2.0, 5.0):
        expected = surface_distance.compute_surface_dice_at_tolerance(surfaces, tolerance)
        score = only(prediction, reference, spacing_mm=spacing, tolerance_mm=tolerance)
        assert score.surface_dice == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("tolerance_mm", "expected"), [(3.5, 0.0), (6.5, 1.0)])
def test_surface_dice_of_concentric_balls_is_a_step(tolerance_mm: float, expected: float) -> None:
    spacing = (0.5, 0.5, 1.0)
    small, large = (ball(r, spacing, (81, 81, 41)) for r in (10.0, 15.0))
    score = only(small, large, spacing_mm=spacing, tolerance_mm=tolerance_mm)
    assert score.surface_dice == expected


def test_surface_dice_of_a_shifted_cube() -> None:
    """All of it is within the shift; within half of it the two faces across are not, a third of the area."""
    prediction, reference = cube((3, 4, 5), side=10), cube((5, 4, 5), side=10)
    assert only(prediction, reference, tolerance_mm=2.0).surface_dice == 1.0
    assert only(prediction, reference, tolerance_mm=1.0).surface_dice == pytest.approx(2 / 3, abs=0.06)


def test_volumes_are_in_millilitres() -> None:
    score = only(cube((3, 4, 5)), cube((3, 4, 5), side=5), spacing_mm=(0.5, 1.5, 10.0))
    assert (score.predicted_voxels, score.reference_voxels) == (216, 125)
    assert (score.predicted_ml, score.reference_ml) == pytest.approx((1.62, 0.9375))
    assert (score.volume_error_voxel, score.volume_error_ml) == (91, pytest.approx(0.6825))
    smaller = only(cube((3, 4, 5), side=5), cube((3, 4, 5)), spacing_mm=(0.5, 1.5, 10.0))
    assert (smaller.volume_error_ml, smaller.abs_volume_error_ml) == pytest.approx((-0.6825, 0.6825))
    assert (smaller.volume_error_voxel, smaller.abs_volume_error_voxel) == (-91, 91)


def test_without_a_voxel_size_there_is_nothing_in_millimetres() -> None:
    known = only(cube((3, 4, 5)), cube((4, 4, 5)))
    for convention in CONVENTIONS:
        for pair in ((cube((3, 4, 5)), cube((4, 4, 5))), (empty(), cube((4, 4, 5)))):
            score = only(*pair, spacing_mm=None, convention=convention)
            in_mm = (score.asd_mm, score.hd95_mm, score.surface_dice, score.predicted_ml, score.reference_ml)
            assert in_mm == (None,) * 5
            assert score.volume_error_ml is score.abs_volume_error_ml is None
            assert score.abs_volume_error_voxel == abs(int(pair[0].sum()) - int(pair[1].sum()))
    score = only(cube((3, 4, 5)), cube((4, 4, 5)), spacing_mm=None)
    assert (score.dice, score.asd_voxel, score.hd95_voxel) == (known.dice, known.asd_voxel, known.hd95_voxel)


def test_identical_masks_are_perfect() -> None:
    score = only(cube((3, 4, 5)), cube((3, 4, 5)))
    assert (score.dice, score.surface_dice, score.asd_mm, score.hd95_mm) == (1.0, 1.0, 0.0, 0.0)
    assert not (score.missing or score.spurious)


def test_shifted_cube() -> None:
    """A cube of side 6 moved by 2 along x: an overlap of 4/6, and no voxel farther than 2.

    A surface has 6³ - 4³ = 152 voxels: 36 in each of the layers x = 0 and 5, 20 in each between.
    To the surface of layers 2 to 7: all 36 of layer 0 are 2 away, the 20 of layer 1 are 1 away, layers 2 to 4
    lie on it. Of layer 5 the 20 at the rim lie on it; 12 inside are 1 and the middle 4 are 2 from the nearest
    rim (layer 7 and layer 2 are no nearer). Backwards it is the mirror image.
    """
    score = only(cube((3, 4, 5)), cube((5, 4, 5)))
    assert score.dice == pytest.approx(4 / 6)
    assert score.hd95_voxel == 2.0
    assert score.asd_voxel == pytest.approx((36 * 2 + 20 * 1 + 12 * 1 + 4 * 2) / 152)


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 0.5), (1, 1.5), (2, 10.0)])
def test_spacing_scales_each_axis_by_its_own_size(axis: int, expected_mm: float) -> None:
    """Two one-voxel masks a voxel apart along one axis are a voxel's size apart."""
    prediction, reference = empty(), empty()
    reference[8, 8, 8] = 1
    prediction[tuple(9 if a == axis else 8 for a in range(3))] = 1
    score = only(prediction, reference, spacing_mm=(0.5, 1.5, 10.0))
    assert (score.asd_mm, score.hd95_mm) == (expected_mm, expected_mm)
    assert (score.asd_voxel, score.hd95_voxel) == (1.0, 1.0)


def test_concentric_balls_are_their_radii_apart() -> None:
    spacing = (0.5, 0.5, 1.0)
    small, large = (ball(r, spacing, (81, 81, 41)) for r in (10.0, 15.0))
    score = only(small, large, spacing_mm=spacing)
    assert score.dice == pytest.approx(2 * 10**3 / (10**3 + 15**3), abs=0.01)
    assert score.asd_mm == pytest.approx(5.0, abs=0.5)
    assert score.hd95_mm == pytest.approx(5.0, abs=1.0)


def test_symmetric_in_prediction_and_reference() -> None:
    a, b = ball(4.0, ISOTROPIC, (24, 20, 16)), cube((8, 6, 5), side=7)
    forward, backward = only(a, b), only(b, a)
    for name in ("dice", "surface_dice", "asd_mm", "hd95_mm", "asd_voxel", "hd95_voxel"):
        assert getattr(forward, name) == pytest.approx(getattr(backward, name))
    one_sided = [only(x, y, convention="released").asd_mm for x, y in ((a, b), (b, a))]
    assert one_sided[0] != one_sided[1]


def test_margin_around_the_structures_changes_nothing() -> None:
    a, b = cube((0, 4, 5)), cube((2, 5, 5))
    padded = [np.pad(v, ((9, 3), (0, 7), (20, 1))) for v in (a, b)]
    assert only(a, b) == only(padded[0], padded[1])


NONE, ZERO = (None,) * 4, (0.0,) * 4


@pytest.mark.parametrize(
    ("convention", "predicted", "present", "dice", "distances"),
    [
        ("arco", False, True, 0.0, NONE),
        ("arco", True, False, 0.0, NONE),
        ("arco", False, False, 1.0, NONE),
        ("released", False, True, 0.0, ZERO),
        ("released", True, False, 1.0, ZERO),
        ("released", False, False, 0.0, ZERO),
    ],
)
def test_empty_masks(
    convention: Convention,
    predicted: bool,
    present: bool,
    dice: float,
    distances: tuple[float | None, ...],
) -> None:
    score = only(
        cube((1, 1, 1)) if predicted else empty(),
        cube((2, 2, 2)) if present else empty(),
        convention=convention,
    )
    assert score.dice == dice
    assert (score.missing, score.spurious) == (present and not predicted, predicted and not present)
    assert score.surface_dice == float(predicted == present)
    assert (score.asd_mm, score.hd95_mm, score.asd_voxel, score.hd95_voxel) == distances


def test_classes_are_scored_apart_and_in_order() -> None:
    prediction, reference = cube((2, 2, 2)), cube((2, 2, 2))
    prediction[18, 5, 5] = reference[19, 5, 5] = 2
    scores = score_case(prediction, reference, ISOTROPIC, ("background", "a", "b", "c"))
    assert [s.class_name for s in scores] == ["a", "b", "c"]
    assert [s.dice for s in scores] == [1.0, 0.0, 1.0]
    assert [s.asd_mm for s in scores] == [0.0, 1.0, None]


def test_integer_spacing_is_accepted_and_no_warning_escapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = only(cube((1, 1, 1)), cube((2, 1, 1)), spacing_mm=(1, np.float32(2.5), 1.2))
    assert score.hd95_mm == pytest.approx(1.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="one shape"):
        only(empty(), empty((4, 4, 4)))
    with pytest.raises(DataError, match="holds label 7: must be below 2"):
        only(cube((1, 1, 1)) * np.uint8(7), empty())
    with pytest.raises(DataError, match="three positive numbers"):
        only(empty(), empty(), spacing_mm=(1.0, 0.0, 1.0))
    for tolerance in (-1.0, float("nan")):
        with pytest.raises(DataError, match="must be a number from 0"):
            only(empty(), empty(), tolerance_mm=tolerance)
    with pytest.raises(ValueError, match="convention 'medpy'"):
        only(empty(), empty(), convention="medpy")
