"""Charts place what they show by its value."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.evaluate.report.charts import (
    Line,
    Strip,
    curve_chart,
    efficiency_chart,
    percent_axis,
    strip_chart,
)


@pytest.mark.parametrize(
    ("values", "low", "ticks"),
    [
        ([92.0, 97.0], 90, [90, 95, 100]),
        ([78.0, 97.0], 75, [75, 80, 85, 90, 95, 100]),
        ([60.0, 97.0], 60, [60, 70, 80, 90, 100]),
        ([0.0, 100.0], 0, [0, 20, 40, 60, 80, 100]),
        ([100.0], 90, [90, 95, 100]),
    ],
)
def test_percent_axis_holds_all_values(values: list[float], low: float, ticks: list[float]) -> None:
    assert percent_axis(values) == (low, ticks)


def test_strip_chart_places_dots_by_value() -> None:
    strip = Strip(title="ARCO-SG", points=(("p", 50.0), ("q", 75.0), ("r", 100.0)))
    chart = str(strip_chart(strip, low=50.0, ticks=[50.0, 100.0]))
    assert [float(x) for x in re.findall(r'class="dot" d="M([\d.]+)', chart)] == [0.0, 440.0, 880.0]
    assert "<title>q: 75.0</title>" in chart
    assert "median 75.0, quartiles 62.5 to 87.5" in chart


def test_curves_stay_inside_the_frame() -> None:
    spiky: list[tuple[int, float]] = [(step, 1.0 / step) for step in range(1, 400)]
    spiky[200] = (201, 1e6)
    lines = [Line(title="ARCO", style="m0", points=p) for p in (tuple(spiky), ())]
    chart = str(curve_chart(lines, title="loss"))
    points = [
        tuple(map(float, p.split())) for p in re.findall(r'curve m0" d="M([^"]+)"', chart)[0].split("L")
    ]
    assert all(46 <= x <= 234 and 8 <= y <= 104 for x, y in points)
    assert curve_chart(lines[1:], title="loss") == ""


def test_a_constant_curve() -> None:
    flat: Any = tuple((step, 0.0) for step in range(1, 5))
    line = Line(title="ARCO", style="m0", points=flat)
    assert "NaN" not in curve_chart([line], title="contrast")


def test_whiskers_end_at_the_last_value_within_reach() -> None:
    """Quartiles 71 and 73, so a whisker may reach from 68 to 76: 60 is an outlier."""
    strip = Strip(title="ARCO", points=tuple((str(v), v) for v in (60.0, 70.0, 71.0, 72.0, 73.0, 74.0, 72.0)))
    chart = str(strip_chart(strip, low=50.0, ticks=[50.0, 100.0]))
    low, first, third, high = map(float, re.findall(r'whisker" d="M(.+?) 20H(.+?)M(.+?) 20H(.+?)"', chart)[0])
    scale = [50 + x * 50 / 880 for x in (low, first, third, high)]
    assert scale == pytest.approx([70.0, 70.5, 72.5, 74.0], abs=0.05)


def test_efficiency_chart_places_marks_and_intervals_by_value() -> None:
    lines = [
        Line(title="ARCO", style="m0", points=((0.0, 60.0), (1.0, 80.0)), intervals=((50.0, 70.0), None)),
        Line(title="Supervised", style="mb", points=((1.0, 70.0),), intervals=((65.0, 75.0),)),
    ]
    chart = str(efficiency_chart(lines, labels=["1 patient", "7 patients"]))
    (bar,) = re.findall(r'class="m0"><path class="whisker" d="M([\d.]+) ([\d.]+)V([\d.]+)"/>', chart)
    marks = re.findall(r'class="mark" d="([^"]+)"', chart)
    first, second = ([float(n) for n in m] for m in re.findall(r"M([\d.]+) ([\d.]+)h0", marks[0]))
    assert float(bar[0]) == first[0] < second[0]
    assert first[1] == pytest.approx((float(bar[1]) + float(bar[2])) / 2, abs=0.1)  # the middle of 50 and 70
    assert second[1] < first[1]
    assert "7 patients" in chart and marks[1].count("M") == 1
