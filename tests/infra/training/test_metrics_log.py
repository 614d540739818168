from __future__ import annotations

from infra.training.metrics_log import decode, encode, flatten, last_values


def test_lines_survive_and_what_is_not_finite_becomes_null() -> None:
    lines = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": float("nan"), "lr": float("inf")}]
    assert decode(encode(lines)) == [lines[0], {"step": 2, "loss": None, "lr": None}]


def test_metrics_of_classes_are_named_after_them() -> None:
    values = {"loss": 0.5, "queries": [1.0, 2.0]}
    assert flatten(values, ("background", "left atrium")) == {
        "loss": 0.5,
        "queries/background": 1.0,
        "queries/left atrium": 2.0,
    }


def test_the_last_value_of_every_metric() -> None:
    lines = [
        {"step": 1, "loss": 0.5, "lr": 0.1},
        {"step": 2, "loss": None, "lr": 0.2},
        {"step": 2, "dice": 1.0},
    ]
    assert last_values(lines) == {"step": 2, "loss": 0.5, "lr": 0.2, "dice": 1.0}
