"""From scores of cases to the numbers of a table.

A method's score is the mean over volumes, then over structures, then over seeds; its spread is the standard
deviation over seeds, its interval a bootstrap over patients. Distances that do not exist take no part in a
mean: how many there are is told, and missing and spurious structures are counted apart.

Errors of volume are prediction minus reference, and are there for every structure, the missing ones included.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from components.evaluate.scoring import CHECKPOINTS, CaseScore
from components.evaluate.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    Floats,
    bootstrap_means,
    holm,
    interval,
    mean_over,
    paired_test,
)
from components.model_ref import BASELINE, method_rank

METRICS = (
    "dice", "surface_dice", "asd_mm", "hd95_mm", "asd_voxel", "hd95_voxel",
    "volume_error_ml", "abs_volume_error_ml", "volume_error_voxel", "abs_volume_error_voxel",
)  # fmt: skip
PRIMARY = "dice"
"""The metric whose tests count as confirming; those of the others are to look at."""
Unit = Literal["mm", "voxel"]
"""Of the distances that tables show and methods are tested on."""
STATISTICS = {
    "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "level": LEVEL, "unit": "patient"},
    "test": "Wilcoxon signed-rank, two-sided, over patients; Holm over all pairs of methods of one metric at "
    "one amount of labels, and over nothing else",
    "primary": PRIMARY,
}


class Scored:
    """Scores of one set of cases by several methods and seeds, as arrays."""

    def __init__(self, scores: Sequence[CaseScore]) -> None:
        self.methods = _unique(s.method for s in scores)
        self.structures = _unique(s.score.class_name for s in scores)
        self.cases = sorted({s.case_id for s in scores})
        patients = {s.case_id: s.patient_id for s in scores}
        self.patients = sorted(set(patients.values()))
        self.patient_of = np.array([self.patients.index(patients[case]) for case in self.cases])
        self._scores = {
            method: {(s.seed, s.score.class_name, s.case_id): s for s in scores if s.method == method}
            for method in self.methods
        }

    def seeds(self, method: str) -> list[int]:
        """Sorted."""
        return sorted({seed for seed, _, _ in self._scores[method]})

    def values(self, method: str, metric: str) -> Floats:
        """(seeds, structures, cases); NaN where there is no score or no distance."""
        own = self._scores[method]
        keys = itertools.product(self.seeds(method), self.structures, self.cases)
        found = [getattr(own[key].score, metric) if key in own else None for key in keys]
        shape = (-1, len(self.structures), len(self.cases))
        return np.array([math.nan if v is None else v for v in found], np.float64).reshape(shape)


def unit_of(summary: Mapping[str, Any]) -> Unit:
    """The unit of distances: mm, but voxels where their size is not known, and as the released code's."""
    return "mm" if summary["spacing_known"] and summary["convention"] != "released" else "voxel"


def tested_metrics(unit: Unit) -> tuple[str, ...]:
    """What methods are tested on, the primary metric first; surface Dice has a tolerance in mm."""
    return (PRIMARY, *(("surface_dice",) if unit == "mm" else ()), f"asd_{unit}", f"hd95_{unit}")


def summarize(scores: Sequence[CaseScore], unit: Unit) -> dict[str, Any]:
    """All numbers of models that were trained with one amount of labels, of last and best checkpoints.

    Args:
        scores: of both kinds of checkpoints.
        unit: of the distances that methods are tested on.

    Returns:
        `methods`, `paired` and `tests` of last checkpoints; `best_checkpoints`, see `_best`; `common_seeds`,
        see `_of_common_seeds`.
    """
    last, best = ([s for s in scores if s.checkpoint == c] for c in CHECKPOINTS)
    methods = summarize_methods(last)
    return {
        "methods": methods,
        "paired": paired_differences(methods),
        "tests": compare_methods(last, unit),
        "best_checkpoints": _best(last, best),
        "common_seeds": _of_common_seeds(last, unit),
    }


def _best(last: Sequence[CaseScore], best: Sequence[CaseScore]) -> dict[str, Any] | None:
    """`methods` of which every training has a best checkpoint, and `without`, the others' seeds without one.

    None where no method has them all.
    """
    lacking = sorted({(s.method, s.seed) for s in last} - {(s.method, s.seed) for s in best})
    without: dict[str, list[int]] = {}
    for method, seed in lacking:
        without.setdefault(method, []).append(seed)
    present = [s for s in best if s.method not in without]
    return {"methods": summarize_methods(present), "without": without} if present else None


def _of_common_seeds(last: Sequence[CaseScore], unit: Unit) -> dict[str, Any] | None:
    """`seeds` that all methods have, and `methods` and `tests` over those alone, empty where there is none.

    None where all methods have the same seeds, so that nothing would differ.
    """
    by_method: dict[str, set[int]] = {}
    for s in last:
        by_method.setdefault(s.method, set()).add(s.seed)
    common = set.intersection(*by_method.values())
    if all(seeds == common for seeds in by_method.values()):
        return None
    own = [s for s in last if s.seed in common]
    return {
        "seeds": sorted(common),
        "methods": summarize_methods(own) if own else {},
        "tests": compare_methods(own, unit) if own else [],
    }


