"""Banks that two workers share: the same on both, and those of one worker with the whole batch.

What can be equal to the bit: the two workers' banks, always; and which pixels and images enter them, when the
networks give the same features for an image whatever else is in its batch. In training they do not: batch
norm takes the statistics of a worker's own batch. So the comparison with one worker freezes them, and turns
off dropout, augmentation and the draw of pixels, whose randomness belongs to a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from arco_core.banks import Bank
from arco_core.config import ArcoConfig, load
from arco_core.stages import ALONE, Peers, Stage, build_stage
from arco_core.stages.released import StarvingContrast
from arco_core.training import Loop, train
from infra.training.collectives import average_running_statistics, gather_objects, gather_rows
from tests.infra.training.processes import run_on_two

pytestmark = [pytest.mark.dist, pytest.mark.slow]

WORLD = 2
SETTINGS = (
    "network.features=[4,8]",
    "network.dropout=[0.1,0.2]",
    "pretrain.embedding_dim=8",
    "pretrain.fresh_keys=3",
    "finetune.weak_threshold=0.0",
    "finetune.contrast.queries=16",
    "finetune.contrast.queries_per_negative_set=4",
    "finetune.contrast.negatives=8",
    "finetune.contrast.keys_per_step=16",
    "finetune.contrast.bank_size=16384",
    "finetune.neighbors=2",
)
STILL = (
    "augment.rotation_degrees=0",
    "augment.crop_min=1",
    "augment.flip_probability=0",
    "augment.jitter_probability=0",
    "augment.blur_probability=0",
    "augment.noise=0",
    "finetune.mix=none",
)
ORDERED = {"pretrain": ("framework.global_bank", "framework.local_bank"), "finetune": ("image_bank",)}
"""Banks whose keys also come in the same order; seen to be equal to the bit."""
EACH = 2  # labelled images of each worker, and unlabelled ones


def make_stage(name: str, peers: Peers, *overrides: str, preset: str = "paper") -> tuple[Stage, ArcoConfig]:
    config = load(preset=preset, overrides=[*SETTINGS, *overrides])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_stage(name, config, channels=1, classes=4, peers=peers), config


def global_batch(step: int) -> dict[str, Tensor]:
    """The images of all workers together."""
    generator = torch.Generator().manual_seed(step)
    count = EACH * WORLD
    labels = torch.randint(0, 4, (count, 4, 4), generator=generator, dtype=torch.uint8)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.rand(2 * count, 1, 32, 32, generator=generator)
    return {
        "labeled_image": labels[:, None] + noise[:count],
        "labeled_label": labels,
        "unlabeled_image": labels.flip(0)[:, None] + noise[count:],
    }


def share(rank: int, step: int) -> dict[str, Tensor]:
    return {key: value[rank * EACH : (rank + 1) * EACH] for key, value in global_batch(step).items()}


class Shares:
    """A worker's part of every global batch."""

    def __init__(self, rank: int) -> None:
        self.rank, self.step = rank, -1

    def next(self) -> dict[str, Tensor]:
        self.step += 1
        return share(self.rank, self.step)

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def banks(stage: Stage) -> dict[str, Tensor]:
    names = tuple(f"{name}." for name, module in stage.named_modules() if isinstance(module, Bank))
    return {key: value.clone() for key, value in stage.state_dict().items() if key.startswith(names)}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def _train_and_compare(rank: int, *, trained: Sequence[tuple[str, str]], preset: str = "paper") -> None:
    peers = Peers(count=WORLD, gathered=WORLD, rank=rank, gather=gather_rows)
    for name, framework in trained:
        stage, config = make_stage(name, peers, f"pretrain.framework={framework}", preset=preset)
        history: list[dict[str, Tensor]] = []

        def after_step(stage: Stage = stage, history: list[dict[str, Tensor]] = history) -> None:
            average_running_statistics(stage.get_submodule("student"))
            history.append(banks(stage))

        wrapped = DistributedDataParallel(stage, forward_sync_buffers=False)
        loop = Loop(steps=4, seed=0, rank=rank, forward=wrapped, after_step=after_step)
        train(stage, Shares(rank), config.optimizer, loop)
        mine, its = gather_objects(history)
        for one, other in zip(mine, its, strict=True):
            assert_same_bits(one, other)
        assert not any(torch.equal(history[0][key], history[3][key]) for key in history[0] if "keys" in key)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_two_workers_hold_the_same_bits_after_every_step(preset: str) -> None:
    stages = (("pretrain", "arco"), ("finetune", "arco"))
    run_on_two(partial(_train_and_compare, trained=stages, preset=preset))


