from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import read_models, read_url, write_evaluation, write_model, write_reference
from components.evaluate.step import EvaluationResult
from components.model_ref import ModelRef


@dataclass
class FakeArtifact:
    path: str
    metadata: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)
    matrix: tuple[list[str], list[list[int]]] = ([], [])

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        self.matrix = categories, matrix


@pytest.fixture
def artifact(tmp_path: Path) -> FakeArtifact:
    return FakeArtifact(str(tmp_path / "artifact"))


def test_a_reference_is_read_back_from_the_file_and_shown_in_the_metadata(artifact: FakeArtifact) -> None:
    write_reference(artifact, "s3://bucket/datasets/heart/0123")
    assert artifact.metadata == {"url": "s3://bucket/datasets/heart/0123"}
    artifact.metadata.clear()
    assert read_url(artifact) == "s3://bucket/datasets/heart/0123"


def test_models_are_read_back_in_order(tmp_path: Path) -> None:
    models = [ModelRef(method="arco-sg", seed=seed, checkpoint=f"checkpoint-{seed}.pt") for seed in (2, 0)]
    artifacts = [FakeArtifact(str(tmp_path / str(model.seed))) for model in models]
    for artifact, model in zip(artifacts, models, strict=True):
        write_model(artifact, model)
    assert read_models(artifacts) == models


def test_an_evaluation_becomes_scores_a_confusion_and_a_report(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    score, none = {"mean": 0.5}, {"mean": None}
    own = {
        "dice": score,
        "surface_dice": score,
        "asd_mm": none,
        "hd95_mm": score,
        "missing": 2,
        "spurious": 0,
    }
    result = EvaluationResult(
        summary_url=str(tmp_path / "summary.json"),
        cases_url=str(tmp_path / "cases.csv"),
        report_url=str(tmp_path / "report.html"),
        summary={
            "methods": {"supervised": own, "arco-sg": own},
            "classes": ["background", "ring"],
            "confusion": {
                "supervised": {"0": [[9, 9], [9, 9]]},
                "arco-sg": {"0": [[5, 1], [2, 3]], "1": [[6, 0], [0, 5]]},
            },
        },
    )
    summary, metrics, confusion, report = (FakeArtifact(str(tmp_path / name)) for name in "smcr")
    write_evaluation(result, summary=summary, metrics=metrics, confusion=confusion, report=report)
    assert read_url(summary) == result.summary_url
    expected = {"dice": 0.5, "surface_dice": 0.5, "hd95_mm": 0.5, "missing": 2.0, "spurious": 0.0}
    assert metrics.logged == {f"{m} {k}": v for m in ("supervised", "arco-sg") for k, v in expected.items()}
    assert confusion.matrix == (["background", "ring"], [[11, 1], [2, 8]])
    assert Path(report.path).read_text() == "<html>"
    assert all(Path(artifact.path).stat().st_size for artifact in (metrics, confusion))  # for the cache
