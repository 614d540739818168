"""Validation during training: the evaluation's scores, the same from any number of workers, and no trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from arco_core.config import InferenceConfig
from components.evaluate.scoring import TrainedModel, score_models
from components.model_ref import ModelRef
from infra.checkpoints import read_checkpoint
from infra.datasets import DatasetVersion
from infra.training import StageResult, load_network
from infra.training.in_process import run_in_process
from infra.training.metrics_log import Line, decode
from infra.training.validation import Validation, Validator, annotated_cases, best_of, validations_of
from tests.infra.training.jobs import make_job


def validation(step: int, dice: float) -> Validation:
    return Validation(step=step, dice=dice, per_class={"ring": dice}, predicted=2)


def logged(result: StageResult) -> list[Line]:
    return decode(Path(result.metrics_url).read_text())


@pytest.fixture(scope="module")
def validated(tiny_dataset: str, tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    settings = ["run.validate_every=3", "supervised.steps=10", "optimizer.lr=0.1"]
    run = tmp_path_factory.mktemp("run")
    return run_in_process(make_job(tiny_dataset, run, "supervised", settings=settings))


def test_validations_are_due_every_few_steps_and_at_the_end(validated: StageResult) -> None:
    found = validations_of(logged(validated), ("background", "ring", "core"))
    assert [v.step for v in found] == [3, 6, 9, 10]
    assert all(v.dice == pytest.approx(sum(v.per_class.values()) / 2) for v in found)


def test_by_default_there_are_ten(tiny_dataset: str, tmp_path: Path) -> None:
    every = {
        steps: make_job(tiny_dataset, tmp_path, settings=[f"pretrain.steps={steps}"]).validate_every
        for steps in (0, 4, 400, 30_000)
    }
    assert every == {0: 0, 4: 1, 400: 40, 30_000: 3000}


def test_it_is_the_score_of_the_evaluation(tiny_dataset: str, validated: StageResult) -> None:
    version = DatasetVersion.open(tiny_dataset)
    network, job = load_network(validated.checkpoint_url)
    model = TrainedModel(ref=ModelRef(method="a", seed=0, checkpoint=""), network=network, job=job, step=10)
    scores = score_models(version, [model], "validation", convention="arco")
    for name in version.classes[1:]:
        expected = [s.score.dice for s in scores.cases if s.score.class_name == name]
        mean = sum(expected) / len(expected)
        assert validated.final[f"validation/dice/{name}"] == pytest.approx(mean, abs=1e-6)


def test_the_best_checkpoint_is_kept_and_named(validated: StageResult) -> None:
    lines = logged(validated)
    best = best_of(validations_of(lines, ("background", "ring", "core")))
    assert best and validated.best
    assert (validated.best.step, validated.best.dice) == (best.step, best.dice)
    state = read_checkpoint(validated.best.checkpoint_url)
    assert state["step"] == best.step
    assert [line["step"] for line in decode(state["metrics"])] == sorted(
        line["step"] for line in lines if line["step"] <= best.step
    )
    assert read_checkpoint(validated.checkpoint_url)["step"] == 10


def test_of_equal_ones_the_first_is_the_best() -> None:
    assert best_of([]) is None
    assert best_of([validation(1, 0.5), validation(2, 0.7), validation(3, 0.7)]) == validation(2, 0.7)


def test_workers_share_the_volumes_and_agree(tiny_dataset: str, validated: StageResult) -> None:
    version = DatasetVersion.open(tiny_dataset)
    version.manifest.splits["validation"] = version.patients("train")[:4]  # more volumes than workers
    assert len(annotated_cases(version)) == 3
    network, _ = load_network(validated.checkpoint_url)
    parts: list[list[Any]] = []

    def validate(rank: int, world: int, gather: Callable[[Any], list[Any]]) -> Validation:
        shared = Validator(
            version, InferenceConfig(), rank=rank, world=world, gather=gather, alive=lambda: None
        )
        return shared(network, 1)

    for rank in range(2):
        validate(rank, 2, lambda own: parts.append(own) or [own])
    assert [len(part) for part in parts] == [2, 1]
    alone = validate(0, 1, lambda own: [own])
    together = validate(1, 2, lambda own: parts)
    assert alone == together


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "supervised"])
def test_training_does_not_notice_it(tiny_dataset: str, tmp_path: Path, stage: Any) -> None:
    """Bits of the whole final state, and of the metrics, with and without validation."""
    results = [
        run_in_process(make_job(tiny_dataset, tmp_path, stage, settings=[f"run.validate_every={every}"]))
        for every in (0, 1)
    ]
    assert results[0].best is None
    states = [read_checkpoint(result.checkpoint_url) for result in results]
    pairs = list(itertools.zip_longest(*(tensors(s) for s in states)))
    assert len(pairs) > 20 and all(torch.equal(a, b) for a, b in pairs)
    without, with_ = (
        [(line["step"], line["loss"], line["grad_norm"]) for line in logged(r) if "loss" in line]
        for r in results
    )
    assert without == with_


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]


def test_without_annotated_volumes_there_is_none(tiny_dataset: str, tmp_path: Path) -> None:
    version = DatasetVersion.open(tiny_dataset)
    version.manifest.splits["validation"] = ("case_004",)
    assert annotated_cases(version) == []
