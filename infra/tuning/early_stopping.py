"""Early stopping: ASHA (Li et al. 2020, arXiv:1810.05934) on validation Dice, among tasks of one group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from infra.tuning.order import NotPickled
from infra.tuning.trial import DICE, PERCENT

REDUCTION = 2
"""Of the tasks of a group that have come to a rung, the better half goes on; rungs lie a factor 2 apart."""


def stopping_scheduler(grace: float | None, stop: Callable[[str], None]) -> TrialScheduler:
    """What decides whether a trial goes on, and calls `stop` with the name of one that does not.

    Without `grace` (a share of a trial's steps), each goes on.
    """
    return FIFOScheduler() if grace is None else GroupedHalving(grace, stop)


class GroupedHalving(NotPickled, FIFOScheduler):
    """Asynchronous successive halving in each group apart; trials without a group are left alone.

    Amounts of labels and seeds are not compared with each other: the harder ones would lose.

    Tune is told that every trial goes on. It would end the trial's driver only, in the midst of things, and
    the training's workers would live on and keep their places. Asked by `stop`, all of them end in order.
    """

    def __init__(self, grace: float, stop: Callable[[str], None]) -> None:
        super().__init__()
        self._grace, self._stop = grace, stop
        self._ending: set[str] = set()
        self._halvings: dict[str, AsyncHyperBandScheduler] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter `trial` into its group."""
        if halving := self._of(trial):
            halving.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ask `trial` to stop if it is not to go on."""
        halving, percent = self._of(trial), result.get(PERCENT)  # a warning may come before the first step
        if halving and percent is not None and percent < 100 and trial.trial_id not in self._ending:
            verdict = halving.on_trial_result(tune_controller, trial, result)
            if verdict == TrialScheduler.STOP:
                self._ending.add(trial.trial_id)
                self._stop(trial.config["name"])
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keep what `trial` reached."""
        if (halving := self._of(trial)) and trial.trial_id not in self._ending:
            halving.on_trial_complete(tune_controller, trial, result)

    def _of(self, trial: Trial) -> AsyncHyperBandScheduler | None:
        group = trial.config["group"]
        if group is None:
            return None
        if group not in self._halvings:
            self._halvings[group] = AsyncHyperBandScheduler(
                time_attr=PERCENT,
                metric=DICE,
                mode="max",
                max_t=100,
                grace_period=max(round(100 * self._grace), 1),
                reduction_factor=REDUCTION,
                stop_last_trials=False,
            )
        return self._halvings[group]
