"""Low precision and compilation: only the networks' passes change, and a CPU run stays as it is."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from arco_core.config import OptimizerConfig, RunConfig
from arco_core.stages import STAGES, Passes, Stage
from arco_core.training import Loop, train
from tests.arco_core.stages.test_stages import batch, small_stage, step
from tests.arco_core.test_training import CountingFeed

LOW = [torch.bfloat16, torch.float16]
NO_DROPOUT = "network.dropout=[0.0,0.0,0.0]"  # masks depend on how the passes are carried out


def gradients(stage: Stage) -> list[Tensor]:
    return [p.grad for p in stage.parameters() if p.grad is not None]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", STAGES)
def test_low_precision_gives_finite_losses_close_to_full_precision(name: str, dtype: torch.dtype) -> None:
    terms, slopes = {}, {}
    for precision in (torch.float32, dtype):
        stage = small_stage(name, NO_DROPOUT)
        stage.passes = Passes(precision)
        for i in range(3):  # banks fill
            terms[precision] = step(stage, i)
        terms[precision]["loss"].backward()
        slopes[precision] = torch.cat([g.flatten() for g in gradients(stage)])
    assert all(value.dtype is torch.float32 for value in terms[dtype].values())
    for key, value in terms[dtype].items():
        torch.testing.assert_close(value, terms[torch.float32][key], rtol=0.05, atol=0.02)
    assert torch.isfinite(slopes[dtype]).all()
    assert torch.cosine_similarity(slopes[dtype], slopes[torch.float32], dim=0) > 0.95


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_ends_with_the_network(dtype: torch.dtype) -> None:
    """Logits and features were computed in `dtype`, and come back as float32."""
    stage = small_stage("finetune")
    logits, pyramid = Passes(dtype)(stage.student, batch()["unlabeled_image"])
    for result in (logits, *pyramid):
        assert result.dtype is torch.float32 and torch.equal(result, result.to(dtype).float())
    assert torch.equal(Passes().logits(stage.teacher, logits[:, :1]), stage.teacher(logits[:, :1]))


def test_banks_and_weights_stay_in_full_precision() -> None:
    stage = small_stage("finetune")
    stage.passes = Passes(torch.bfloat16)
    step(stage)
    assert all(not t.is_floating_point() or t.dtype is torch.float32 for t in stage.parameters())
    assert all(not t.is_floating_point() or t.dtype is torch.float32 for t in stage.buffers())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_cpu_nothing_changes(precision: str) -> None:
    run = RunConfig(precision=precision, compile=True)
    losses = []
    for passes in (Passes(), Passes.on(torch.device("cpu"), run)):
        stage = small_stage("finetune")
        stage.passes = passes
        losses.append(step(stage)["loss"].detach())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
@pytest.mark.parametrize("compile", [False, True])
def test_on_a_gpu_precision_and_compilation_are_the_configured_ones(
    precision: str, dtype: torch.dtype, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs no GPU: which passes are made is settled before the first one."""
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    passes = Passes.on(torch.device("cuda"), RunConfig(precision=precision, compile=compile))
    assert passes.dtype is dtype and len(compiled) == compile
    assert passes.scaler(torch.device("cpu")).is_enabled() == (precision == "fp16")


@pytest.mark.parametrize("name", STAGES)
def test_resume_is_exact_in_fp16_with_its_scale(name: str) -> None:
    """Stopped after 3 of 6 steps: the scale of the loss, too, goes on where it was."""
    saved: dict[int, Any] = {}

    def run(**kwargs: Any) -> dict[str, Any]:
        loop = Loop(steps=6, seed=1, checkpoint_every=3, passes=Passes(torch.float16), **kwargs)
        return train(small_stage(name), CountingFeed(), OptimizerConfig(lr=0.01), loop)

    whole = run(on_checkpoint=lambda step, state: saved.setdefault(step, copy.deepcopy(state)))
    assert saved[3]["scaler"]["_growth_tracker"] == 3
    resumed = run(resume=saved[3])
    assert resumed["scaler"] == whole["scaler"]
    for key, value in whole["stage"].items():
        assert not isinstance(value, Tensor) or torch.equal(value, resumed["stage"][key])


def test_a_step_that_overflows_is_left_out_and_the_scale_lowered() -> None:
    stage = small_stage("supervised")
    before = copy.deepcopy(dict(stage.named_parameters()))

    def steep(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": torch.stack([1e36 * p.sum() for p in stage.parameters()]).sum()}

    loop = Loop(steps=1, seed=0, passes=Passes(torch.float16), forward=steep)
    state = train(stage, CountingFeed(), OptimizerConfig(), loop)
    assert state["scaler"]["scale"] == 2.0**15
    assert all(torch.equal(p, before[name]) for name, p in stage.named_parameters())


def compare_compiled(name: str) -> None:
    """Terms and gradients of a step of compiled passes are those of plain ones, on a CPU as on a GPU."""
    terms, slopes = [], []
    for passes in (Passes(), Passes(compile=True)):
        stage = small_stage(name, NO_DROPOUT)
        stage.passes = passes
        terms.append(step(stage))
        terms[-1]["loss"].backward()
        slopes.append(torch.cat([g.flatten() for g in gradients(stage)]))
    torch.testing.assert_close(terms[1], terms[0], rtol=1e-3, atol=1e-4)
    assert torch.cosine_similarity(slopes[0], slopes[1], dim=0) > 0.9999


def test_the_networks_are_captured_as_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without generating code, which takes a CPU a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    compare_compiled("supervised")


@pytest.mark.slow
def test_compiled_passes_compute_the_same() -> None:
    compare_compiled("supervised")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "compile"), [("fp32", False), ("bf16", False), ("fp16", False), ("bf16", True)]
)
@pytest.mark.parametrize("name", STAGES)
def test_every_precision_trains_on_a_gpu(name: str, precision: str, compile: bool) -> None:
    logged: list[float] = []
    loop = Loop(
        steps=60,
        seed=0,
        log_every=20,
        on_log=lambda step, values: logged.append(values["supervised"]),
        passes=Passes.on(torch.device("cuda"), RunConfig(precision=precision, compile=compile)),
    )
    train(small_stage(name).to("cuda"), CountingFeed(), OptimizerConfig(lr=0.05), loop)
    assert logged[-1] < 0.8 * logged[0]
