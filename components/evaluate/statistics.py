"""Intervals and tests over patients.

Patients, not volumes, are what a study draws, so they are what the bootstrap resamples and what the test
counts; the volumes of a patient stay together, and seeds are averaged before patients are looked at. Every
draw is made with one stated seed: the same scores give the same intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 5000
SEED = 0
"""Of the bootstrap."""
LEVEL = 0.95

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@lru_cache(maxsize=4)
def resample_counts(patients: int) -> Floats:
    """How often each patient is drawn, (RESAMPLES, patients): as many with replacement as there are."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(patients, np.full(patients, 1 / patients), RESAMPLES).astype(np.float64)


def bootstrap_means(values: Floats, patient_of: npt.NDArray[np.intp]) -> Floats:
    """Means over volumes in each resample of patients.

    Args:
        values: (..., volumes), NaN where there is none.
        patient_of: index of each volume's patient, from 0 without gaps.

    Returns:
        (..., RESAMPLES): the mean of the drawn patients' volumes; NaN where none of them has a value.
    """
    patients = int(patient_of.max()) + 1
    present = ~np.isnan(values)
    owners = np.eye(patients)[patient_of]
    sums, counts = np.where(present, values, 0.0) @ owners, present.astype(np.float64) @ owners
    drawn = resample_counts(patients).T
    with np.errstate(invalid="ignore"):
        return np.asarray((sums @ drawn) / (counts @ drawn))


def interval(resampled: Floats) -> Interval | None:
    """Percentile interval of level LEVEL, of the resamples that have a value; None if none has."""
    present = resampled[~np.isnan(resampled)]
    if not len(present):
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(present, (tail, 100 - tail))
    return float(low), float(high)


def mean_over(values: Floats, axis: int) -> Floats:
    """Mean of those values that exist; NaN where none does."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0.0).sum(axis) / present.sum(axis))


def paired_test(differences: Floats) -> dict[str, Any]:
    """Wilcoxon signed-rank test, two-sided, of one difference a patient; and the mean with its interval.

    `p` is None without a patient, and 1 where all differences are 0. Differences of 0 take no part in the
    ranks (Wilcoxon's own treatment).
    """
    differences = np.round(differences[~np.isnan(differences)], 12)  # 0.3 - 0.1 - 0.2 is not a rank
    patients = len(differences)
    result: dict[str, Any] = {"patients": patients, "difference": None, "interval": None, "p": None}
    if not patients:
        return result
    result["difference"] = float(differences.mean())
    if patients > 1:
        result["interval"] = interval(bootstrap_means(differences, np.arange(patients)))
    result["p"] = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being one of several (Holm 1979); what is None stays so, and is not counted."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    return corrected
