from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arco_core.config import ConfigError
from arco_core.errors import DataError
from components.sweep.grid import Grid, make_grid
from components.sweep.settings import SweepConfig
from components.training_options import TrainingOptions, stage_job
from tests.conftest import TINY_SETTINGS


def grid(dataset: str, run: Path, **values: Any) -> Grid:
    sweep = SweepConfig(**{"labeled": (2,), "seeds": (0,), **values})
    return make_grid(sweep, dataset, trainings=str(run), overrides=TINY_SETTINGS)


def test_methods_share_a_stage_one_for_each_amount_of_labels_and_seed(
    tiny_dataset: str, tmp_path: Path
) -> None:
    made = grid(
        tiny_dataset, tmp_path,
        labeled=(1, 0.4), seeds=(0, 1), methods=("supervised", "mean-teacher", "arco-sg", "arco-sag"),
    )  # fmt: skip
    assert len(made.trials) == 2 * 2 * 4
    assert {trial.labeled for trial in made.trials} == {1, 2}
    stages_one = [task for task in made.tasks if task.job.stage == "pretrain"]
    assert len(stages_one) == 4 and len(made.tasks) == 16 + 4
    assert len({task.job.digest for task in stages_one}) == 4
    assert all(task.group is None for task in stages_one)
    for task in made.tasks:
        if task.job.stage == "finetune":
            shared = next(other for other in stages_one if other.name == task.after)
            assert shared.job.labeled_patients == task.job.labeled_patients
            assert shared.job.seed == task.job.seed
            assert list(made.tasks).index(shared) < list(made.tasks).index(task)
    # Each seed's whole table comes before the next seed's.
    assert [trial.seed for trial in made.trials] == [0] * 8 + [1] * 8


def test_another_framework_has_a_stage_one_of_its_own(tiny_dataset: str, tmp_path: Path) -> None:
    made = grid(tiny_dataset, tmp_path, methods=("arco-sg", "arco-ns", "arco-sg+simclr"))
    stages_one = [task.job.settings.pretrain.framework for task in made.tasks if task.after is None]
    assert stages_one == ["arco", "simclr"]


def test_one_number_of_patients_twice(tiny_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.4 is 2 patients, as another amount is"):
        grid(tiny_dataset, tmp_path, labeled=(2, 0.4))


def test_labels_that_are_not_there(tiny_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="asks for 9 patients"):
        grid(tiny_dataset, tmp_path, labeled=(9,))


def test_a_sweep_beside_a_run_finds_its_trainings(tiny_dataset: str, tmp_path: Path) -> None:
    made = grid(tiny_dataset, tmp_path, methods=("supervised", "arco-sg"))
    options = TrainingOptions(
        dataset=tiny_dataset, run=str(tmp_path), overrides=TINY_SETTINGS, labeled=2.0, seed=0
    )
    first, second, baseline = (
        stage_job(stage, options, init=None) for stage in ("pretrain", "finetune", "supervised")
    )
    assert [task.job.digest for task in made.tasks] == [baseline.digest, first.digest, second.digest]
    assert made.tasks[0].job.folder == baseline.folder
