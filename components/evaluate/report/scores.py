"""The report's tables of scores and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluate.comparison import Amount, Comparison
from components.evaluate.report.numbers import number, p_value, signed, span
from components.evaluate.summary import tested_metrics, unit_of
from components.evaluate.table import columns_of, is_best, spread_of, value_of
from components.model_ref import method_title

FORMATS: Mapping[str, tuple[float, int]] = {
    "dice": (100.0, 1),
    "surface_dice": (100.0, 1),
    "asd_mm": (1.0, 2),
    "hd95_mm": (1.0, 2),
    "asd_voxel": (1.0, 2),
    "hd95_voxel": (1.0, 2),
    "volume_error_ml": (1.0, 2),
    "abs_volume_error_ml": (1.0, 2),
    "volume_error_voxel": (1.0, 0),
    "abs_volume_error_voxel": (1.0, 0),
}
"""Factor and digits of each metric."""
_SIGNED = ("volume_error_ml", "volume_error_voxel")
_TITLES = {
    "dice": "DSC, points",
    "surface_dice": "Surface Dice, points",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
    "asd_voxel": "ASD, voxels",
    "hd95_voxel": "HD95, voxels",
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
                        "title": row_title(amount, method),
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


def row_title(amount: Amount, method: str) -> str:
    """The method's; where methods have different seeds, with its own, since its numbers are of those."""
    if amount.summary["common_seeds"] is None:
        return method_title(method)
    seeds = list(amount.summary["methods"][method]["dice"]["per_seed"])
    return f"{method_title(method)}, seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}"


def details_table(comparison: Comparison) -> dict[str, Any]:
    """Every metric's mean over structures, with intervals; and what distances do not say."""
    return _details(comparison, [
        (amount_title(comparison, amount.labeled), amount.summary["methods"],
         {method: row_title(amount, method) for method in amount.methods})
        for amount in comparison.amounts
    ])  # fmt: skip


def best_table(comparison: Comparison) -> dict[str, Any] | None:
    """As `details_table`, of the checkpoints that did best on validation; None where there are none.

    `without` names the methods that are not in it, because a training of theirs has no such checkpoint.
    """
    found = [(a, a.summary["best_checkpoints"]) for a in comparison.amounts]
    groups = [
        (amount_title(comparison, amount.labeled), best["methods"],
         {m: row_title(amount, m) for m in amount.methods if m in best["methods"]})
        for amount, best in found if best
    ]  # fmt: skip
    if not groups:
        return None
    without = []
    for amount, best in found:
        title = amount_title(comparison, amount.labeled)
        if best is None:
            without.append(f"{title}: no method")
        without += [
            f"{title}: {method_title(method)}, seed{'' if len(seeds) == 1 else 's'} "
            f"{', '.join(map(str, seeds))}"
            for method, seeds in (best["without"] if best else {}).items()
        ]
    return _details(comparison, groups) | {"without": without}


def common_seeds_table(comparison: Comparison) -> dict[str, Any] | None:
    """As `details_table`, over the seeds that all methods of an amount have; None where that changes none."""
    groups = [
        (f"{amount_title(comparison, amount.labeled)}, seeds {', '.join(map(str, common['seeds']))}",
         common["methods"], {method: method_title(method) for method in amount.methods})
        for amount in comparison.amounts
        if (common := amount.summary["common_seeds"]) and common["seeds"]
    ]  # fmt: skip
    return _details(comparison, groups) if groups else None


def pair_tables(comparison: Comparison) -> list[dict[str, Any]]:
    """For each tested metric, every pair of methods at every amount of labels.

    Where methods have different seeds, the same follows over the common ones.
    """
    return [
        {
            "title": _TITLES[metric],
            "groups": [
                {"title": title, "rows": [_test(test) for test in tests if test["metric"] == metric]}
                for title, tests in _tests(comparison)
                if tests
            ],
        }
        for metric in tested_metrics(unit_of(comparison.common))
    ]


def _tests(comparison: Comparison) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    for amount in comparison.amounts:
        title, common = amount_title(comparison, amount.labeled), amount.summary["common_seeds"]
        if common is None:
            yield title, amount.summary["tests"]
        else:
            yield f"{title}, all seeds of each method", amount.summary["tests"]
            yield f"{title}, common seeds {', '.join(map(str, common['seeds']))}", common["tests"]


Group = tuple[str, Mapping[str, Any], Mapping[str, str]]
"""Title, `methods` of a summary, and the title of each of them that is a row."""


def _details(comparison: Comparison, groups: Sequence[Group]) -> dict[str, Any]:
    known = comparison.common["spacing_known"]
    size = "ml" if known else "voxel"
    in_mm = {
        "surface_dice": f"Surface Dice {comparison.common['tolerance_mm']:g} mm [%]",
        "asd_mm": "ASD [mm]",
        "hd95_mm": "HD95 [mm]",
    }
    columns = {
        "dice": "DSC [%]",
        **(in_mm if known else {}),
        "asd_voxel": "ASD [voxel]",
        "hd95_voxel": "HD95 [voxel]",
        f"volume_error_{size}": f"Volume error [{size}]",
        f"abs_volume_error_{size}": f"Absolute volume error [{size}]",
    }
    return {
        "columns": [*columns.values(), "Missing", "Spurious", "Distances"],
        "groups": [
            {
                "title": title,
                "rows": [
                    {
                        "title": name,
                        "cells": [_cell(methods, method, metric, None) for metric in columns]
                        + [Cell(value=text) for text in _counts(methods[method])],
                    }
                    for method, name in rows.items()
                ],
            }
            for title, methods, rows in groups
        ],
    }


def _counts(own: Mapping[str, Any]) -> tuple[str, str, str]:
    values = own["asd_voxel"]["values"]
    return str(own["missing"]), str(own["spurious"]), f"{values['present']} of {values['of']}"


def _cell(methods: Mapping[str, Any], method: str, metric: str, name: str | None) -> Cell:
    factor, digits = FORMATS[metric]
    score = methods[method][metric]
    interval: Sequence[float] | None = (
        score["interval"] if name is None else score["per_class_interval"][name]
    )
    shown: Callable[[float | None, float, int], str] = signed if metric in _SIGNED else number
    return Cell(
        value=shown(value_of(methods, method, metric, name), factor, digits),
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
