"""Splits are by patient, nested and reproducible."""

from __future__ import annotations

import itertools

import pytest

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.splits import choose_labeled, round_half_up, split_patients

ANNOTATED = [f"a{n:02d}" for n in range(20)]
UNLABELED = [f"u{n:02d}" for n in range(30)]


def config(validation: float = 0.1, test: float = 0.1, seed: int = 0) -> DataConfig:
    return DataConfig(validation_fraction=validation, test_fraction=test, split_seed=seed)


def test_every_patient_is_in_one_split_and_held_out_ones_are_annotated() -> None:
    splits = split_patients(ANNOTATED + UNLABELED, ANNOTATED, config(0.25, 0.1))
    assert {name: len(part) for name, part in splits.items()} == {"train": 43, "validation": 5, "test": 2}
    assert sorted(sum(splits.values(), ())) == sorted(ANNOTATED + UNLABELED)
    assert set(splits["validation"] + splits["test"]) <= set(ANNOTATED)


def test_split_depends_on_the_seed_only() -> None:
    splits = split_patients(ANNOTATED, ANNOTATED, config())
    assert splits == split_patients(ANNOTATED[::-1], set(ANNOTATED), config())
    assert splits != split_patients(ANNOTATED, ANNOTATED, config(seed=1))


def test_small_cohorts_keep_one_validation_patient() -> None:
    assert len(split_patients(ANNOTATED[:2], ANNOTATED[:2], config(0.0, 0.0))["validation"]) == 1
    splits = split_patients(ANNOTATED[:3], ANNOTATED[:3], config(0.1, 0.1))
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("annotated", "message"),
    [
        (0, "none of the 30 patients is annotated"),
        (1, "1 for validation .* and 0 to train on"),
        (2, "1 for test .* and 0 to train"),
    ],
)
def test_no_labelled_patient_is_refused(annotated: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_patients(UNLABELED, ANNOTATED[:annotated], config())


@pytest.mark.parametrize("seed", range(3))
def test_smaller_labelled_sets_are_prefixes_of_larger_ones(seed: int) -> None:
    train = ANNOTATED + UNLABELED
    sets = [choose_labeled((tuple(ANNOTATED),), train, amount, seed) for amount in (1, 2, 0.1, 0.2, 20)]
    assert [len(part) for part in sets] == [1, 2, 5, 10, 20]
    for small, large in itertools.pairwise(sets):
        assert large[: len(small)] == small
    assert sets[-1] != choose_labeled((tuple(ANNOTATED),), train, 20, seed + 1)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (0.009, "rounds to none: use a ratio of at least 0.01"),
        (21, "asks for 21 patients, but only 20 of the 50"),
        (0.5, "asks for 25 patients"),
        (1.5, "whole number"),
        (0, "whole number"),
        (-1, "whole number"),
        (float("nan"), "whole number"),
        (float("inf"), "whole number"),
    ],
)
def test_impossible_amount_is_refused(amount: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_labeled((tuple(ANNOTATED),), ANNOTATED + UNLABELED, amount, 0)


def test_rounding_is_exact_in_decimal_digits() -> None:
    assert [round_half_up(f, n) for f, n in ((0.01, 160), (0.05, 50), (0.29, 50), (0.145, 100))] == [
        2,
        3,
        15,
        15,
    ]
