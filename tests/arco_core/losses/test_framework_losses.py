"""The losses of stage one's frameworks against naive loops written from their equations, float64."""

from __future__ import annotations

import pytest
import torch
from monai.losses import ContrastiveLoss
from torch import Tensor

from arco_core.losses import (
    info_nce_loss,
    neighbor_nce_loss,
    nt_xent_loss,
    regression_loss,
    vicreg_loss,
)
from tests.arco_core.losses.test_losses import agree, cosine, normal, unit

TAU = 0.2


def padded(keys: Tensor, size: int) -> Tensor:
    """A queue of which only the first slots are filled; what the others hold must not matter."""
    return torch.cat([keys, unit(normal(size - len(keys), keys.shape[1], seed=99))])


def test_info_nce() -> None:
    positives, keys = normal(4, 6, seed=1), unit(normal(7, 6, seed=2))

    def naive(queries: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for q, k in zip(queries, positives, strict=True):
            positive = torch.exp(cosine(q, k) / TAU)
            negatives = sum(torch.exp(cosine(q, n) / TAU) for n in keys)
            total = total - torch.log(positive / (positive + negatives)) / 4
        return total

    count = torch.tensor(7)
    agree(lambda q: info_nce_loss(q, positives, padded(keys, 9), count, TAU), naive, normal(4, 6))


def test_neighbor_nce() -> None:
    features, keys, key_features = (
        normal(4, 5, seed=1),
        unit(normal(7, 6, seed=2)),
        unit(normal(7, 5, seed=3)),
    )
    k, count = 3, torch.tensor(7)

    def naive(queries: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for q, feature in zip(queries, features, strict=True):
            order = sorted(range(7), key=lambda j: -float(cosine(feature, key_features[j])))
            every = sum(torch.exp(cosine(q, key) / TAU) for key in keys)
            for j in order[:k]:
                total = total - torch.log(torch.exp(cosine(q, keys[j]) / TAU) / every) / (4 * k)
        return total

    queues = padded(keys, 9), padded(key_features, 9)
    agree(lambda q: neighbor_nce_loss(q, features, *queues, count, k, TAU), naive, normal(4, 6))


@pytest.mark.parametrize("filled", [0, 2])
def test_losses_of_a_queue_wait_for_its_keys(filled: int) -> None:
    queries, queue, count = normal(4, 6).requires_grad_(), unit(normal(9, 6, seed=1)), torch.tensor(filled)
    losses = [neighbor_nce_loss(queries, queries, queue, queue, count, 3, TAU)]
    if not filled:
        losses.append(info_nce_loss(queries, normal(4, 6, seed=2), queue, count, TAU))
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, queries)
        assert loss == 0 and (gradient == 0).all()


def naive_nt_xent(first: Tensor, second: Tensor) -> Tensor:
    both, n = [*first, *second], len(first)
    total = torch.zeros((), dtype=torch.float64)
    for i, z in enumerate(both):
        others = sum(torch.exp(cosine(z, both[k]) / TAU) for k in range(2 * n) if k != i)
        total = total - torch.log(torch.exp(cosine(z, both[(i + n) % (2 * n)]) / TAU) / others)
    return total / (2 * n)


def test_nt_xent() -> None:
    other = normal(5, 6, seed=1)
    agree(lambda z: nt_xent_loss(z, other, TAU), lambda z: naive_nt_xent(z, other), normal(5, 6))
    agree(lambda z: nt_xent_loss(other, z, TAU), lambda z: naive_nt_xent(other, z), normal(5, 6))


def test_nt_xent_is_monais() -> None:
    first, second = normal(5, 6).float(), normal(5, 6, seed=1).float()
    torch.testing.assert_close(nt_xent_loss(first, second, TAU), ContrastiveLoss(TAU)(first, second))


def test_regression() -> None:
    targets = normal(4, 6, seed=1)

    def naive(predictions: Tensor) -> Tensor:
        pairs = zip(predictions, targets, strict=True)
        return sum((((unit(p) - unit(t)) ** 2).sum() for p, t in pairs), torch.zeros(())) / 4

    agree(lambda p: regression_loss(p, targets), naive, normal(4, 6))


def naive_vicreg(first: Tensor, second: Tensor, weights: tuple[float, float, float]) -> Tensor:
    (n, dim), (invariance, variance, covariance) = first.shape, weights
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        for j in range(dim):
            total = total + invariance * (first[i, j] - second[i, j]) ** 2 / (n * dim)
    for z in (first, second):
        mean = sum(z) / n
        c = sum(torch.outer(row - mean, row - mean) for row in z) / (n - 1)
        for i in range(dim):
            total = total + variance * torch.relu(1 - torch.sqrt(c[i, i] + 1e-4)) / dim
            for j in range(dim):
                if i != j:
                    total = total + covariance * c[i, j] ** 2 / dim
    return total


@pytest.mark.parametrize(("n", "dim"), [(4, 7), (9, 3)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg(n: int, dim: int, weights: tuple[float, float, float]) -> None:
    """With more dimensions than images and with fewer: the covariance is never built."""
    other = 0.7 * normal(n, dim, seed=1)
    options = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    for swap in (False, True):

        def pair(z: Tensor, swap: bool = swap) -> tuple[Tensor, Tensor]:
            return (other, z) if swap else (z, other)

        agree(
            lambda z: vicreg_loss(*pair(z), **options),
            lambda z: naive_vicreg(*pair(z), weights),
            0.7 * normal(n, dim),
        )


@pytest.mark.parametrize(
    "loss",
    [
        lambda q, t: info_nce_loss(q, t, unit(normal(5, 6, seed=2)), torch.tensor(5), TAU),
        regression_loss,
    ],
)
def test_no_gradient_flows_into_what_the_teacher_says(loss: object) -> None:
    target = normal(4, 6, seed=1).requires_grad_()
    loss(normal(4, 6).requires_grad_(), target).backward()  # type: ignore[operator]
    assert target.grad is None
