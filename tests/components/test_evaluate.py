"""Scores of models: fair, paired, aggregated as the method page says, and written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from arco_core.errors import DataError, StoreError
from arco_core.metrics import ClassScore
from components.evaluate import evaluate, results_table
from components.evaluate.__main__ import main
from components.evaluate.scoring import CaseScore, TrainedModel, load_models, score_models
from components.evaluate.summary import best_seed, cases_csv, paired_differences, summarize_methods
from components.model_ref import ModelRef, method_title
from infra.datasets import DatasetVersion
from tests.components.conftest import TrainedRun
from tests.infra.training.jobs import make_job


def score(
    method: str,
    seed: int,
    case: str,
    name: str,
    dice: float,
    distance: float | None = 1.0,
    missing: bool = False,
) -> CaseScore:
    return CaseScore(
        method=method,
        seed=seed,
        case_id=case,
        score=ClassScore(
            class_name=name, dice=dice, missing=missing,
            asd_mm=distance, hd95_mm=distance, asd_voxel=distance, hd95_voxel=distance,
        ),
    )  # fmt: skip


SCORES = [
    score("supervised", 0, "p", "a", 0.5),
    score("supervised", 0, "q", "a", 0.7, 3.0),
    score("supervised", 0, "p", "b", 0.4),
    score("supervised", 0, "q", "b", 0.0, None, missing=True),
    score("supervised", 1, "p", "a", 0.8, None, missing=True),
    score("supervised", 1, "q", "a", 0.8),
    score("supervised", 1, "p", "b", 0.6),
    score("supervised", 1, "q", "b", 0.6),
    score("arco-sg", 0, "p", "a", 1.0, None),
    score("arco-sg", 0, "p", "b", 0.5, None),
    score("arco-sg", 1, "p", "a", 1.0, None),
    score("arco-sg", 1, "p", "b", 0.7, None),
    score("arco-sg", 2, "p", "a", 0.1, None),
    score("arco-sg", 2, "p", "b", 0.1, None),
]


def test_mean_over_volumes_then_structures_then_seeds() -> None:
    dice = summarize_methods(SCORES)["supervised"]["dice"]
    assert dice["per_seed_and_class"] == {
        "0": {"a": pytest.approx(0.6), "b": pytest.approx(0.2)},
        "1": {"a": pytest.approx(0.8), "b": pytest.approx(0.6)},
    }
    assert dice["per_seed"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.7)}
    assert dice["mean"] == pytest.approx(0.55)
    assert dice["sd"] == pytest.approx(0.3 / 2**0.5)
    assert dice["per_class"] == {"a": pytest.approx(0.7), "b": pytest.approx(0.4)}
    assert dice["per_class_sd"]["b"] == pytest.approx(0.4 / 2**0.5)


def test_distances_that_do_not_exist_take_no_part_and_are_counted() -> None:
    methods = summarize_methods(SCORES)
    baseline = methods["supervised"]
    assert baseline["asd_mm"]["per_seed_and_class"] == {"0": {"a": 2.0, "b": 1.0}, "1": {"a": 1.0, "b": 1.0}}
    assert baseline["asd_mm"]["mean"] == pytest.approx(1.25)
    assert baseline["missing"] == 2
    assert baseline["missing_per_class"] == {"a": 1, "b": 1}
    assert baseline["missing_per_seed"] == {"0": 1, "1": 1}
    assert methods["arco-sg"]["hd95_mm"]["mean"] is None
    json.dumps(methods, allow_nan=False)


def test_one_seed_has_no_spread() -> None:
    dice = summarize_methods(SCORES[:4])["supervised"]["dice"]
    assert dice["sd"] is None and set(dice["per_class_sd"].values()) == {None}


def test_methods_are_paired_by_seed() -> None:
    paired = paired_differences(summarize_methods(SCORES))
    assert set(paired) == {"arco-sg"}
    assert paired["arco-sg"]["baseline"] == "supervised"
    assert paired["arco-sg"]["dice"]["per_seed"] == {"0": pytest.approx(0.35), "1": pytest.approx(0.15)}
    assert paired["arco-sg"]["dice"]["mean"] == pytest.approx(0.25)
    assert paired_differences(summarize_methods(SCORES[8:])) == {}


def test_the_best_seed_is_the_one_with_the_highest_dice() -> None:
    assert best_seed({"methods": summarize_methods(SCORES)}, "arco-sg") == 1
    assert best_seed({"methods": summarize_methods(SCORES)}, "supervised") == 1


def test_cases_table_has_a_line_a_score() -> None:
    rows = list(csv.DictReader(io.StringIO(cases_csv(SCORES))))
    assert len(rows) == len(SCORES)
    assert rows[1] == {
        "method": "supervised", "seed": "0", "case": "q", "class": "a", "dice": "0.7",
        "asd_mm": "3", "hd95_mm": "3", "asd_voxel": "3", "hd95_voxel": "3", "missing": "0",
    }  # fmt: skip
    assert (rows[3]["asd_mm"], rows[3]["missing"]) == ("", "1")


def test_terminal_table_sets_methods_side_by_side() -> None:
    summary = {"methods": summarize_methods(SCORES), "split": "validation", "cases": 2}
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(results_table(summary))
    lines = [line.split("│") for line in console.export_text().splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert cells[0][:3] == ["a", "Supervised", "70.0 ± 14.1"]
    assert cells[-2][:3] == ["mean", "Supervised", "55.0 ± 21.2"]
    assert cells[-1] == ["", "ARCO-SG", "56.7 ± 40.7", "–", "–", "0"]


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
        )
        for method, network in (("arco-sg", Threshold()), ("supervised", Threshold(exchanged=True)))
    ]
    scores = score_models(version, models, "validation", convention="arco")
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
    rows = list(csv.DictReader(io.StringIO(Path(result.cases_url).read_text())))
    assert len(rows) == 2 * 2 * 2 * summary["cases"]
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


def test_a_seed_that_is_no_number(trained_run: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "d", "--run", "r", "--model", "arco-sg", "zero", "c"])
    assert stop.value.code == 2
    assert "the seed must be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "title"), [("arco-sg", "ARCO-SG"), ("supervised", "Supervised")])
def test_titles(method: str, title: str) -> None:
    assert method_title(method) == title
