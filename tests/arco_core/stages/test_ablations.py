"""The paper's ablations, as docs/method.md lists them: each leaves out its term and all of its state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from arco_core.stages import STATISTICS, Stage
from tests.arco_core.stages.test_stages import batch, small_config, small_stage, step

METHOD = Path(__file__).parents[3] / "docs/method.md"
ROWS = dict(re.findall(r"^\| [234] \| (.+?) \| `(.+?)` \|$", METHOD.read_text(), re.MULTILINE))

ONE = {"supervised", "global", "local"}
TWO = {"supervised", "unsupervised", "contrast", "neighbors", "equivariance"}
LEFT_OUT = {
    "full, SG": set(),
    "full, SAG": set(),
    "full, NS": set(),
    "w/o tailness (L_contrast)": {"contrast"},
    "w/o diversity (L_nn)": {"neighbors"},
    "w/o L_unsup": {"unsupervised"},
    "vanilla": ONE | TWO - {"supervised"},
    "w/o L_inst global": {"global"},
    "w/o L_inst local": {"local"},
    "w/o rotation": set(),
    "w/o crop": set(),
    "w/o horizontal flip": set(),
    "none": set(),
}


def overrides(row: str) -> list[str]:
    return [part for part in ROWS[row].split() if part != "--set"]


def parts(stage: Stage) -> set[str]:
    return {key.split(".")[0] for key in stage.state_dict()} - {"_extra_state"}


def test_every_row_of_the_table_is_tested() -> None:
    assert ROWS.keys() == LEFT_OUT.keys()


@pytest.mark.parametrize("row", LEFT_OUT)
@pytest.mark.parametrize(("name", "terms"), [("pretrain", ONE), ("finetune", TWO)])
def test_each_row_trains_exactly_its_terms(row: str, name: str, terms: set[str]) -> None:
    stage = small_stage(name, *overrides(row))
    for i in range(3):  # banks fill
        losses = step(stage, i)
    losses["loss"].backward()
    stage.after_step()
    expected = terms - (LEFT_OUT[row] - {"supervised"})
    assert losses.keys() - STATISTICS - {"loss"} == expected
    assert torch.isfinite(losses["loss"])
    for key, parameter in stage.named_parameters():
        # A parameter without a gradient is state that nothing needs, and stops data-parallel training.
        assert "teacher" in key or parameter.grad is not None, key


NETWORKS = {"student", "teacher"}
PROJECTORS = {"student_projector", "teacher_projector"}
HEADS = {"student_head", "teacher_head"}


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("pretrain", "vanilla", NETWORKS),
        ("finetune", "w/o tailness (L_contrast)", {*NETWORKS, *HEADS, "image_bank"}),
        ("finetune", "w/o diversity (L_nn)", {*NETWORKS, *HEADS, "class_bank"}),
        ("finetune", "vanilla", NETWORKS),
    ],
)
def test_a_term_that_is_off_keeps_no_state(name: str, row: str, expected: set[str]) -> None:
    assert parts(small_stage(name, *overrides(row))) == expected


@pytest.mark.parametrize(
    ("row", "kept", "expected"),
    [
        ("w/o L_inst global", "local", {*PROJECTORS, "local_predictor", "local_bank"}),
        ("w/o L_inst local", "global_", {*PROJECTORS, "global_predictor", "global_bank"}),
    ],
)
def test_a_term_of_stage_one_that_is_off_keeps_no_state(row: str, kept: str, expected: set[str]) -> None:
    framework = small_stage("pretrain", *overrides(row)).framework
    assert {key.split(".")[0] for key in framework.state_dict()} == expected
    for part in PROJECTORS:
        assert {key.split(".")[0] for key in framework.get_submodule(part).state_dict()} == {kept}


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_vanilla_is_the_baseline_and_costs_no_more(name: str) -> None:
    """One pass, the student's, over the labelled images: to the bit the loss of supervised training."""
    stage, baseline = small_stage(name, *overrides("vanilla")), small_stage("supervised")
    passes = []
    for module in (stage.student, stage.teacher):
        module.encoder[0].register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    loss = step(stage)["loss"]
    assert passes == [4]
    assert torch.equal(loss, step(baseline)["loss"])


def test_without_contrast_and_neighbors_the_teacher_sees_only_the_weak_view() -> None:
    stage = small_stage("finetune", "finetune.weights.contrast=0", "finetune.weights.neighbors=0")
    passes = []
    stage.teacher.encoder[0].register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    step(stage)
    assert passes == [4]


def test_without_augmentation_images_and_labels_stay_where_they_are() -> None:
    stage, data = small_stage("supervised", *overrides("none")), batch()
    images, labels = stage.weak_view(data["labeled_image"], torch.Generator(), data["labeled_label"])
    torch.testing.assert_close(images, data["labeled_image"], rtol=0, atol=1e-5)
    assert torch.equal(labels, data["labeled_label"].long())


@pytest.mark.parametrize(
    ("row", "moved"), [("w/o rotation", "rotation"), ("w/o crop", "crop"), ("w/o horizontal flip", "flip")]
)
def test_each_augmentation_has_its_own_switch(row: str, moved: str) -> None:
    config, full = small_config(*overrides(row)).augment, small_config().augment
    off = {
        "rotation": config.rotation_degrees == 0.0,
        "crop": config.crop_min == 1.0,
        "flip": config.flip_probability == 0.0,
    }
    assert {name for name, is_off in off.items() if is_off} == {moved}
    assert full.rotation_degrees > 0 and full.crop_min < 1 and full.flip_probability > 0
