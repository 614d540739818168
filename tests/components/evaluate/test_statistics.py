"""The corrections and intervals behind the tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from components.evaluate.statistics import bootstrap_means, holm, interval, mean_over, paired_test

NAN = float("nan")


def test_holm_by_hand() -> None:
    """Holm (1979): multiplied by 4, 3, 2, 1 in order of size, and never below a smaller one's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_an_exact_p_value() -> None:
    """Six patients, all better: 2 of the 2^6 equally likely signs are as extreme."""
    result = paired_test(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert result["p"] == pytest.approx(2 / 2**6)
    assert result["difference"] == pytest.approx(0.35)


def test_p_value_by_enumeration() -> None:
    differences = np.array([-0.3, 0.1, 0.4, 0.8, 1.1, -0.2, 0.7])
    ranks = np.abs(differences).argsort().argsort() + 1
    observed = abs((np.sign(differences) * ranks).sum())
    sums = [abs(sum(r * s for r, s in zip(ranks, signs, strict=True)))
            for signs in itertools.product((-1, 1), repeat=len(ranks))]  # fmt: skip
    expected = np.mean([s >= observed for s in sums])
    assert paired_test(differences)["p"] == pytest.approx(expected)


def test_no_difference_and_no_patient() -> None:
    same = paired_test(np.array([0.0, 1e-17, 0.0]))
    assert (same["p"], same["difference"], same["interval"]) == (1.0, 0.0, (0.0, 0.0))
    none = paired_test(np.array([NAN, NAN]))
    assert none == {"patients": 0, "difference": None, "interval": None, "p": None}
    one = paired_test(np.array([NAN, 0.5]))
    assert (one["patients"], one["interval"], one["p"]) == (1, None, 1.0)


def test_resampled_means_weigh_volumes_and_skip_what_does_not_exist() -> None:
    """Patient 0 has volumes 1 and 3, patient 1 has 7 and none: a resample is one, the other or both."""
    values, owners = np.array([[1.0, 3.0, 7.0, NAN]]), np.array([0, 0, 1, 1])
    means = bootstrap_means(values, owners)[0]
    assert set(np.round(means, 9)) == {2.0, 7.0, round(11 / 3, 9)}
    shares = [np.mean(np.isclose(means, m)) for m in (2.0, 7.0, 11 / 3)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.03)


def test_interval_of_resamples_without_a_value() -> None:
    assert interval(np.array([NAN, NAN])) is None
    assert interval(np.array([NAN, 2.0])) == (2.0, 2.0)
    low, high = interval(np.arange(1001.0)) or (0, 0)
    assert (low, high) == pytest.approx((25.0, 975.0))


def test_means_of_what_exists() -> None:
    means = mean_over(np.array([[1.0, NAN], [3.0, NAN]]), 0)
    assert means[0] == 2.0 and np.isnan(means[1])
