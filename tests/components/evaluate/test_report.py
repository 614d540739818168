"""The report stands on its own, and its pictures show what the masks are."""

from __future__ import annotations

import base64
import dataclasses
import re
import struct
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from components.evaluate.charts import Strip, curve_chart, percent_axis, strip_chart
from components.evaluate.images import contour_path, png_data_uri
from components.evaluate.overlays import Outline, Overlay, Panel, make_overlays
from components.evaluate.report import ReportData, render_report
from components.evaluate.scoring import load_models, score_models
from components.evaluate.summary import paired_differences, summarize_methods
from components.evaluate.training_log import StageLog, read_stage_logs, seconds_of, steps_of
from infra.datasets import DatasetVersion
from tests.components.conftest import TrainedRun
from tests.components.evaluate.scores import score

Mask = npt.NDArray[np.bool_]


def report_data(
    methods: tuple[str, ...] = ("arco-sg", "supervised"), seeds: tuple[int, ...] = (0, 1)
) -> ReportData:
    scores = [
        score(method, seed, case, name, 0.61 + 0.1 * seed + 0.02 * order, 2.5)
        for order, method in enumerate(methods)
        for seed in seeds
        for case in ("p", "q")
        for name in ("ring", "core")
    ]
    summaries = summarize_methods(scores)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    path = contour_path(mask)
    outlines = (
        Outline(class_index=1, prediction=path, reference=""),
        Outline(class_index=2, prediction="", reference=path),
    )
    overlay = Overlay(
        rank="Best", case_id="p", slice_number=3, slices=9, width=8, height=8, pixel_mm=(1.0, 2.0),
        image=png_data_uri(np.zeros((8, 8), np.uint8)),
        panels=tuple(Panel(method=method, dice=0.75, outlines=outlines) for method in methods),
    )  # fmt: skip
    return ReportData(
        name="toy",
        summary={
            "methods": summaries,
            "paired": paired_differences(summaries),
            "dataset": "store/datasets/toy/0123456789ab",
            "labeled_patients": {str(seed): ["patient_7", "patient_9"] for seed in seeds},
            "seeds": list(seeds),
            "steps": {"finetune": 300},
            "seconds": {"finetune": 12.6, "evaluate": 1.2},
            "split": "validation",
            "cases": 2,
            "convention": "arco",
        },
        scores=scores,
        overlays=[overlay],
        overlay_seed=seeds[0],
        logs=[StageLog(stage="finetune", seed=s, steps=300, seconds=6.3, curves=curves(s)) for s in seeds],
        train_patients=40,
        config='[data]\nname = "toy"\n',
    )


def curves(seed: int) -> dict[str, tuple[tuple[int, float], ...]]:
    return {
        name: tuple((step, 1.0 / (step + seed)) for step in range(10, 310, 10))
        for name in ("loss", "contrast")
    }


