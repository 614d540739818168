from __future__ import annotations

from pathlib import Path

import pytest

from arco_core.config import ConfigError
from components.settings import load_settings
from components.sweep.settings import SweepConfig, load_sweep

CONFIGS = Path(__file__).parents[3] / "pipelines" / "configs"


def test_the_grid_and_settings_of_a_file_and_what_is_given_over_them(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[sweep]\npreset = "demo"\nlabeled = [1, 0.1]\nmethods = ["supervised"]\nseeds = [3]\n'
        '[run]\nworkers = 1\nlabeled_patients = []\n[finetune.contrast]\nsampler = "sag"\n'
    )
    sweep, overrides = load_sweep(str(file), values={"seeds": [0, 1]}, overrides=["run.workers=2"])
    assert sweep == SweepConfig(preset="demo", labeled=(1, 0.1), methods=("supervised",), seeds=(0, 1))
    settings = load_settings(preset=sweep.preset, overrides=overrides)
    assert (settings.run.workers, settings.finetune.contrast.sampler) == (2, "sag")
    assert settings.run.labeled_patients == ()


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.name)
def test_the_files_of_the_repository(file: Path) -> None:
    sweep, overrides = load_sweep(str(file), values={})
    load_settings(preset=sweep.preset, overrides=overrides)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"methods": ["arco-xy"]}, "sweep.methods = 'arco-xy': must be one of supervised, mean-teacher, "),
        ({"labeled": []}, "sweep.labeled = []: must be different, and at least one"),
        ({"seeds": [1, 1]}, "sweep.seeds = [1, 1]: must be different"),
        ({"seeds": [-1]}, "sweep.seeds = [-1]: must not be negative"),
        ({"concurrent": 0}, "sweep.concurrent = 0: must be at least 1"),
        ({"retries": -1}, "sweep.retries = -1: must not be negative"),
        ({"grace": 1.0}, "sweep.grace = 1.0: must lie in (0, 1)"),
        ({"retry": 1}, "unknown key 'retry' = 1; did you mean 'retries'?"),
    ],
)
def test_impossible_grids(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(None, values=values)
    assert says in str(error.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_sweep(str(tmp_path / "sweep.toml"), values={})
    (tmp_path / "sweep.toml").write_text("sweep = 3")
    with pytest.raises(ConfigError, match="must be a table"):
        load_sweep(str(tmp_path / "sweep.toml"), values={})
    (tmp_path / "sweep.toml").write_text("[sweep")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_sweep(str(tmp_path / "sweep.toml"), values={})
