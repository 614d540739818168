"""The report: one HTML file that needs nothing else, no network and no JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup

from components.evaluate.charts import Strip, curve_chart, percent_axis, strip_chart
from components.evaluate.overlays import Overlay
from components.evaluate.scoring import CaseScore
from components.evaluate.table import COLUMNS, is_best, missing_of, spread_of, value_of
from components.evaluate.training_log import STAGES, StageLog
from components.model_ref import BASELINE, method_title
from components.versions import software_versions

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "ray", "kfp", "pyarrow")
_STAGE_TITLES = {
    "pretrain": "Stage one: relational pre-training",
    "finetune": "Stage two: contrastive fine-tuning",
    "supervised": "Supervised baseline",
}


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that the report shows."""

    name: str
    """Of the dataset."""
    summary: Mapping[str, Any]
    scores: Sequence[CaseScore]
    overlays: Sequence[Overlay]
    overlay_seed: int
    logs: Sequence[StageLog]
    train_patients: int
    config: str
    """TOML."""


def render_report(data: ReportData) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("components.evaluate", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    methods: Mapping[str, Any] = data.summary["methods"]
    order = sorted(methods, key=lambda m: m == BASELINE)
    structures = list(next(iter(methods.values()))["dice"]["per_class"])
    return environment.get_template("report.html.j2").render(
        data=data,
        summary=data.summary,
        structures=structures,
        tiles=_tiles(methods, data.summary["paired"]),
        columns=[title for _, title, _, _ in COLUMNS],
        groups=[_group(methods, order, name) for name in (*structures, None)],
        title_of=method_title,
        strips=_strips(data.scores, order, structures),
        stages=_stages(data.logs),
        packages=software_versions(_PACKAGES),
        labeled=_labeled(data),
    )


def _tiles(methods: Mapping[str, Any], paired: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline numbers: what is measured, the value, and a line below."""
    tiles = []
    for method in sorted(methods, key=lambda m: m == BASELINE):
        dice = methods[method]["dice"]
        spread = "" if dice["sd"] is None else f"± {dice['sd'] * 100:.1f} over {len(dice['per_seed'])} seeds"
        tiles.append(
            {
                "what": f"{method_title(method)}, mean DSC",
                "value": f"{dice['mean'] * 100:.1f}%",
                "note": spread,
            }
        )
    for method, difference in paired.items():
        values = difference["dice"]["per_seed"]
        tiles.append(
            {
                "what": f"{method_title(method)} − {method_title(BASELINE)}",
                "value": f"{_signed(difference['dice']['mean'])} points",
                "note": ", ".join(f"seed {s}: {_signed(v)}" for s, v in values.items() if len(values) > 1),
            }
        )
    return tiles


def _group(methods: Mapping[str, Any], order: Sequence[str], name: str | None) -> dict[str, Any]:
    """The rows of one structure, or of the mean over all."""
    rows = [
        {
            "title": method_title(method),
            "cells": [
                {
                    "value": _number(value_of(methods, method, metric, name), factor, digits),
                    "spread": _number(spread_of(methods, method, metric, name), factor, digits, missing=""),
                    "best": is_best(methods, method, metric, name),
                }
                for metric, _, factor, digits in COLUMNS
            ],
            "missing": missing_of(methods, method, name),
        }
        for method in order
    ]
    return {"title": name or "Mean over structures", "rows": rows, "total": name is None}


def _strips(scores: Sequence[CaseScore], order: Sequence[str], structures: Sequence[str]) -> dict[str, Any]:
    """For each structure and method, the Dice [%] of each case, averaged over seeds; and the axis' ticks."""
    dice: dict[tuple[str, str], dict[str, list[float]]] = {}
    for s in scores:
        cases = dice.setdefault((s.score.class_name, s.method), {})
        cases.setdefault(s.case_id, []).append(100 * s.score.dice)
    low, ticks = percent_axis([fmean(v) for cases in dice.values() for v in cases.values()])
    groups = []
    for name in structures:
        rows = []
        for position, method in enumerate(order):
            points = tuple((case, fmean(values)) for case, values in dice[name, method].items())
            title = method_title(method)
            chart = strip_chart(Strip(title=title, points=points), low=low, ticks=ticks)
            rows.append({"title": title, "style": _style(method, position), "chart": chart})
        groups.append({"title": name, "rows": rows})
    return {"groups": groups, "ticks": [(tick, 100 * (tick - low) / (100 - low)) for tick in ticks]}


def _style(method: str, position: int) -> str:
    """The style sheet's class that gives a method its colour."""
    return "mb" if method == BASELINE else f"m{position % 4}"


def _stages(logs: Sequence[StageLog]) -> list[dict[str, Any]]:
    """For each stage, a chart a loss term with a line a seed."""
    stages = []
    for stage in STAGES:
        own = [log for log in logs if log.stage == stage]
        terms = dict.fromkeys(
            term
            for log in own
            for term, curve in log.curves.items()
            if term == "loss" or curve != log.curves.get("loss")  # a stage of one term logs it twice
        )
        charts: list[tuple[str, Markup]] = []
        for term in terms:
            title = "total loss" if term == "loss" else term
            curves = {log.seed: log.curves[term] for log in own if term in log.curves}
            charts.append((title, curve_chart(curves, title=title)))
        if charts:
            stages.append({"title": _STAGE_TITLES[stage], "charts": charts})
    return stages


def _labeled(data: ReportData) -> dict[str, Any]:
    """How many patients are labelled, in words, and which by seed."""
    per_seed: Mapping[str, Sequence[str]] = data.summary["labeled_patients"]
    counts = sorted({len(patients) for patients in per_seed.values()})
    number = " or ".join(map(str, counts))
    return {
        "text": f"{number} labelled of {data.train_patients} training patients "
        f"({counts[-1] / data.train_patients:.1%})",
        "per_seed": per_seed,
    }


def _number(value: float | None, factor: float, digits: int, *, missing: str = "–") -> str:
    return missing if value is None else f"{value * factor:.{digits}f}"


def _signed(fraction: float) -> str:
    """A difference of fractions in points, with a true minus sign."""
    return f"{fraction * 100:+.1f}".replace("-", "−")
