"""Kubeflow artifacts as this project uses them: small references to what lies in our own store.

Kubeflow's own artifact store would copy data sets and checkpoints around, and locally it knows no S3. So the
artifact's file, and its metadata, hold URLs; the data stay where the step wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from components.model_ref import BASELINE, ModelRef
from infra.storage import Store

if TYPE_CHECKING:
    from components.evaluate.step import EvaluationResult


_LOGGED = ("dice", "surface_dice", "asd_mm", "hd95_mm")


class Artifact(Protocol):
    """What this module needs of `kfp.dsl.Artifact`."""

    path: str
    metadata: dict[str, Any]


class MetricsArtifact(Protocol):
    """What this module needs of `kfp.dsl.Metrics`."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Show `value` beside the run."""
        ...


class ConfusionArtifact(Protocol):
    """What this module needs of `kfp.dsl.ClassificationMetrics`."""

    path: str

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Show a confusion matrix beside the run; a row of `matrix` is a true class."""
        ...


def write_reference(artifact: Artifact, url: str, **details: str | int) -> None:
    """Make `artifact` a reference to `url`; `details` go along."""
    reference = {"url": url, **details}
    artifact.metadata.update(reference)
    Path(artifact.path).write_text(json.dumps(reference, indent=1))


def read_url(artifact: Artifact) -> str:
    """The URL that `write_reference` put into `artifact`."""
    return str(_read(artifact)["url"])


def write_model(artifact: Artifact, model: ModelRef) -> None:
    """Make `artifact` a reference to a trained model."""
    write_reference(artifact, model.checkpoint, method=model.method, seed=model.seed)


def read_models(artifacts: Sequence[Artifact]) -> list[ModelRef]:
    """The models that `write_model` put into `artifacts`."""
    references = [_read(artifact) for artifact in artifacts]
    return [ModelRef(method=r["method"], seed=int(r["seed"]), checkpoint=r["url"]) for r in references]


def write_evaluation(
    result: EvaluationResult,
    *,
    summary: Artifact,
    metrics: MetricsArtifact,
    confusion: ConfusionArtifact,
    report: Artifact,
) -> None:
    """Refer to the summary, log scores and a confusion, and copy the report: Kubeflow shows those itself.

    The confusion is that of the first method that is not the baseline, in voxels over all cases and seeds.
    Kubeflow reuses a step from its cache only if every output has a file, so metrics get one, too.
    """
    write_reference(summary, result.summary_url)
    logged: dict[str, float | None] = {}
    for method, scores in result.summary["methods"].items():
        logged |= {f"{method} {name}": scores[name]["mean"] for name in _LOGGED}
        logged |= {f"{method} {name}": float(scores[name]) for name in ("missing", "spurious")}
    present = {name: value for name, value in logged.items() if value is not None}
    for name, value in present.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(present, indent=1))
    method = next((m for m in result.summary["methods"] if m != BASELINE), BASELINE)
    matrix = np.sum(list(result.summary["confusion"][method].values()), axis=0).tolist()
    confusion.log_confusion_matrix(result.summary["classes"], matrix)
    Path(confusion.path).write_text(json.dumps({"method": method, "matrix": matrix}))
    write_report(report, result.report_url)


def write_report(artifact: Artifact, url: str) -> None:
    """Copy the page at `url` into `artifact`."""
    folder, _, name = url.rpartition("/")
    Path(artifact.path).write_bytes(Store(folder).read_bytes(name))
    artifact.metadata["url"] = url


def _read(artifact: Artifact) -> dict[str, Any]:
    return dict(json.loads(Path(artifact.path).read_text()))
