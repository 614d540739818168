"""The best, the median and the worst case: what the methods drew on a slice, beside the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from components.evaluate.images import contour_path, png_data_uri
from components.evaluate.scoring import CaseScore, TrainedModel
from infra.datasets import DatasetVersion

_MARGIN = 0.6
"""Image shown around the structures, as a share of their extent."""

Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """One structure on one slice."""

    class_index: int
    """Its number among the classes, from 1."""
    prediction: str
    """SVG path in pixels; empty where nothing was predicted."""
    reference: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One method's prediction."""

    method: str
    dice: float
    """Mean over structures of the whole volume, between 0 and 1."""
    outlines: tuple[Outline, ...]


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """One case: a slice, and each method's panel."""

    rank: str
    """`Best`, `Median` or `Worst`."""
    case_id: str
    slice_number: int
    """From 1."""
    slices: int
    image: str
    """PNG data URI."""
    width: int
    height: int
    """Pixels shown."""
    pixel_mm: tuple[float, float]
    """Size of a pixel along columns and rows (x, y)."""
    panels: tuple[Panel, ...]


def make_overlays(
    version: DatasetVersion,
    models: Sequence[TrainedModel],
    scores: Sequence[CaseScore],
    primary: TrainedModel,
) -> list[Overlay]:
    """Overlays of the cases on which `primary` did best, middling and worst; `models` have its seed.

    The slice is the one where the reference is largest, so that no method has a say in it.
    """
    ranked = sorted(case_dice(scores, primary).items(), key=lambda item: (-item[1], item[0]))
    positions = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    chosen = {ranked[position][0]: rank for rank, position in reversed(positions.items())}
    return [
        _overlay(version, models, scores, rank, case_id)
        for case_id, rank in sorted(chosen.items(), key=lambda item: list(positions).index(item[1]))
    ]


def case_dice(scores: Sequence[CaseScore], model: TrainedModel) -> dict[str, float]:
    """Mean Dice over structures of each case, for one model."""
    dice: dict[str, list[float]] = {}
    for s in scores:
        if (s.method, s.seed) == (model.ref.method, model.ref.seed):
            dice.setdefault(s.case_id, []).append(s.score.dice)
    return {case_id: float(np.mean(values)) for case_id, values in dice.items()}


def _overlay(
    version: DatasetVersion,
    models: Sequence[TrainedModel],
    scores: Sequence[CaseScore],
    rank: str,
    case_id: str,
) -> Overlay:
    images, annotation = version.read_case(case_id)
    if annotation is None:
        raise DataError(f"{version.url} has no labels of the annotated case {case_id}: prepare it again.")
    volumetric, image_size = version.is_volumetric, version.data_config.image_size
    slices, labels = (images[0].swapaxes(0, 1), annotation[0]) if volumetric else (images, annotation)
    index = int(np.argmax((labels > 0).sum(axis=(1, 2))))
    reference = labels[index]
    if volumetric:  # what is shown is what was scored, blended from all windows
        predictions = [model.segment(images, image_size)[0, index] for model in models]
    else:
        predictions = [model.segment(slices[index : index + 1], image_size)[0] for model in models]
    box = _shown(slices[index, 0], [reference, *predictions])
    _, row_mm, column_mm = version.case(case_id).geometry.spacing_mm
    image = _to_grey(slices[:, 0])[index][box]  # of several channels the first
    return Overlay(
        rank=rank,
        case_id=case_id,
        slice_number=index + 1,
        slices=len(slices),
        image=png_data_uri(image),
        width=image.shape[1],
        height=image.shape[0],
        pixel_mm=(column_mm, row_mm),
        panels=tuple(
            Panel(
                method=model.ref.method,
                dice=case_dice(scores, model)[case_id],
                outlines=_outlines(prediction[box], reference[box], len(version.classes)),
            )
            for model, prediction in zip(models, predictions, strict=True)
        ),
    )


def _outlines(
    prediction: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], classes: int
) -> tuple[Outline, ...]:
    return tuple(
        Outline(
            class_index=index,
            prediction=contour_path(prediction == index),
            reference=contour_path(reference == index),
        )
        for index in range(1, classes)
        if (prediction == index).any() or (reference == index).any()
    )


def _to_grey(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Intensities as grey values, the extremes of the whole volume clipped."""
    low, high = np.percentile(volume, (0.5, 99.5))
    return np.round(255 * np.clip((volume - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)


def _shown(image: npt.NDArray[np.float32], masks: Sequence[npt.NDArray[np.uint8]]) -> Box:
    """The structures and some of the image around them, padding left out, square where there is room."""
    content = _bounds(image > image.min())
    found = _bounds(np.any([mask > 0 for mask in masks], axis=0))
    extent = max(stop - start for start, stop in found) * (1 + 2 * _MARGIN)
    rows, columns = (
        _window((start + stop) / 2, extent, limits)
        for (start, stop), limits in zip(found, content, strict=True)
    )
    return rows, columns


def _window(center: float, extent: float, limits: tuple[int, int]) -> slice:
    """`extent` pixels around `center`, shifted and cut so as to lie within `limits`."""
    length = min(round(extent), limits[1] - limits[0])
    start = min(max(round(center - length / 2), limits[0]), limits[1] - length)
    return slice(start, start + length)


def _bounds(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one past the last row, then column, that hold anything; everything if nothing does."""
    bounds = []
    for axis, size in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        bounds.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, size))
    return bounds
