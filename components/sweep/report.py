"""From a sweep's models to its report: each amount of labels evaluated by itself, then all in one."""

from __future__ import annotations

from arco_core.errors import TrainingError
from components.compare import ComparisonResult, compare
from components.evaluate.options import DEFAULT_SCORING, Scoring
from components.evaluate.step import EvaluationResult, evaluate, evaluated
from components.sweep.record import SweepRecord


def evaluate_sweep(
    record: SweepRecord, *, split: str = "validation", scoring: Scoring = DEFAULT_SCORING
) -> list[EvaluationResult]:
    """Evaluate the trials that are done, each amount of labels into `<run>/labeled-<patients>`.

    An amount whose trials were evaluated before, by this code and in this way, is not evaluated again.

    Raises as `components.evaluate.evaluate`, and `TrainingError` where no trial is done.
    """
    if not record.amounts:
        raise TrainingError(
            f"{record.run}: no trial is done, so there is nothing to evaluate:\n" + "\n".join(record.notes)
        )
    results = []
    for labeled in record.amounts:
        run, models = record.evaluation(labeled), record.models(labeled)
        found = evaluated(dataset=record.dataset, run=run, models=models, split=split, **scoring)
        results.append(
            found or evaluate(dataset=record.dataset, run=run, models=models, split=split, **scoring)
        )
    return results


def report_sweep(record: SweepRecord) -> ComparisonResult:
    """One report of all evaluated amounts of labels, in the sweep's folder. Raises as `compare`."""
    return compare(runs=[record.run], output=record.run)
