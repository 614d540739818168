"""Charts as inline SVG: colours come from the page's style sheet, so they follow its dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from components.evaluate.training_log import Curve

Named = tuple[str, float]


_STRIP_WIDTH = 880.0


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What a strip chart shows."""

    title: str
    points: tuple[Named, ...]
    """(what it is, value)"""


def strip_chart(strip: Strip, *, low: float, ticks: Sequence[float]) -> Markup:
    """Values from `low` to 100: a dot each, on a box from the lower to the upper quartile with the median.

    It stretches to the width that it is given. A dot is a line of no length with round ends, because those
    keep their shape.
    """

    def x(value: float) -> float:
        return _STRIP_WIDTH * (value - low) / (100.0 - low)

    parts = [f'<path class="grid" d="M{x(tick):.1f} 0v40"/>' for tick in ticks]
    values = [value for _, value in strip.points]
    first, median, third = np.percentile(values, (25, 50, 75))
    parts.append(
        f'<rect class="box" x="{x(first):.1f}" y="7" width="{x(third) - x(first):.1f}" height="26"/>'
    )
    parts.append(f'<path class="median" d="M{x(median):.1f} 7v26"/>')
    offsets = _offsets([x(value) for value in values])
    parts += [
        f'<path class="dot" d="M{x(value):.1f} {20 + offset:.1f}h0">'
        f"<title>{escape(name)}: {value:.1f}</title></path>"
        for (name, value), offset in zip(strip.points, offsets, strict=True)
    ]
    description = f"{strip.title}: median {median:.1f}, quartiles {first:.1f} to {third:.1f}"
    return _svg(_STRIP_WIDTH, 40, "".join(parts), description, 'preserveAspectRatio="none" ')


def curve_chart(curves: Mapping[int, Curve], *, title: str) -> Markup:
    """One thin line a seed. The axis starts at 0 where that wastes little, and cuts off rare spikes."""
    left, right, top, bottom = 46.0, 234.0, 8.0, 104.0
    lines = {seed: _thinned(curve) for seed, curve in curves.items() if curve}
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    steps = round(max(step for step, _ in points))
    low, high = _limits([value for _, value in points])

    def place(step: float, value: float) -> str:
        height = (min(value, high) - low) / (high - low)
        return f"{left + (right - left) * step / steps:.1f} {bottom - (bottom - top) * height:.1f}"

    parts = [
        f'<path class="grid" d="M{left:.0f} {y:.0f}H{right:.0f}"/>'
        f'<text class="tick end" x="{left - 5:.0f}" y="{y + 4:.0f}">{value:.3g}</text>'
        for y, value in ((top, high), (bottom, low))
    ]
    parts.append(f'<text class="tick end" x="{right:.0f}" y="{bottom + 16:.0f}">step {steps}</text>')
    parts += [
        f'<path class="curve" d="M{"L".join(place(*p) for p in line)}"><title>seed {seed}</title></path>'
        for seed, line in lines.items()
    ]
    return _svg(240, 124, "".join(parts), f"{title} over {steps} steps")


def percent_axis(values: Sequence[float]) -> tuple[float, list[float]]:
    """Lower end and ticks of a percentage axis that ends at 100 and holds all `values`."""
    step = next((s for s in (5, 10, 20) if min(values) >= 100 - 5 * s), 25)
    low = min(100 - 2 * step, step * math.floor(min(values) / step))
    return low, [float(t) for t in range(100, int(low) - 1, -step)][::-1]


def _offsets(positions: Sequence[float], size: float = 6.0) -> list[float]:
    """Vertical offsets, 0, 1, -1, 2, … times a gap, that keep near points apart where there is room."""
    columns: dict[int, int] = {}
    offsets = [0.0] * len(positions)
    for index in sorted(range(len(positions)), key=lambda i: positions[i]):
        column = int(positions[index] // size)
        rank = columns[column] = columns.get(column, -1) + 1
        level = (rank + 1) // 2 * (1 if rank % 2 else -1)
        offsets[index] = max(-12.0, min(12.0, level * size * 0.9))
    return offsets


def _thinned(curve: Curve, count: int = 120) -> list[tuple[float, float]]:
    """At most `count` points, each the mean of consecutive ones."""
    parts = np.array_split(np.array(curve), min(count, len(curve)))
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits: the 99th percentile keeps one spike from flattening the rest."""
    low, high = min(values), float(np.percentile(values, 99))
    if 0 <= low < 0.6 * high:
        low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def _svg(width: float, height: float, body: str, description: str, attributes: str = "") -> Markup:
    box = f"0 0 {width:.0f} {height:.0f}"
    return Markup(
        f'<svg viewBox="{box}" {attributes}role="img" aria-label="{escape(description)}">{body}</svg>'
    )
