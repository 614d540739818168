"""Which patient is trained on, validated on or tested on, and in which order patients are labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from itertools import chain

import numpy as np

from arco_core.config import DataConfig
from arco_core.errors import DataError

SPLITS = ("train", "validation", "test")
Splits = dict[str, tuple[str, ...]]
"""Sorted patients of each split."""
LabelGroups = tuple[tuple[str, ...], ...]
"""Annotated train patients in the order in which experiments label them: all of a group before the next;
within a group the experiment's seed draws the order."""


def split_patients(
    patients: Collection[str],
    annotated: Collection[str],
    config: DataConfig,
    held_out: Mapping[str, Collection[str]] | None = None,
    settled: Mapping[str, str] | None = None,
) -> Splits:
    """Sorted patients of each split; a pure function of the arguments and `config.split_seed`.

    Patients in `settled`, the splits of an earlier version by patient, stay where they were. Of the other
    annotated ones as many are drawn for validation and test as bring each to its fraction of all annotated
    patients: at least one for validation, and none for test only at fraction 0. All others train.
    `held_out` names the patients of either split where the dataset fixes them; nothing is drawn for it then.
    Raises `DataError` when a split that is needed stays empty, when no annotated patient is left to train on,
    or when `held_out` contradicts itself or `settled`.
    """
    if not annotated:
        raise DataError(
            f"none of the {len(patients)} patients is annotated; ARCO learns from at least one labelled "
            "patient and validates on another: add annotations (docs/data.md)"
        )
    fixed = {split: set(part) for split, part in (held_out or {}).items()}
    before = {p: split for p, split in (settled or {}).items() if p in patients}
    _check_fixed(fixed, before)
    open_ = set(annotated).difference(*fixed.values())
    newcomers = list(_shuffled(open_.difference(before), config.split_seed))
    parts = {split: {p for p, place in before.items() if place == split} for split in SPLITS[1:]}
    for split, fraction in (("validation", config.validation_fraction), ("test", config.test_fraction)):
        if split in fixed:
            parts[split] |= fixed[split]
        elif split == "validation" or fraction:
            wanted = max(1, round_half_up(fraction, len(open_))) - len(parts[split])
            parts[split].update(newcomers[: max(0, wanted)])
            del newcomers[: max(0, wanted)]
    train = set(patients).difference(*parts.values())
    needed = ["validation"] + ["test"] * (config.test_fraction > 0 and "test" not in fixed)
    if not all(parts[split] for split in needed) or not train.intersection(annotated):
        raise DataError(
            f"{len(annotated)} annotated patients give {len(parts['validation'])} for validation "
            f"(data.validation_fraction = {config.validation_fraction:g}), {len(parts['test'])} for test "
            f"(data.test_fraction = {config.test_fraction:g}) and "
            f"{len(train.intersection(annotated))} to train on: annotate more patients or lower the fractions"
        )
    return {name: tuple(sorted(part)) for name, part in {"train": train, **parts}.items()}


def _check_fixed(fixed: Mapping[str, Collection[str]], settled: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for split, members in fixed.items():
        for patient in members:
            if seen.setdefault(patient, split) != split:
                raise DataError(f"patient {patient} is fixed for {seen[patient]} and for {split}: keep one")
            if settled.get(patient, split) != split:
                raise DataError(
                    f"patient {patient} is fixed for {split}, but was in {settled[patient]} in the version "
                    "that this one goes on from: correct the lists, or prepare under another data.name"
                )


def group_labels(
    annotated_train: Collection[str], order: Sequence[str] = (), earlier: LabelGroups = ()
) -> LabelGroups:
    """Groups of the annotated train patients.

    First the groups of the earlier version, so that its labelled sets stay as they were; then the patients in
    `order`, which a published benchmark gives, one after the other; then all others. An order that names all
    of the earlier patients takes the place of theirs.
    """
    left = set(annotated_train)
    if set(order).issuperset(left.intersection(chain.from_iterable(earlier))):
        earlier = ()
    groups: list[tuple[str, ...]] = []
    for candidates in (*earlier, *((patient,) for patient in order), sorted(left)):
        group = tuple(patient for patient in candidates if patient in left)
        left.difference_update(group)
        groups += [group] if group else []
    return tuple(groups)


def choose_labeled(groups: LabelGroups, train: Collection[str], amount: float, seed: int) -> tuple[str, ...]:
    """The labelled patients of an experiment: `amount` of the `train` patients, all from `groups`.

    `amount` >= 1 is a number of patients; below 1 it is a ratio of all train patients, rounded
    half up. One seed orders the patients once, so that smaller sets are prefixes of larger ones.
    Raises `DataError` for an amount that gives no patient or more than are annotated.
    """
    if not 0 < amount < float("inf") or (amount >= 1 and amount != int(amount)):
        raise DataError(
            f"labeled = {amount:g}: must be a whole number of patients, or a ratio between 0 and 1"
        )
    annotated = sum(map(len, groups))
    count = int(amount) if amount >= 1 else round_half_up(amount, len(train))
    if count == 0:
        raise DataError(
            f"labeled = {amount:g} of {len(train)} train patients rounds to none: use a ratio of at least "
            f"{0.5 / len(train):.2g}, or a number of patients"
        )
    if count > annotated:
        raise DataError(
            f"labeled = {amount:g} asks for {count} patients, but only {annotated} of the "
            f"{len(train)} train patients are annotated: ask for fewer or annotate more"
        )
    return tuple(patient for group in groups for patient in _shuffled(group, seed))[:count]


def named_labeled(
    groups: LabelGroups, names: Sequence[str], splits: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The labelled patients of an experiment, by name, in the order given.

    Raises `DataError` for a name that is given twice, that no patient has, or whose patient cannot be used.
    """
    usable = {patient for group in groups for patient in group}
    split_of = {patient: split for split, members in splits.items() for patient in members}
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DataError(f"labelled patient {name!r} is named twice: name each once")
        if name not in split_of:
            raise DataError(
                f"labelled patient {name!r} does not exist; annotated train patients are "
                f"{', '.join(sorted(usable)[:10])}{', …' if len(usable) > 10 else ''}"
            )
        if name not in usable:
            why = "is not annotated" if split_of[name] == "train" else f"is held out for {split_of[name]}"
            raise DataError(f"labelled patient {name!r} {why}: name annotated train patients only")
    return tuple(names)


def round_half_up(fraction: float, total: int) -> int:
    """`fraction` of `total`, half rounded up, exact in the decimal digits of `fraction`."""
    return int((Decimal(str(fraction)) * total).quantize(Decimal(1), ROUND_HALF_UP))


def _shuffled(patients: Collection[str], seed: int) -> Sequence[str]:
    ordered = sorted(patients)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