class Page(HTMLParser):
    """Text, tags and attributes; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)


def test_needs_nothing_but_itself() -> None:
    html = render_report(report_data())
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_says_what_was_found_and_where_it_comes_from() -> None:
    text = Page(render_report(report_data())).text
    for expected in (
        "2 labelled of 40 training patients (5.0%), scored on 2 validation volumes",
        "ARCO-SG, mean DSC 66.0% ± 7.1 over 2 seeds",
        "ARCO-SG − Supervised −2.0 points seed 0: −2.0, seed 1: −2.0",
        "ring ARCO-SG 66.0 ± 7.1 2.50 ± 0.00 2.50 ± 0.00 0 Supervised 68.0 ± 7.1",
        "Best p, slice 3 of 9",
        "Stage two: contrastive fine-tuning total loss",
        "store/datasets/toy/0123456789ab",
        "Labelled, seed 1 patient_7, patient_9",
        "finetune 300",
        "finetune 13 s, evaluate 1 s, over all seeds",
        'Configuration [data] name = "toy"',
    ):
        assert expected in text


def test_the_better_value_is_marked_and_equals_are_not() -> None:
    html = render_report(report_data())
    assert '<span class="best">68.0</span>' in html
    assert '<span class="best">66.0</span>' not in html
    assert '<span class="best">2.50</span>' not in html


@pytest.mark.parametrize("methods", [("arco-sg",), ("supervised",), ("arco-sg", "arco-ns", "supervised")])
def test_any_set_of_methods_and_a_single_seed(methods: tuple[str, ...]) -> None:
    text = Page(render_report(report_data(methods, (3,)))).text
    assert "over 1 seeds" not in text and "±" not in text
    assert ("points" in text) == (len(methods) > 1)


def test_names_cannot_become_markup() -> None:
    data = report_data()
    evil = '<img src="https://x"> & "co"'
    overlay = dataclasses.replace(data.overlays[0], case_id=evil)
    scores = [dataclasses.replace(s, case_id=evil) for s in data.scores]
    html = render_report(dataclasses.replace(data, name=evil, overlays=[overlay], scores=scores, config=evil))
    assert "<img" not in html
    Page(html)


def test_a_case_without_distance_has_a_dash() -> None:
    data = report_data()
    scores = [dataclasses.replace(s, score=dataclasses.replace(s.score, asd_mm=None)) for s in data.scores]
    methods = summarize_methods(scores)
    html = render_report(dataclasses.replace(data, summary={**data.summary, "methods": methods}))
    assert "<span>–</span>" in html


def test_of_a_real_run(trained_run: TrainedRun) -> None:
    """Overlays and logs as the evaluation gathers them."""
    version = DatasetVersion.open(trained_run.dataset)
    models = load_models(trained_run.models, version, "validation")
    scores = score_models(version, models, "validation", convention="arco").of("last")
    last = [m for m in models if "last" in m.checkpoints]
    overlays = make_overlays(version, last[:2], scores, last[0])
    assert [o.rank for o in overlays] == ["Best"]  # one validation patient
    assert [panel.method for panel in overlays[0].panels] == ["arco-sg", "supervised"]
    assert overlays[0].pixel_mm == (1.5, 1.5)
    assert all(any(outline.reference for outline in panel.outlines) for panel in overlays[0].panels)
    logs = read_stage_logs(models)
    assert [(log.stage, log.seed) for log in logs] == [
        (stage, seed) for stage in ("pretrain", "finetune", "supervised") for seed in (0, 1)
    ]
    assert all(next(iter(log.curves)) == "loss" and log.curves["loss"] for log in logs)
    assert set(logs[0].curves) == {"loss", "supervised", "global", "local"}
    assert steps_of(logs)["finetune"] == logs[2].steps
    assert seconds_of(logs)["pretrain"] == pytest.approx(logs[0].seconds + logs[1].seconds, abs=0.06)


def test_best_median_and_worst_are_ranked_by_the_first_method(trained_run: TrainedRun) -> None:
    version = DatasetVersion.open(trained_run.dataset)
    models = load_models(trained_run.models, version, "validation")
    annotated = sorted(c.case_id for c in version.cases if c.annotated)[:3]
    dice = dict(zip(annotated, (0.5, 0.9, 0.1), strict=True))
    scores = [score("arco-sg", 0, case, "ring", value) for case, value in dice.items()]
    overlays = make_overlays(version, models[:1], scores, models[0])
    assert [(o.rank, o.panels[0].dice) for o in overlays] == [("Best", 0.9), ("Median", 0.5), ("Worst", 0.1)]
    assert [o.case_id for o in overlays] == [annotated[1], annotated[0], annotated[2]]


def decode_png(uri: str) -> npt.NDArray[np.uint8]:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind], position = body, position + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]


def test_png_holds_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9)).astype(np.uint8)
    assert np.array_equal(decode_png(png_data_uri(pixels)), pixels)


def filled(path: str, shape: tuple[int, int]) -> Mask:
    """Even-odd filling of a path of horizontal and vertical steps: what a browser paints."""
    crossings = np.zeros(shape, int)
    x = y = 0
    for command, first, second in re.findall(r"([Mhvz])(-?\d+)?(?: (-?\d+))?", path):
        if command == "M":
            x, y = int(first), int(second)
        elif command == "h":
            x += int(first)
        elif command == "v":
            low, high = sorted((y, y + int(first)))
            crossings[low:high, x:] += 1
            y += int(first)
    return np.asarray(crossings % 2 == 1)


@pytest.mark.parametrize("seed", range(20))
def test_filling_an_outline_gives_the_mask(seed: int) -> None:
    """Also with holes, several parts, parts that touch at a corner, and parts at the border."""
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 12)) < rng.choice([0.15, 0.5, 0.85])
    path = contour_path(mask)
    assert np.array_equal(filled(path, mask.shape), mask)
    assert path.count("M") == path.count("z")


def test_an_outline_has_corners_only() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:5, 3:8] = True
    assert contour_path(mask) == "M3 2h5v3h-5v-3z"
    assert contour_path(np.zeros((4, 4), bool)) == ""


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
    chart = str(curve_chart({0: tuple(spiky), 1: ()}, title="loss"))
    points = [tuple(map(float, p.split())) for p in re.findall(r'curve" d="M([^"]+)"', chart)[0].split("L")]
    assert len(points) <= 120
    assert all(46 <= x <= 234 and 8 <= y <= 104 for x, y in points)
    assert curve_chart({0: ()}, title="loss") == ""


def test_a_constant_curve() -> None:
    flat: Any = tuple((step, 0.0) for step in range(1, 5))
    assert "NaN" not in curve_chart({0: flat}, title="contrast")
