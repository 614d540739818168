"""The best, the median and the worst case: what the methods drew on a slice, beside the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.evaluate.comparison import Shown
from components.evaluate.report.images import contour_path, png_data_uri
from components.evaluate.slices import CaseSlice

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
    seed: int
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
    slice_of: Callable[[str], CaseSlice], shown: Sequence[Shown], primary: Shown, classes: int
) -> list[Overlay]:
    """Overlays of the cases on which `primary` did best, middling and worst, with a panel for each `shown`.

    Args:
        slice_of: the slice of a case, which holds the predictions of all `shown`.
        shown: models, in order.
        primary: the model that the cases are ranked by.
        classes: number of classes, background included.
    """
    return [_overlay(slice_of(case_id), shown, rank, classes) for rank, case_id in chosen_cases(primary)]


def chosen_cases(primary: Shown) -> list[tuple[str, str]]:
    """(`Best`, case), (`Median`, case) and (`Worst`, case); fewer where there are fewer cases."""
    ranked = sorted(primary.dice.items(), key=lambda item: (-item[1], item[0]))
    positions = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    chosen = {ranked[position][0]: rank for rank, position in reversed(positions.items())}
    return [(rank, case) for case, rank in sorted(chosen.items(), key=lambda i: list(positions).index(i[1]))]


def _overlay(cut: CaseSlice, shown: Sequence[Shown], rank: str, classes: int) -> Overlay:
    predictions = [cut.predictions[model.method, model.seed] for model in shown]
    box = shown_box(cut.image, [cut.reference, *predictions])
    image = cut.image[box]
    return Overlay(
        rank=rank,
        case_id=cut.case_id,
        slice_number=cut.slice_number,
        slices=cut.slices,
        image=png_data_uri(image),
        width=image.shape[1],
        height=image.shape[0],
        pixel_mm=cut.pixel_mm,
        panels=tuple(
            Panel(
                method=model.method,
                seed=model.seed,
                dice=model.dice[cut.case_id],
                outlines=_outlines(prediction[box], cut.reference[box], classes),
            )
            for model, prediction in zip(shown, predictions, strict=True)
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


def shown_box(image: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.uint8]]) -> Box:
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
