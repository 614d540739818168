from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.arco_retrain import arco_retrain
from pipelines.command_line import compile_pipeline
from pipelines.retrain_line import main
from tests.pipelines.compiled import broken_rules, load, reviewed
from tests.pipelines.kubeflow_server import kubeflow_server


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "arco_retrain.yaml"
    compile_pipeline(arco_retrain, str(path))
    return path


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    return load(compiled)[0]


def test_the_compiled_file_is_the_reviewed_one(compiled: Path, spec: dict[str, Any]) -> None:
    json_format.ParseDict(spec, PipelineSpec())
    hint = "python pipelines/arco_retrain.py compile -o tests/pipelines/arco_retrain.yaml"
    assert compiled.read_text() == reviewed("arco_retrain"), hint


def test_the_pods_of_steps_keep_the_rules(compiled: Path) -> None:
    assert list(broken_rules(*load(compiled))) == []


def test_training_waits_for_scans_and_the_night_always_ends(spec: dict[str, Any]) -> None:
    dags = {name: part["dag"]["tasks"] for name, part in spec["components"].items() if "dag" in part}
    (outer,) = [tasks for tasks in dags.values() if "discover-scans" in tasks]
    (inner,) = [tasks for tasks in dags.values() if "extend-dataset" in tasks]
    (last,) = [tasks for tasks in dags.values() if "continue-training" in tasks]
    assert set(outer) == {"discover-scans", "condition-2"}
    assert "pipelinechannel--discover-scans-Output" in outer["condition-2"]["triggerPolicy"]["condition"]
    assert set(inner) == {"extend-dataset", "condition-3"}
    assert set(last) == {"continue-training", "release-or-keep"}
    end = spec["root"]["dag"]["tasks"]["end-night"]
    assert end["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    for tasks in (outer, inner, last):
        for name, task in tasks.items():
            if not name.startswith("condition"):
                assert not task["cachingOptions"].get("enableCache")


def test_it_is_scheduled_every_night(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    with kubeflow_server() as server:
        main(
            arco_retrain,
            ["schedule", "--host", server.url, "--cron", "0 2 * * *", "--raw", "s3://b/raw", "--store",
             "s3://b/store", "--name", "heart", "--set", "finetune.steps=500"],
        )  # fmt: skip
        (one,) = server.recurring.values()
    assert one["display_name"] == "heart-retrain"
    parameters = one["runtime_config"]["parameters"]
    assert parameters["backend"] == "rayjob" and parameters["overrides"] == ["finetune.steps=500"]


def test_impossible_parameters_are_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arco_retrain, ["run", "--raw", "r", "--store", "s", "--name", "heart", "--margin", "2"])
    assert stop.value.code == 2
    assert "margin = 2.0: must be a Dice between 0 and 1" in capsys.readouterr().err
