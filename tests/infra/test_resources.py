from __future__ import annotations

from pathlib import Path

import pytest

from arco_core.config import ConfigError, RunConfig
from infra import resources
from infra.resources import Machine, check_space, check_workers, this_machine
from infra.storage import Store

GIB = 2**30


def test_places_are_what_runs_out_first() -> None:
    machine = Machine(cpus=8, gpus=2, memory=10 * GIB)
    assert machine.places(cores=1, gpu=False, memory=GIB) == 8
    assert machine.places(cores=1, gpu=True, memory=GIB) == 2
    assert machine.places(cores=1, gpu=False, memory=3 * GIB) == 3
    assert machine.places(cores=3, gpu=False, memory=GIB) == 2


def test_this_machine_has_something() -> None:
    machine = this_machine()
    assert machine.cpus >= 1 and machine.memory > GIB / 2


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Machine(cpus=4, gpus=1, memory=8 * GIB), Machine(cpus=1, gpus=0, memory=64 * GIB)]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(resources, "cluster", lambda address: nodes)


@pytest.mark.usefixtures("two_nodes")
def test_workers_on_a_cluster() -> None:
    line = check_workers(RunConfig(workers=5, device="cpu"), "ray", memory=GIB)
    assert line == "5 workers (ray) on the Ray cluster at head:6379, 5 cores; 1.0 GiB each at least"
    assert "one GPU each" in check_workers(RunConfig(workers=1), "ray", memory=GIB)


@pytest.mark.usefixtures("two_nodes")
def test_the_fewest_workers_have_to_fit() -> None:
    """As Ray Train starts them: fewer than all, and on GPUs where there are enough for the fewest."""
    line = check_workers(RunConfig(workers=8, min_workers=2, device="cpu"), "ray", memory=GIB)
    assert line.startswith("2 to 8 workers (ray) on the Ray cluster at head:6379, 5 cores, places for 5;")
    line = check_workers(RunConfig(workers=8, min_workers=1), "ray", memory=GIB)
    assert "1 to 8 workers (ray)" in line and "one GPU each, places for 1" in line
    assert "cores" in check_workers(RunConfig(workers=4, min_workers=2), "ray", memory=GIB)


@pytest.mark.usefixtures("two_nodes")
@pytest.mark.parametrize(
    ("run", "memory", "says"),
    [
        (RunConfig(workers=6, device="cpu"), GIB, "run.workers = 6: .* has places for 5"),
        (RunConfig(workers=3, threads_per_worker=2, device="cpu"), GIB, "has places for 2, each 2 cores"),
        (RunConfig(workers=4, device="cpu"), 4 * GIB, "run.workers = 4: .* has places for 3, .* 4.0 GiB"),
        (RunConfig(workers=8, min_workers=6, device="cpu"), GIB, "run.min_workers = 6: .* places for 5"),
        (RunConfig(workers=8, min_workers=2, device="cuda"), GIB, "run.min_workers = 2 need a GPU .* has 1"),
        (RunConfig(workers=2, device="cuda"), GIB, "run.device = 'cuda': run.workers = 2 .* has 1"),
    ],
)
def test_workers_that_do_not_fit(run: RunConfig, memory: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_workers(run, "ray", memory=memory)


def test_here_workers_share_the_cores_but_not_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = Machine(cpus=2, gpus=0, memory=8 * GIB)
    monkeypatch.setattr(resources, "this_machine", lambda: here)
    assert check_workers(RunConfig(workers=4), "ray", memory=GIB).startswith(
        "4 workers (ray) on this machine"
    )
    check_workers(RunConfig(workers=4, threads_per_worker=2), "ray", memory=GIB)
    for run in (RunConfig(workers=4), RunConfig(workers=4, min_workers=1)):  # here all of them start
        with pytest.raises(ConfigError, match=r"run\.workers = 4: .* places for 2"):
            check_workers(run, "ray", memory=3 * GIB)


def test_space_in_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "a/b/c"))
    assert "of checkpoints, " in check_space(store, GIB // 1000)
    assert not (tmp_path / "a").exists()
    assert check_space(Store("s3://bucket/x"), GIB) == "1.0 GiB of checkpoints"


@pytest.mark.dist
@pytest.mark.slow
def test_what_a_real_cluster_has(ray_address: str) -> None:
    machines = resources.cluster(ray_address)
    assert len(machines) == 1
    assert machines[0].cpus >= 3 and machines[0].memory > GIB / 2
