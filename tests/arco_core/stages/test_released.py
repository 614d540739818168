"""The preset `released`: each of its behaviours, beside the one that it is compared with."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from arco_core.config import ReleasedConfig, load
from arco_core.losses import neighbor_loss, released_neighbor_loss
from arco_core.networks.teacher import ema_update, make_teacher
from arco_core.stages import Stage, build_stage
from arco_core.stages.released import StarvingContrast, entropy_levels, quantiles
from tests.arco_core.stages.test_stages import SMALL, batch, small_stage, step

SWITCHES = [field.name for field in dataclasses.fields(ReleasedConfig)]
SHRUNK = [*(s for s in SMALL if "queries" not in s), "finetune.contrast.queries=16"]


def released_stage(name: str, *overrides: str, classes: int = 3) -> Stage:
    config = load(preset="released", overrides=[*SHRUNK, *overrides])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_stage(name, config, channels=1, classes=classes).train()


def test_every_switch_is_off_by_default_and_on_in_the_preset() -> None:
    assert not any(dataclasses.astuple(load().released))
    assert all(dataclasses.astuple(load(preset="released").released))


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
@pytest.mark.parametrize("switch", [*SWITCHES, "all"])
def test_each_switch_trains(name: str, switch: str) -> None:
    stage = released_stage(name) if switch == "all" else small_stage(name, f"released.{switch}=true")
    for i in range(3):
        losses = step(stage, i)
        losses["loss"].backward()
        stage.after_step()
    assert torch.isfinite(losses["loss"])
    for key, parameter in stage.named_parameters():
        assert "teacher" in key or parameter.grad is not None, key


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_neighbors_without_gradient() -> None:
    """The distance is the teacher's to the student's neighbours, and its gradient is zero; ours is not."""
    bank = torch.nn.functional.normalize(normal(9, 6, seed=1), dim=1)
    student, teacher = normal(4, 6, seed=2).requires_grad_(), normal(4, 6, seed=3)
    loss = released_neighbor_loss(student, teacher, bank, torch.tensor(9), 3)
    expected = 0.0
    for s, t in zip(student.detach(), teacher, strict=True):
        nearest = sorted(range(9), key=lambda j: -float(s @ bank[j]))[:3]
        expected += sum(2 - 2 * float(t @ bank[j] / t.norm()) for j in nearest) / 3 / 4
    assert float(loss.detach()) == pytest.approx(expected)
    gradients = [
        torch.autograd.grad(term, student)[0].norm()
        for term in (loss, neighbor_loss(student, bank, torch.tensor(9), 3))
    ]
    assert gradients[0] == 0 and gradients[1] > 0.01


def student_gradient(*overrides: str) -> Tensor:
    stage = small_stage("finetune", *overrides)
    for i in range(2):
        loss = step(stage, i)["loss"]
    loss.backward()
    return torch.cat([p.grad.flatten() for p in stage.student.parameters() if p.grad is not None])


@pytest.mark.parametrize(("released", "moves"), [("false", True), ("true", False)])
def test_the_weight_of_neighbors_matters_only_with_a_gradient(released: str, moves: bool) -> None:
    switch = f"released.neighbors_without_gradient={released}"
    first, second = (student_gradient(switch, f"finetune.weights.neighbors={w}") for w in (1, 9))
    assert (not torch.allclose(first, second, rtol=1e-4, atol=1e-7)) == moves


def test_entropy_levels() -> None:
    """1 on labelled images and the most certain fifth of the others, 0 on the least certain fifth."""
    certainty = torch.arange(20.0).view(1, 4, 5)
    logits = torch.stack([certainty, torch.zeros(1, 4, 5)], dim=1).repeat(2, 1, 1, 1)
    levels = entropy_levels(logits, labeled=1, progress=0.0)
    assert (levels[0] == 1).all()
    assert levels[1].flatten().tolist() == [0.0] * 4 + [0.5] * 12 + [1.0] * 4
    late = entropy_levels(logits, labeled=1, progress=0.9)[1].flatten().tolist()
    assert late == [0.0] + [0.5] * 18 + [1.0]


def test_quantiles_are_those_of_torch() -> None:
    values = normal(101, seed=5)
    shares = (0.0, 0.2, 0.333, 1.0)
    expected = values.quantile(torch.tensor(shares, dtype=torch.float64))
    torch.testing.assert_close(torch.stack(quantiles(values, shares)), expected)
    assert [float(q) for q in quantiles(values[:1], shares)] == [float(values[0])] * 4


def test_more_pixels_than_torch_takes_quantiles_of() -> None:
    """A batch of large patches: `torch.quantile` refuses it."""
    values = torch.arange(2.0**24).flip(0)
    values = torch.cat([values, values.new_tensor([-1.0])])
    with pytest.raises(RuntimeError, match="too large"):
        values.quantile(0.2)
    low, high = quantiles(values, (0.25, 0.75))
    assert (float(low), float(high)) == (2.0**22 - 1, 3 * 2.0**22 - 1)


@pytest.mark.parametrize("classes", [2, 3])
def test_banks_starve_with_fewer_than_four_classes(classes: int) -> None:
    """No pixel is ever ranked fourth, so the only negative is a vector of zeros for ever."""
    data = [{**batch(i), "labeled_label": batch(i)["labeled_label"].clamp_max(classes - 1)} for i in range(3)]
    counts = []
    for stage in (
        released_stage("finetune", classes=classes),
        released_stage("finetune", "released.starving_banks=false", classes=classes),
    ):
        for i in range(3):
            stage(data[i], torch.Generator().manual_seed(i))
        counts.append(stage.class_bank.count)
        if isinstance(stage.contrast, StarvingContrast):
            negatives, available = stage.contrast.negatives(torch.Generator())
            assert (negatives == 0).all() and available.all()
    assert (counts[0] == 0).all() and (counts[1] > 0).all()


def four_classes() -> tuple[StarvingContrast, Tensor, Tensor, Tensor]:
    stage = released_stage("finetune", "finetune.contrast.bank_size=16", classes=4)
    assert isinstance(stage.contrast, StarvingContrast)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 6, 6), generator=generator)
    levels = torch.tensor([0.0, 0.5, 1.0])[torch.randint(0, 3, (2, 6, 6), generator=generator)]
    levels[0] = 1.0  # labelled
    probability = (3 * torch.randn(2, 4, 6, 6, generator=generator)).softmax(1)
    return stage.contrast, labels, levels, probability


def test_only_contradictory_pixels_enter_the_banks() -> None:
    """Pseudo-labelled c, least certain, and ranked last for c by the teacher; never a labelled pixel."""
    contrast, labels, levels, probability = four_classes()
    of_class = labels == torch.arange(4).view(-1, 1, 1, 1)
    mask = contrast.key_mask(of_class, levels, probability)
    for c in range(4):
        for b in range(2):
            for i in range(6):
                for j in range(6):
                    p = probability[b, :, i, j]
                    enters = labels[b, i, j] == c and levels[b, i, j] == 0 and p[c] == p.min()
                    assert bool(mask[c, b, i, j]) == bool(enters)
    assert mask.any() and not mask[:, 0].any()


def test_all_keys_enter_once_and_the_last_ones_stay() -> None:
    contrast = four_classes()[0]
    mask = torch.zeros(4, 2, 6, 6, dtype=torch.bool)
    mask[0, 1, 2, :3] = True
    mask[2] = True
    position, valid = contrast.fresh_keys(mask, torch.Generator())
    assert valid.sum(1).tolist() == [3, 0, 16, 0]
    assert position[0, :3].tolist() == [48, 49, 50]
    assert position[2].tolist() == list(range(56, 72))


def test_negatives_come_from_the_class_own_bank() -> None:
    contrast = four_classes()[0]
    keys = torch.zeros(4, 2, contrast.bank.keys.shape[2])
    keys[1, :, 0], keys[3, :, 1] = 1.0, 1.0
    contrast.bank.push(keys, torch.tensor([[False] * 2, [True] * 2, [False] * 2, [True] * 2]))
    negatives, available = contrast.negatives(torch.Generator().manual_seed(0))
    assert negatives.shape[:3] == (4, 16, 8) and available.all()
    assert (negatives[1, ..., 0] == 1).all() and (negatives[3, ..., 1] == 1).all()
    assert (negatives[[0, 2]] == 0).all()


def test_statistics_that_never_follow_the_student() -> None:
    student = torch.nn.BatchNorm2d(2)
    released, right = make_teacher(student), make_teacher(student)
    torch.nn.init.constant_(student.weight, 3.0)
    student.running_mean.fill_(3.0)
    ema_update(released, student, 0.5, buffers=False)
    ema_update(right, student, 0.5)
    assert (released.weight == 2.0).all() and (right.weight == 2.0).all()
    assert (released.running_mean == 0.0).all() and (right.running_mean == 1.5).all()


def test_the_teacher_is_in_training_mode() -> None:
    """With dropout, and with statistics of its own passes; see the test of the right mode in test_stages."""
    stage = small_stage("finetune", "released.teacher_keeps_statistics=true")
    assert all(m.training for m in stage.teacher.modules())
    norm = next(m for m in stage.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.momentum == 0.1
    step(stage)
    own = norm.running_mean.clone()
    assert not torch.equal(own, torch.zeros_like(own))
    stage.student.encoder[0][1].running_mean.fill_(9.0)
    stage.after_step()
    assert torch.equal(norm.running_mean, own)


@pytest.mark.parametrize(("released", "share"), [("true", 0.01), ("false", 0.9)])
def test_the_first_update_of_the_teacher(released: str, share: float) -> None:
    stage = small_stage("finetune", f"released.teacher_without_warmup={released}")
    stage.teacher.head.bias.data.zero_()
    stage.student.head.bias.data.fill_(1.0)
    stage.after_step()
    assert float(stage.teacher.head.bias[0]) == pytest.approx(share)


@pytest.mark.parametrize(("released", "source"), [("true", "student"), ("false", "teacher")])
def test_where_the_teacher_of_stage_two_comes_from(released: str, source: str) -> None:
    one = small_stage("pretrain")
    with torch.no_grad():
        for p in one.student.parameters():
            p += 0.1
    two = small_stage("finetune", f"released.teacher_from_student={released}")
    two.load_pretrained(one.state_dict())
    for key, value in getattr(one, source).state_dict().items():
        assert torch.equal(two.teacher.state_dict()[key], value)
    assert not torch.equal(one.student.head.weight, one.teacher.head.weight)


@pytest.mark.parametrize(("released", "linear"), [("true", True), ("false", False)])
def test_projectors_without_a_non_linearity(released: str, linear: bool) -> None:
    arco = small_stage("pretrain", f"released.linear_projectors={released}").framework
    heads = [*arco.student_projector.values(), arco.global_predictor, arco.local_predictor]
    for head in heads:
        a, b = (torch.randn(64, head[0].in_features) for _ in range(2))
        affine = head(a) + head(b) - head(a + b) - head(torch.zeros_like(a))
        assert (affine.abs().max() < 1e-5) == linear


@pytest.mark.parametrize(("released", "identity"), [("true", False), ("false", True)])
def test_where_the_heads_start(released: str, identity: bool) -> None:
    stage = small_stage("finetune", f"released.random_heads={released}")
    matrix = stage.teacher_head.matrix()
    assert torch.equal(matrix, torch.eye(len(matrix))) == identity
    for mine, its in zip(stage.teacher_head.levels, stage.student_head.levels, strict=True):
        assert torch.equal(mine.weight, its.weight)


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_supervised_term_is_a_sum_and_not_half_of_it(name: str) -> None:
    assert load().pretrain.supervised_weight == load().finetune.weights.supervised == 1.0
    stage = released_stage(name, "finetune.weights.neighbors=0", "finetune.weights.contrast=0")
    losses = step(stage)
    others = sum(losses[k] for k in ("global", "local", "unsupervised", "equivariance") if k in losses)
    torch.testing.assert_close(losses["loss"].detach(), 2 * losses["supervised"] + others)
