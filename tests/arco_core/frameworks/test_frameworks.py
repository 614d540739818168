"""Every framework of stage one: what it trains, what it keeps, and that nothing of it is lost on the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from arco_core.banks import Bank
from arco_core.config import ConfigError, OptimizerConfig, load
from arco_core.config.frameworks import FRAMEWORK_NAMES
from arco_core.frameworks import FRAMEWORKS
from arco_core.losses import nt_xent_loss, vicreg_loss
from arco_core.peers import Peers
from arco_core.stages import Passes, Stage
from arco_core.training import Loop, train
from tests.arco_core.stages import test_stages_3d
from tests.arco_core.stages.test_stages import batch, small_stage, step
from tests.arco_core.stages.test_waiting import check
from tests.arco_core.test_training import CountingFeed

OTHERS = [name for name in FRAMEWORK_NAMES if name != "arco"]
SMALL_HEADS = (
    "pretrain.moco.embedding_dim=8",
    "pretrain.moco.queue_batches=3",
    "pretrain.knn_moco.neighbors=3",
    "pretrain.simclr.embedding_dim=8",
    "pretrain.byol.hidden_dim=8",
    "pretrain.byol.embedding_dim=8",
    "pretrain.isd.queue_batches=3",
    "pretrain.vicreg.expander_dim=8",
)
PASSES = {
    "moco-v2": ["student", "teacher"],
    "knn-moco": ["student", "teacher"],
    "simclr": ["student", "student"],
    "byol": ["student", "teacher", "student", "teacher"],
    "isd": ["student", "teacher"],
    "vicreg": ["student", "student"],
}
"""Of whole batches, in a step; the first is that of L_sup."""


def stage_of(framework: str, *overrides: str, peers: Peers | None = None) -> Stage:
    settings = (*SMALL_HEADS, "pretrain.labeled_batch=4", "pretrain.unlabeled_batch=4")
    return small_stage("pretrain", f"pretrain.framework={framework}", *settings, *overrides, peers=peers)


def queues(stage: Stage) -> dict[str, Bank]:
    return {name: module for name, module in stage.named_modules() if isinstance(module, Bank)}


def test_the_registry_has_the_names_of_the_configuration() -> None:
    assert tuple(FRAMEWORKS) == FRAMEWORK_NAMES


def test_an_unknown_framework_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        load(overrides=["pretrain.framework=dino"])
    assert "pretrain.framework = 'dino'" in str(error.value)
    assert all(name in str(error.value) for name in FRAMEWORK_NAMES)


@pytest.mark.parametrize(
    "override",
    [
        "pretrain.moco.temperature=0", "pretrain.moco.ema=1.5", "pretrain.simclr.embedding_dim=0",
        "pretrain.byol.hidden_dim=-1", "pretrain.isd.queue_batches=0", "pretrain.vicreg.covariance=0",
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load(overrides=[override])


def test_more_neighbors_than_keys() -> None:
    overrides = ["pretrain.moco.queue_batches=2", "pretrain.knn_moco.neighbors=13"]
    load(overrides=overrides)  # another framework trains
    with pytest.raises(ConfigError, match=r"knn_moco\.neighbors = 13.*2 batches of 6"):
        load(overrides=[*overrides, "pretrain.framework=knn-moco"])


@pytest.mark.parametrize("framework", OTHERS)
def test_a_step_trains_student_and_heads_and_nothing_of_the_teacher(framework: str) -> None:
    stage = stage_of(framework)
    for i in range(3):  # queues fill
        losses = step(stage, i)
    assert losses.keys() == {"loss", "supervised", "global"}
    assert losses["global"] > 0 and losses["loss"] == losses["supervised"] + losses["global"]
    losses["loss"].backward()
    for key, parameter in stage.named_parameters():
        if "teacher" in key:
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("framework", OTHERS)
def test_the_term_itself_reaches_the_encoder(framework: str) -> None:
    """By its weight alone: L_sup's gradient is the same twice."""
    gradients = []
    for weight in (1.0, 2.0):
        stage = stage_of(framework, f"pretrain.global_weight={weight}")
        for i in range(2):
            loss = step(stage, i)["loss"]
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stage.student.encoder.parameters()]))
    assert (gradients[1] - gradients[0]).norm() > 1e-5


@pytest.mark.parametrize("framework", OTHERS)
def test_each_costs_the_passes_that_it_needs(framework: str) -> None:
    stage, passes = stage_of(framework), []
    for name in ("student", "teacher"):
        module = getattr(stage, name).encoder[0]
        module.register_forward_hook(lambda _, inputs, __, name=name: passes.append((name, len(inputs[0]))))
    step(stage)
    assert passes == [(name, 8) for name in PASSES[framework]]


@pytest.mark.parametrize("framework", OTHERS)
def test_a_weight_of_zero_leaves_the_framework_out(framework: str) -> None:
    """The term on windows, which only ARCO has, does not keep it."""
    stage = stage_of(framework, "pretrain.global_weight=0")
    assert {key.split(".")[0] for key in stage.state_dict()} == {"student", "teacher", "_extra_state"}
    assert step(stage).keys() == {"loss", "supervised"}