def summarize_methods(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """For each method: every metric's means, spreads and intervals, and the counts of structures.

    Dice and surface Dice are fractions. A mean over nothing, the spread of a single seed, and the interval of
    a single patient are None.
    """
    scored = Scored(scores)
    summary: dict[str, Any] = {}
    for method in scored.methods:
        seeds = scored.seeds(method)
        summary[method] = {m: _summarize(scored, scored.values(method, m), seeds) for m in METRICS}
        own = [s for s in scores if s.method == method]
        summary[method] |= _count(own, "missing") | _count(own, "spurious")
    return summary


def compare_methods(scores: Sequence[CaseScore], unit: Unit) -> list[dict[str, Any]]:
    """Every pair of methods, metric by metric: the second minus the first, tested over patients.

    `unit` is that of the distances.

    A patient's value is the mean over seeds, over the patient's volumes, and over structures; structures for
    which either method has no distance in any seed take no part. `p_holm` is corrected over the pairs.
    """
    scored = Scored(scores)
    tests: list[dict[str, Any]] = []
    for metric in tested_metrics(unit):
        cells = {m: mean_over(scored.values(m, metric), 0) for m in scored.methods}
        family = [
            {"metric": metric, "first": first, "second": second}
            | paired_test(_by_patient(cells[second] - cells[first], scored))
            for first, second in itertools.combinations(sorted(scored.methods, key=method_rank), 2)
        ]
        for test, p in zip(family, holm([t["p"] for t in family]), strict=True):
            tests.append(test | {"p_holm": p})
    return tests


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
                "dice": {
                    "mean": statistics.fmean(differences), "sd": _sd(differences), "per_seed": per_seed
                },
            }  # fmt: skip
    return paired


def best_seed(summary: Mapping[str, Any], method: str) -> int:
    """The seed with which `method` reached its highest mean Dice; the lowest of equals."""
    per_seed: Mapping[str, float] = summary["methods"][method]["dice"]["per_seed"]
    return min((int(seed) for seed in per_seed), key=lambda seed: (-per_seed[str(seed)], seed))


def _summarize(scored: Scored, values: Floats, seeds: Sequence[int]) -> dict[str, Any]:
    """Of one method and metric; `values` is (seeds, structures, cases)."""
    table = mean_over(values, 2)
    per_seed = mean_over(table, 1)
    names = scored.structures
    columns = dict(zip(names, table.T, strict=True))
    summary: dict[str, Any] = {
        "mean": _number(mean_over(per_seed, 0)),
        "sd": _sd(per_seed.tolist()),
        "interval": None,
        "per_class": {name: _number(mean_over(column, 0)) for name, column in columns.items()},
        "per_class_sd": {name: _sd(column.tolist()) for name, column in columns.items()},
        "per_class_interval": dict.fromkeys(names),
        "per_seed": {str(seed): _number(v) for seed, v in zip(seeds, per_seed, strict=True)},
        "per_seed_and_class": {
            str(seed): {name: _number(v) for name, v in zip(names, row, strict=True)}
            for seed, row in zip(seeds, table, strict=True)
        },
        "per_seed_interval": dict.fromkeys(map(str, seeds)),
        "per_seed_and_class_interval": {str(seed): dict.fromkeys(names) for seed in seeds},
        "values": {"present": int((~np.isnan(values)).sum()), "of": values.size},
    }
    if len(scored.patients) > 1:
        resampled = bootstrap_means(values, scored.patient_of)
        summary["interval"] = interval(mean_over(mean_over(resampled, 1), 0))
        by_class = mean_over(resampled, 0)
        summary["per_class_interval"] = {n: interval(r) for n, r in zip(names, by_class, strict=True)}
        for seed, own in zip(map(str, seeds), resampled, strict=True):
            summary["per_seed_interval"][seed] = interval(mean_over(own, 0))
            rows = zip(names, own, strict=True)
            summary["per_seed_and_class_interval"][seed] = {n: interval(r) for n, r in rows}
    return summary


def _by_patient(cells: Floats, scored: Scored) -> Floats:
    """(structures, cases) -> (patients,): mean over the patient's volumes, then over structures."""
    columns = [mean_over(cells[:, scored.patient_of == p], 1) for p in range(len(scored.patients))]
    return mean_over(np.array(columns), 1)


def _count(scores: Sequence[CaseScore], what: str) -> dict[str, Any]:
    """How many structures are `missing` or `spurious`: in all, by class and by seed."""
    found = [s for s in scores if getattr(s.score, what)]
    structures = _unique(s.score.class_name for s in scores)
    seeds = sorted({s.seed for s in scores})
    return {
        what: len(found),
        f"{what}_per_class": {name: sum(s.score.class_name == name for s in found) for name in structures},
        f"{what}_per_seed": {str(seed): sum(s.seed == seed for s in found) for seed in seeds},
    }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _sd(values: Iterable[float]) -> float | None:
    present = [v for v in values if not math.isnan(v)]
    return statistics.stdev(present) if len(present) > 1 else None


def _unique(values: Iterable[str]) -> list[str]:
    """In order of appearance."""
    return list(dict.fromkeys(values))
