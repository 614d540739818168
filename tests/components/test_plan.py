from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from arco_core.config import ConfigError, loads
from arco_core.errors import DataError, StoreError
from components.plan import RunPlan, plan_run
from infra.datasets import prepare_dataset
from infra.storage import Store
from tests.conftest import TINY_SETTINGS


def plan(data: Path, store: Path, **options: object) -> RunPlan:
    return plan_run(**{"data": str(data), "store": str(store), "overrides": TINY_SETTINGS, **options})  # type: ignore[arg-type]


def test_a_plan_says_what_will_happen(tiny_raw: Path, tmp_path: Path) -> None:
    found = plan(tiny_raw, tmp_path, labeled=0.4, seeds=[0, 1])
    lines = dict(found.lines())
    assert lines["labels"] == "2 of 5 training patients (40.0%)"
    assert lines["seeds"] == "0 1"
    assert lines["steps"] == "pretrain 4, finetune 4, supervised 8, on 1 worker (ray)"
    assert found.run.startswith(f"{tmp_path}/runs/tiny-l0.4-")
    written = loads((Path(found.run) / "config.toml").read_text())
    assert written == found.config
    assert written.data.name == "tiny"


def test_the_same_command_finds_the_same_run(tiny_raw: Path, tmp_path: Path) -> None:
    run = plan(tiny_raw, tmp_path, labeled=2).run
    assert plan(tiny_raw, tmp_path, labeled=2, seeds=[3]).run == run
    assert plan(tiny_raw, tmp_path, labeled=2, overrides=[*TINY_SETTINGS, "run.log_every=5"]).run == run
    assert plan(tiny_raw, tmp_path, labeled=3).run != run
    assert plan(tiny_raw, tmp_path, labeled=2, overrides=[*TINY_SETTINGS, "optimizer.lr=0.5"]).run != run
    assert plan(tiny_raw, tmp_path, labeled=2, run="mine").run == f"{tmp_path}/runs/mine"


def test_the_preset_is_the_one_named_like_the_dataset(tiny_raw: Path, tmp_path: Path) -> None:
    assert plan(tiny_raw, tmp_path / "store").preset == "generic"
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    description = json.loads((raw / "dataset.json").read_text())
    description["name"] = "Hippocampus"
    description["labels"] = {"0": "background", "1": "anterior", "2": "posterior"}
    (raw / "dataset.json").write_text(json.dumps(description))
    assert plan(raw, tmp_path / "store").preset == "hippocampus"


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_impossible_seeds(tiny_raw: Path, tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="seeds ="):
        plan(tiny_raw, tmp_path, seeds=seeds)


@pytest.mark.parametrize(("labeled", "says"), [(5, "only 3 of the 5"), (0.01, "rounds to none")])
def test_labels_that_are_not_there(tiny_raw: Path, tmp_path: Path, labeled: float, says: str) -> None:
    with pytest.raises(DataError, match=says):
        plan(tiny_raw, tmp_path, labeled=labeled)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("amounts", "says"),
    [
        ([2, 9], "labeled = 9 asks for 9 patients"),
        ([0.01], "rounds to none"),
        ([2, 0.4], r"sweep.labeled = \[2, 0.4\]: 0.4 is 2 patients, as another amount is"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_before_the_run_starts(
    tiny_raw: Path, tmp_path: Path, amounts: list[float], says: str
) -> None:
    assert plan(tiny_raw, tmp_path, labeled=2, sweep_labeled=[1, 0.4], save=False).labeled_patients == 2
    with pytest.raises((ConfigError, DataError), match=says):
        plan(tiny_raw, tmp_path, labeled=2, sweep_labeled=amounts)
    assert not (tmp_path / "runs").exists()


def test_several_workers_need_ray(tiny_raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.workers = 2: must be 1"):
        plan(tiny_raw, tmp_path, backend="in-process", overrides=[*TINY_SETTINGS, "run.workers=2"])


def test_a_folder_without_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing does not exist"):
        plan(tmp_path / "nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no scans"):
        plan(tmp_path / "empty", tmp_path)


def test_an_unknown_setting_is_told_before_anything_is_written(tiny_raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'workers'"):
        plan(tiny_raw, tmp_path / "store", preset="generic", overrides=["run.worker=2"])
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written(tiny_raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not writable"):
        plan(tiny_raw, tmp_path / "file" / "store")


@pytest.mark.slow
def test_without_data_the_demo_cohort_is_made(tmp_path: Path) -> None:
    found = plan_run(data=None, store=str(tmp_path))
    assert (found.preset, found.data) == ("demo", os.fspath(tmp_path / "raw/demo"))
    assert (tmp_path / "raw/demo/dataset.json").exists()
    assert plan_run(data=None, store=str(tmp_path)).run == found.run


def test_labelled_patients_by_name(tiny_raw: Path, tmp_path: Path) -> None:
    annotated = [f"case_{number:03d}" for number in range(4)]
    usable = [name for name in annotated if _trains(tiny_raw, tmp_path, name)]
    assert len(usable) == 3  # the fourth is held out for validation
    found = plan(tiny_raw, tmp_path, overrides=_named(usable[:2]))
    assert found.labeled_patients == 2 and "-l2-named-" in found.run
    assert plan(tiny_raw, tmp_path, overrides=_named(usable[1:])).run != found.run


def _named(names: list[str]) -> list[str]:
    return [*TINY_SETTINGS, f"run.labeled_patients={json.dumps(names)}"]


def _trains(raw: Path, store: Path, name: str) -> bool:
    try:
        plan(raw, store, overrides=_named([name]))
    except DataError as error:
        assert "held out for validation" in str(error)
        return False
    return True


def test_a_plan_knows_the_version_that_the_next_one_goes_on_from(tiny_raw: Path, tmp_path: Path) -> None:
    raw = Path(shutil.copytree(tiny_raw, tmp_path / "raw"))
    found = plan(raw, tmp_path / "store")
    prepare_dataset(str(raw), Store(str(tmp_path / "store")), found.config.data, use_ray=False)
    (raw / "imagesUn" / "case_004.nii.gz").rename(raw / "imagesTr" / "case_004.nii.gz")
    shutil.copy(raw / "labelsTr" / "case_000.nii.gz", raw / "labelsTr" / "case_004.nii.gz")
    again = plan(raw, tmp_path / "store")
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), again.config.data, use_ray=False)
    assert version.manifest.parent is not None
    assert again.train_patients == len(version.patients("train"))
    assert again.labeled_patients == sum(map(len, version.manifest.label_groups)) == 4
