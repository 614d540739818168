"""The Hilbert order visits every cell once, neighbours after neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arco_core.sampling.hilbert import hilbert_order


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (4, 4, 4)])
def test_steps_have_length_one(shape: tuple[int, ...]) -> None:
    order = hilbert_order(shape, torch.device("cpu")).numpy()
    points = np.stack(np.unravel_index(order, shape))
    assert (np.abs(np.diff(points, axis=1)).sum(0) == 1).all()


@pytest.mark.parametrize("shape", [(6, 10), (1, 7), (3, 5, 2)])
def test_is_a_permutation(shape: tuple[int, ...]) -> None:
    order = hilbert_order(shape, torch.device("cpu"))
    assert torch.equal(order.sort().values, torch.arange(np.prod(shape)))
