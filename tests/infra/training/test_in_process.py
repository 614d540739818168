from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from arco_core.errors import DataError, StoreError, TrainingError
from infra.checkpoints import read_checkpoint
from infra.training import StageResult, load_network, run_stage
from infra.training.in_process import run_in_process
from infra.training.metrics_log import TIMES, Line, decode
from infra.training.recorder import Recorder, checkpoints_of
from tests.infra.training.jobs import make_job


def stage_state(result: StageResult) -> dict[str, Any]:
    return {k: v for k, v in read_checkpoint(result.checkpoint_url)["stage"].items() if torch.is_tensor(v)}


def logged(result: StageResult) -> list[Line]:
    return decode(Path(result.metrics_url).read_text())


def computed(lines: list[Line]) -> list[Line]:
    """`lines` without what differs between two runs that compute the same."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def test_two_stages_and_the_network_they_make(tiny_dataset: str, tmp_path: Path) -> None:
    first = run_in_process(make_job(tiny_dataset, tmp_path))
    job = make_job(tiny_dataset, tmp_path, "finetune", init=first.checkpoint_url)
    second = run_in_process(job)
    network, trained = load_network(second.checkpoint_url)
    assert trained == job
    assert not network.training
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 3, 32, 32)
    lines = [line for line in logged(second) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert second.final["loss"] == lines[-1]["loss"]
    assert lines[-1]["images_per_second"] == pytest.approx(4 / lines[-1]["seconds"])
    assert second.seconds >= lines[-1]["elapsed"] > 0


def test_stage_two_starts_from_stage_one(tiny_dataset: str, tmp_path: Path) -> None:
    first = run_in_process(make_job(tiny_dataset, tmp_path))
    untrained = ["finetune.steps=0"]
    job = make_job(tiny_dataset, tmp_path, "finetune", settings=untrained, init=first.checkpoint_url)
    weights = {k: v for k, v in stage_state(run_in_process(job)).items() if k.startswith("teacher.")}
    pretrained = stage_state(first)
    assert weights
    assert all(torch.equal(value, pretrained[name]) for name, value in weights.items())


def test_stage_two_refuses_the_stage_one_of_another_framework(tiny_dataset: str, tmp_path: Path) -> None:
    """It would be reported as what it is not."""
    isd = ["pretrain.framework=isd"]
    first = run_in_process(make_job(tiny_dataset, tmp_path, settings=isd))
    job = make_job(tiny_dataset, tmp_path, "finetune", init=first.checkpoint_url)
    with pytest.raises(DataError, match=r"pretrain\.framework is isd, and finetune, seed 0 needs arco"):
        run_in_process(job)
    job = make_job(tiny_dataset, tmp_path, "finetune", settings=isd, init=first.checkpoint_url)
    assert run_in_process(job).steps == 4


def test_a_finished_stage_is_not_trained_again(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised")
    result = run_stage(job, "in-process")
    monkeypatch.setattr("infra.training.run.run_in_process", lambda job: pytest.fail("trained again"))
    assert run_stage(dataclasses.replace(job), "in-process") == result


@pytest.mark.parametrize(
    ("stage", "stop", "cached"),
    [
        ("pretrain", 1, True),
        ("pretrain", 3, True),
        ("finetune", 1, True),
        ("finetune", 3, True),
        ("finetune", 3, False),
        ("supervised", 1, True),
        ("supervised", 3, True),
    ],
)
def test_an_interrupted_stage_ends_as_if_it_had_not_been(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, stop: int, cached: bool
) -> None:
    """Also where the pools are read while they are used, because they do not fit into memory."""
    if not cached:
        monkeypatch.setattr("infra.training.feed.CACHE_BYTES", 0)
    undisturbed = run_in_process(make_job(tiny_dataset, tmp_path / "undisturbed", stage))
    job = make_job(tiny_dataset, tmp_path / "interrupted", stage)
    log = Recorder.log

    def log_until_power_fails(self: Recorder, step: int, metrics: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt
        log(self, step, metrics)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recorder, "log", log_until_power_fails)
        run_in_process(job)
    resumed = run_in_process(job)
    expected = stage_state(undisturbed)
    assert all(torch.equal(value, expected[name]) for name, value in stage_state(resumed).items())
    assert read_checkpoint(resumed.checkpoint_url)["attempt"] == 2
    assert computed(logged(resumed)) == computed(logged(undisturbed))
    assert resumed.best and undisturbed.best
    assert dataclasses.replace(resumed.best, checkpoint_url="") == dataclasses.replace(
        undisturbed.best, checkpoint_url=""
    )


def test_a_log_that_is_cut_off_within_an_interval_loses_nothing(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over steps 1 to 3, of which a checkpoint holds the first two."""
    settings = ["run.log_every=3", "run.validate_every=0"]
    undisturbed = run_in_process(make_job(tiny_dataset, tmp_path / "a", settings=settings))
    job = make_job(tiny_dataset, tmp_path / "b", settings=settings)

    def power_fails(self: Recorder, step: int, values: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recorder, "log", power_fails)
        run_in_process(job)
    assert checkpoints_of(job).steps() == [2]
    assert computed(logged(run_in_process(job))) == computed(logged(undisturbed))


def test_the_number_of_threads_is_put_back(tiny_dataset: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_in_process(make_job(tiny_dataset, tmp_path, settings=[f"run.threads_per_worker={before + 1}"]))
    assert torch.get_num_threads() == before


def test_a_cpu_run_says_once_that_it_leaves_settings_for_gpus_aside(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run_in_process(make_job(tiny_dataset, tmp_path / "plain", "supervised"))
    assert "GPU" not in capsys.readouterr().out
    settings = ["run.precision=bf16", "run.compile=true"]
    asked = run_in_process(make_job(tiny_dataset, tmp_path / "asked", "supervised", settings=settings))
    assert capsys.readouterr().out.count("run.precision = 'bf16', run.compile = true") == 1
    expected = stage_state(plain)
    assert all(torch.equal(value, expected[name]) for name, value in stage_state(asked).items())


def test_several_workers_need_ray(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, settings=["run.workers=2"])
    with pytest.raises(TrainingError, match=r"run\.workers = 2.*set run\.workers=1"):
        run_in_process(job)


def test_divergence_is_told(tiny_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        run_in_process(make_job(tiny_dataset, tmp_path, "supervised", settings=["optimizer.lr=1e30"]))


def test_a_checkpoint_that_is_not_there_is_told(tiny_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not committed"):
        run_in_process(make_job(tiny_dataset, tmp_path, "finetune", init=str(tmp_path / "nothing.pt")))
