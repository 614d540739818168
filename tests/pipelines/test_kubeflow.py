"""`submit` and `schedule` through kfp's client, against a double of Kubeflow's API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.storage import Store
from pipelines import kubeflow as module
from pipelines.arco_full import arco_full
from pipelines.command_line import main
from pipelines.kubeflow import Kubeflow, KubeflowError
from tests.conftest import TINY_SETTINGS
from tests.pipelines.kubeflow_server import KubeflowServer, kubeflow_server
from tests.s3_servers import S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KubeflowServer]:
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with kubeflow_server() as running:
        yield running


@pytest.fixture(scope="module")
def raw(moto_server: S3Server, tiny_raw: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        moto_server.enter(patch)
        Store("s3://arco").upload_folder(tiny_raw, "kubeflow/raw")
    return "s3://arco/kubeflow/raw"


@pytest.fixture
def arguments(raw: str, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    moto_server.enter(monkeypatch)
    settings = [text for setting in TINY_SETTINGS for text in ("--set", setting)]
    return ["--data", raw, "--store", "s3://arco/kubeflow/store", "--labeled", "2", *settings]


def test_submit_uploads_once_starts_a_run_and_follows_it(
    server: KubeflowServer, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.states = [{"state": "PENDING"}, {"state": "RUNNING"}, {"state": "RUNNING"}, {"state": "SUCCEEDED"}]
    server.failures = [503, 429]
    submit = ["submit", "--host", server.url, *arguments, "--cluster", "queue=arco"]
    main(arco_full, [*submit, "--wait", "--service-account", "arco-pipeline"])
    out = capsys.readouterr().out
    (run,) = server.runs.values()
    assert f"run       {server.url}/#/runs/details/{run['run_id']}" in out
    assert [line.rpartition(" ")[2] for line in out.splitlines()[-3:]] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert run["service_account"] == "arco-pipeline"
    parameters = run["runtime_config"]["parameters"]
    assert (parameters["backend"], parameters["cluster"]) == ("rayjob", ["queue=arco"])
    assert parameters["run"].startswith("s3://arco/kubeflow/store/runs/")
    assert Store(parameters["run"]).exists("config.toml")
    main(arco_full, submit)  # the same content is the same version
    assert "(there already)" in capsys.readouterr().out
    assert len(server.pipelines) == 1 and len(server.runs) == 2
    names = [version["display_name"] for version in server.versions.values()]
    assert names[0] == "arco-full" and names[1].startswith("arco-full-") and len(names) == 2


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_fails_the_command_with_its_reason(
    server: KubeflowServer, arguments: list[str], capsys: pytest.CaptureFixture[str], state: str
) -> None:
    task = {"display_name": "finetune", "state": "FAILED", "error": {"code": 2, "message": "no scans"}}
    server.states = [{"state": state, "run_details": {"task_details": [task]}}]
    with pytest.raises(SystemExit) as stop:
        main(arco_full, ["submit", "--host", server.url, *arguments, "--wait"])
    assert stop.value.code == 1
    assert "step finetune failed: no scans" in capsys.readouterr().out


def test_schedule_takes_the_place_of_the_one_before(server: KubeflowServer, arguments: list[str]) -> None:
    schedule = ["schedule", "--host", server.url, *arguments]
    for title in ("a", "b", "c", "nightly"):  # two pages of them
        main(arco_full, [*schedule, "--cron", "0 2 * * *", "--title", title])
    main(arco_full, [*schedule, "--cron", "30 3 * * mon", "--title", "nightly"])
    assert sorted(one["display_name"] for one in server.recurring.values()) == ["a", "b", "c", "nightly"]
    last = list(server.recurring.values())[-1]
    assert last["trigger"]["cron_schedule"]["cron"] == "0 30 3 * * mon"
    assert (last["max_concurrency"], last["no_catchup"], last["mode"]) == (1, True, "ENABLE")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--cluster", "queu=arco"], "unknown key 'queu' = 'arco'; did you mean 'queue'"),
        (["--set", "finetune.stepz=3"], "did you mean 'steps'"),
        (["--labeled", "7"], "labeled = 7 asks for 7 patients"),
        (["--data", "scans"], "'scans': pods share no folder"),
    ],
)
def test_wrong_parameters_are_told_before_kubeflow_hears_of_them(
    server: KubeflowServer,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    text: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arco_full, ["submit", "--host", server.url, *arguments, *more])
    assert stop.value.code == 2
    assert text in capsys.readouterr().err
    assert not server.pipelines


def test_a_kubeflow_with_a_token(server: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "secret"
    with pytest.raises(KubeflowError, match=r"401.*give a token in KUBEFLOW_TOKEN"):
        Kubeflow(server.url, "arco").upload(arco_full)
    monkeypatch.setenv("KUBEFLOW_TOKEN", "secret")
    assert Kubeflow(server.url, "arco").upload(arco_full).new


def test_the_double_is_strict(server: KubeflowServer) -> None:
    kubeflow = Kubeflow(server.url)
    uploaded = kubeflow.upload(arco_full)
    good = {"data": "d", "store": "s", "run": "r"}
    for parameters, text in (
        ({**good, "c": 2}, "parameter c is not in the pipeline's input definitions"),
        ({**good, "labeled": "1"}, "parameter labeled = '1': must be of type NUMBER_DOUBLE"),
        ({"data": "d", "run": "r"}, "parameter store is required"),
    ):
        with pytest.raises(KubeflowError, match=text):
            kubeflow.start(uploaded, "run", parameters, service_account=None)
    with pytest.raises(KubeflowError, match="must have 6 fields"):
        kubeflow.schedule(uploaded, "s", "0 2 * * *", good, service_account=None)
    assert not server.runs and not server.recurring


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, server: KubeflowServer) -> None:
    monkeypatch.setattr("urllib3.util.retry.Retry.DEFAULT_BACKOFF_MAX", 0)
    with pytest.raises(KubeflowError, match="cannot"):
        Kubeflow("http://127.0.0.1:9", "arco").upload(arco_full)
