"""Every loss against a naive loop written from its equation: values and gradients, float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arco_core.losses import (
    contrastive_loss,
    dice_loss,
    equivariance_loss,
    neighbor_loss,
    relational_loss,
    supervised_loss,
    unsupervised_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(t: Tensor) -> Tensor:
    return t / t.norm(dim=-1, keepdim=True)


def agree(fast: Callable[[Tensor], Tensor], naive: Callable[[Tensor], Tensor], at: Tensor) -> None:
    """Values and gradients with respect to `at` are the same to 1e-8 relative."""
    results = []
    for function in (fast, naive):
        x = at.clone().requires_grad_()
        value = function(x)
        (gradient,) = torch.autograd.grad(value, x)
        results.append((value.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-12)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


@pytest.mark.parametrize("sets", [1, 2, 6])
def test_contrastive(sets: int) -> None:
    classes, queries, keys, dim, tau = 4, 6, 5, 7, 0.5
    positives, negatives = normal(classes, dim, seed=1), unit(normal(classes, sets, keys, dim, seed=2))
    valid = torch.tensor([True, False, True, True])

    def naive(q: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for c in range(classes):
            if not valid[c]:
                continue
            for i in range(queries):
                positive = torch.exp(cosine(q[c, i], positives[c]) / tau)
                mine = negatives[c, i // (queries // sets)]
                negative = sum(torch.exp(cosine(q[c, i], mine[j]) / tau) for j in range(keys))
                total = total - torch.log(positive / (positive + negative)) / queries
        return total / int(valid.sum())

    agree(
        lambda q: contrastive_loss(q, positives, negatives, valid, tau), naive, normal(classes, queries, dim)
    )


@pytest.mark.parametrize("valid", [[False, False, False], [False, True, False]])
def test_contrastive_with_fewer_than_two_classes_is_zero_with_a_gradient(valid: list[bool]) -> None:
    queries = normal(3, 4, 5).requires_grad_()
    loss = contrastive_loss(queries, normal(3, 5), normal(3, 2, 6, 5), torch.tensor(valid), 0.5)
    loss.backward()
    assert loss == 0 and queries.grad is not None and (queries.grad == 0).all()


def test_neighbors() -> None:
    bank = unit(normal(9, 6, seed=1))
    count, k = torch.tensor(7), 3

    def naive(student: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row in student:
            distances = sorted(
                (2 - 2 * cosine(row, bank[j]) for j in range(7)), key=lambda d: float(d.detach())
            )
            total = total + sum(distances[:k]) / k
        return total / len(student)

    agree(lambda s: neighbor_loss(s, bank, count, k), naive, normal(4, 6))


def test_neighbors_carry_a_gradient_to_the_student() -> None:
    """In the released code the distance is the frozen teacher's, and the term trains nothing."""
    student = normal(4, 6).requires_grad_()
    neighbor_loss(student, unit(normal(9, 6, seed=1)), torch.tensor(9), 5).backward()
    assert student.grad is not None and student.grad.norm() > 0.01


def test_neighbors_wait_for_a_filled_bank() -> None:
    student = normal(4, 6).requires_grad_()
    loss = neighbor_loss(student, torch.zeros(9, 6, dtype=torch.float64), torch.tensor(2), 3)
    loss.backward()
    assert loss == 0 and student.grad is not None


def test_dice_and_supervised() -> None:
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))

    def naive_dice(logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        total = torch.zeros((), dtype=torch.float64)
        for c in range(3):
            y = (labels == c).double()
            overlap = 2 * (p[:, c] * y).sum() + 1e-5
            total = total + 1 - overlap / ((p[:, c] ** 2).sum() + (y**2).sum() + 1e-5)
        return total / 3

    def naive(logits: Tensor) -> Tensor:
        entropy = torch.zeros((), dtype=torch.float64)
        for b in range(2):
            for i in range(4):
                for j in range(5):
                    entropy = entropy - logits[b, :, i, j].softmax(0)[labels[b, i, j]].log()
        return (naive_dice(logits) + entropy / labels.numel()) / 2

    agree(lambda x: dice_loss(x, labels), naive_dice, normal(2, 3, 4, 5))
    agree(lambda x: supervised_loss(x, labels), naive, normal(2, 3, 4, 5))


def test_unsupervised() -> None:
    pseudo = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    confidence = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(2)).double()

    def naive(logits: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for b in range(2):
            share = sum(float(v >= 0.6) for v in confidence[b].flatten()) / 20
            for i in range(4):
                for j in range(5):
                    total = total - share * logits[b, :, i, j].log_softmax(0)[pseudo[b, i, j]] / 20
        return total / 2

    agree(lambda x: unsupervised_loss(x, pseudo, confidence, 0.6), naive, normal(2, 3, 4, 5))


def test_erased_pixels_take_no_part_in_the_unsupervised_loss() -> None:
    """The rest counts as an image of its own would."""
    confidence = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(2)).double() + 0.1
    pseudo = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    erased = confidence.clone()
    erased[:, :, 4:] = 0.0

    def rest(logits: Tensor) -> Tensor:
        return unsupervised_loss(logits[..., :4], pseudo[..., :4], confidence[..., :4], 0.6)

    agree(lambda x: unsupervised_loss(x, pseudo, erased, 0.6), rest, normal(2, 3, 4, 6))
    assert unsupervised_loss(normal(2, 3, 4, 6), pseudo, torch.zeros(2, 4, 6), 0.0) == 0


def test_equivariance() -> None:
    target, weight = normal(2, 3, 4, 5, seed=1), normal(2, 4, 5, seed=2).abs()

    def naive(prediction: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for b in range(2):
            image = torch.zeros((), dtype=torch.float64)
            for i in range(4):
                for j in range(5):
                    p = target[b, :, i, j].softmax(0)
                    q = prediction[b, :, i, j].softmax(0)
                    image = image + weight[b, i, j] * (p * (p / q).log()).sum()
            total = total + image / (weight[b].sum() + 1e-7)
        return total / 2

    agree(lambda x: equivariance_loss(x, target, weight), naive, normal(2, 3, 4, 5))


def test_equivariance_sends_no_gradient_to_its_target() -> None:
    target = normal(1, 3, 4, 4, seed=1).requires_grad_()
    loss = equivariance_loss(
        normal(1, 3, 4, 4).requires_grad_(), target, torch.ones(1, 4, 4, dtype=torch.float64)
    )
    loss.backward()
    assert target.grad is None


def test_relational() -> None:
    teacher, bank = normal(3, 2, 6, seed=1), normal(3, 5, 6, seed=2)

    def naive(student: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for r in range(3):
            for b in range(2):
                t = torch.stack([cosine(teacher[r, b], key) / 0.01 for key in bank[r]]).softmax(0)
                s = torch.stack([cosine(student[r, b], key) / 0.1 for key in bank[r]]).softmax(0)
                total = total + sum(
                    float(a) * (math.log(a) - q.log()) for a, q in zip(t, s, strict=True) if a > 0
                )
        return total / 6

    agree(lambda s: relational_loss(s, teacher, bank, 0.1, 0.01), naive, normal(3, 2, 6))
