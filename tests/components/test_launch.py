"""Heavy steps as RayJobs, against the double of the API server; the job's program runs in this process."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from arco_core.config import ConfigError
from arco_core.errors import DataError, TrainingError
from components import launch
from components.checks.pipeline import check_labels, check_parameters
from components.cleanup.step import cleanup
from components.launch import RAYJOB
from components.prepare.step import prepare_on
from components.training_options import TrainingOptions, train
from infra.kuberay import RayJobFailed, RayJobSpec, delete_run_jobs, run_ray_job
from infra.kuberay.manifest import ATTEMPT_ANNOTATION, ray_job
from infra.storage import Store
from tests.conftest import TINY_SETTINGS
from tests.infra.kuberay.api_server import NAMESPACE, PIPELINE, ApiServer
from tests.infra.kuberay.client import QUICK, client_of
from tests.infra.kuberay.conftest import StartOperator, operator, server
from tests.infra.kuberay.objects import Resource
from tests.infra.kuberay.operator import JobHandle, succeed

__all__ = ["operator", "server"]

pytestmark = pytest.mark.k8s

CLUSTERS = f"""
[default]
namespace = "{NAMESPACE}"
[default.workers]
maximum = 1
[default.deadlines]
queue = 600
start = 600
active = 600
"""


@pytest.fixture(autouse=True)
def pod(tmp_path: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a step's pod."""
    file = tmp_path / "clusters.toml"
    file.write_text(CLUSTERS)
    monkeypatch.setenv("ARCO_CLUSTERS", str(file))
    monkeypatch.setenv("ARCO_RUN_ID", "run-1")
    monkeypatch.setenv("ARCO_NAMESPACE", "elsewhere")
    api = client_of(server, PIPELINE)
    monkeypatch.setattr(launch, "run_ray_job", partial(run_ray_job, api=api, timing=QUICK))
    monkeypatch.setattr(launch, "delete_run_jobs", partial(delete_run_jobs, api=api))


def program(job: Resource) -> list[str]:
    return shlex.split(job["spec"]["entrypoint"].replace("$$", "$"))


def doing(server: ApiServer, commands: list[list[str]]) -> Callable[[JobHandle], None]:
    """A job that runs its command here, without Ray."""

    def script(job: JobHandle) -> None:
        (name,) = server.rayjobs.names()
        command = program(server.rayjobs.get(name))
        commands.append(command)
        _, dash_m, attended, home, beat, module, *arguments = command
        assert (dash_m, attended) == ("-m", "components.attended")
        assert Store(home).exists(beat)
        here = ["--no-ray"] if module == "components.prepare" else ["--backend", "in-process"]
        import_module(f"{module}.__main__").main([*arguments, *here])
        succeed(job)

    return script


def options(dataset: str, run: Path) -> TrainingOptions:
    return TrainingOptions(
        dataset=dataset, run=str(run), preset="generic", overrides=TINY_SETTINGS, labeled=2, backend=RAYJOB
    )


