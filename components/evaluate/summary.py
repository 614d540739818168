"""From scores of cases to the numbers of a table.

A method's score is the mean over volumes, then over structures, then over seeds; its spread is the standard
deviation over seeds. Distances that do not exist take no part in a mean; missing structures are counted.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.evaluate.scoring import CaseScore
from components.model_ref import BASELINE

METRICS = ("dice", "asd_mm", "hd95_mm", "asd_voxel", "hd95_voxel")


def summarize_methods(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """For each method: every metric's means and spreads, and how many structures are `missing`.

    Dice is a fraction. A mean over nothing, and the spread of a single seed, are None.
    """
    summary: dict[str, Any] = {}
    for method in _unique(s.method for s in scores):
        own = [s for s in scores if s.method == method]
        summary[method] = {metric: _summarize(own, metric) for metric in METRICS} | _count_missing(own)
    return summary


def paired_differences(methods: dict[str, Any]) -> dict[str, Any]:
    """For each method but the baseline: its mean Dice minus the baseline's, seed by seed."""
    if BASELINE not in methods:
        return {}
    baseline = methods[BASELINE]["dice"]["per_seed"]
    paired = {}
    for method, values in methods.items():
        own = values["dice"]["per_seed"]
        per_seed = {seed: own[seed] - baseline[seed] for seed in own if seed in baseline}
        if method != BASELINE and per_seed:
            differences = list(per_seed.values())
            paired[method] = {
                "baseline": BASELINE,
                "dice": {"mean": _mean(differences), "sd": _sd(differences), "per_seed": per_seed},
            }
    return paired


def best_seed(summary: Mapping[str, Any], method: str) -> int:
    """The seed with which `method` reached its highest mean Dice; the lowest of equals."""
    per_seed: Mapping[str, float] = summary["methods"][method]["dice"]["per_seed"]
    return min((int(seed) for seed in per_seed), key=lambda seed: (-per_seed[str(seed)], seed))


def cases_csv(scores: Iterable[CaseScore]) -> str:
    """One line a method, seed, case and structure; an empty cell is a distance that does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "seed", "case", "class", *METRICS, "missing"])
    for s in scores:
        values = [getattr(s.score, metric) for metric in METRICS]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([s.method, s.seed, s.case_id, s.score.class_name, *cells, int(s.score.missing)])
    return out.getvalue()


def _summarize(scores: Sequence[CaseScore], metric: str) -> dict[str, Any]:
    structures = _unique(s.score.class_name for s in scores)
    table = {
        seed: {
            name: _mean(
                getattr(s.score, metric) for s in scores if s.seed == seed and s.score.class_name == name
            )
            for name in structures
        }
        for seed in sorted({s.seed for s in scores})
    }
    per_seed = {str(seed): _mean(row.values()) for seed, row in table.items()}
    columns = {name: [row[name] for row in table.values()] for name in structures}
    return {
        "mean": _mean(per_seed.values()),
        "sd": _sd(per_seed.values()),
        "per_class": {name: _mean(column) for name, column in columns.items()},
        "per_class_sd": {name: _sd(column) for name, column in columns.items()},
        "per_seed": per_seed,
        "per_seed_and_class": {str(seed): row for seed, row in table.items()},
    }


def _count_missing(scores: Sequence[CaseScore]) -> dict[str, Any]:
    missing = [s for s in scores if s.score.missing]
    structures = _unique(s.score.class_name for s in scores)
    seeds = sorted({s.seed for s in scores})
    return {
        "missing": len(missing),
        "missing_per_class": {name: sum(s.score.class_name == name for s in missing) for name in structures},
        "missing_per_seed": {str(seed): sum(s.seed == seed for s in missing) for seed in seeds},
    }


def _mean(values: Iterable[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return statistics.fmean(present) if present else None


def _sd(values: Iterable[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return statistics.stdev(present) if len(present) > 1 else None


def _unique(values: Iterable[str]) -> list[str]:
    """In order of appearance."""
    return list(dict.fromkeys(values))
