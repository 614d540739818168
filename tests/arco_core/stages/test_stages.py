"""The three stages: gradients where they belong, ablations, the teacher, and the faults not to repeat."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arco_core.config import ArcoConfig, load
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.stages import STAGES, Peers, Stage, build_stage

SMALL = [
    "network.features=[4,6,8]",
    "network.dropout=[0.0,0.1,0.1]",
    "pretrain.embedding_dim=8",
    "finetune.contrast.queries=16",
    "finetune.contrast.queries_per_negative_set=4",
    "finetune.contrast.negatives=8",
    "finetune.contrast.bank_size=64",
    "finetune.contrast.keys_per_step=8",
    "finetune.weak_threshold=0.0",
    "finetune.contrast.query_threshold=0.0",
    "finetune.strong_threshold=0.4",
    "finetune.neighbor_bank=6",
    "finetune.neighbors=2",
]


def small_config(*overrides: str) -> ArcoConfig:
    return load(preset="paper", overrides=[*SMALL, *overrides])


def small_stage(name: str, *overrides: str, peers: Peers | None = None) -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = build_stage(name, small_config(*overrides), channels=1, classes=3, peers=peers or Peers())
    return stage.train()


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Images in which the class can be seen, 32 x 32."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(4, 32, 32, dtype=torch.uint8)
    labels[:, 8:20, 6:20], labels[:, 20:28, 10:24] = 1, 2
    noise = torch.rand(8, 1, 32, 32, generator=generator)
    return {
        "labeled_image": 0.3 * labels[:, None] + 0.3 * noise[:4],
        "labeled_label": labels,
        "unlabeled_image": 0.3 * labels[:, None] + 0.3 * noise[4:],
    }


def step(stage: Stage, seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stage(batch(seed), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", STAGES)
def test_gradients_reach_the_student_and_nothing_of_the_teacher(name: str) -> None:
    stage = small_stage(name)
    for i in range(3):  # banks fill
        loss = step(stage, i)["loss"]
    loss.backward()
    for key, parameter in stage.named_parameters():
        if "teacher" in key:
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", STAGES)
def test_same_seed_same_bits(name: str) -> None:
    losses = []
    for _ in range(2):
        stage = small_stage(name)
        losses.append([{k: v.tolist() for k, v in step(stage, i).items()} for i in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_every_sampler_trains(sampler: str) -> None:
    stage = small_stage("finetune", f"finetune.contrast.sampler={sampler}")
    for i in range(3):
        terms = step(stage, i)
    assert terms["contrast"] > 0 and torch.isfinite(terms["loss"])


@pytest.mark.parametrize("mix", ["cutmix", "cutout", "classmix", "none"])
def test_every_mix_trains(mix: str) -> None:
    assert torch.isfinite(step(small_stage("finetune", f"finetune.mix={mix}"))["loss"])


@pytest.mark.parametrize("term", ["contrast", "neighbors", "equivariance"])
def test_a_weight_of_zero_leaves_its_term_out(term: str) -> None:
    terms = step(small_stage("finetune", f"finetune.weights.{term}=0"))
    assert term not in terms


def test_mean_teacher_has_no_heads_and_no_banks() -> None:
    overrides = [f"finetune.weights.{t}=0" for t in ("contrast", "neighbors", "equivariance")]
    stage = small_stage("finetune", *overrides)
    assert {key.split(".")[0] for key in stage.state_dict()} == {"student", "teacher", "_extra_state"}


TERMS = ["unsupervised", "contrast", "neighbors", "equivariance"]


@pytest.mark.parametrize("term", TERMS)
def test_each_term_moves_the_student(term: str) -> None:
    """The released code's L_nn had no gradient: the term must reach the network, as its weight says."""
    gradients = []
    for weight in (1.0, 3.0, 5.0):
        weights = [f"finetune.weights.{t}={weight if t == term else 1.0}" for t in TERMS]
        stage = small_stage("finetune", *weights)
        step(stage, 0)  # fills the banks
        step(stage, 1)["loss"].backward()
        gradients.append(next(p.grad for n, p in stage.student.named_parameters() if p.grad is not None))
    first, second = gradients[1] - gradients[0], gradients[2] - gradients[1]
    assert first.norm() > 1e-6
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-5)


