"""Kubeflow artifacts as this project uses them: small references to what lies in our own store.

Kubeflow's own artifact store would copy data sets and checkpoints around, and locally it knows no S3. So the
artifact's file, and its metadata, hold URLs; the data stay where the step wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.model_ref import ModelRef
from infra.storage import Store

if TYPE_CHECKING:
    from components.evaluate.step import EvaluationResult


class Artifact(Protocol):
    """What this module needs of `kfp.dsl.Artifact`."""

    path: str
    metadata: dict[str, Any]


class MetricsArtifact(Protocol):
    """What this module needs of `kfp.dsl.Metrics`."""

    def log_metric(self, metric: str, value: float) -> None:
        """Show `value` beside the run."""
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
    result: EvaluationResult, *, summary: Artifact, metrics: MetricsArtifact, report: Artifact
) -> None:
    """Refer to the summary, log each method's scores, and copy the report, which Kubeflow shows itself."""
    write_reference(summary, result.summary_url)
    for method, scores in result.summary["methods"].items():
        for name in ("dice", "asd_mm", "hd95_mm"):
            if scores[name]["mean"] is not None:
                metrics.log_metric(f"{method} {name}", scores[name]["mean"])
    folder, _, name = result.report_url.rpartition("/")
    Path(report.path).write_bytes(Store(folder).read_bytes(name))
    report.metadata["url"] = result.report_url


def _read(artifact: Artifact) -> dict[str, Any]:
    return dict(json.loads(Path(artifact.path).read_text()))
