"""The benchmark of a step, small enough to be quick: each variant runs, and the numbers are put together."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from arco_core.config import load
from benchmarks import step
from benchmarks.step import VARIANTS, Setting, measure, parse, run_all

TINY = Setting(batch=1, size=32, repeats=1, threads=1, device="cpu", precision="fp32", compile=False)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_runs(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["finetune.contrast.queries=8", "finetune.contrast.negatives=8"]
    few += ["finetune.contrast.queries_per_negative_set=8", "network.features=[4,4,8,8,8]"]
    monkeypatch.setattr(
        step, "load", lambda preset, overrides: load(preset=preset, overrides=[*overrides, *few])
    )
    with torch.random.fork_rng():
        result = measure(variant, TINY)
    assert result["step"] > 0
    if variant != "floor":
        assert result["contrast"] > 0 and result["memory"] > 0 and result["waits"] == 0
    assert ({"sampler", "convolution"} <= result.keys()) == (variant == "sampled")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_the_host_never_waits(precision: str) -> None:
    setting = Setting(
        batch=2, size=64, repeats=3, threads=1, device="cuda", precision=precision, compile=False
    )
    assert measure("sampled", setting)["waits"] == 0
    assert measure("dense", setting)["waits"] > 0


def test_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        "sampled": {
            "step": 0.5,
            "memory": 100.0,
            "contrast": 0.1,
            "waits": 0,
            "sampler": 0.01,
            "convolution": 0.05,
        },
        "floor": {"step": 0.4},
        "dense": {"step": 2.0, "memory": 300.0, "contrast": 1.5, "waits": 0},
    }

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", command[1:])
        setting, args = parse()
        assert setting == TINY, "the variant's process measures what was asked for"
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(measured[args.variant])}\n")

    monkeypatch.setattr(step.subprocess, "run", run)
    result = run_all(TINY)
    assert result["contrast_speedup"] == pytest.approx(15)
    assert (result["step_speedup"], result["memory_ratio"]) == (4.0, 3.0)
    assert (result["floor_ratio"], result["unet_share"]) == (1.25, 0.8)
    assert result["images_per_second"] == 4.0
    assert result["sampler_ratio"] == pytest.approx(0.2)
