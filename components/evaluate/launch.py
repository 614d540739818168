"""The evaluation on a backend."""

from __future__ import annotations

from collections.abc import Sequence

from components.evaluate.options import DEFAULT_SCORING, Scoring, scoring_arguments
from components.evaluate.report import REPORT
from components.evaluate.results import CASES, SUMMARY, read_results
from components.evaluate.step import EvaluationResult, evaluate
from components.launch import StepCommand, run_step
from components.model_ref import ModelRef
from infra.storage import Store


def evaluate_on(
    backend: str,
    *,
    dataset: str,
    run: str,
    models: Sequence[ModelRef],
    scoring: Scoring = DEFAULT_SCORING,
    cluster: Sequence[str] = (),
) -> EvaluationResult:
    """`evaluate` on a backend, see `components.launch`; raises as it does, and as the backend."""
    chosen = [t for m in models for t in ("--model", m.method, str(m.seed), m.checkpoint)]
    run_step(
        StepCommand(
            step="evaluate",
            arguments=("--dataset", dataset, "--run", run, *scoring_arguments(scoring), *chosen),
            home=run,
            cluster=tuple(cluster),
        ),
        backend,
        lambda: evaluate(dataset=dataset, run=run, models=models, **scoring).summary_url,
    )
    store = Store(run)
    return EvaluationResult(
        summary_url=store.join(SUMMARY),
        cases_url=store.join(CASES),
        report_url=store.join(REPORT),
        summary=dict(read_results(run).summary),
    )
