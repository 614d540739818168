"""Which patient is trained on, validated on or tested on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from arco_core.config import DataConfig
from arco_core.errors import DataError

SPLITS = ("train", "validation", "test")


def split_patients(
    patients: Collection[str],
    annotated: Collection[str],
    config: DataConfig,
    held_out: Mapping[str, Collection[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Sorted patients of each split; a pure function of the patients and `config.split_seed`.

    Validation and test patients are drawn from the annotated ones: the given fractions of them,
    at least one for validation, and none for test only at fraction 0. All others train.
    `held_out` names the patients of either split where the dataset fixes them; nothing is drawn then.
    Raises `DataError` when no annotated patient is left for training.
    """
    fixed = dict(held_out or {})
    if not annotated:
        raise DataError(
            f"none of the {len(patients)} patients is annotated; ARCO learns from at least one labelled "
            "patient and validates on another: add annotations (docs/data.md)"
        )
    order = _shuffled(set(annotated).difference(*fixed.values()), config.split_seed)
    validation = test = 0
    if "validation" not in fixed:
        validation = max(1, round_half_up(config.validation_fraction, len(order)))
    if "test" not in fixed and config.test_fraction:
        test = max(1, round_half_up(config.test_fraction, len(order)))
    if validation + test >= len(order):
        raise DataError(
            f"{len(order)} annotated patients give {validation} for validation "
            f"(data.validation_fraction = {config.validation_fraction:g}) and {test} for test "
            f"(data.test_fraction = {config.test_fraction:g}), which leaves no labelled patient to train "
            "on: annotate more patients or lower the fractions"
        )
    drawn = {"validation": order[:validation], "test": order[validation : validation + test]} | fixed
    train = set(patients).difference(*drawn.values())
    return {"train": tuple(sorted(train)), **{name: tuple(sorted(part)) for name, part in drawn.items()}}


def choose_labeled(
    annotated: Collection[str],
    train: Collection[str],
    amount: float,
    seed: int,
    order: Sequence[str] = (),
) -> tuple[str, ...]:
    """The labelled patients of an experiment: `amount` of the `train` patients, all `annotated`.

    `amount` >= 1 is a number of patients; below 1 it is a ratio of all train patients, rounded
    half up. One seed orders the patients once, so that smaller sets are prefixes of larger ones.
    Patients in `order`, which a published benchmark gives, come before all others, in that order.
    Raises `DataError` for an amount that gives no patient or more than are annotated.
    """
    if not 0 < amount < float("inf") or (amount >= 1 and amount != int(amount)):
        raise DataError(
            f"labeled = {amount:g}: must be a whole number of patients, or a ratio between 0 and 1"
        )
    count = int(amount) if amount >= 1 else round_half_up(amount, len(train))
    if count == 0:
        raise DataError(
            f"labeled = {amount:g} of {len(train)} train patients rounds to none: use a ratio of at least "
            f"{0.5 / len(train):.2g}, or a number of patients"
        )
    if count > len(annotated):
        raise DataError(
            f"labeled = {amount:g} asks for {count} patients, but only {len(annotated)} of the "
            f"{len(train)} train patients are annotated: ask for fewer or annotate more"
        )
    first = [patient for patient in order if patient in annotated]
    others = [patient for patient in _shuffled(annotated, seed) if patient not in order]
    return (*first, *others)[:count]


def round_half_up(fraction: float, total: int) -> int:
    """`fraction` of `total`, half rounded up, exact in the decimal digits of `fraction`."""
    return int((Decimal(str(fraction)) * total).quantize(Decimal(1), ROUND_HALF_UP))


def _shuffled(patients: Collection[str], seed: int) -> Sequence[str]:
    ordered = sorted(patients)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