def test_steps_run_as_jobs_and_return_what_those_made(
    server: ApiServer, operator: StartOperator, tiny_raw: Path, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    operator(doing(server, commands), doing(server, commands))
    store, run = tmp_path / "a store", tmp_path / "a store/runs/a"
    arguments = {"data": str(tiny_raw), "store": str(store), "preset": "generic", "overrides": TINY_SETTINGS}
    dataset = prepare_on(RAYJOB, **arguments, cluster=["prepare:workers.maximum=3"])
    checkpoint = train("pretrain", options(dataset, run))
    first, second = server.rayjobs.created
    assert first["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 3
    assert second["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 1
    assert first["metadata"]["annotations"][ATTEMPT_ANNOTATION] == "1"
    assert first["metadata"]["labels"]["app.kubernetes.io/instance"] == "run-1"
    assert server.rayjobs.names() == []
    # Started again, each finds what there is, and makes no cluster.
    assert prepare_on(RAYJOB, **arguments) == dataset
    assert train("pretrain", options(dataset, run)) == checkpoint
    assert len(server.rayjobs.created) == len(commands) == 2


def test_a_failed_job_fails_the_step_with_its_reason(
    server: ApiServer, operator: StartOperator, tiny_dataset: str, tmp_path: Path
) -> None:
    def fail(job: JobHandle) -> None:
        job.begin()
        job.log("training diverged")
        job.end("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code 1")

    operator(fail)
    with pytest.raises(RayJobFailed, match="training diverged"):
        train("pretrain", options(tiny_dataset, tmp_path / "run"))


def test_a_job_that_leaves_nothing_is_no_success(
    operator: StartOperator, tiny_dataset: str, tmp_path: Path
) -> None:
    operator(succeed)
    with pytest.raises(TrainingError, match="the job of pretrain ended well, but left no "):
        train("pretrain", options(tiny_dataset, tmp_path / "run"))


def test_clean_up_removes_the_jobs_of_this_run_only(server: ApiServer) -> None:
    for run in ("run-1", "run-2"):
        spec = RayJobSpec(run_id=run, step="finetune", command=("/bin/true",), image="a:1")
        job = ray_job(spec, 1)
        job["metadata"]["namespace"] = NAMESPACE
        server.rayjobs.create(job)
    cleanup("ray", [])
    assert len(server.rayjobs.names()) == 2
    cleanup(RAYJOB, [])
    assert [name.split("-")[2] for name in server.rayjobs.names()] == ["2"]


def test_clean_up_looks_wherever_a_step_has_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def delete(run: str, *, namespace: str) -> list[str]:
        asked.append((run, namespace))
        return [f"job-in-{namespace}"]

    monkeypatch.setattr(launch, "delete_run_jobs", delete)
    cleanup(RAYJOB, ["finetune:namespace=gpus"])
    assert asked == [("run-1", NAMESPACE), ("run-1", "gpus")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"backend": "rays"}, "backend = 'rays': must be one of ray, in-process, rayjob"),
        ({"backend": "ray"}, "backend = 'ray': Kubeflow's steps only start Ray clusters"),
        ({"seeds": [0, 0]}, r"seeds = \[0, 0\]: must be different"),
        ({"seeds": []}, r"seeds = \[\]: must be different"),
        ({"labeled": 2.5}, "labeled = 2.5: must be a number of patients"),
        ({"sweep_methods": ["arco-xy"]}, "sweep.methods = 'arco-xy': must be one of"),
        ({"convention": "voxel"}, "convention 'voxel': must be one of arco, released"),
        ({"sweep_labeled": [1.0, 1.0]}, r"sweep.labeled = \[1.0, 1.0\]: must be different"),
        ({"overrides": ["finetune.stepz=3"]}, "did you mean 'steps'"),
        ({"cluster": ["finetune:workers.maximun=3"]}, r"\[finetune\]: unknown key 'workers.maximun'"),
        ({"cluster": ["queue=arco", "workers.maximum=4"]}, "Kueue admits jobs of a fixed size"),
        ({"cluster": ["sweep:deadlines.active=345600"]}, "sweep: deadlines.queue .* must be at most 345600"),
        ({"data": "/home/me/scans"}, "'/home/me/scans': pods share no folder"),
    ],
)
def test_parameters_are_checked_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], text: str
) -> None:
    monkeypatch.setattr("components.checks.pipeline.writable", lambda url: url)
    given = {
        "backend": RAYJOB, "data": "s3://b/raw", "store": "s3://b", "run": "s3://b/runs/a",
        "preset": "generic", "overrides": [], "labeled": 2.0, "seeds": [0, 1], "cluster": ["queue=arco"],
        "sweep_labeled": [1.0, 0.1], "sweep_methods": ["supervised", "arco-sg"], "convention": "arco",
    }  # fmt: skip
    check_parameters(**given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=text):
        check_parameters(**given | change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labeled": 4.0}, "labeled = 4 asks for 4 patients, but only 3"),
        ({"sweep_labeled": [2.0, 9.0]}, "labeled = 9 asks for 9 patients"),
        ({"sweep_labeled": [2.0, 0.4]}, "0.4 is 2 patients, as another amount is"),
    ],
)
def test_labels_that_are_not_there_are_told_before_anything_is_trained(
    tiny_dataset: str, change: dict[str, object], text: str
) -> None:
    """Kubeflow's pages know nothing of the scans."""
    given = {
        "run": "runs/a", "preset": "generic", "overrides": TINY_SETTINGS, "labeled": 2.0, "seeds": [0.0, 1.0],
        "sweep_labeled": [1.0, 0.4], "sweep_methods": ["supervised", "arco-sg"],
    }  # fmt: skip
    check_labels(tiny_dataset, **given)  # type: ignore[arg-type]
    with pytest.raises((ConfigError, DataError), match=text):
        check_labels(tiny_dataset, **given | change)  # type: ignore[arg-type]


def test_elsewhere_the_backend_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCO_RUN_ID")
    with pytest.raises(ConfigError, match="ARCO_RUN_ID is not set: the backend rayjob is for steps"):
        prepare_on(RAYJOB, data="s3://b/raw", store="s3://b", preset="generic", overrides=[])
