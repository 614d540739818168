"""Charts as inline SVG: colours come from the page's style sheet, so they follow its dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from components.evaluate.training_log import Curve

Named = tuple[str, float]
Interval = tuple[float, float] | None


_STRIP_WIDTH = 880.0


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What a strip chart shows."""

    title: str
    points: tuple[Named, ...]
    """(what it is, value)"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart."""

    title: str
    style: str
    """The style sheet's class that gives it its colour."""
    points: Curve
    """(x, y), in order."""
    intervals: tuple[Interval, ...] = ()
    """Of each point, where there are any."""


@dataclass(frozen=True)
class Frame:
    """Where a chart's data lie in its SVG, and between which values."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float

    def y(self, value: float) -> float:
        """Of a value; beyond the frame's ends at the end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * share

    def rules(self, values: Sequence[float]) -> list[str]:
        """Horizontal lines at `values`, labelled."""
        return [
            f'<path class="grid" d="M{self.left:.0f} {self.y(v):.1f}H{self.right:.0f}"/>'
            f'<text class="tick end" x="{self.left - 6:.0f}" y="{self.y(v) + 4:.1f}">{v:.3g}</text>'
            for v in values
        ]


def strip_chart(strip: Strip, *, low: float, ticks: Sequence[float]) -> Markup:
    """Values from `low` to 100: a dot each, on a box from the lower to the upper quartile with the median.

    Whiskers reach to the outermost values within 1.5 times the box's length of it. The chart stretches to the
    width that it is given. A dot is a line of no length with round ends, because those keep their shape.
    """

    def x(value: float) -> float:
        return _STRIP_WIDTH * (value - low) / (100.0 - low)

    parts = [f'<path class="grid" d="M{x(tick):.1f} 0v40"/>' for tick in ticks]
    values = [value for _, value in strip.points]
    first, median, third = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (third - first)
    least = min(v for v in values if v >= first - reach)
    most = max(v for v in values if v <= third + reach)
    parts.append(
        f'<path class="whisker" d="M{x(least):.1f} 20H{x(first):.1f}M{x(third):.1f} 20H{x(most):.1f}"/>'
    )
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


def curve_chart(lines: Sequence[Line], *, title: str) -> Markup:
    """Values over optimiser steps. The axis starts at 0 where that wastes little; rare spikes are cut off."""
    lines = [line for line in lines if line.points]
    points = [point for line in lines for point in line.points]
    if not points:
        return Markup("")
    steps = round(max(step for step, _ in points))
    frame = Frame(240, 124, 46, 234, 8, 104, *_limits([value for _, value in points]))

    def place(step: float, value: float) -> str:
        return f"{frame.left + (frame.right - frame.left) * step / max(steps, 1):.1f} {frame.y(value):.1f}"

    parts = frame.rules((frame.high, frame.low))
    parts.append(f'<text class="tick end" x="234" y="120">step {steps}</text>')
    parts += [_path(line, [place(*point) for point in line.points]) for line in lines]
    return _svg(frame.width, frame.height, "".join(parts), f"{title} over {steps} steps")


def efficiency_chart(lines: Sequence[Line], *, labels: Sequence[str]) -> Markup:
    """DSC in per cent against the amount of labels, with intervals; x is the number of the amount, from 0."""
    values = [v for line in lines for _, v in line.points]
    values += [end for line in lines for ends in line.intervals if ends for end in ends]
    low, ticks = percent_axis(values)
    high = ticks[-1] if max(values) > ticks[-2] else ticks[-2]
    frame = Frame(640, 320, 44, 630, 14, 280, low, high)
    gap = (frame.right - frame.left) / len(labels)
    parts = frame.rules([tick for tick in ticks if tick <= high])
    for number, label in enumerate(labels):
        x = frame.left + gap * (number + 0.5)
        parts.append(f'<text class="tick" x="{x:.1f}" y="304">{escape(label)}</text>')
    for number, line in enumerate(lines):
        shift = (number - (len(lines) - 1) / 2) * min(14.0, 0.5 * gap / len(lines))
        xs = [frame.left + gap * (x + 0.5) + shift for x, _ in line.points]
        ends = zip(xs, line.intervals, strict=True)
        bars = "".join(f"M{x:.1f} {frame.y(e[0]):.1f}V{frame.y(e[1]):.1f}" for x, e in ends if e)
        marks = "".join(f"M{x:.1f} {frame.y(v):.1f}h0" for x, (_, v) in zip(xs, line.points, strict=True))
        places = [f"{x:.1f} {frame.y(v):.1f}" for x, (_, v) in zip(xs, line.points, strict=True)]
        parts.append(
            f'<g class="{line.style}"><path class="whisker" d="{bars}"/>{_path(line, places)}'
            f'<path class="mark" d="{marks}"><title>{escape(line.title)}</title></path></g>'
        )
    return _svg(frame.width, frame.height, "".join(parts), "DSC by number of labelled patients")


def percent_axis(values: Sequence[float]) -> tuple[float, list[float]]:
    """Lower end and ticks of a percentage axis that ends at 100 and holds all `values`."""
    step = next((s for s in (5, 10, 20) if min(values) >= 100 - 5 * s), 25)
    low = min(100 - 2 * step, step * math.floor(min(values) / step))
    return low, [float(t) for t in range(100, int(low) - 1, -step)][::-1]


def _path(line: Line, places: Sequence[str]) -> str:
    title = f"<title>{escape(line.title)}</title>"
    return f'<path class="curve {line.style}" d="M{"L".join(places)}">{title}</path>'


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
