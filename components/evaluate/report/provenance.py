"""Where the numbers come from, and what a reader must know of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from components.evaluate.comparison import Amount, Comparison
from components.evaluate.report.numbers import count, number, signed, span
from components.evaluate.report.scores import amount_title
from components.model_ref import BASELINE, method_title

_MOST_TILES = 4


def subtitle(comparison: Comparison) -> str:
    """What was compared on what."""
    common = comparison.common
    *few, most = (str(amount.labeled) for amount in comparison.amounts)
    amounts = f"{', '.join(few)} and {most}" if few else most
    share = [amount.labeled / common["train_patients"] for amount in comparison.amounts]
    shares = f"{share[0]:.1%}" if len(share) == 1 else f"{share[0]:.1%} to {share[-1]:.1%}"
    seeds = sorted({seed for run in comparison.runs for seed in run.summary["seeds"]})
    scored = count(len(common["patients"]), f"{common['split']} patient")
    return (
        f"{amounts} labelled of {common['train_patients']} training patients ({shares}), scored on "
        f"{count(common['cases'], 'volume')} of {scored}. "
        f"{count(len(seeds), 'seed')}."
    )


def tiles(comparison: Comparison) -> list[dict[str, str]]:
    """The headline numbers: what is measured, the value, and a line below."""
    if len(comparison.amounts) > 1:
        return [_best_tile(comparison, number) for number in range(len(comparison.amounts))][:_MOST_TILES]
    amount = comparison.amounts[0]
    methods = amount.summary["methods"]
    shown = [amount.best_method, *(m for m in amount.methods if m != amount.best_method)]
    found = [_tile(f"{method_title(m)}, mean DSC", methods[m]["dice"]) for m in shown[: _MOST_TILES - 1]]
    difference = amount.summary["paired"].get(amount.best_method)
    if difference:
        values = difference["dice"]["per_seed"]
        found.append(
            {
                "what": f"{method_title(amount.best_method)} − {method_title(BASELINE)}",
                "value": f"{signed(difference['dice']['mean'], 100)} points",
                "note": ", ".join(
                    f"seed {seed}: {signed(value, 100)}" for seed, value in values.items() if len(values) > 1
                ),
            }
        )
    return found


def cautions(comparison: Comparison) -> list[str]:
    """What the numbers do not say by themselves."""
    common, found = comparison.common, list(comparison.notes)
    if common["split"] == "validation" and common["split_patients"]["test"]:
        found.append(
            f"These are validation patients. The dataset version has {common['split_patients']['test']} test "
            "patients: evaluate on them (--split test) for numbers to quote."
        )
    if not common["spacing_known"]:
        found.append("The scans do not say how large a voxel is: distances are in voxels, nothing is in mm.")
    patients, pairs = len(common["patients"]), max(_pairs(amount) for amount in comparison.amounts)
    needed = patients_needed(pairs)
    if patients < needed:
        found.append(
            f"With {count(patients, 'patient')} the signed-rank test cannot reach a corrected p < 0.05 for "
            f"{count(pairs, 'pair')} of methods: it takes {needed}."
        )
    return found


def patients_needed(pairs: int, level: float = 0.05) -> int:
    """The fewest patients with whom the smallest of `pairs` p-values can stay below `level`.

    All of n differences of one sign have the two-sided p of 2 / 2^n in Wilcoxon's signed-rank test, and
    Holm's correction multiplies the smallest by the number of pairs. Without a pair none are needed.
    """
    return next(n for n in itertools.count() if pairs == 0 or pairs * 2.0 ** (1 - n) < level)


def _pairs(amount: Amount) -> int:
    return math.comb(len(amount.methods), 2)


def run_details(comparison: Comparison) -> list[dict[str, Any]]:
    """For each run: what it is of, and how it was made."""
    details = []
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        summary = run.summary
        seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in summary["seconds"].items())
        items = [
            ("Run", run.url),
            ("Methods", ", ".join(f"{method_title(m)} (seeds {', '.join(seeds)})"
                                  for m, seeds in summary["trainings"].items())),
            *((f"Labelled, seed {seed}", ", ".join(patients))
              for seed, patients in summary["labeled_patients"].items()),
            ("Optimiser steps", ", ".join(f"{stage} {steps}" for stage, steps in summary["steps"].items())),
            ("Time", seconds + (", over all seeds" if len(summary["seeds"]) > 1 else "")),
            ("Training code", _training_code(summary["trainings"])),
            ("Evaluated by", f"code {summary['code']}, commit {summary['commit'] or 'unknown'}, "
                             f"on {summary['device']}"),
            ("Software", ", ".join(f"{name} {version}" for name, version in summary["software"].items())),
        ]  # fmt: skip
        configs: dict[str, list[str]] = {}
        for method, config in summary["configs"].items():
            configs.setdefault(config, []).append(method_title(method))
        details.append(
            {
                "name": name,
                "items": items,
                "configs": [(", ".join(methods), config) for config, methods in configs.items()],
            }
        )
    return details


def _training_code(trainings: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Fingerprint of the training code; of each model where they differ."""
    codes: dict[str, list[str]] = {}
    for method, by_seed in trainings.items():
        for seed, training in by_seed.items():
            codes.setdefault(training["code"], []).append(f"{method_title(method)} {seed}")
    if len(codes) == 1:
        return next(iter(codes))
    return "; ".join(f"{code} ({', '.join(models)})" for code, models in codes.items())


def _best_tile(comparison: Comparison, index: int) -> dict[str, str]:
    amount = comparison.amounts[index]
    methods = amount.summary["methods"]
    tile = _tile(f"{method_title(amount.best_method)}, {amount_title(comparison, amount.labeled)}",
                 methods[amount.best_method]["dice"])  # fmt: skip
    if BASELINE in methods and amount.best_method != BASELINE:
        tile["note"] = f"{method_title(BASELINE)} {number(methods[BASELINE]['dice']['mean'], 100)}%"
    return tile


def _tile(what: str, dice: dict[str, Any]) -> dict[str, str]:
    notes = []
    if dice["sd"] is not None:
        notes.append(f"± {number(dice['sd'], 100)} over {len(dice['per_seed'])} seeds")
    if dice["interval"] is not None:
        notes.append(f"95% interval {span(dice['interval'], 100)}")
    return {"what": what, "value": f"{number(dice['mean'], 100)}%", "note": "; ".join(notes)}