def test_two_workers_hold_the_same_queues_of_other_frameworks() -> None:
    run_on_two(partial(_train_and_compare, trained=(("pretrain", "knn-moco"), ("pretrain", "isd"))))


def _still_banks(name: str, peers: Peers, parts: list[dict[str, Tensor]], *overrides: str) -> Stage:
    stage, _ = make_stage(name, peers, *STILL, *overrides)
    stage.eval()  # batch-norm statistics are those stored, and nothing is dropped
    if name == "finetune":  # all pixels enter the bank, in order, instead of a random draw of them
        stage.contrast.fresh_keys = partial(StarvingContrast.fresh_keys, stage.contrast)
    for part in parts:
        stage(part, torch.Generator().manual_seed(0))
    return stage


def _compare_with_one_worker(rank: int) -> None:
    steps = range(3)
    peers = Peers(count=WORLD, gathered=WORLD, gather=gather_rows)
    for name in ("pretrain", "finetune"):
        shared = _still_banks(name, peers, [share(rank, i) for i in steps])
        alone = _still_banks(name, ALONE, [global_batch(i) for i in steps])
        mine, whole = banks(shared), banks(alone)
        assert int(whole[f"{ORDERED[name][0]}.count"].min()) > 0
        for bank in ORDERED[name]:
            for part in ("keys", "head", "count"):
                torch.testing.assert_close(mine[f"{bank}.{part}"], whole[f"{bank}.{part}"], rtol=0, atol=1e-6)
        if name == "finetune":
            assert_same_sets(shared.class_bank, alone.class_bank)


def assert_same_sets(one: Bank, other: Bank) -> None:
    """The same keys in each class; a worker's labelled and unlabelled pixels come before the next one's."""
    assert torch.equal(one.count, other.count) and int(one.count.sum()) > 10_000
    direction = torch.randn(one.keys.shape[2], 3, generator=torch.Generator().manual_seed(0))
    along = [(bank.stored @ direction).sort(1).values for bank in (one, other)]
    torch.testing.assert_close(*along, rtol=0, atol=1e-5)


def test_two_workers_hold_the_banks_of_one_worker_with_the_whole_batch() -> None:
    run_on_two(_compare_with_one_worker)


def _compare_frameworks(rank: int) -> None:
    """The keys of a queue, of heads without batch norm; and the rows that losses on whole batches take."""
    peers = Peers(count=WORLD, gathered=WORLD, rank=rank, gather=gather_rows)
    own, whole = [share(rank, i) for i in range(3)], [global_batch(i) for i in range(3)]
    overrides = ("pretrain.framework=knn-moco", "pretrain.knn_moco.neighbors=3")
    shared = banks(_still_banks("pretrain", peers, own, *overrides))
    alone = banks(_still_banks("pretrain", ALONE, whole, *overrides))
    assert len(shared) == 6
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=0, atol=1e-6)
    rows = torch.arange(8.0).view(4, 2)
    mine = rows[2 * rank : 2 * rank + 2].clone().requires_grad_()
    together = peers.whole(mine)
    together.square().sum().backward()
    assert torch.equal(together, rows) and torch.equal(mine.grad, WORLD * 2 * mine)


def test_other_frameworks_see_the_whole_batch_as_one_worker_does() -> None:
    run_on_two(_compare_frameworks)
