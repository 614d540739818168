"""The report's charts and overlays, from what a comparison holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from components.evaluate.comparison import Amount, Comparison
from components.evaluate.report.charts import (
    Line,
    Strip,
    curve_chart,
    efficiency_chart,
    percent_axis,
    strip_chart,
)
from components.evaluate.report.overlays import Overlay, make_overlays
from components.evaluate.report.scores import amount_title
from components.evaluate.scoring import CaseScore
from components.evaluate.training_log import STAGES, VALIDATION_DICE, StageLog
from components.model_ref import method_title

STAGE_TITLES = {
    "pretrain": "Stage one: pre-training",
    "finetune": "Stage two: fine-tuning",
    "supervised": "Supervised baseline",
}
_STAGE_ONE = "ms"
"""The style of what several methods share."""

ByCase = dict[str, float]


def efficiency(comparison: Comparison, styles: Mapping[str, str]) -> Markup | None:
    """Mean DSC over the amount of labels, a line a method; None for a single amount."""
    if len(comparison.amounts) < 2:
        return None
    labels = [amount_title(comparison, a.labeled).replace("labelled patient", "patient")
              for a in comparison.amounts]  # fmt: skip
    lines = []
    for method in comparison.methods:
        found = [
            (number, amount.summary["methods"][method]["dice"])
            for number, amount in enumerate(comparison.amounts)
            if method in amount.summary["methods"]
        ]
        intervals = [dice["interval"] for _, dice in found]
        lines.append(
            Line(
                title=method_title(method),
                style=styles[method],
                points=tuple((float(number), 100 * dice["mean"]) for number, dice in found),
                intervals=tuple(i and (100 * i[0], 100 * i[1]) for i in intervals),
            )
        )
    return efficiency_chart(lines, labels=labels)


def dice_by_case(amount: Amount, name: str | None) -> dict[str, ByCase]:
    """Method -> case -> DSC [%] of a structure, or of the mean over them, averaged over seeds."""
    values: dict[str, dict[str, list[float]]] = {method: {} for method in amount.methods}
    for s in _last(amount):
        if name in (None, s.score.class_name):
            values[s.method].setdefault(s.case_id, []).append(100 * s.score.dice)
    return {m: {case: fmean(v) for case, v in cases.items()} for m, cases in values.items()}


def strips(comparison: Comparison, styles: Mapping[str, str]) -> dict[str, Any]:
    """Box plots of each amount's mean DSC, or, of a single one, of each structure's; the rest apart.

    All have one axis.
    """
    structures = comparison.common["classes"][1:]
    single = len(comparison.amounts) == 1
    tables = {
        (amount.labeled, name): dice_by_case(amount, name)
        for amount in comparison.amounts
        for name in (None, *structures)
    }
    low, ticks = percent_axis([v for t in tables.values() for cases in t.values() for v in cases.values()])

    def group(labeled: int, name: str | None, title: str) -> dict[str, Any]:
        rows = [
            {
                "title": method_title(method),
                "style": styles[method],
                "chart": strip_chart(
                    Strip(title=method_title(method), points=tuple(cases.items())), low=low, ticks=ticks
                ),
            }
            for method, cases in tables[labeled, name].items()
        ]
        return {"title": title, "rows": rows}

    amounts = [(a.labeled, amount_title(comparison, a.labeled)) for a in comparison.amounts]
    by_structure = [
        group(labeled, name, name if single else f"{name}, {title}")
        for labeled, title in amounts
        for name in structures
    ]
    overall = [group(labeled, None, title) for labeled, title in amounts]
    return {
        "groups": by_structure if single else overall,
        "more": [] if single else by_structure,
        "ticks": [(tick, 100 * (tick - low) / (100 - low)) for tick in ticks],
    }


def confusion_rates(amount: Amount, method: str) -> npt.NDArray[np.float64]:
    """Of each reference class's voxels (row), the share that was given to each class; mean over seeds.

    A row of a class that the reference has nowhere is NaN.
    """
    rates = []
    for voxels in amount.confusion[method].values():
        counts = np.array(voxels, float)
        with np.errstate(invalid="ignore"):
            rates.append(counts / counts.sum(axis=1, keepdims=True))
    return np.asarray(np.mean(rates, axis=0))


def confusions(comparison: Comparison) -> list[dict[str, Any]]:
    """For each amount of labels, a matrix a method."""
    return [
        {
            "title": amount_title(comparison, amount.labeled),
            "matrices": [
                {
                    "title": method_title(method),
                    "rows": list(
                        zip(
                            comparison.common["classes"],
                            confusion_rates(amount, method).tolist(),
                            strict=True,
                        )
                    ),
                }
                for method in amount.methods
            ],
        }
        for amount in comparison.amounts
    ]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Best, median and worst case of one method, beside the others."""

    amount: str
    method: str
    seed: int
    overlays: list[Overlay]


def predictions(comparison: Comparison) -> Predictions:
    """Of the fewest labels, where methods differ most; ranked by the best method's best seed."""
    amount = comparison.amounts[0]
    method = amount.best_method
    primary = amount.shown(method, amount.best_seed(method))
    shown = amount.shown_beside(primary)
    classes = len(comparison.common["classes"])
    return Predictions(
        amount=amount_title(comparison, amount.labeled),
        method=method,
        seed=primary.seed,
        overlays=make_overlays(lambda case: amount.slice_of(case, shown), shown, primary, classes),
    )


def training(comparison: Comparison, styles: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each amount of labels: Dice on validation, and for each stage a chart a loss term."""
    sections = []
    for amount in comparison.amounts:
        lines = [_line(log, VALIDATION_DICE, styles, 100.0) for log in amount.logs]
        stages = [
            {"title": STAGE_TITLES[stage], "charts": charts}
            for stage in STAGES
            if (charts := _loss_charts([log for log in amount.logs if log.stage == stage], styles))
        ]
        sections.append(
            {
                "title": amount_title(comparison, amount.labeled),
                "dice": curve_chart(lines, title="Validation DSC in per cent"),
                "stages": stages,
            }
        )
    return sections


def _loss_charts(logs: Sequence[StageLog], styles: Mapping[str, str]) -> list[tuple[str, Markup]]:
    terms = dict.fromkeys(
        term
        for log in logs
        for term, curve in log.curves.items()
        if term != VALIDATION_DICE
        and (term == "loss" or curve != log.curves.get("loss"))  # a stage of one term logs it twice
    )
    titles = {term: "total loss" if term == "loss" else term for term in terms}
    return [
        (title, curve_chart([_line(log, term, styles) for log in logs], title=title))
        for term, title in titles.items()
    ]


def _line(log: StageLog, term: str, styles: Mapping[str, str], factor: float = 1.0) -> Line:
    name = method_title(log.method) if log.method else STAGE_TITLES[log.stage]
    return Line(
        title=f"{name}, seed {log.seed}",
        style=styles[log.method] if log.method else _STAGE_ONE,
        points=tuple((step, factor * value) for step, value in log.curves.get(term, ())),
    )


def _last(amount: Amount) -> list[CaseScore]:
    return [s for s in amount.scores if s.checkpoint == "last"]
