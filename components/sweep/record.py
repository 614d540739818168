"""`sweep.json`: what a sweep trains, how far it is, and what went wrong; kept up to date while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from arco_core.errors import DataError
from components.evaluate.results import SUMMARY
from components.model_ref import ModelRef
from components.sweep.grid import Grid, Trial
from infra.storage import NotFound, Store
from infra.tuning import Agenda, Outcome

RECORD = "sweep.json"
FORMAT = 1
WAITING = "waiting"
"""State of a training that has not ended."""


class SweepRecord:
    """The content of a `sweep.json`."""

    def __init__(self, run: str, values: Mapping[str, Any]) -> None:
        self.run = run
        self._values = values

    @property
    def dataset(self) -> str:
        """URL of the dataset version."""
        return str(self._values["dataset"])

    @property
    def amounts(self) -> list[int]:
        """Numbers of labelled patients of which a trial is done, ascending."""
        return sorted({t["labeled"] for t in self._values["trials"] if t["state"] == "done"})

    def models(self, labeled: int) -> list[ModelRef]:
        """The trained models with `labeled` patients, in the order of the sweep's methods."""
        return [
            ModelRef(method=t["method"], seed=t["seed"], checkpoint=t["checkpoint"])
            for t in self._values["trials"]
            if t["labeled"] == labeled and t["state"] == "done"
        ]

    def evaluation(self, labeled: int) -> str:
        """URL of the folder of the evaluation with `labeled` patients."""
        return Store(self.run).join(f"labeled-{labeled}")

    @property
    def notes(self) -> list[str]:
        """What is missing in the results, and why."""
        trials = self._values["trials"]
        missing = [t for t in trials if t["state"] not in ("done", WAITING)]
        notes = [f"{t['name']}: {_told(t)}; it is in no table." for t in missing]
        waiting = sum(t["state"] == WAITING for t in trials)
        if waiting:
            notes.append(f"{waiting} of {len(trials)} trials have not ended: run the sweep again.")
        return notes

    @property
    def failures(self) -> int:
        """Trials that failed, or could not start because what they start from failed."""
        return sum(t["state"] in ("failed", "left out") for t in self._values["trials"])


def write_record(run: str, dataset: str, grid: Grid, agenda: Agenda) -> SweepRecord:
    """Write the record of a sweep in the folder `run`, as it stands now."""
    trials = {trial.name: trial for trial in grid.trials}
    values = {
        "format": FORMAT,
        "dataset": dataset,
        "trials": [
            _entry(trials.get(task.name), task.name, agenda.outcomes.get(task.name))
            for task in grid.tasks
            if task.name in trials
        ],
        "stages_one": [
            _entry(None, task.name, agenda.outcomes.get(task.name))
            for task in grid.tasks
            if task.name not in trials
        ],
    }
    Store(run).write_bytes(RECORD, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
    return SweepRecord(run, values)


def find_record(run: str) -> SweepRecord | None:
    """The record of the sweep in the folder `run`, or None; `run` may also be the record's own URL.

    Raises:
        DataError: another version of ARCO wrote it.
        StoreError: it cannot be read.
    """
    if run.endswith(f"/{SUMMARY}"):  # of one evaluation
        return None
    store = Store(run.removesuffix(f"/{RECORD}"))
    try:
        data = store.read_bytes(RECORD)
    except NotFound:
        return None
    try:
        values = dict(json.loads(data))
    except ValueError as error:
        raise DataError(f"{store.join(RECORD)} is not JSON ({error}): run the sweep again.") from error
    if values.get("format") != FORMAT:
        raise DataError(
            f"{store.join(RECORD)} has format {values.get('format')}, not {FORMAT}: another version of ARCO "
            "wrote it; run the sweep again."
        )
    return SweepRecord(store.url, values)


def stopped_early(run: str) -> dict[str, str]:
    """The jobs that an earlier run of the sweep stopped early, by digest, and why."""
    found = find_record(run)
    if found is None:
        return {}
    entries: Sequence[Mapping[str, Any]] = found._values["trials"]
    return {e["job"]: e["reason"] for e in entries if e["state"] == "stopped"}


def _entry(trial: Trial | None, name: str, outcome: Outcome | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name}
    if trial is not None:
        entry |= {"method": trial.method, "labeled": trial.labeled, "seed": trial.seed}
    if outcome is None:
        return entry | {"state": WAITING}
    entry |= {"state": outcome.state, "attempts": outcome.attempts, "job": outcome.task.job.digest}
    if outcome.reason:
        entry["reason"] = outcome.reason
    if outcome.result is not None:
        entry |= {"checkpoint": outcome.result.checkpoint_url, "seconds": outcome.result.seconds}
    return entry


def _told(entry: Mapping[str, Any]) -> str:
    if entry["state"] == "failed":
        return f"failed, at attempt {entry['attempts']}: {entry['reason']}"
    if entry["state"] == "left out":
        return f"not trained, because {entry['reason']}"
    return f"stopped early: {entry['reason']}"
