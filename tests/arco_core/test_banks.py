"""FIFO banks: order, left-out keys, and draws from the other classes only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arco_core.banks import Bank
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import make_sampler


def named(*rows: list[int]) -> Tensor:
    """Keys that name themselves: (R, m, 10) unit vectors."""
    return torch.eye(10)[torch.tensor(rows)]


def names(bank: Bank, row: int = 0) -> list[int]:
    """The keys of a row, oldest first."""
    count, head = int(bank.count[row]), int(bank.head[row])
    slots = [(head - count + i) % bank.size for i in range(count)]
    return [int(bank.stored[row, s].argmax()) for s in slots]


def test_first_in_first_out() -> None:
    bank = Bank(1, 4, 10)
    bank.push(named([1, 2]))
    assert names(bank) == [1, 2]
    bank.push(named([3, 4, 5]))
    assert names(bank) == [2, 3, 4, 5]


def test_invalid_keys_are_left_out() -> None:
    bank = Bank(1, 4, 10)
    bank.push(named([1, 2, 3]), torch.tensor([[True, False, True]]))
    bank.push(named([4, 5]), torch.tensor([[False, False]]))
    assert names(bank) == [1, 3]


def test_pushing_at_once_or_in_parts_is_the_same() -> None:
    """So banks gathered in order of rank are those of one worker with the whole batch."""
    keys = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    whole, parts = Bank(3, 8, 5), Bank(3, 8, 5)
    for _ in range(3):
        whole.push(keys, valid)
        parts.push(keys[:, :2], valid[:, :2])
        parts.push(keys[:, 2:], valid[:, 2:])
    assert torch.equal(whole.stored, parts.stored) and torch.equal(whole.head, parts.head)


def test_keys_are_normalised() -> None:
    bank = Bank(2, 4, 5)
    bank.push(torch.randn(2, 3, 5) * 9)
    assert torch.allclose(bank.stored[:, :3].norm(dim=2), torch.ones(2, 3))


def test_too_many_keys_at_once() -> None:
    with pytest.raises(ValueError, match=r"5 keys.*bank of 4"):
        Bank(1, 4, 10).push(named([1, 2, 3, 4, 5]))


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_draws_are_uniform_over_the_other_rows(name: str) -> None:
    """Row 0 never sees its own keys; every key of the others comes equally often, whatever their counts."""
    bank = Bank(3, 4, 10)
    bank.push(named([0, 1], [2, 3], [4, 5]))
    bank.push(named([6, 6], [7, 8], [9, 9]), torch.tensor([[False] * 2, [True] * 2, [True, False]]))
    sampler, generator = make_sampler(name, grid=2), torch.Generator().manual_seed(0)
    total = torch.zeros(10)
    for _ in range(500):
        keys, available = bank.draw_others(sampler, 2, 7, generator)
        assert available.all() and keys.shape == (3, 2, 7, 10)
        total += keys[0].flatten(0, 1).sum(0)
    wanted = torch.zeros(10)
    wanted[[2, 3, 7, 8, 4, 5, 9]] = 1000.0
    assert torch.allclose(total, wanted, atol=130)


def test_nothing_to_draw_from() -> None:
    bank = Bank(2, 4, 10)
    bank.push(named([0], [1]), torch.tensor([[True], [False]]))
    _, available = bank.draw_others(make_sampler("sg"), 1, 3, torch.Generator())
    assert available.tolist() == [False, True]


def test_state_dict_round_trip() -> None:
    bank, other = Bank(1, 4, 10), Bank(1, 4, 10)
    bank.push(named([1, 2, 3]))
    other.load_state_dict(bank.state_dict())
    bank.push(named([4, 5]))
    other.push(named([4, 5]))
    assert names(other) == names(bank) == [2, 3, 4, 5]
