"""Whole steps of the three stages against METHOD's equations: passes, terms, and gradients of everything."""

from __future__ import annotations

import pytest
import torch

from arco_core.config import load
from arco_core.stages import Stage, build_stage
from tests.arco_core.stages import reference
from tests.arco_core.stages.recorded import Draws, record
from tests.arco_core.stages.reference import QUERY, STRONG, WEAK, Banks, Mined, Terms

CLASSES = 4
SIZES = [
    "network.features=[4,6,8]",
    "network.dropout=[0.0,0.0,0.0]",
    "pretrain.embedding_dim=8",
    "finetune.contrast.queries=16",
    "finetune.contrast.queries_per_negative_set=4",
    "finetune.contrast.negatives=8",
    "finetune.contrast.bank_size=20",
    "finetune.contrast.keys_per_step=8",
]
"""Only sizes: every other setting is the preset's, and must be METHOD's."""


def stage_of(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, Draws]:
    """A stage whose networks and heads all differ, and whose teacher is sure of some pixels only."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        stage = build_stage(name, load(preset="paper", overrides=SIZES), channels=1, classes=CLASSES)
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
            if hasattr(stage, "teacher"):
                stage.teacher.head.weight *= 6.0
    return stage.train(), record(stage, monkeypatch)


def batch_of(seed: int, *, absent: bool, size: int) -> Terms:
    """Four structures; `absent` leaves class 1 out."""
    labels = torch.zeros(4, size, size, dtype=torch.uint8)
    half = size // 2
    labels[:, 2:half, 2:half], labels[:, half : size - 2, 3:half] = 1, 2
    labels[:, 4 : size - 4, half + 2 : size - 4] = 3
    noise = torch.rand(8, 1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images = 0.3 * labels[:, None] + noise.unflatten(0, (2, 4))
    if absent:
        labels[labels == 1] = 2
    return {"labeled_image": images[0], "labeled_label": labels, "unlabeled_image": images[1]}


def agree(stage: Stage, losses: Terms, expected: Terms) -> None:
    """Every term, and the gradient of every parameter of the student's side."""
    trained = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    slopes = [
        torch.autograd.grad(t["loss"], list(trained.values()), materialize_grads=True)
        for t in (losses, expected)
    ]
    for name, value in expected.items():
        torch.testing.assert_close(
            losses[name].detach(), value.detach(), rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name, got, want in zip(trained, *slopes, strict=True):
        scale = max(float(want.abs().max()), 1e-6)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-7 * scale, msg=lambda m, n=name: f"{n}: {m}")


def passes(draws: Draws) -> list[tuple[str, int]]:
    return [(name, len(images)) for name, images in draws.passes]


# Class 1 is in every step, in all but the last (its bank is full), in none.
@pytest.mark.parametrize(
    "absent", [(), (3,), (0, 1, 2, 3)], ids=["all classes", "absent at last", "never there"]
)
def test_stage_two(absent: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    stage, draws = stage_of("finetune", monkeypatch)
    assert (len(stage.student_head.predictor), len(stage.teacher_head.predictor)) == (2, 0)
    banks = Banks([[] for _ in range(CLASSES)], room=20)
    bias = float(stage.teacher.head.bias[1].detach())
    for i in range(4):
        draws.clear()
        with torch.no_grad():  # no pseudo-label of an absent class
            stage.teacher.head.bias[1] = -1e3 if i in absent else bias
        batch = batch_of(i, absent=i in absent, size=32)
        losses = stage(batch, torch.Generator().manual_seed(i))
        assert passes(draws) == [("teacher", 4), ("student", 8), ("teacher", 8), ("student", 8)]
        expected = reference.finetune_step(stage, batch, draws, banks)
        agree(stage, losses, expected)
        assert losses["absent"].tolist() == [0.0, float(i in absent), 0.0, 0.0]
    assert all(losses[name] > 0 for name in reference.WEIGHTS)
    assert_thresholds_matter(banks)
    for c, bank in enumerate(banks.classes):
        assert len(bank) == int(stage.class_bank.count[c]) == (20 if c != 1 or len(absent) < 4 else 0)


def assert_thresholds_matter(banks: Banks) -> None:
    """Pixels lie between them all; otherwise the comparison could not tell one from the other."""
    known = banks.last
    assert known is not None
    confidence = known.confidence[4:]
    for low, high in ((0.0, WEAK), (WEAK, STRONG), (STRONG, 1.0)):
        assert 0.05 < float(((confidence >= low) & (confidence < high)).double().mean()) < 0.9
    assert ((known.labels[4:] == 0) & (confidence >= WEAK)).any()  # confident, but no foreground
    own = known.probability.gather(1, known.labels[:, None])[:, 0]
    members = known.confidence >= WEAK
    for low, high in ((0.0, QUERY), (QUERY, WEAK), (WEAK, 1.0)):
        assert (members & (own > low) & (own <= high)).any()


def test_stage_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, draws = stage_of("pretrain", monkeypatch)
    mined = Mined()
    for i in range(2):
        draws.clear()
        batch = batch_of(i, absent=False, size=64)
        losses = stage(batch, torch.Generator().manual_seed(i))
        assert passes(draws) == [("student", 8), ("teacher", 8)]
        agree(stage, losses, reference.pretrain_step(stage, batch, draws, mined))
    assert losses["global"] > 0 and losses["local"] > 0


def test_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, draws = stage_of("supervised", monkeypatch)
    batch = batch_of(0, absent=False, size=32)
    losses = stage(batch, torch.Generator().manual_seed(0))
    assert passes(draws) == [("student", 4)]
    agree(stage, losses, reference.supervised_step(stage, batch, draws))
