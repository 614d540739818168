"""The evaluation step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from arco_core.errors import DataError
from arco_core.metrics import TOLERANCE_MM, Convention, check_tolerance
from components.evaluate.comparison import compare_results
from components.evaluate.report import REPORT, report_files
from components.evaluate.results import (
    CASES,
    FORMAT,
    SUMMARY,
    RunResults,
    read_summary,
    read_variance,
    write_results,
    write_summary,
)
from components.evaluate.scoring import Scores, TrainedModel, load_models, score_models
from components.evaluate.slices import SliceWriter, read_slice
from components.evaluate.summary import STATISTICS, summarize, unit_of
from components.evaluate.training_log import (
    StageLog,
    read_stage_logs,
    seconds_of,
    settings_digest,
    steps_of,
)
from components.model_ref import ModelRef
from components.versions import software_versions, source_commit
from infra.code_digest import code_digest
from infra.datasets import DatasetVersion
from infra.datasets.splits import SPLITS
from infra.storage import Store

_EVALUATION_CODE = ("arco_core", "components.evaluate", "infra.datasets")
_PACKAGES = ("torch", "monai", "numpy", "nibabel", "ray", "kfp", "pyarrow")


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

    Writes the tables of cases, `report.html`, its figures and, last, `summary.json`; results of an earlier
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
    writer = SliceWriter()
    scores = score_models(
        version, trained, split, convention=convention, tolerance_mm=tolerance_mm, slices=writer
    )
    slices = writer.finish()
    logs = read_stage_logs(trained)
    conditions = {
        "split": split,
        "convention": convention,
        "tolerance_mm": tolerance_mm,
        "spacing_known": version.manifest.spacing_known,
    }
    summary: dict[str, Any] = {
        "format": FORMAT,
        **_numbers(trained, scores, conditions),
        "statistics": STATISTICS,
        **_provenance(version, trained, logs),
        "device": _device(trained[0]),
        "seconds": {**seconds_of(logs), "evaluate": round(time.monotonic() - started, 1)},
        "cases": len({s.case_id for s in scores.cases}),
        "patients": sorted({s.patient_id for s in scores.cases}),
        **conditions,
    }
    results = RunResults(
        url=store.url,
        summary=summary,
        scores=scores.cases,
        logs=logs,
        slice_of=lambda case_id: read_slice(slices, case_id, store.url),
        variance=read_variance(store),
    )
    report = report_files(compare_results([results]))
    write_results(store, results, slices)
    for path, data in report.items():
        store.write_bytes(path, data)
    write_summary(store, summary)
    return _result(store, summary)


def evaluated(
    *,
    dataset: str,
    run: str,
    models: Sequence[ModelRef],
    split: str,
    convention: Convention,
    tolerance_mm: float,
) -> EvaluationResult | None:
    """What `evaluate` left in the run folder for these same arguments, by this same code; else None."""
    store = Store(run)
    try:
        summary = read_summary(store)
    except DataError:  # none, or one that has to be made anew
        return None
    trainings = summary["trainings"]
    found = {(m, int(s)): t["checkpoint"] for m, seeds in trainings.items() for s, t in seeds.items()}
    wanted = {
        "dataset": Store(dataset).url,
        "code": evaluation_code(),
        "split": split,
        "convention": convention,
        "tolerance_mm": tolerance_mm,
    }
    same = all(summary[key] == value for key, value in wanted.items())
    if not same or found != {(m.method, m.seed): m.checkpoint for m in models}:
        return None
    return _result(store, summary)


def _result(store: Store, summary: dict[str, Any]) -> EvaluationResult:
    return EvaluationResult(
        summary_url=store.join(SUMMARY),
        cases_url=store.join(CASES),
        report_url=store.join(REPORT),
        summary=summary,
    )


def _numbers(models: Sequence[TrainedModel], scores: Scores, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Scores and tests, of last checkpoints and of those that did best on validation."""
    numbers = summarize(scores.cases, unit_of(conditions))
    if numbers["best_checkpoints"] is not None:
        numbers["best_checkpoints"] |= {
            "steps": _by_method({_key(m): m.step for m in models if "best" in m.checkpoints}),
            "optimistic": conditions["split"] == "validation",
        }
    last = {(m, s): v.tolist() for (m, s, checkpoint), v in scores.confusion.items() if checkpoint == "last"}
    return numbers | {"confusion": _by_method(last)}


def _provenance(
    version: DatasetVersion, models: Sequence[TrainedModel], logs: Sequence[StageLog]
) -> dict[str, Any]:
    """What the numbers are of."""
    last = [model for model in models if "last" in model.checkpoints]
    trainings = {
        _key(m): {
            "checkpoint": m.ref.checkpoint,
            "job": m.job.digest,
            "settings": settings_digest(m.job),
            "code": m.job.code,
        }
        for m in last
    }
    return {
        "dataset": version.url,
        "classes": list(version.classes),
        "labeled": len(last[0].job.labeled_patients),
        "train_patients": len(version.patients("train")),
        "split_patients": {split: len(version.patients(split)) for split in SPLITS},
        "labeled_patients": {str(m.ref.seed): sorted(m.job.labeled_patients) for m in last},
        "seeds": sorted({m.ref.seed for m in last}),
        "steps": steps_of(logs),
        "trainings": _by_method(trainings),
        "configs": {m.ref.method: m.job.config for m in reversed(last)},  # of the first seed
        "code": evaluation_code(),
        "commit": source_commit(),
        "software": software_versions(_PACKAGES),
    }


def evaluation_code() -> str:
    """Fingerprint of the code that a model's scores come from."""
    return code_digest(*_EVALUATION_CODE)


def _device(model: TrainedModel) -> str:
    """What the networks ran on: `CPU`, or the GPU's name."""
    device = next(model.network.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _key(model: TrainedModel) -> tuple[str, int]:
    return model.ref.method, model.ref.seed


def _by_method(values: Mapping[tuple[str, int], Any]) -> dict[str, dict[str, Any]]:
    """(method, seed) -> value as method -> seed -> value, for JSON."""
    nested: dict[str, dict[str, Any]] = {}
    for (method, seed), value in values.items():
        nested.setdefault(method, {})[str(seed)] = value
    return nested
