"""The evaluation step."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arco_core.metrics import TOLERANCE_MM, Convention, check_tolerance
from components.evaluate.overlays import make_overlays
from components.evaluate.report import ReportData, render_report
from components.evaluate.scoring import CaseScore, Scores, TrainedModel, load_models, score_models
from components.evaluate.summary import (
    STATISTICS,
    best_seed,
    compare_methods,
    paired_differences,
    summarize_methods,
)
from components.evaluate.tables import cases_csv, cases_parquet
from components.evaluate.training_log import StageLog, read_stage_logs, seconds_of, steps_of
from components.model_ref import BASELINE, ModelRef
from infra.datasets import DatasetVersion
from infra.storage import Store

SUMMARY, CASES, REPORT = "summary.json", "cases.csv", "report.html"
CASES_PARQUET = "cases.parquet"


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
    tolerance_mm: float = TOLERANCE_MM,
) -> EvaluationResult:
    """Score `models` on the annotated volumes of a split, and write the results into the run folder.

    Scored are the last checkpoint of each training and the one that did best on validation. The summary's
    `methods` and everything derived from them are of the last ones, `best_checkpoints` of the others: those
    were chosen on the validation split, so on that split their scores are optimistic, which the summary says.

    Writes `cases.csv` and `cases.parquet`, `report.html` and, last, `summary.json`; results of an earlier
    evaluation stay as they are until everything is computed.

    Args:
        dataset: URL of the dataset version that the models were trained on.
        run: URL of the run folder.
        models: every method and seed to compare; methods are paired by seed.
        split: `validation` or `test`.
        convention: of the metrics, see `arco_core.metrics`.
        tolerance_mm: of the surface Dice.

    Raises:
        DataError: nothing to score, or models that cannot be compared.
        StoreError: the dataset, a checkpoint or the run folder cannot be read or written.
    """
    started = time.monotonic()
    check_tolerance(tolerance_mm)
    store = Store(run)
    store.check_writable()
    version = DatasetVersion.open(dataset)
    trained = load_models(models, version, split)
    scores = score_models(version, trained, split, convention=convention, tolerance_mm=tolerance_mm)
    logs = read_stage_logs(trained)
    last = scores.of("last")
    methods = summarize_methods(last)
    summary: dict[str, Any] = {
        "methods": methods,
        "paired": paired_differences(methods),
        "tests": compare_methods(last),
        "best_checkpoints": _best_checkpoints(trained, scores, split),
        "statistics": STATISTICS,
        "dataset": version.url,
        "labeled": len(trained[0].job.labeled_patients),
        "train_patients": len(version.patients("train")),
        "labeled_patients": {str(m.ref.seed): sorted(m.job.labeled_patients) for m in trained},
        "seeds": sorted({m.ref.seed for m in trained}),
        "steps": steps_of(logs),
        "seconds": {**seconds_of(logs), "evaluate": round(time.monotonic() - started, 1)},
        "split": split,
        "cases": len({s.case_id for s in last}),
        "patients": sorted({s.patient_id for s in last}),
        "convention": convention,
        "tolerance_mm": tolerance_mm,
        "confusion": _confusion(scores),
    }
    report = _report(version, trained, last, logs, summary)
    store.write_bytes(CASES, cases_csv(scores.cases).encode())
    store.write_bytes(CASES_PARQUET, cases_parquet(scores.cases))
    store.write_bytes(REPORT, report.encode())
    store.write_bytes(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    return EvaluationResult(
        summary_url=store.join(SUMMARY),
        cases_url=store.join(CASES),
        report_url=store.join(REPORT),
        summary=summary,
    )


def _best_checkpoints(models: Sequence[TrainedModel], scores: Scores, split: str) -> dict[str, Any] | None:
    """What the checkpoints reached that did best on validation; None unless every training has one."""
    steps: dict[str, dict[str, int]] = {}
    for model in models:
        if "best" in model.checkpoints:
            steps.setdefault(model.ref.method, {})[str(model.ref.seed)] = model.step
    if sum(map(len, steps.values())) < len({(m.ref.method, m.ref.seed) for m in models}):
        return None
    return {
        "methods": summarize_methods(scores.of("best")),
        "steps": steps,
        "optimistic": split == "validation",
    }


def _confusion(scores: Scores) -> dict[str, Any]:
    """Method -> seed -> voxels by reference class (row) and predicted class (column), of last checkpoints."""
    tables: dict[str, dict[str, Any]] = {}
    for (method, seed, checkpoint), voxels in scores.confusion.items():
        if checkpoint == "last":
            tables.setdefault(method, {})[str(seed)] = voxels.tolist()
    return tables


def _report(
    version: DatasetVersion,
    models: Sequence[TrainedModel],
    scores: Sequence[CaseScore],
    logs: Sequence[StageLog],
    summary: dict[str, Any],
) -> str:
    """HTML. Its pictures show the best seed of the first method that is not the baseline."""
    models = [m for m in models if "last" in m.checkpoints]
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
