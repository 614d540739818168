from __future__ import annotations

import pytest

from infra import pulses
from infra.pulses import Pulses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pulses.time, "monotonic", lambda: now[0])
    return now


def test_silence_is_since_anybody_was_heard(clock: list[float]) -> None:
    watch = Pulses()
    clock[0] += 1000
    assert watch.silence() == 0, "nobody has begun"
    watch.beat(0, 5)
    clock[0] += 30
    watch.beat(1, 4)
    clock[0] += 12
    assert watch.silence() == 12


def test_the_quietest_is_named_first(clock: list[float]) -> None:
    watch = Pulses()
    assert watch.quietest() is None
    watch.beat(1, 4)
    clock[0] += 30
    watch.beat(0, 5)
    clock[0] += 60
    assert watch.quietest() == 1
    assert watch.tell() == "worker 1 90 s ago after step 4, worker 0 60 s ago after step 5"
    clock[0] += 7
    assert watch.silence() == 7, "told once, it counts anew"