def test_teacher_is_an_average_of_parameters_and_buffers() -> None:
    stage = small_stage("pretrain", "pretrain.ema=0.5")
    key = "encoder.0.1.running_mean"
    stage.teacher_updates = 100  # warmed up
    before = stage.teacher.state_dict()[key].clone()
    step(stage)
    stage.after_step()
    expected = (before + stage.student.state_dict()[key]) / 2
    torch.testing.assert_close(stage.teacher.state_dict()[key], expected)
    assert torch.equal(stage.teacher.state_dict()["encoder.0.1.num_batches_tracked"], torch.tensor(1))


def test_young_teachers_follow_faster() -> None:
    stage = small_stage("pretrain")
    shares = []
    for _ in range(1500):
        stage.teacher.head.bias.data.zero_()
        stage.student.head.bias.data.fill_(1.0)
        stage.after_step()
        shares.append(float(stage.teacher.head.bias[0]))
    assert shares[0] == pytest.approx(0.9) and shares[90] == pytest.approx(0.09)
    assert shares[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_teacher_drops_nothing_and_normalises_by_batch(name: str) -> None:
    stage = small_stage(name).train()
    assert all(m.training for m in stage.student.modules())
    dropout = [m for m in stage.teacher.modules() if isinstance(m, torch.nn.Dropout)]
    norms = [m for m in stage.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(m.training for m in dropout)
    assert all(m.training and m.momentum == 0.0 for m in norms)


def test_stage_two_takes_student_into_student_and_teacher_into_teacher() -> None:
    one = small_stage("pretrain")
    for i in range(2):
        step(one, i)["loss"].backward()
        with torch.no_grad():
            for p in one.student.parameters():
                p -= 0.1
        one.after_step()
    two = small_stage("finetune")
    two.load_pretrained(one.state_dict())
    for part in ("student", "teacher"):
        for key, value in getattr(one, part).state_dict().items():
            assert torch.equal(getattr(two, part).state_dict()[key], value)
    assert two.teacher_updates == 2
    assert not torch.equal(two.student.head.weight, two.teacher.head.weight)


def test_a_stage_that_is_no_second_stage_refuses_pretraining() -> None:
    with pytest.raises(TypeError, match="SupervisedStage"):
        small_stage("supervised").load_pretrained({})


@pytest.mark.parametrize("name", STAGES)
def test_state_dict_restores_everything(name: str) -> None:
    stage, other = small_stage(name), small_stage(name)
    for i in range(3):
        step(stage, i)
        stage.after_step()
    other.load_state_dict(stage.state_dict())
    assert {k: v.tolist() for k, v in step(stage, 9).items()} == {
        k: v.tolist() for k, v in step(other, 9).items()
    }


def test_banks_fill_in_binary_tasks() -> None:
    """In the released code the bank of a two-class task is one random vector for ever."""
    stage = build_stage("finetune", small_config(), channels=1, classes=2)
    labels = {**batch(), "labeled_label": batch()["labeled_label"].clamp_max(1)}
    for i in range(2):
        stage(labels, torch.Generator().manual_seed(i))
    assert (stage.class_bank.count == 16).all()


def test_a_class_absent_from_the_batch_takes_no_part() -> None:
    """Classes 1 and 3 of five: no queries, no keys, and an L_contrast of the others."""
    stage = build_stage("finetune", small_config(), channels=1, classes=5)
    with torch.no_grad():
        stage.teacher.head.bias[[1, 3]] = -1e3  # no pseudo-label
    for i in range(3):
        data = batch(i)
        data["labeled_label"] = torch.tensor([0, 2, 4], dtype=torch.uint8)[data["labeled_label"].long()]
        terms = stage(data, torch.Generator().manual_seed(i))
    assert terms["absent"].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert terms["queries"].tolist() == [16.0, 0.0, 16.0, 0.0, 16.0]
    assert stage.class_bank.count.tolist() == [24, 0, 24, 0, 24]
    assert terms["contrast"] > 0 and torch.isfinite(terms["loss"])


def test_keys_of_all_workers_enter_the_bank_in_order_of_rank() -> None:
    """Two workers that gather see the same bank; here the second is a copy of the first."""
    twice = Peers(count=2, gathered=2, gather=lambda t: torch.cat([t, t]))
    stage = small_stage("finetune", peers=twice)
    step(stage)
    bank = stage.class_bank
    assert (bank.count == 8).all()
    assert torch.equal(bank.stored[:, :4], bank.stored[:, 4:8])


def test_image_size_must_fit_the_network() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        small_stage("supervised").student(torch.zeros(1, 1, 30, 32))
