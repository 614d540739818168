"""Sample first, project after: the same numbers as the dense formulation, values and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.representation import PyramidHead, image_mean, masked_mean, sample_pyramid

CHANNELS = (12, 8, 6, 4)
SIZES = ((3, 2, 4), (6, 4, 8), (12, 8, 16), (24, 16, 32))


def pyramid_of(dims: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, c, *size[:dims], dtype=dtype, generator=generator).requires_grad_()
        for c, size in zip(CHANNELS, SIZES, strict=True)
    ]


def random_head(channels: Sequence[int]) -> PyramidHead:
    head = PyramidHead(channels, predictor=True)
    generator = torch.Generator().manual_seed(2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return head


def dense(head: PyramidHead, pyramid: Sequence[Tensor]) -> Tensor:
    """The authors' formulation: D channels at every pixel."""
    mode = "bilinear" if pyramid[0].ndim == 4 else "trilinear"

    def conv(layer: torch.nn.Module, x: Tensor) -> Tensor:
        return torch.einsum("bc...,dc->bd...", x, layer.weight)

    x = pyramid[0]
    for level, finer in zip(head.levels[:-1], pyramid[1:], strict=True):
        x = F.interpolate(x + conv(level, x), size=finer.shape[2:], mode=mode, align_corners=True)
        x = torch.cat([x, finer], dim=1)
    x = conv(head.levels[-1], x)
    for layer in head.predictor:
        x = conv(layer, x)
    return x


def agree(sampled: Tensor, reference: Tensor, wanted: Sequence[Tensor], rtol: float) -> None:
    """Values, and gradients with respect to every map and parameter, relative to their largest entry."""
    torch.testing.assert_close(sampled, reference, rtol=rtol, atol=rtol * float(reference.abs().max()))
    weight = torch.randn(sampled.shape, dtype=sampled.dtype, generator=torch.Generator().manual_seed(1))
    for got, want in zip(
        torch.autograd.grad((sampled * weight).sum(), wanted),
        torch.autograd.grad((reference * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("what", ["pixels", "class_mean", "image_mean"])
def test_sampled_equals_dense(dims: int, dtype: torch.dtype, rtol: float, levels: int, what: str) -> None:
    pyramid = pyramid_of(dims, dtype)[-levels:]
    head = random_head(CHANNELS[-levels:]).to(dtype)
    full = dense(head, pyramid)
    generator = torch.Generator().manual_seed(3)
    if what == "pixels":
        index = torch.randint(0, 2 * full.shape[2:].numel(), (300,), generator=generator)
        sampled, reference = sample_pyramid(pyramid, index), full.movedim(1, -1).flatten(0, -2)[index]
    elif what == "class_mean":
        mask = torch.rand(3, 2, *full.shape[2:], generator=generator) < 0.2
        sampled = masked_mean(pyramid, mask)
        reference = torch.stack([full.movedim(1, -1)[m].mean(0) for m in mask])
    else:
        sampled, reference = image_mean(pyramid), full.flatten(2).mean(2)
    agree(head(sampled), reference, [*pyramid, *head.parameters()], rtol)


def test_absent_class_has_mean_zero() -> None:
    pyramid = pyramid_of(2, torch.float32)
    mask = torch.zeros(2, 2, 24, 16, dtype=torch.bool)
    mask[1] = True
    means = masked_mean(pyramid, mask)
    assert all((mean[0] == 0).all() and mean[1].abs().max() > 0 for mean in means)


def test_nothing_of_dense_size_is_allocated() -> None:
    """The largest tensor any operator returns stays far below B × D × H × W."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else [out]:
                if isinstance(t, Tensor):
                    largest = max(largest, t.numel())
            return out

    channels, side = (64, 32, 16), 64
    pyramid = [
        torch.randn(2, c, side >> s, side >> s, requires_grad=True)
        for c, s in zip(channels, (2, 1, 0), strict=True)
    ]
    head = random_head(channels)
    with Watch():
        index = torch.randint(0, 2 * side * side, (256,))
        mask = torch.rand(3, 2, side, side) < 0.3
        rows = head(sample_pyramid(pyramid, index)).sum() + head(masked_mean(pyramid, mask)).sum()
        (rows + head(image_mean(pyramid)).sum()).backward()
    dense_size = 2 * sum(channels) * side * side
    assert largest <= 2 * channels[-1] * side * side < dense_size / 5


def test_head_starts_as_the_features_themselves() -> None:
    """Queries and keys share a space from the first step."""
    rows = [torch.randn(7, c) for c in CHANNELS]
    for predictor in (False, True):
        assert torch.equal(PyramidHead(CHANNELS, predictor=predictor)(rows), torch.cat(rows, dim=1))
