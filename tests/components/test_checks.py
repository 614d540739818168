"""`--check`: plans, errors that name key, value, rule and way out, exit codes, and no trace of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.checks.base import Checks
from components.evaluate.__main__ import main as evaluate
from components.finetune.__main__ import main as finetune
from components.prepare.__main__ import main as prepare
from components.pretrain.__main__ import main as pretrain
from components.publish.__main__ import main as publish
from components.supervised.__main__ import main as supervised
from components.sweep.__main__ import main as sweep
from infra import resources
from infra.datasets import DatasetVersion
from infra.storage import Store
from pipelines.arco_full import arco_full
from pipelines.command_line import main as pipeline
from tests.components.conftest import TrainedRun
from tests.conftest import TINY_SETTINGS

Main = Callable[[Sequence[str]], None]
SETTINGS = [argument for setting in TINY_SETTINGS for argument in ("--set", setting)]


def told(main: Main, arguments: Sequence[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command says, with the exit code `code`."""
    if code:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--check"])
        assert end.value.code == code
        return capsys.readouterr().err
    main([*arguments, "--check"])
    return capsys.readouterr().out


def training(dataset: str, run: Path, *more: str) -> list[str]:
    options = [
        "--dataset",
        dataset,
        "--run",
        str(run),
        "--backend",
        "in-process",
        "--labeled",
        "2",
        *SETTINGS,
    ]
    return [*options, *more]


