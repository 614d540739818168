from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from infra.tuning.early_stopping import GroupedHalving, stopping_scheduler
from infra.tuning.trial import DICE, PERCENT


def reach(halving: GroupedHalving, group: str | None, name: str, percent: float, dice: float | None) -> str:
    trial: Any = SimpleNamespace(trial_id=f"{group} {name}", config={"group": group})
    if percent < 50:
        halving.on_trial_add(None, trial)
    result = {PERCENT: percent} | ({} if dice is None else {DICE: dice})
    return halving.on_trial_result(None, trial, result)


def test_without_grace_every_trial_goes_on() -> None:
    assert type(stopping_scheduler(None)) is FIFOScheduler


def test_the_worse_half_of_a_group_stops_at_a_rung() -> None:
    halving = GroupedHalving(0.3)
    assert reach(halving, "2 labelled, seed 0", "a", 20, 0.1) == "CONTINUE"  # before the first rung
    assert reach(halving, "2 labelled, seed 0", "a", 30, 0.8) == "CONTINUE"
    assert reach(halving, "2 labelled, seed 0", "b", 35, 0.5) == "STOP"
    assert reach(halving, "2 labelled, seed 0", "c", 30, 0.9) == "CONTINUE"


def test_groups_do_not_compete() -> None:
    halving = GroupedHalving(0.3)
    assert reach(halving, "8 labelled, seed 0", "a", 30, 0.8) == "CONTINUE"
    assert reach(halving, "2 labelled, seed 0", "a", 30, 0.4) == "CONTINUE"
    assert reach(halving, None, "stage one", 30, 0.0) == "CONTINUE"


@pytest.mark.parametrize(("percent", "dice"), [(40, None), (100, 0.0)])
def test_a_trial_without_a_dice_or_at_its_end_goes_on(percent: float, dice: float | None) -> None:
    halving = GroupedHalving(0.3)
    reach(halving, "g", "a", 30, 0.8)
    reach(halving, "g", "b", 20, None)
    assert reach(halving, "g", "b", percent, dice) == "CONTINUE"
