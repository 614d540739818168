"""The measured fields are the training loss and its gradient, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.config import load
from arco_core.errors import DataError
from arco_core.representation import masked_mean, project, sample_pyramid
from arco_core.stages import Stage, build_stage
from arco_core.stages.finetune import FinetuneStage
from arco_core.variance import check_stage, class_fields
from arco_core.variance.fields import ClassField

SMALL = [
    "network.features=[4,6,8]",
    "network.dropout=[0.1,0.1,0.2]",
    "finetune.contrast.queries=16",
    "finetune.contrast.queries_per_negative_set=4",
    "finetune.contrast.negatives=8",
    "finetune.contrast.bank_size=64",
    "finetune.contrast.keys_per_step=8",
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_stage(name: str = "finetune", *overrides: str, classes: int = 3, keys: int = 16) -> Stage:
    """A stage that has just been built, with random keys in its bank; heads that are no identity."""
    config = load(preset="paper", overrides=[*SMALL, "finetune.contrast.query_threshold=0.3", *overrides])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = build_stage(name, config, channels=1, classes=classes)
        with torch.no_grad():
            for key, parameter in stage.named_parameters():
                if "head.levels" in key:
                    parameter += 0.2 * torch.randn(parameter.shape)
    if hasattr(stage, "class_bank") and keys:
        stage.class_bank.push(torch.randn(classes, keys, stage.class_bank.keys.shape[2], generator=seeded(2)))
    return stage


def batch() -> tuple[Tensor, Tensor]:
    labels = torch.zeros(3, 32, 32, dtype=torch.long)
    labels[:, 8:20, 6:20], labels[:, 20:28, 10:24] = 1, 2
    return 0.3 * labels[:, None] + 0.3 * torch.rand(3, 1, 32, 32, generator=seeded(5)), labels


@contextmanager
def same_dropout() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        yield


def fields_of(stage: FinetuneStage, images: Tensor, labels: Tensor) -> list[ClassField]:
    with same_dropout():
        return list(class_fields(stage, images, labels, seeded(3)))


def test_means_are_the_contrastive_loss_and_its_gradient_in_the_head() -> None:
    """Against the equation, of every query, and autograd through the head's matrix."""
    stage = check_stage(small_stage())
    images, labels = batch()
    fields = fields_of(stage, images, labels)
    assert [field.class_index for field in fields] == [0, 1, 2]
    with same_dropout(), torch.no_grad():
        _, pyramid = stage.student.forward_pyramid(images)
        _, teacher_pyramid = stage.teacher.forward_pyramid(images)
        member = torch.stack([labels == k for k in range(3)])
        positives = project(masked_mean(teacher_pyramid, member), stage.teacher_head.matrix())
        negatives, _ = stage.contrast.negatives(seeded(3))
    for k, field in enumerate(fields):
        assert not (field.mask & (labels != k)).any()
        matrix = stage.student_head.matrix().detach().requires_grad_()
        position = field.mask.flatten().nonzero().flatten()
        query = F.normalize(project(sample_pyramid(pyramid, position), matrix), dim=1)
        positive = (query @ F.normalize(positives[k], dim=0) / 0.5).exp()
        negative = (query @ negatives[k, 0].T / 0.5).exp().sum(1)
        loss = -(positive / (positive + negative)).log().mean()
        (gradient,) = torch.autograd.grad(loss, matrix)
        assert float(field.loss.mean()) == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(field.gradient.mean(), gradient.flatten(), rtol=1e-3, atol=1e-6)


def test_queries_are_pixels_of_which_the_teacher_is_not_too_unsure() -> None:
    images, labels = batch()
    for threshold, expected in ((0.0, True), (0.999, False)):
        stage = check_stage(small_stage("finetune", f"finetune.contrast.query_threshold={threshold}"))
        fields = fields_of(stage, images, labels)
        assert bool(fields) is expected
        for field in fields:
            assert torch.equal(field.mask, labels == field.class_index)


def test_a_class_without_pixels_or_without_negatives_takes_no_part() -> None:
    overrides = ("finetune", "finetune.contrast.query_threshold=0.0")
    images, labels = batch()
    fields = fields_of(check_stage(small_stage(*overrides)), images, labels.clamp_max(1))
    assert [field.class_index for field in fields] == [0, 1]
    assert fields_of(check_stage(small_stage(*overrides)), images, torch.zeros_like(labels)) == []
    stage = check_stage(small_stage(*overrides))
    stage.class_bank.count[1:] = 0
    assert [field.class_index for field in fields_of(stage, images, labels)] == [1, 2]


def test_same_generators_same_fields() -> None:
    stage = check_stage(small_stage())
    first, second = (fields_of(stage, *batch()) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.loss.left, b.loss.left) and torch.equal(a.gradient.left, b.gradient.left)


@pytest.mark.parametrize(
    ("name", "override", "keys", "message"),
    [
        ("supervised", "run.seed=0", 16, "a SupervisedStage has no contrastive loss"),
        ("finetune", "finetune.weights.contrast=0", 16, r"finetune\.weights\.contrast = 0"),
        ("finetune", "run.seed=0", 0, r"the bank holds \[0, 0, 0\] keys"),
    ],
)
def test_a_stage_that_has_nothing_to_measure(name: str, override: str, keys: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_stage(small_stage(name, override, keys=keys))
