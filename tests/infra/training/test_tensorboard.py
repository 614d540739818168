"""TensorBoard's own reader sees what was logged, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.storage import Store
from infra.training.tensorboard import TensorBoard

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
directory_watcher = pytest.importorskip("tensorboard.backend.event_processing.directory_watcher")


def lines(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step, "time": 1e9 + step, "loss": 1 / step, "validation/dice": 0.5} for step in steps]


def read(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    seen = event_accumulator.EventAccumulator(str(folder))
    seen.Reload()
    tags = seen.Tags()["scalars"]
    return {tag: [(e.step, e.value, e.wall_time) for e in seen.Scalars(tag)] for tag in tags}


def test_curves(tmp_path: Path) -> None:
    board = TensorBoard(Store(str(tmp_path)), "tensorboard")
    board.show([])
    board.show(lines(1, 2))
    board.show(lines(1, 2))
    board.show(lines(1, 2, 4))
    seen = read(tmp_path / "tensorboard")
    assert seen["training/loss"] == [(1, 1.0, 1e9 + 1), (2, 0.5, 1e9 + 2), (4, 0.25, 1e9 + 4)]
    assert [step for step, *_ in seen["validation/dice"]] == [1, 2, 4]


def test_a_new_attempt_replaces_what_it_does_not_know(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = TensorBoard(store, "tensorboard")
    first.show(lines(1, 2))
    first.show(lines(1, 2, 3, 4))
    second = TensorBoard(store, "tensorboard")
    second.show(lines(1, 2))  # it continues from step 2
    second.show(lines(1, 2, 3))
    assert [step for step, *_ in read(tmp_path / "tensorboard")["training/loss"]] == [1, 2, 3]
