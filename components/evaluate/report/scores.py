"""The report's tables of scores and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluate.comparison import Amount, Comparison
from components.evaluate.report.numbers import NONE, number, p_value, signed, span
from components.evaluate.summary import TESTED
from components.evaluate.table import columns_of, is_best, spread_of, value_of
from components.model_ref import method_title

FORMATS: Mapping[str, tuple[float, int]] = {
    "dice": (100.0, 1),
    "surface_dice": (100.0, 1),
    "asd_mm": (1.0, 2),
    "hd95_mm": (1.0, 2),
    "asd_voxel": (1.0, 2),
    "hd95_voxel": (1.0, 2),
}
"""Factor and digits of each metric."""
_TITLES = {
    "dice": "DSC, points",
    "surface_dice": "Surface Dice, points",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table's cell shows, formatted; empty is nothing."""

    value: str
    spread: str = ""
    interval: str = ""
    best: bool = False


def amount_title(comparison: Comparison, labeled: int) -> str:
    """`2 labelled patients (1.3%)`."""
    share = labeled / comparison.common["train_patients"]
    return f"{labeled} labelled patient{'' if labeled == 1 else 's'} ({share:.1%})"


def paper_table(comparison: Comparison) -> dict[str, Any]:
    """The paper's layout: amounts of labels × methods × (mean and each structure), DSC and ASD."""
    names = [None, *comparison.common["classes"][1:]]
    columns = columns_of(comparison.common)[:2]
    metrics = [metric for metric, _, _, _ in columns]
    return {
        "columns": ["Mean", *names[1:]],
        "metrics": [title for _, title, _, _ in columns],
        "groups": [
            {
                "title": amount_title(comparison, amount.labeled),
                "rows": [
                    {
                        "title": method_title(method),
                        "cells": [
                            _cell(amount.summary["methods"], method, metric, name)
                            for name in names
                            for metric in metrics
                        ],
                    }
                    for method in amount.methods
                ],
            }
            for amount in comparison.amounts
        ],
    }


def details_table(comparison: Comparison) -> dict[str, Any]:
    """Every metric's mean over structures, with intervals; and what distances do not say."""
    best = any(amount.summary["best_checkpoints"] for amount in comparison.amounts)
    tolerance = f"{comparison.common['tolerance_mm']:g}"
    return {
        "columns": [
            "DSC [%]", *(["at best checkpoint"] if best else []), f"Surface Dice {tolerance} mm [%]",
            "ASD [mm]", "HD95 [mm]", "ASD [voxel]", "HD95 [voxel]", "Missing", "Spurious", "Distances",
        ],
        "groups": [
            {
                "title": amount_title(comparison, amount.labeled),
                "rows": [_details(amount, method, best) for method in amount.methods],
            }
            for amount in comparison.amounts
        ],
    }  # fmt: skip


def pair_tables(comparison: Comparison) -> list[dict[str, Any]]:
    """For each tested metric, every pair of methods at every amount of labels."""
    return [
        {
            "title": _TITLES[metric],
            "groups": [
                {
                    "title": amount_title(comparison, amount.labeled),
                    "rows": [_test(test) for test in amount.summary["tests"] if test["metric"] == metric],
                }
                for amount in comparison.amounts
                if amount.summary["tests"]
            ],
        }
        for metric in TESTED
    ]


def _details(amount: Amount, method: str, best: bool) -> dict[str, Any]:
    methods = amount.summary["methods"]
    own = methods[method]
    cells = [_cell(methods, method, metric, None) for metric in FORMATS]
    if best:
        others = amount.summary["best_checkpoints"]
        cells.insert(1, _cell(others["methods"], method, "dice", None) if others else Cell(value=NONE))
    values = own["asd_voxel"]["values"]
    counts = (str(own["missing"]), str(own["spurious"]), f"{values['present']} of {values['of']}")
    return {"title": method_title(method), "cells": cells + [Cell(value=text) for text in counts]}


def _cell(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> Cell:
    factor, digits = FORMATS[metric]
    score = methods[method][metric]
    interval: Sequence[float] | None = (
        score["interval"] if name is None else score["per_class_interval"][name]
    )
    return Cell(
        value=number(value_of(methods, method, metric, name), factor, digits),
        spread=number(spread_of(methods, method, metric, name), factor, digits, none=""),
        interval=span(interval, factor, digits),
        best=is_best(methods, method, metric, name),
    )


def _test(test: Mapping[str, Any]) -> dict[str, Any]:
    factor, digits = FORMATS[test["metric"]]
    return {
        "title": f"{method_title(test['second'])} − {method_title(test['first'])}",
        "difference": signed(test["difference"], factor, digits),
        "interval": span(test["interval"], factor, digits),
        "p": p_value(test["p"]),
        "p_holm": p_value(test["p_holm"]),
        "significant": test["p_holm"] is not None and test["p_holm"] < 0.05,
        "patients": test["patients"],
    }
