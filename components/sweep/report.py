"""From a sweep's models to its report: each amount of labels evaluated by itself, then all in one."""

from __future__ import annotations

from arco_core.errors import TrainingError
from components.compare import ComparisonResult, compare
from components.evaluate import EvaluationResult, evaluate
from components.sweep.record import SweepRecord


def evaluate_sweep(record: SweepRecord, *, split: str = "validation") -> list[EvaluationResult]:
    """Evaluate the trials that are done, each amount of labels into `<run>/labeled-<patients>`.

    Raises as `components.evaluate.evaluate`, and `TrainingError` where no trial is done.
    """
    if not record.amounts:
        raise TrainingError(
            f"{record.run}: no trial is done, so there is nothing to evaluate:\n" + "\n".join(record.notes)
        )
    return [
        evaluate(
            dataset=record.dataset,
            run=record.evaluation(labeled),
            models=record.models(labeled),
            split=split,
        )
        for labeled in record.amounts
    ]


def report_sweep(record: SweepRecord) -> ComparisonResult:
    """One report of all evaluated amounts of labels, in the sweep's folder. Raises as `compare`."""
    return compare(runs=[record.run], output=record.run)
