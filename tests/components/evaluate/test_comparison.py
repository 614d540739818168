"""Which runs may be compared, and under which names."""

from __future__ import annotations

import dataclasses

import pytest

from arco_core.errors import DataError
from components.evaluate.comparison import compare_results, short_names
from components.evaluate.summary import summarize
from tests.components.evaluate.runs import CASES, make_run


def test_one_run_is_a_comparison_with_its_own_numbers() -> None:
    run = make_run()
    comparison = compare_results([run])
    (amount,) = comparison.amounts
    assert amount.summary == summarize(run.scores, "mm")
    assert comparison.methods == ["supervised", "arco-sg"]
    assert comparison.dataset == "toy"
    assert comparison.notes == []


def test_methods_of_two_runs_are_set_side_by_side_and_tested() -> None:
    runs = [make_run(("supervised",), url="s/runs/a"), make_run(("arco-sg",), url="s/runs/b")]
    (amount,) = compare_results(runs).amounts
    whole = compare_results([make_run(("supervised", "arco-sg"))]).amounts[0]
    assert amount.summary == whole.summary
    assert {t["second"] for t in amount.summary["tests"]} == {"arco-sg"}


def test_seeds_of_one_method_are_put_together() -> None:
    runs = [make_run(seeds=(0,), url="s/runs/a"), make_run(seeds=(1,), url="s/runs/b")]
    (amount,) = compare_results(runs).amounts
    assert amount.summary == compare_results([make_run(seeds=(0, 1))]).amounts[0].summary
    assert sorted(amount.confusion["arco-sg"]) == ["0", "1"]


def test_a_training_that_two_runs_share_counts_once() -> None:
    """A baseline that was evaluated in both."""
    runs = [make_run(url="s/runs/a"), make_run(("arco-ns", "supervised"), url="s/runs/b")]
    (amount,) = compare_results(runs).amounts
    assert amount.methods == ["supervised", "arco-ns", "arco-sg"]
    assert amount.summary["methods"]["supervised"]["dice"]["values"]["of"] == 2 * 2 * len(CASES)
    assert len(amount.logs) == 6


def test_other_settings_are_another_method() -> None:
    runs = [make_run(url="s/runs/a"), make_run(url="s/runs/b", settings="two")]
    (amount,) = compare_results(runs).amounts
    assert amount.methods == ["supervised (a)", "supervised (b)", "arco-sg (a)", "arco-sg (b)"]
    assert (
        amount.summary["methods"]["arco-sg (a)"]["dice"] == amount.summary["methods"]["arco-sg (b)"]["dice"]
    )
    primary = amount.shown("arco-sg (b)", 1)
    assert set(amount.slice_of("p", [primary]).predictions) == {("arco-sg (b)", 1)}


def test_a_seed_that_was_trained_twice_is_two_methods() -> None:
    again = make_run(("arco-sg",), (0,), url="s/runs/b")
    training = {**again.summary["trainings"]["arco-sg"]["0"], "job": "another"}
    again = dataclasses.replace(again, summary={**again.summary, "trainings": {"arco-sg": {"0": training}}})
    (amount,) = compare_results([make_run(url="s/runs/a"), again]).amounts
    assert amount.methods == ["supervised", "arco-sg (a)", "arco-sg (b)"]


def test_amounts_are_in_order_and_keep_their_names() -> None:
    runs = [make_run(url=f"s/runs/{n}", labeled=n, settings=str(n)) for n in (7, 1)]
    comparison = compare_results(runs)
    assert [amount.labeled for amount in comparison.amounts] == [1, 7]
    assert comparison.methods == ["supervised", "arco-sg"]


def test_a_missing_seed_is_shown_by_the_methods_best() -> None:
    runs = [make_run(("supervised",), (0,), url="s/runs/a"), make_run(("arco-sg",), (0, 1), url="s/runs/b")]
    comparison = compare_results(runs)
    (amount,) = comparison.amounts
    shown = amount.shown_beside(amount.shown("arco-sg", 1))
    assert [(s.method, s.seed) for s in shown] == [("supervised", 0), ("arco-sg", 1)]
    assert comparison.notes == [
        "With 2 labelled, methods have different seeds (supervised: 0; arco-sg: 0, 1), that is, other "
        "trainings and labelled patients: their means and tests mix them. A table and tests over the common "
        "seeds (0) are beside."
    ]


def test_methods_without_a_common_seed_are_told() -> None:
    runs = [make_run(("supervised",), (0,), url="s/runs/a"), make_run(("arco-sg",), (1,), url="s/runs/b")]
    (note,) = compare_results(runs).notes
    assert note.endswith("None is common to all.")


def test_other_labelled_patients_are_told() -> None:
    other = make_run(
        ("arco-ns",), url="s/runs/b", changes={"labeled_patients": {"0": ["x", "y"], "1": ["z", "y"]}}
    )
    notes = compare_results([make_run(url="s/runs/a"), other]).notes
    assert notes == [
        f"With 2 labelled and seed {seed}, runs were trained on different labelled patients."
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "store/datasets/toy/ffffffffffff"},
            r"toy/0123456789ab and toy/ffffffffffff: compare runs of",
        ),
        ({"split": "test"}, "with split validation and test"),
        ({"convention": "released"}, "with convention arco and released"),
        ({"tolerance_mm": 1.0}, r"with tolerance_mm 2\.0 and 1\.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_results([make_run(url="s/runs/a"), make_run(url="s/runs/b", changes=changes)])


def test_the_same_version_in_another_store_is_the_same() -> None:
    moved = make_run(
        ("arco-ns",), url="s/runs/b", changes={"dataset": "s3://bucket/datasets/toy/0123456789ab"}
    )
    compare_results([make_run(url="s/runs/a"), moved])


def test_other_patients_are_named() -> None:
    runs = [make_run(url="s/runs/a"), make_run(("arco-ns",), url="s/runs/b", cases=("p", "q"))]
    with pytest.raises(
        DataError, match=r"different patients; only the first on: r; only the second on: none"
    ):
        compare_results(runs)


def test_other_volumes_of_the_same_patients_are_named() -> None:
    other = make_run(("arco-ns",), url="s/runs/b")
    scores = [dataclasses.replace(s, case_id=f"{s.case_id}2") for s in other.scores]
    with pytest.raises(
        DataError, match=r"different volumes; only the first on: p, q, r; only the second on: p2,"
    ):
        compare_results([make_run(url="s/runs/a"), dataclasses.replace(other, scores=scores)])


def test_none_or_one_twice() -> None:
    with pytest.raises(DataError, match="runs to compare: none"):
        compare_results([])
    with pytest.raises(DataError, match="name at least one, and each once"):
        compare_results([make_run(), make_run()])


def test_short_names_tell_apart() -> None:
    assert short_names(["s/runs/a", "s/runs/b/"]) == ["a", "b"]
    assert short_names(["s/x/a", "s/y/a"]) == ["x/a", "y/a"]
    assert short_names(["a"]) == ["a"]
