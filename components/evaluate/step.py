"""The evaluation step."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arco_core.metrics import Convention
from components.evaluate.overlays import make_overlays
from components.evaluate.report import ReportData, render_report
from components.evaluate.scoring import CaseScore, TrainedModel, load_models, score_models
from components.evaluate.summary import best_seed, cases_csv, paired_differences, summarize_methods
from components.evaluate.training_log import StageLog, read_stage_logs, seconds_of, steps_of
from components.model_ref import BASELINE, ModelRef
from infra.datasets import DatasetVersion
from infra.storage import Store

SUMMARY, CASES, REPORT = "summary.json", "cases.csv", "report.html"


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Where the results are, and the summary itself."""

    summary_url: str
    cases_url: str
    report_url: str
    summary: dict[str, Any]


def evaluate(
    *,
    dataset: str,
    run: str,
    models: Sequence[ModelRef],
    split: str = "validation",
    convention: Convention = "arco",
) -> EvaluationResult:
    """Score `models` on the annotated volumes of a split, and write the results into the run folder.

    Writes `cases.csv`, `report.html` and, last, `summary.json`; results of an earlier evaluation stay as they
    are until everything is computed.

    Args:
        dataset: URL of the dataset version that the models were trained on.
        run: URL of the run folder.
        models: every method and seed to compare; methods are paired by seed.
        split: `validation` or `test`.
        convention: of the metrics, see `arco_core.metrics`.

    Raises:
        DataError: nothing to score, or models that cannot be compared.
        StoreError: the dataset, a checkpoint or the run folder cannot be read or written.
    """
    started = time.monotonic()
    store = Store(run)
    store.check_writable()
    version = DatasetVersion.open(dataset)
    trained = load_models(models, version, split)
    scores = score_models(version, trained, split, convention=convention)
    logs = read_stage_logs(trained)
    summary: dict[str, Any] = {
        "methods": summarize_methods(scores),
        "dataset": version.url,
        "labeled_patients": {str(m.ref.seed): sorted(m.job.labeled_patients) for m in trained},
        "seeds": sorted({m.ref.seed for m in trained}),
        "steps": steps_of(logs),
        "seconds": {**seconds_of(logs), "evaluate": round(time.monotonic() - started, 1)},
        "split": split,
        "cases": len({s.case_id for s in scores}),
        "convention": convention,
    }
    summary["paired"] = paired_differences(summary["methods"])
    report = _report(version, trained, scores, logs, summary)
    store.write_bytes(CASES, cases_csv(scores).encode())
    store.write_bytes(REPORT, report.encode())
    store.write_bytes(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    return EvaluationResult(
        summary_url=store.join(SUMMARY),
        cases_url=store.join(CASES),
        report_url=store.join(REPORT),
        summary=summary,
    )


def _report(
    version: DatasetVersion,
    models: Sequence[TrainedModel],
    scores: Sequence[CaseScore],
    logs: Sequence[StageLog],
    summary: dict[str, Any],
) -> str:
    """HTML. Its pictures show the best seed of the first method that is not the baseline."""
    method = next((m.ref.method for m in models if m.ref.method != BASELINE), BASELINE)
    seed = best_seed(summary, method)
    shown = sorted((m for m in models if m.ref.seed == seed), key=lambda m: m.ref.method == BASELINE)
    primary = next(m for m in shown if m.ref.method == method)
    return render_report(
        ReportData(
            name=version.name,
            summary=summary,
            scores=scores,
            overlays=make_overlays(version, shown, scores, primary),
            overlay_seed=seed,
            logs=logs,
            train_patients=len(version.patients("train")),
            config=primary.job.config,
        )
    )
