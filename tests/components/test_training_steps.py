"""The training steps through their command lines, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.finetune.__main__ import main as finetune
from components.finetune.step import method_name
from components.prepare.__main__ import main as prepare
from components.pretrain.__main__ import main as pretrain
from components.supervised.__main__ import main as supervised
from components.training_options import TrainingOptions
from infra.training import load_network
from tests.conftest import TINY_SETTINGS

SETTINGS = [argument for setting in TINY_SETTINGS for argument in ("--set", setting)]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_from_scans_to_two_models(tiny_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(["--data", str(tiny_raw), "--store", str(tmp_path), "--no-ray", *SETTINGS])
    common = ["--dataset", last_line(capsys), "--run", str(tmp_path / "runs/a"), "--labeled", "2"]
    common += ["--seed", "1", "--backend", "in-process", *SETTINGS]
    pretrain(common)
    finetune([*common, "--init", last_line(capsys)])
    arco, arco_job = load_network(last_line(capsys))
    supervised(common)
    baseline, baseline_job = load_network(last_line(capsys))
    assert type(arco) is type(baseline)
    assert arco_job.labeled_patients == baseline_job.labeled_patients
    assert (arco_job.stage, baseline_job.stage) == ("finetune", "supervised")
    assert arco_job.seed == baseline_job.seed == 1


def test_prepare_says_what_it_made(
    tiny_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(["--data", str(tiny_raw), "--store", str(tmp_path), "--no-ray", *SETTINGS])
    assert "6 patients (5 train, 1 validation), 4 annotated, 24 slices" in capsys.readouterr().out


def test_what_the_user_can_mend_has_no_traceback(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", tiny_dataset, "--run", str(tmp_path), "--backend", "in-process", *SETTINGS]
    with pytest.raises(SystemExit) as exit_:
        pretrain([*common, "--labeled", "7"])
    assert exit_.value.code == 2
    assert "error: labeled = 7 asks for 7 patients" in capsys.readouterr().err


def test_the_method_is_named_after_its_sampler() -> None:
    options = TrainingOptions(
        dataset="", run="", preset="generic", overrides=["finetune.contrast.sampler=hilbert"]
    )
    assert method_name(options) == "arco-hilbert"