@pytest.mark.parametrize("framework", OTHERS)
def test_teachers_of_networks_and_heads_follow(framework: str) -> None:
    stage = stage_of(framework)
    followers = stage.teacher_of()
    assert ("teacher_projector" in dict(stage.framework.named_children())) == (len(followers) == 2)
    for student in followers.values():
        for parameter in student.parameters():
            parameter.data += 1.0
    before = [copy.deepcopy(list(t.parameters())) for t in followers]
    stage.after_step()
    for old, (teacher, student) in zip(before, followers.items(), strict=True):
        for was, is_now, target in zip(old, teacher.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(is_now, 0.1 * was + 0.9 * target)  # the first update of a young one


@pytest.mark.parametrize(("framework", "same"), [("arco", True), ("moco-v2", False)])
def test_the_two_views_are_of_different_crops_unless_windows_are_compared(framework: str, same: bool) -> None:
    still = ("augment.jitter_probability=0", "augment.blur_probability=0", "augment.noise=0")
    stage, seen = stage_of(framework, *still), []
    for network in (stage.student, stage.teacher):
        network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    step(stage)
    assert torch.equal(seen[0], seen[1]) == same


@pytest.mark.parametrize(("framework", "expected"), [("moco-v2", 1), ("knn-moco", 2), ("isd", 1)])
def test_queues_are_first_in_first_out_over_the_last_batches(framework: str, expected: int) -> None:
    stage = stage_of(framework)
    assert len(queues(stage)) == expected
    for i in range(5):
        kept = {name: bank.stored.clone() for name, bank in queues(stage).items()}
        step(stage, i)
        for name, bank in queues(stage).items():
            assert bank.size == 24 and bank.count == min(8 * (i + 1), 24)
            new = slice(8 * (i % 3), 8 * (i % 3) + 8)
            others = [slot for slot in range(24) if slot not in range(24)[new]]
            assert torch.equal(bank.stored[:, others], kept[name][:, others])
            assert not torch.equal(bank.stored[:, new], kept[name][:, new])


def test_slots_of_both_queues_hold_the_same_images() -> None:
    """Neighbours are found in one queue and drawn close in the other."""
    stage = stage_of("knn-moco")
    pooled: list[Tensor] = []
    stage.framework.teacher_projector.register_forward_hook(lambda _, inputs, __: pooled.append(inputs[0]))
    for i in range(2):
        step(stage, i)
    with torch.no_grad():
        keys = stage.framework.teacher_projector(torch.cat(pooled))  # no update has moved it
    for bank, rows in (
        (stage.framework.key_queue, keys),
        (stage.framework.feature_queue, torch.cat(pooled[:2])),
    ):
        torch.testing.assert_close(bank.stored[0, :16], torch.nn.functional.normalize(rows, dim=1))


@pytest.mark.parametrize("framework", OTHERS)
def test_resume_is_exact(framework: str) -> None:
    """Stopped after 3 of 5 steps: the last state has the same bits."""
    saved: dict[int, Any] = {}

    def run(**kwargs: Any) -> dict[str, Any]:
        loop = Loop(steps=5, seed=1, checkpoint_every=3, **kwargs)
        return train(stage_of(framework), CountingFeed(), OptimizerConfig(lr=0.01), loop)

    whole = run(on_checkpoint=lambda at, state: saved.setdefault(at, copy.deepcopy(state)))
    resumed = run(resume=saved[3])
    assert whole["stage"].keys() == resumed["stage"].keys()
    for key, value in whole["stage"].items():
        equal = torch.equal(value, resumed["stage"][key]) if isinstance(value, Tensor) else True
        assert equal, key
    assert not torch.equal(whole["stage"]["student.head.weight"], saved[3]["stage"]["student.head.weight"])


@pytest.mark.parametrize("framework", OTHERS)
def test_stage_two_goes_on_from_it(framework: str) -> None:
    one, two = stage_of(framework), small_stage("finetune")
    step(one)["loss"].backward()
    one.after_step()
    two.load_pretrained(one.state_dict())
    for part in ("student", "teacher"):
        for key, value in getattr(one, part).state_dict().items():
            assert torch.equal(getattr(two, part).state_dict()[key], value)


@pytest.mark.parametrize("framework", OTHERS)
def test_no_step_waits_for_the_device(framework: str) -> None:
    check(stage_of(framework), batch())


@pytest.mark.parametrize("framework", ["knn-moco", "byol", "vicreg"])
def test_patches(framework: str) -> None:
    settings = (f"pretrain.framework={framework}", *SMALL_HEADS)
    stage = test_stages_3d.small_stage("pretrain", *settings)
    for i in range(3):
        loss = test_stages_3d.step(stage, i)["loss"]
    loss.backward()
    assert torch.isfinite(loss) and stage.student.encoder[0][0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("framework", OTHERS)
def test_low_precision_ends_with_the_network(framework: str) -> None:
    stage = stage_of(framework)
    stage.passes = Passes(torch.bfloat16)
    losses = step(stage)
    losses["loss"].backward()
    assert all(value.dtype is torch.float32 and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("framework", ["simclr", "vicreg"])
def test_two_workers_descend_the_loss_of_the_whole_batch(framework: str) -> None:
    """Means over workers of the gradient of embeddings are those of one worker with all images."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    gradients = []
    for rank in (0, 1):
        own = slice(4 * rank, 4 * rank + 4)
        leaves = [view[own].clone().requires_grad_() for view in views]
        rows = []
        for view, leaf in zip(views, leaves, strict=True):
            peers = Peers(count=2, gathered=2, rank=rank, gather=lambda t, view=view: view)
            rows.append(peers.whole(leaf))
            assert torch.equal(rows[-1], view)
        gradients.append(torch.autograd.grad(_loss(framework, *rows), leaves))
    whole = [view.clone().requires_grad_() for view in views]
    expected = torch.autograd.grad(_loss(framework, *whole), whole)
    for number in (0, 1):
        mean = torch.cat([gradient[number] for gradient in gradients]) / 2
        torch.testing.assert_close(mean, expected[number], rtol=1e-8, atol=1e-12)


def _loss(framework: str, first: Tensor, second: Tensor) -> Tensor:
    if framework == "simclr":
        return nt_xent_loss(first, second, 0.1)
    return vicreg_loss(first, second, invariance=25.0, variance=25.0, covariance=1.0)
