"""Scores of models: fair, of both checkpoints, and written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arco_core.errors import DataError, StoreError
from components.evaluate import scoring, step
from components.evaluate.__main__ import main
from components.evaluate.case_table import read_cases
from components.evaluate.scoring import TrainedModel, load_models, score_models
from components.evaluate.step import evaluate, evaluated
from components.model_ref import ModelRef, method_title
from infra.datasets import DatasetVersion
from infra.training.in_process import run_in_process
from infra.training.load import load_network
from infra.training.worker import finished
from tests.components.conftest import TrainedRun
from tests.infra.training.jobs import make_job


class Threshold(nn.Module):
    """The discs of the tiny dataset by their brightness, or the two structures exchanged."""

    def __init__(self, exchanged: bool = False) -> None:
        super().__init__()
        self.cut = nn.Parameter(torch.tensor([0.4, 0.75]))
        self.exchanged = exchanged

    def forward(self, x: Tensor) -> Tensor:
        index = (x > self.cut.view(-1, 1, 1)).sum(dim=1)
        if self.exchanged:
            index = (3 - index) % 3
        return nn.functional.one_hot(index, 3).movedim(-1, 1).float()


def test_predictions_are_scored_on_the_original_grid(tiny_dataset: str, tmp_path: Path) -> None:
    version = DatasetVersion.open(tiny_dataset)
    models = [
        TrainedModel(
            ref=ModelRef(method=method, seed=0, checkpoint="-"),
            network=network,
            job=make_job(tiny_dataset, tmp_path),
            step=0,
        )
        for method, network in (("arco-sg", Threshold()), ("supervised", Threshold(exchanged=True)))
    ]
    scored = score_models(version, models, "validation", convention="arco")
    scores = scored.cases
    expected = {c.case_id for c in version.cases if c.split == "validation" and c.annotated}
    assert {s.case_id for s in scores} == expected
    assert [(s.method, s.score.class_name) for s in scores[:4]] == [
        ("arco-sg", "ring"), ("arco-sg", "core"), ("supervised", "ring"), ("supervised", "core")
    ]  # fmt: skip
    for s in scores:
        if s.method == "arco-sg":
            assert s.score.dice > 0.8
        else:
            assert s.score.dice < 0.1
    distances = {(s.score.asd_mm, s.score.asd_voxel) for s in scores if s.method == "supervised"}
    assert all(mm is not None and voxel is not None and mm > voxel for mm, voxel in distances)
    assert all(s.patient_id == version.case(s.case_id).patient_id for s in scores)
    right, exchanged = (scored.confusion[method, 0, "last"] for method in ("arco-sg", "supervised"))
    assert right.sum() == exchanged.sum() == sum(version.reference(c).size for c in expected)  # type: ignore[union-attr]
    assert right[1, 1] > 0.8 * right[1].sum() and exchanged[1, 2] > 0.8 * exchanged[1].sum()


def test_what_was_validated_is_scored_at_its_best_too(trained_run: TrainedRun) -> None:
    """The tiny run validates after every step; the scores of the best checkpoint are those of training."""
    result = evaluate(dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models)
    best = result.summary["best_checkpoints"]
    assert best["optimistic"] is True
    cases = read_cases((trained_run.run / "cases.parquet").read_bytes(), "cases.parquet")
    for ref in trained_run.models:
        _, job = load_network(ref.checkpoint)
        stage = finished(job)
        assert stage is not None and stage.best is not None
        assert best["steps"][ref.method][str(ref.seed)] == stage.best.step
        dice = best["methods"][ref.method]["dice"]["per_seed"][str(ref.seed)]
        assert dice == pytest.approx(stage.best.dice, abs=1e-6)
        assert dice >= result.summary["methods"][ref.method]["dice"]["per_seed"][str(ref.seed)] - 1e-6
        for checkpoint in ("last", "best"):
            own = [c for c in cases if (c.method, c.seed, c.checkpoint) == (ref.method, ref.seed, checkpoint)]
            assert len(own) == 2 * result.summary["cases"]  # two structures


def test_without_validation_there_is_no_best(
    trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        scoring, "finished", lambda job: dataclasses.replace(finished(job) or pytest.fail(), best=None)
    )
    models = load_models(trained_run.models, DatasetVersion.open(trained_run.dataset), "validation")
    assert {m.checkpoints for m in models} == {("last",)}
    result = evaluate(dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models)
    assert result.summary["best_checkpoints"] is None


def test_an_evaluation_is_found_again_only_for_the_same_models_scored_in_the_same_way(
    trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {
        "dataset": trained_run.dataset, "run": str(trained_run.run), "models": trained_run.models,
        "split": "validation", "convention": "arco", "tolerance_mm": 2.0,
    }  # fmt: skip
    made = evaluate(**asked)
    found = evaluated(**asked)
    assert found is not None and found.summary == json.loads(json.dumps(made.summary))
    assert found.report_url == made.report_url
    for change in (
        {"models": trained_run.models[1:]}, {"split": "test"}, {"convention": "released"},
        {"tolerance_mm": 1.0}, {"run": f"{trained_run.run}/none"}, {"dataset": f"{trained_run.dataset}0"},
    ):  # fmt: skip
        assert evaluated(**asked | change) is None
    monkeypatch.setattr(step, "evaluation_code", lambda: "other")
    assert evaluated(**asked) is None


def test_evaluation_writes_summary_cases_and_report(trained_run: TrainedRun) -> None:
    result = evaluate(dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models)
    summary = json.loads(Path(result.summary_url).read_text())
    assert summary == json.loads(json.dumps(result.summary))
    assert set(summary["methods"]) == {"arco-sg", "supervised"}
    for values in summary["methods"].values():
        assert 0 <= values["dice"]["mean"] <= 1
        assert set(values["dice"]["per_class"]) == {"ring", "core"}
        assert isinstance(values["missing"], int)
    assert summary["dataset"] == trained_run.dataset
    assert summary["seeds"] == [0, 1]
    assert set(summary["labeled_patients"]) == {"0", "1"}
    assert all(len(patients) == 2 for patients in summary["labeled_patients"].values())
    assert set(summary["steps"]) == {"pretrain", "finetune", "supervised"}
    assert set(summary["seconds"]) == {"pretrain", "finetune", "supervised", "evaluate"}
    assert set(summary["paired"]["arco-sg"]["dice"]["per_seed"]) == {"0", "1"}
    lines = Path(result.cases_url).read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 2 * 2 * summary["cases"]  # methods, seeds, checkpoints, structures
    assert (summary["labeled"], summary["train_patients"]) == (2, 5)
    assert summary["confusion"]["arco-sg"]["1"][0][0] > 0
    assert "ARCO-SG" in Path(result.report_url).read_text()


def test_the_command_prints_the_table_and_where_the_results_are(
    trained_run: TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*trained_run.options(), "--convention", "released"])
    out = capsys.readouterr().out
    assert "HD95" in out and out.splitlines()[-1].endswith("summary.json")
    summary = json.loads((trained_run.run / "summary.json").read_text())
    assert summary["convention"] == "released"


def test_earlier_results_survive_a_failed_evaluation(trained_run: TrainedRun) -> None:
    evaluate(dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models)
    names = ("summary.json", "cases.csv", "report.html")
    before = {name: (trained_run.run / name).read_bytes() for name in names}
    broken = dataclasses.replace(trained_run.models[-1], checkpoint=f"{trained_run.run}/absent.pt")
    with pytest.raises(StoreError, match="is not committed"):
        evaluate(
            dataset=trained_run.dataset, run=str(trained_run.run), models=[*trained_run.models[:-1], broken]
        )
    assert {name: (trained_run.run / name).read_bytes() for name in names} == before


def test_no_model_or_one_twice(trained_run: TrainedRun) -> None:
    version = DatasetVersion.open(trained_run.dataset)
    for models in ([], [trained_run.models[0], trained_run.models[0]]):
        with pytest.raises(DataError, match="each method and seed once"):
            load_models(models, version, "validation")


def test_a_split_without_annotated_cases(trained_run: TrainedRun) -> None:
    with pytest.raises(DataError, match=r"no annotated case in its test split.*data\.test_fraction"):
        evaluate(
            dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models, split="test"
        )


def test_scoring_on_labels_that_were_trained_on_is_refused(trained_run: TrainedRun) -> None:
    version = DatasetVersion.open(trained_run.dataset)
    with pytest.raises(DataError, match=r"was trained on the labels of .*, which are in the train split"):
        load_models(trained_run.models, version, "train")


def test_methods_with_different_labels_are_not_compared(trained_run: TrainedRun) -> None:
    version = DatasetVersion.open(trained_run.dataset)
    other = dataclasses.replace(trained_run.models[3], seed=0)
    models = [trained_run.models[0], other]
    assert version.labeled_patients(2, 0) != version.labeled_patients(2, 1)
    with pytest.raises(DataError, match="train both on the same labelled patients"):
        load_models(models, version, "validation")


def test_amounts_of_labels_are_not_mixed(trained_run: TrainedRun, tmp_path: Path) -> None:
    job = make_job(trained_run.dataset, tmp_path, "supervised", seed=5)
    job = dataclasses.replace(job, labeled_patients=job.labeled_patients[:1])
    other = ModelRef(method="supervised", seed=5, checkpoint=run_in_process(job).checkpoint_url)
    with pytest.raises(DataError, match=r"trained on 1, 2 labelled patients.*arco compare"):
        load_models([*trained_run.models, other], DatasetVersion.open(trained_run.dataset), "validation")


def test_a_seed_that_is_no_number(trained_run: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "d", "--run", "r", "--model", "arco-sg", "zero", "c"])
    assert stop.value.code == 2
    assert "the seed must be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "title"), [("arco-sg", "ARCO-SG"), ("supervised", "Supervised")])
def test_titles(method: str, title: str) -> None:
    assert method_title(method) == title
