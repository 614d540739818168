from __future__ import annotations

import numpy as np
import pytest

from arco_core.dice import confusion_matrix, volume_dice
from arco_core.metrics import score_case

CLASSES = ("background", "a", "b", "c")


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_dice_of_the_evaluation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Class 3 is absent from one of the volumes, or from both.
    prediction, reference = (rng.integers(0, 3 + (seed == i), (6, 5, 4), np.uint8) for i in (0, 1))
    expected = [score.dice for score in score_case(prediction, reference, (1, 1, 1), CLASSES)]
    assert volume_dice(prediction, reference, len(CLASSES)) == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    prediction, reference = np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)
    prediction[0, 0, 0] = reference[0, 0] = 1
    reference[1, 1, 1] = 2
    assert volume_dice(prediction, reference, 4) == (2 / 3, 0.0, 1.0)


def test_confusion_has_reference_rows_and_predicted_columns() -> None:
    reference, prediction = np.array([[[0, 0, 1, 2]]], np.uint8), np.array([[[0, 2, 1, 1]]], np.uint8)
    assert confusion_matrix(prediction, reference, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
