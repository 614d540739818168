from __future__ import annotations

import pytest
import torch

from arco_core import meter
from arco_core.meter import Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    return now


def count(of: Meter, clock: list[float], *losses: float) -> None:
    """Steps of two seconds, half of which is spent waiting for data."""
    for loss in losses:
        with of.waiting():
            clock[0] += 1
        clock[0] += 1
        of.add({"loss": torch.tensor(loss)})


def test_times_are_those_of_a_step(clock: list[float]) -> None:
    of = Meter(lambda values: values)
    count(of, clock, 1.0, 3.0)
    with of.paused():
        clock[0] += 50
    assert of.report(2) == {"loss": 2.0, "seconds": 2.0, "data_wait": 1.0}
    count(of, clock, 5.0)
    assert of.report(3) == {"loss": 5.0, "seconds": 2.0, "data_wait": 1.0}


def test_after_a_resume_losses_are_those_of_all_steps_and_times_those_of_the_new_ones(
    clock: list[float],
) -> None:
    before = Meter(lambda values: values)
    count(before, clock, 1.0, 3.0, 5.0)
    after = Meter(lambda values: values)
    clock[0] += 30  # the checkpoint is read
    after.restore(before.state(), torch.device("cpu"))
    count(after, clock, 7.0)
    assert after.report(4) == {"loss": 4.0, "seconds": 2.0, "data_wait": 1.0}
