"""The rule by which a new model takes the old one's place."""

from __future__ import annotations

import numpy as np
import pytest

from arco_core.metrics import ClassScore
from components.evaluate.scoring import CaseScore
from components.retrain.judge import NEW, OLD, Earlier, decide


def score(method: str, patient: str, dice: float, voxels: int = 10, name: str = "ring") -> CaseScore:
    found = ClassScore(
        class_name=name, dice=dice, surface_dice=None, asd_mm=None, hd95_mm=None, asd_voxel=None,
        hd95_voxel=None, predicted_voxels=voxels, reference_voxels=voxels, voxel_mm3=None,
    )  # fmt: skip
    return CaseScore(
        method=method, labeled=2, seed=0, checkpoint="last", patient_id=patient, case_id=patient, score=found
    )


def pairs(differences: list[float], name: str = "ring") -> list[CaseScore]:
    return [
        one
        for number, difference in enumerate(differences)
        for one in (
            score(OLD, f"p{number}", 0.7, name=name),
            score(NEW, f"p{number}", 0.7 + difference, name=name),
        )
    ]


@pytest.mark.parametrize(
    ("differences", "promote"),
    [
        ([0.0] * 6, True),
        ([0.1] * 6, True),
        ([-0.01] * 6, True),  # within the margin
        ([-0.02] * 6, False),  # at it
        ([-0.2] * 6, False),
        ([0.1, 0.1, 0.1, 0.1, 0.1, -0.6], False),  # as good on average, and not certainly so
        ([0.0] * 4, False),  # too few to tell
    ],
)
def test_not_worse_by_more_than_the_margin(differences: list[float], promote: bool) -> None:
    assert decide(pairs(differences), margin=0.02, min_patients=5).promote is promote


def test_the_bound_is_that_of_a_bootstrap_over_patients() -> None:
    differences = np.array([0.05, -0.03, 0.02, 0.0, -0.01, 0.04, 0.01])
    (row,) = decide(pairs(differences.tolist()), margin=0.02, min_patients=5).classes
    drawn = np.random.default_rng(1).choice(differences, (20000, len(differences))).mean(1)
    assert row["lower"] == pytest.approx(np.percentile(drawn, 5), abs=2e-3)
    assert row["difference"] == pytest.approx(differences.mean())


def test_one_class_that_is_worse_is_enough() -> None:
    verdict = decide(pairs([0.1] * 6) + pairs([-0.1] * 6, "core"), margin=0.02, min_patients=5)
    assert not verdict.promote
    assert verdict.reason == "core: the difference may be as low as -0.1000"
    assert [row["passes"] for row in verdict.classes] == [True, False]


def earlier(release: int, dice: float, patients: int = 6, name: str = "ring") -> Earlier:
    return Earlier(release=release, scores={name: {f"p{number}": dice for number in range(patients)}})


def test_what_nights_lose_does_not_add_up() -> None:
    """Each within the margin of the last, and together not within that of the best."""
    little = pairs([-0.01] * 6)
    verdict = decide(little, margin=0.02, min_patients=5, earlier=[earlier(1, 0.72), earlier(2, 0.71)])
    assert not verdict.promote
    assert verdict.reason == "ring: the difference to release 1 may be as low as -0.0300"
    (row,) = verdict.classes
    assert (row["best_release"], row["best"]) == (1, pytest.approx(0.72))
    for harmless in ([], [earlier(1, 0.70)], [earlier(1, 0.9, patients=5)], [earlier(1, 0.9, name="core")]):
        assert decide(little, margin=0.02, min_patients=5, earlier=harmless).promote
    assert verdict.scores[NEW]["ring"]["p0"] == pytest.approx(0.69)


def test_patients_that_have_no_such_structure_do_not_count() -> None:
    absent = [score(method, f"q{n}", 1.0, voxels=0) for n in range(9) for method in (OLD, NEW)]
    verdict = decide(pairs([0.0] * 4) + absent, margin=0.02, min_patients=5)
    assert verdict.classes[0]["patients"] == 4 and verdict.reason == "ring: only 4 patients"


def test_nothing_to_judge_promotes_nothing() -> None:
    assert not decide([], margin=0.02, min_patients=5).promote
