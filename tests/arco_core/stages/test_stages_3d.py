"""The stages on 3D patches: steps, gradients, the same bits, and stage one into stage two."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from arco_core.config import ConfigError, OptimizerConfig, load
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.stages import STAGES, Passes, Stage, build_stage
from arco_core.training import Loop, train
from tests.arco_core.stages.test_stages import SMALL

SMALL_3D = [*SMALL, "data.image_size=[16,16,16]", "pretrain.bank_size=6", "pretrain.fresh_keys=2"]
TERMS = {
    "finetune.weights": ["unsupervised", "contrast", "neighbors"],
    "pretrain": ["global_weight", "local_weight"],
}


def small_stage(name: str, *overrides: str) -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = load(preset="la", overrides=[*SMALL_3D, *overrides])
        stage = build_stage(name, config, channels=1, classes=3)
    return stage.train()


def patches(seed: int = 0) -> dict[str, Tensor]:
    """Patches (2, 1, 8, 16, 16) in which the class can be seen."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(2, 8, 16, 16, dtype=torch.uint8)
    labels[:, 1:5, 3:9, 3:10], labels[:, 3:7, 9:14, 5:12] = 1, 2
    noise = torch.rand(4, 1, 8, 16, 16, generator=generator)
    return {
        "labeled_image": 0.3 * labels[:, None] + 0.3 * noise[:2],
        "labeled_label": labels,
        "unlabeled_image": 0.3 * labels[:, None] + 0.3 * noise[2:],
    }


def step(stage: Stage, seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stage(patches(seed), torch.Generator().manual_seed(seed))


class PatchFeed:
    """Patches that depend on the position alone."""

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> dict[str, Tensor]:
        self.position += 1
        return patches(self.position)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


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
def test_training_takes_steps_and_gives_the_same_bits_again(name: str) -> None:
    states = []
    for _ in range(2):
        stage = small_stage(name)
        before = copy.deepcopy(stage.export().state_dict())
        state = train(stage, PatchFeed(), OptimizerConfig(), Loop(steps=4, seed=1))["stage"]
        assert not torch.equal(state["student.head.weight"], before["head.weight"])
        states.append({key: value for key, value in state.items() if isinstance(value, Tensor)})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_training_lowers_the_loss() -> None:
    logged: list[float] = []
    loop = Loop(steps=40, seed=0, log_every=20, on_log=lambda step, values: logged.append(values["loss"]))
    stage = small_stage("supervised", "network.dropout=[0.0,0.0,0.0]")
    train(stage, PatchFeed(), OptimizerConfig(lr=0.05), loop)
    assert logged[1] < 0.7 * logged[0]


@pytest.mark.parametrize(
    ("section", "term"), [(section, t) for section, terms in TERMS.items() for t in terms]
)
def test_each_term_moves_the_student(section: str, term: str) -> None:
    """The gradient depends on the term's weight, and linearly."""
    gradients = []
    for weight in (1.0, 3.0, 5.0):
        weights = [f"{section}.{t}={weight if t == term else 1.0}" for t in TERMS[section]]
        stage = small_stage(section.partition(".")[0], *weights)
        step(stage, 0)  # fills the banks
        step(stage, 1)["loss"].backward()
        gradients.append(next(stage.export().parameters()).grad)
    first, second = gradients[1] - gradients[0], gradients[2] - gradients[1]
    assert first.norm() > 1e-6
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_every_sampler_trains(sampler: str) -> None:
    stage = small_stage("finetune", f"finetune.contrast.sampler={sampler}")
    for i in range(2):
        terms = step(stage, i)
    assert terms["contrast"] > 0 and torch.isfinite(terms["loss"])


@pytest.mark.parametrize("mix", ["cutmix", "cutout", "classmix", "none"])
def test_every_mix_trains(mix: str) -> None:
    assert torch.isfinite(step(small_stage("finetune", f"finetune.mix={mix}"))["loss"])


def test_stage_two_takes_student_into_student_and_teacher_into_teacher() -> None:
    one = small_stage("pretrain")
    train(one, PatchFeed(), OptimizerConfig(), Loop(steps=2, seed=0))
    two = small_stage("finetune")
    two.load_pretrained(one.state_dict())
    for part in ("student", "teacher"):
        for key, value in getattr(one, part).state_dict().items():
            assert torch.equal(getattr(two, part).state_dict()[key], value)
    assert torch.isfinite(step(two)["loss"])


def test_banks_hold_the_windows_of_a_volume() -> None:
    """7 windows an axis, each of 8 cells an axis."""
    stage = small_stage("pretrain")
    step(stage)
    assert stage.framework.local_bank.stored.shape == (7**3, 6, 3 * 8**3)
    assert (stage.framework.local_bank.count == 2).all()


@pytest.mark.parametrize("name", STAGES)
def test_low_precision_trains(name: str) -> None:
    # Two levels: on a CPU, torch 2.13's bfloat16 gradient of a convolution over 2 x 4 x 4 voxels is made
    # of memory that nothing wrote to. Runs on CPUs are float32 and do not meet it.
    stage = small_stage(name, "network.features=[4,6]", "network.dropout=[0.1,0.1]")
    stage.passes = Passes(torch.bfloat16)
    loss = step(stage)["loss"]
    loss.backward()
    gradients = [p.grad for p in stage.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.weights.equivariance=1.0", "equivariance = 1.0: must be 0 in 3D"),
        ("data.image_size=[64,64]", r"data.image_size = \(64, 64\): needs 3 sides for network.kind = 'vnet'"),
        ("network.kind=unet", r"data.image_size = \(80, 112, 112\): needs 2 sides for network.kind = 'unet'"),
        ("network.kind=vnett", "network.kind = 'vnett': must be one of unet, vnet"),
    ],
)
def test_settings_that_do_not_go_together_are_told(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(preset="la", overrides=[override])
