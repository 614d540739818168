from __future__ import annotations

from pathlib import Path

import pytest

from arco_core.config import ConfigError
from infra.kuberay import Place, RayClusterSettings, Workers, load_cluster_settings
from infra.kuberay.spec import PodSize

TEXT = """
[default]
env_config_map = "arco-store"
[default.workers]
maximum = 2
[default.workers.place]
node_selector = ["pool=gpu"]
[prepare.workers]
maximum = 8
size = { cpu = 4 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clusters.toml"
    path.write_text(TEXT)
    return path


def test_a_step_changes_single_values_of_the_default(file: Path) -> None:
    place = Place(node_selector=("pool=gpu",))
    default = RayClusterSettings(env_config_map="arco-store", workers=Workers(maximum=2, place=place))
    assert load_cluster_settings(file) == default
    assert load_cluster_settings(file, "finetune") == default
    workers = Workers(maximum=8, place=place, size=PodSize(cpu=4))
    assert load_cluster_settings(file, "prepare") == RayClusterSettings(
        env_config_map="arco-store", workers=workers
    )


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("[finetune]\nqeue = 'a'", r"\[finetune\]: unknown key 'qeue' = 'a'; did you mean 'queue'"),
        ("[finetune]\nworkers = 3", r"\[finetune\]: workers = 3: must be a table"),
        ("[finetune.workers]\nminimum = 5", r"\[finetune\]: workers.minimum = 5: must lie in \[0, "),
        ("[finetune", "are not TOML"),
        ("[finetune.deadlines]\nactive = '1h'", "deadlines.active = '1h': must be of type int"),
    ],
)
def test_a_mistake_in_any_step_is_named(file: Path, more: str, text: str) -> None:
    file.write_text(TEXT + more)
    with pytest.raises(ConfigError, match=text):
        load_cluster_settings(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clusters.toml' cannot be read"):
        load_cluster_settings(tmp_path / "clusters.toml")
