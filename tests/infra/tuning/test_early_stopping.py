from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from infra.tuning.early_stopping import GroupedHalving, stopping_scheduler
from infra.tuning.trial import DICE, PERCENT


class Race:
    """A scheduler, and who was asked to stop."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self._halving = GroupedHalving(0.3, self.stopped.append)

    def reach(self, group: str | None, name: str, percent: float | None, dice: float | None) -> None:
        config = {"group": group, "name": name}
        trial: Any = SimpleNamespace(trial_id=f"{group} {name}", config=config)
        if percent is None or percent < 50:
            self._halving.on_trial_add(None, trial)
        result = {} if percent is None else {PERCENT: percent}
        verdict = self._halving.on_trial_result(None, trial, result | ({} if dice is None else {DICE: dice}))
        assert verdict == "CONTINUE"  # Tune would end the driver, and leave the workers


def test_without_grace_every_trial_goes_on() -> None:
    assert type(stopping_scheduler(None, lambda name: None)) is FIFOScheduler


def test_the_worse_half_of_a_group_stops_at_a_rung() -> None:
    race = Race()
    race.reach("2 labelled, seed 0", "a", 20, 0.1)  # before the first rung
    race.reach("2 labelled, seed 0", "a", 30, 0.8)
    assert race.stopped == []
    race.reach("2 labelled, seed 0", "b", 35, 0.5)
    assert race.stopped == ["b"]
    race.reach("2 labelled, seed 0", "c", 30, 0.9)
    race.reach("2 labelled, seed 0", "b", 65, 0.1)  # before it has stopped
    race.reach("2 labelled, seed 0", "c", 65, 0.05)
    assert race.stopped == ["b"]


def test_groups_do_not_compete() -> None:
    race = Race()
    race.reach("8 labelled, seed 0", "a", 30, 0.8)
    race.reach("2 labelled, seed 0", "b", 30, 0.4)
    race.reach(None, "stage one", 30, 0.0)
    assert race.stopped == []


@pytest.mark.parametrize(("percent", "dice"), [(None, None), (40, None), (100, 0.0)])
def test_a_trial_before_a_dice_or_at_its_end_goes_on(percent: float | None, dice: float | None) -> None:
    race = Race()
    race.reach("g", "a", 30, 0.8)
    race.reach("g", "b", 20, None)
    race.reach("g", "b", percent, dice)
    assert race.stopped == []
