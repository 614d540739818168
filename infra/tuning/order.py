"""The order in which Ray Tune starts tasks: theirs, each once what it starts from is done."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from infra.signals import SignalNote
from infra.tuning.agenda import Agenda


class NotPickled:
    """Tune pickles what it is given for `Tuner.restore`, which nobody calls: nothing of this is kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class InOrder(NotPickled, Searcher):
    """Suggests the tasks of an agenda; none any more once a signal is noted."""

    def __init__(self, agenda: Agenda, note: SignalNote) -> None:
        super().__init__()
        self._agenda, self._note = agenda, note

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task that can start, as a trial's configuration; None while all have to wait."""
        task = None if self._note.number is not None else self._agenda.take()
        if task is not None:
            return {"name": task.name, "job": task.job.to_json(), "group": task.group}
        over = self._note.number is not None or not self._agenda.waiting
        return Searcher.FINISHED if over else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The outcome is taken by a callback, which knows more of it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept, see `NotPickled`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""