@pytest.mark.parametrize("main", [pretrain, supervised])
def test_a_training_is_planned_and_leaves_nothing(
    main: Main, tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = told(main, training(tiny_dataset, tmp_path / "run"), capsys)
    assert "checked: this can start" in out
    assert "2 of 5 training patients: case_00" in out
    assert "1 volumes every 1 steps" in out
    assert "1 worker (in-process) on this machine" in out
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_plan_says_where_a_training_stands(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["--dataset", trained_run.dataset, "--backend", "in-process", "--labeled", "2", *SETTINGS]
    assert ", done already" in told(pretrain, [*job, "--run", str(trained_run.run)], capsys)
    shutil.copytree(trained_run.run, tmp_path / "run")
    for result in (tmp_path / "run").glob("pretrain-*/result.json"):
        result.unlink()
    job += ["--run", str(tmp_path / "run")]
    assert ", continued after step 4" in told(pretrain, job, capsys)
    other = told(pretrain, [*job, "--set", "run.threads_per_worker=2"], capsys)
    assert "; not continued: pretrain-seed0-" in other and ", of run.threads_per_worker = 1" in other


def test_all_that_is_wrong_is_told_at_once(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = training(tiny_dataset, tmp_path / "file", "--set", "optimizer.lr=-1")
    err = told(pretrain, arguments, capsys, code=2)
    assert "error: optimizer.lr = -1.0: must be positive." in err
    assert "is not writable" in err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("run.worker=2", "did you mean 'workers'"),
        ("run.device=cuda", "run.device = 'cuda': run.workers = 1 need a GPU each, this machine has 0"),
        ("run.workers=2", "run.workers = 2: must be 1 to train in-process"),
        ("network.kind=vnet", "network.kind = 'vnet'"),
    ],
)
def test_impossible_settings(
    tiny_dataset: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    says: str,
) -> None:
    monkeypatch.setattr(resources.torch.cuda, "device_count", lambda: 0)
    assert says in told(pretrain, training(tiny_dataset, tmp_path, "--set", setting), capsys, code=2)


def test_a_network_too_deep_for_the_images(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = ["--set", "network.features=[4,4,4,4,4,4,4]", "--set", "network.dropout=[0,0,0,0,0,0,0]"]
    err = told(pretrain, training(tiny_dataset, tmp_path, *deep), capsys, code=2)
    assert "7 levels of network.features need sides that are multiples of 64" in err


def test_a_dataset_that_is_not_there_or_not_whole(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no dataset version" in told(pretrain, training(str(tmp_path), tmp_path), capsys, code=2)
    home = tmp_path / "copy"
    shutil.copytree(Path(tiny_dataset).parent, home)
    version = DatasetVersion.open(str(home / Path(tiny_dataset).name))
    version.store.delete(version.manifest.shards[0].path)
    err = told(pretrain, training(version.url, tmp_path), capsys, code=2)
    assert f"shards are missing, {version.manifest.shards[0].path}: copy the dataset as a whole" in err


def test_labels_that_are_not_there(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = told(pretrain, training(tiny_dataset, tmp_path, "--labeled", "7"), capsys, code=2)
    assert "labeled = 7 asks for 7 patients" in err


def test_where_stage_two_starts(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = (
        next(trained_run.run.glob(f"{stage}-seed0-*/checkpoints/step-00000004-*.pt"))
        for stage in ("pretrain", "finetune")
    )
    arguments = training(trained_run.dataset, tmp_path)
    assert "pretrain, seed 0, after step 4" in told(finetune, [*arguments, "--init", str(first)], capsys)
    err = told(finetune, [*arguments, "--init", str(other)], capsys, code=2)
    assert "its stage is finetune, and finetune, seed 0 needs pretrain" in err
    wide = ["--set", "network.features=[8,8]", "--init", str(first)]
    assert "its network is unet [4, 8]" in told(finetune, [*arguments, *wide], capsys, code=2)
    other_framework = ["--set", "pretrain.framework=byol", "--init", str(first)]
    err = told(finetune, [*arguments, *other_framework], capsys, code=2)
    assert "its pretrain.framework is arco, and finetune, seed 0 needs byol" in err
    nothing = ["--init", str(tmp_path / "nothing.pt")]
    assert "is not committed" in told(finetune, [*arguments, *nothing], capsys, code=2)


def test_a_cluster_that_does_not_answer(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
    err = told(pretrain, training(tiny_dataset, tmp_path, "--backend", "ray"), capsys, code=2)
    assert "RAY_ADDRESS = '127.0.0.1:1': no Ray cluster answers there" in err


def test_no_room_for_checkpoints(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    err = told(pretrain, training(tiny_dataset, tmp_path), capsys, code=2)
    assert "has 0.0 GiB free, checkpoints take" in err


def test_a_preparation(tiny_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--store", str(tmp_path / "store"), "--no-ray", *SETTINGS]
    out = told(prepare, ["--data", str(tiny_raw), *common], capsys)
    assert "5 train, 1 validation, 0 test patients, 3 of the training patients annotated" in out
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    err = told(prepare, ["--data", str(tmp_path), *common], capsys, code=2)
    assert "error: " in err


def test_an_evaluation_and_a_publication(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = trained_run.options()
    out = told(evaluate, options, capsys)
    assert "arco-sg 0 (" in out and "supervised 1 (" in out
    assert "test split" in told(evaluate, [*options, "--split", "test"], capsys, code=2)
    missing = [*options, "--summary", str(tmp_path / "summary.json")]
    assert "summary.json" in told(publish, missing, capsys, code=2)


def test_a_pipeline(tiny_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: Sequence[str]) -> None:
        pipeline(arco_full, arguments)

    run = ["run", "--data", str(tiny_raw), "--store", str(tmp_path / "store"), *SETTINGS]
    out = told(main, [*run, "--backend", "in-process", "--seeds", "0", "1"], capsys)
    assert "6 patients (preset generic)" in out and "of checkpoints" in out
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    python = [*run, "--run", "python3"]
    assert "contains 'python3'" in told(main, [*python, "--backend", "in-process"], capsys, code=2)
    err = told(main, [*run, "--labeled", "9"], capsys, code=2)
    assert "labeled = 9 asks for 9 patients" in err


def test_a_sweep(tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--dataset", tiny_dataset, "--run", str(tmp_path), "--backend", "in-process", *SETTINGS]
    grid = ["--methods", "supervised", "arco-sg", "arco-ns", "--seeds", "0", "1"]
    out = told(sweep, [*common, *grid, "--labeled", "1", "0.4"], capsys)
    assert "1, 2 patients" in out
    assert "12, and 4 shared stages one: 80 optimiser steps in all" in out
    assert "0 of 8 trainings that start from nothing are done already" in out
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert "asks for 9 patients" in told(sweep, [*common, *grid, "--labeled", "9"], capsys, code=2)


def test_one_error_does_not_hide_another() -> None:
    checks = Checks()
    checks.line("store", lambda: Store("ftp://x").url)
    checks.line("more", lambda: "fine")
    checks.line("again", lambda: Store("").url)
    assert checks.lines == [("more", "fine")]
    assert len(checks.errors) == 2
