"""Aggregated as the method page says, paired, and tested over patients."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from components.evaluate.scoring import CHECKPOINTS, CaseScore, Scores
from components.evaluate.summary import (
    best_seed,
    compare_methods,
    paired_differences,
    summarize,
    summarize_methods,
    unit_of,
)
from tests.components.evaluate.scores import score

SCORES = [
    score("supervised", 0, "p", "a", 0.5),
    score("supervised", 0, "q", "a", 0.7, 3.0),
    score("supervised", 0, "p", "b", 0.4),
    score("supervised", 0, "q", "b", 0.0, None, missing=True),
    score("supervised", 1, "p", "a", 0.8, None, missing=True),
    score("supervised", 1, "q", "a", 0.8),
    score("supervised", 1, "p", "b", 0.6),
    score("supervised", 1, "q", "b", 0.6),
    score("arco-sg", 0, "p", "a", 1.0, None),
    score("arco-sg", 0, "p", "b", 0.5, None),
    score("arco-sg", 1, "p", "a", 1.0, None),
    score("arco-sg", 1, "p", "b", 0.7, None),
    score("arco-sg", 2, "p", "a", 0.1, None),
    score("arco-sg", 2, "p", "b", 0.1, None),
]


def test_mean_over_volumes_then_structures_then_seeds() -> None:
    dice = summarize_methods(SCORES)["supervised"]["dice"]
    assert dice["per_seed_and_class"] == {
        "0": {"a": pytest.approx(0.6), "b": pytest.approx(0.2)},
        "1": {"a": pytest.approx(0.8), "b": pytest.approx(0.6)},
    }
    assert dice["per_seed"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.7)}
    assert dice["mean"] == pytest.approx(0.55)
    assert dice["sd"] == pytest.approx(0.3 / 2**0.5)
    assert dice["per_class"] == {"a": pytest.approx(0.7), "b": pytest.approx(0.4)}
    assert dice["per_class_sd"]["b"] == pytest.approx(0.4 / 2**0.5)


def test_intervals_of_one_seed_are_those_of_its_scores_alone() -> None:
    both = summarize_methods(SCORES)["supervised"]["dice"]
    alone = summarize_methods([s for s in SCORES if s.seed == 1])["supervised"]["dice"]
    assert both["per_seed_interval"]["1"] == alone["interval"]
    assert both["per_seed_and_class_interval"]["1"] == alone["per_class_interval"]
    assert both["per_seed_interval"]["0"] != alone["interval"]


def test_distances_that_do_not_exist_take_no_part_and_are_counted() -> None:
    methods = summarize_methods(SCORES)
    baseline = methods["supervised"]
    assert baseline["asd_mm"]["per_seed_and_class"] == {"0": {"a": 2.0, "b": 1.0}, "1": {"a": 1.0, "b": 1.0}}
    assert baseline["asd_mm"]["mean"] == pytest.approx(1.25)
    assert baseline["missing"] == 2
    assert baseline["missing_per_class"] == {"a": 1, "b": 1}
    assert baseline["missing_per_seed"] == {"0": 1, "1": 1}
    assert methods["arco-sg"]["hd95_mm"]["mean"] is None
    json.dumps(methods, allow_nan=False)


def test_one_seed_has_no_spread() -> None:
    dice = summarize_methods(SCORES[:4])["supervised"]["dice"]
    assert dice["sd"] is None and set(dice["per_class_sd"].values()) == {None}


def test_methods_are_paired_by_seed() -> None:
    paired = paired_differences(summarize_methods(SCORES))
    assert set(paired) == {"arco-sg"}
    assert paired["arco-sg"]["baseline"] == "supervised"
    assert paired["arco-sg"]["dice"]["per_seed"] == {"0": pytest.approx(0.35), "1": pytest.approx(0.15)}
    assert paired["arco-sg"]["dice"]["mean"] == pytest.approx(0.25)
    assert paired_differences(summarize_methods(SCORES[8:])) == {}


def test_the_best_seed_is_the_one_with_the_highest_dice() -> None:
    assert best_seed({"methods": summarize_methods(SCORES)}, "arco-sg") == 1
    assert best_seed({"methods": summarize_methods(SCORES)}, "supervised") == 1


def test_structures_that_only_one_of_the_two_has_are_counted_apart() -> None:
    found = [score("arco-sg", 0, case, "a", 0.0, None, missing=case == "p") for case in ("p", "q")]
    absent = dataclasses.replace(found[1].score, reference_voxels=0)
    methods = summarize_methods([found[0], dataclasses.replace(found[1], score=absent)])
    assert (methods["arco-sg"]["missing"], methods["arco-sg"]["spurious"]) == (1, 1)
    assert methods["arco-sg"]["spurious_per_class"] == {"a": 1}
    assert methods["arco-sg"]["asd_mm"]["values"] == {"present": 0, "of": 2}


def many(method: str, seed: int, shift: float = 0.0, patients: int = 12) -> list[CaseScore]:
    """Two volumes a patient, two structures."""
    rng = np.random.default_rng(seed)
    return [
        score(
            method, seed, f"{patient}-{volume}", name, float(rng.uniform(0.4, 0.8)) + shift,
            patient=f"patient {patient}",
        )
        for patient in range(patients)
        for volume in range(2)
        for name in ("a", "b")
    ]  # fmt: skip


def test_the_interval_is_a_bootstrap_of_patients() -> None:
    """Against scipy's bootstrap of the patients' means: with equally many volumes the same statistic."""
    scores = many("arco-sg", 0) + many("arco-sg", 1)
    dice = summarize_methods(scores)["arco-sg"]["dice"]
    by_patient: dict[str, list[float]] = {}
    for s in scores:
        by_patient.setdefault(s.patient_id, []).append(s.score.dice)
    means = np.array([np.mean(v) for v in by_patient.values()])
    expected = stats.bootstrap((means,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    low, high = expected.confidence_interval
    assert dice["mean"] == pytest.approx(means.mean())
    assert dice["interval"] == pytest.approx((low, high), abs=0.004)
    assert low < dice["mean"] < high
    assert dice["per_class_interval"]["a"] != dice["per_class_interval"]["b"]


def test_volumes_of_a_patient_are_no_independent_patients() -> None:
    """The same numbers as one volume a patient: twice as many patients, so a narrower interval."""
    rng = np.random.default_rng(0)
    dice = rng.uniform(0.2, 0.9, 8).repeat(2)  # both volumes of a patient are alike
    paired = [score("m", 0, f"{i}", "a", d, patient=f"{i // 2}") for i, d in enumerate(dice)]
    apart = [score("m", 0, f"{i}", "a", d) for i, d in enumerate(dice)]
    wide, narrow = (summarize_methods(s)["m"]["dice"]["interval"] for s in (paired, apart))
    assert wide[1] - wide[0] > 1.25 * (narrow[1] - narrow[0])


def test_one_patient_has_no_interval() -> None:
    dice = summarize_methods([score("m", 0, "p", "a", 0.5)])["m"]["dice"]
    assert dice["interval"] is None and dice["per_class_interval"] == {"a": None}


def test_the_same_scores_give_the_same_numbers() -> None:
    scores = many("supervised", 0) + many("arco-sg", 1, 0.02)
    assert summarize_methods(scores) == summarize_methods(scores)
    assert compare_methods(scores, "mm") == compare_methods(scores, "mm")


def test_methods_are_tested_over_patients() -> None:
    """Against scipy on one mean a patient, made here by hand."""
    scores = many("supervised", 0) + many("supervised", 1) + many("arco-sg", 2, 0.05)
    (test,) = [t for t in compare_methods(scores, "mm") if t["metric"] == "dice"]
    means = {m: patient_means(scores, m) for m in ("supervised", "arco-sg")}
    expected = stats.wilcoxon(means["arco-sg"], means["supervised"])
    assert (test["first"], test["second"], test["patients"]) == ("supervised", "arco-sg", 12)
    assert test["p"] == test["p_holm"] == pytest.approx(expected.pvalue)
    assert test["difference"] == pytest.approx((means["arco-sg"] - means["supervised"]).mean())
    assert test["interval"][0] < test["difference"] < test["interval"][1]


def patient_means(scores: list[CaseScore], method: str) -> npt.NDArray[np.float64]:
    own = [s for s in scores if s.method == method]
    patients = sorted({s.patient_id for s in own})
    return np.array([np.mean([s.score.dice for s in own if s.patient_id == p]) for p in patients])


def test_p_values_are_corrected_over_the_pairs_of_a_metric() -> None:
    scores = many("supervised", 0) + many("arco-ns", 1, 0.02) + many("arco-sg", 2, 0.2)
    tests = [t for t in compare_methods(scores, "mm") if t["metric"] == "dice"]
    assert [(t["first"], t["second"]) for t in tests] == [
        ("supervised", "arco-ns"), ("supervised", "arco-sg"), ("arco-ns", "arco-sg")
    ]  # fmt: skip
    smallest = min(tests, key=lambda t: t["p"])
    assert smallest["p_holm"] == pytest.approx(3 * smallest["p"])
    assert all(t["p_holm"] >= t["p"] for t in tests)


def test_a_structure_without_a_distance_leaves_the_test_of_distances_only() -> None:
    """Case p has none of structure b by the baseline: there only a is compared; q has none at all."""
    scores = [
        score("supervised", 0, "p", "a", 0.5, 3.0), score("supervised", 0, "p", "b", 0.0, None),
        score("supervised", 0, "q", "a", 0.0, None), score("supervised", 0, "q", "b", 0.0, None),
        score("arco-sg", 0, "p", "a", 0.5, 2.0), score("arco-sg", 0, "p", "b", 0.5, 50.0),
        score("arco-sg", 0, "q", "a", 0.5, 1.0), score("arco-sg", 0, "q", "b", 0.5, 1.0),
    ]  # fmt: skip
    tests = {t["metric"]: t for t in compare_methods(scores, "mm")}
    assert (tests["asd_mm"]["patients"], tests["asd_mm"]["difference"]) == (1, -1.0)
    assert tests["dice"]["patients"] == 2


def test_best_checkpoints_do_not_mix_with_last_ones() -> None:
    """A guard of the caller: scores of one checkpoint at a time."""
    scores = Scores(cases=[score("m", 0, "p", "a", 0.5), score("m", 0, "p", "a", 0.9, checkpoint="best")])
    assert [summarize_methods(scores.of(c))["m"]["dice"]["mean"] for c in CHECKPOINTS] == [0.5, 0.9]


def test_distances_are_tested_in_voxels_where_the_size_of_a_voxel_is_not_known() -> None:
    unknown = {"surface_dice": None, "asd_mm": None, "hd95_mm": None, "voxel_mm3": None}
    scores = [
        dataclasses.replace(s, score=dataclasses.replace(s.score, **unknown, asd_voxel=s.score.dice))
        for s in many("supervised", 0) + many("arco-sg", 1, 0.02)
    ]
    unit = unit_of({"spacing_known": False, "convention": "arco"})
    tests = {t["metric"]: t for t in summarize(scores, unit)["tests"]}
    assert list(tests) == ["dice", "asd_voxel", "hd95_voxel"]
    assert tests["asd_voxel"]["patients"] == 12
    assert tests["asd_voxel"]["p"] == tests["dice"]["p"] < 1


def test_the_unit_of_tests_is_that_of_the_tables() -> None:
    units = [
        unit_of({"spacing_known": known, "convention": convention})
        for known in (True, False)
        for convention in ("arco", "released")
    ]
    assert units == ["mm", "voxel", "voxel", "voxel"]
    assert [t["metric"] for t in compare_methods(SCORES, "mm")] == [
        "dice", "surface_dice", "asd_mm", "hd95_mm"
    ]  # fmt: skip


def test_errors_of_volume_cancel_out_only_with_their_signs() -> None:
    """30, 0 and 20 voxels of 2 mm³ for 20: +10, -20 and 0."""
    found = [
        score("m", 0, "p", "a", 0.5),
        score("m", 0, "q", "a", 0.0, None, missing=True),
        score("m", 0, "r", "a", 1.0),
    ]
    right = dataclasses.replace(found[2].score, predicted_voxels=20)
    found[2] = dataclasses.replace(found[2], score=right)
    own = summarize_methods(found)["m"]
    assert own["volume_error_voxel"]["mean"] == pytest.approx(-10 / 3)
    assert own["abs_volume_error_voxel"]["mean"] == pytest.approx(10)
    assert own["volume_error_ml"]["mean"] == pytest.approx(-10 / 3 * 0.002)
    assert own["abs_volume_error_ml"]["mean"] == pytest.approx(10 * 0.002)
    assert own["abs_volume_error_ml"]["values"] == {"present": 3, "of": 3}


def both(method: str, seed: int, dice: float, *, best: bool = True) -> list[CaseScore]:
    last = [score(method, seed, case, "a", dice) for case in "pq"]
    return last + [dataclasses.replace(s, checkpoint="best") for s in last if best]


def test_a_training_without_a_best_checkpoint_leaves_the_other_methods_theirs() -> None:
    scores = both("supervised", 0, 0.5) + both("arco-sg", 0, 0.6) + both("arco-sg", 1, 0.7, best=False)
    best = summarize(scores, "mm")["best_checkpoints"]
    assert list(best["methods"]) == ["supervised"]
    assert best["without"] == {"arco-sg": [1]}
    assert summarize(both("m", 0, 0.5, best=False), "mm")["best_checkpoints"] is None


def test_over_common_seeds_methods_have_the_same_ones() -> None:
    scores = both("supervised", 0, 0.5) + both("supervised", 1, 0.9) + both("arco-sg", 0, 0.6)
    summary = summarize(scores, "mm")
    assert summary["methods"]["supervised"]["dice"]["mean"] == pytest.approx(0.7)
    common = summary["common_seeds"]
    assert common["seeds"] == [0]
    assert common["methods"]["supervised"]["dice"]["mean"] == pytest.approx(0.5)
    (all_seeds, own) = (next(t for t in s["tests"] if t["metric"] == "dice") for s in (summary, common))
    assert (all_seeds["difference"], own["difference"]) == (pytest.approx(-0.1), pytest.approx(0.1))


def test_common_seeds_are_told_only_where_seeds_differ() -> None:
    same = both("supervised", 0, 0.5) + both("arco-sg", 0, 0.6)
    assert summarize(same, "mm")["common_seeds"] is None
    apart = both("supervised", 0, 0.5) + both("arco-sg", 1, 0.6)
    assert summarize(apart, "mm")["common_seeds"] == {"seeds": [], "methods": {}, "tests": []}
